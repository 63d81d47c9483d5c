//! Throughput and round trips between two hosts: on Drover (direct, VXLAN), on a Swarm overlay between the same
//! two engines, and on the bare underlay.
//!
//! `cargo run --release -p integration-tests --bin bench_network [-- --engine 28.5 --rounds 7 --seconds 3]`, as root,
//! after `cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net -p drover-name-service -p drover-vol` and
//! `integration-tests/make-root sid`.
//!
//! Two hosts of the lab run Drover as it comes, and a Swarm; two more, with the same engine, run Drover with
//! `DROVER_OVERLAY_ENCAPSULATION=vxlan`. Links have the MTU that users get. Each round measures every path once, each
//! round beginning with another one:
//! - a TCP stream of one and of four connections (iperf3);
//! - round trips of one byte on one TCP connection: how many in a second, and how long the middle one and the
//!   hundredth-longest take.
//!
//! Ratios are to the underlay of the same round; aim: direct 0.95, VXLAN 0.85 of the stream.

use anyhow::{Context, Result, ensure};
use integration_tests::drover::CREATE;
use integration_tests::interrupt;
use integration_tests::lab::Lab;
use integration_tests::measure::{Request, Table, progress, say};
use integration_tests::measured_path::{MeasuredPath, measure_all, play_end};
use integration_tests::wait;

/// How many connections there are beside one.
const CONNECTIONS: u32 = 4;

fn main() -> Result<()> {
    if play_end()? {
        return Ok(());
    }
    let request = Request::parse(7, 3)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 4)?;
    let mut paths = prepare(&mut lab)?;
    let each = (request.seconds, CONNECTIONS);
    measure_all(&mut paths, &lab, request.rounds, each)?;
    report(&paths)
}

/// Starts Drover, the Swarm, and the containers.
fn prepare(lab: &mut Lab) -> Result<Vec<MeasuredPath>> {
    progress("starting Drover and a Swarm");
    pair_up(lab, 0, "")?;
    pair_up(lab, 2, "DROVER_OVERLAY_ENCAPSULATION=vxlan")?;
    swarm(lab)?;
    let mut paths = vec![underlay(lab)?];
    for (name, first, network, containers) in [
        ("Drover direct", 0, "direct", ("direct1", "direct2")),
        ("Drover VXLAN", 2, "vxlan", ("vxlan1", "vxlan2")),
        ("Swarm overlay", 0, "swarm", ("swarm1", "swarm2")),
    ] {
        let path = MeasuredPath::between_containers(lab, name, first, network, containers)?;
        paths.push(path);
    }
    let (direct, vxlan) = (
        lab.host(0)?.run("drover peers")?,
        lab.host(2)?.run("drover peers")?,
    );
    ensure!(direct.contains("direct"), "not direct: {direct}");
    ensure!(vxlan.contains("vxlan"), "not VXLAN: {vxlan}");
    Ok(paths)
}

/// A cluster of a host and the next one.
fn pair_up(lab: &mut Lab, first: usize, variables: &str) -> Result<()> {
    for place in [first, first + 1] {
        lab.host(place)?.drover_up_as(variables, "")?;
    }
    let invitation = lab.host(first)?.invite()?;
    lab.host(first + 1)?.join(&invitation)?;
    let network = if first == 0 { "direct" } else { "vxlan" };
    let other = lab.host(first + 1)?.name.clone();
    let one = lab.host(first)?;
    wait::until("the other host", wait::seconds(20), || {
        let status = one.run("drover status")?;
        ensure!(status.contains(&other), "no {other} in: {status}");
        Ok(())
    })?;
    one.run(&format!("{CREATE} {network}"))?;
    lab.host(first + 1)?.wait_for_network(network, 10)
}

/// A Swarm of the first two hosts, with an overlay on it.
fn swarm(lab: &Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    let (here, there) = (one.address(), two.address());
    one.run(&format!("docker swarm init --advertise-addr {here}"))?;
    let token = one.run("docker swarm join-token -q worker")?;
    two.run(&format!(
        "docker swarm join --advertise-addr {there} --token {token} {here}:2377"
    ))?;
    one.run("docker network create -d overlay --attachable swarm")?;
    Ok(())
}

fn underlay(lab: &mut Lab) -> Result<MeasuredPath> {
    let address = lab.host(1)?.address();
    let path = MeasuredPath::between_hosts(lab, "underlay", &address)?;
    path.serve_hosts(lab)?;
    Ok(path)
}

fn report(paths: &[MeasuredPath]) -> Result<()> {
    let base = paths.first().context("nothing was measured")?;
    let mut table = Table::new(&[
        "path",
        "MTU",
        "Gbit/s x1",
        "ratio",
        "Gbit/s x4",
        "ratio",
        "trips/s",
        "ratio",
        "p50 us",
        "p99 us",
    ]);
    for path in paths {
        table.row(&[
            path.name.to_owned(),
            path.mtu.to_string(),
            format!("{:.2}", path.one.median()),
            format!("{:.2}", path.one.over(&base.one).median()),
            format!("{:.2}", path.many.median()),
            format!("{:.2}", path.many.over(&base.many).median()),
            format!("{:.0}", path.trips.median()),
            format!("{:.2}", path.trips.over(&base.trips).median()),
            format!("{:.0}", path.middle.median()),
            format!("{:.0}", path.late.median()),
        ]);
    }
    say(&table.text());
    let mut spread = Table::new(&["ratio of the stream x1", "least", "median", "greatest"]);
    for path in paths.iter().skip(1) {
        let ratios = path.one.over(&base.one);
        spread.row(&[
            path.name.to_owned(),
            format!("{:.2}", ratios.quantile(0)),
            format!("{:.2}", ratios.median()),
            format!("{:.2}", ratios.quantile(100)),
        ]);
    }
    say(&spread.text());
    Ok(())
}
