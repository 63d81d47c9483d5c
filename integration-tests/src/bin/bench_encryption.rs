//! What encryption costs between two hosts: on Drover, on a Swarm overlay with `--opt encrypted`, on WireGuard and on an
//! ESP tunnel made by hand, and without any.
//!
//! `integration-tests/vm/run --bench bench_encryption [--rounds 5 --seconds 4]` runs it on a stock kernel in a virtual
//! machine; on a kernel that has ESP and WireGuard, it runs like the other benchmarks.
//!
//! Two hosts of the lab run Drover as it comes, and a Swarm. What is made by hand is between the hosts themselves: it has
//! no bridge, no routing and no rules. Each round measures every path once, each round beginning with another one:
//! - a TCP stream of one and of eight connections (iperf3), the processor time that the one takes, and how many processors
//!   work meanwhile: those of both hosts are the same;
//! - round trips of one byte on one TCP connection.
//!
//! All hosts share one machine, and a virtual machine that is emulated does AES without the instructions for it: the
//! ratios of what encrypts are right, those to what does not are worse than on real machines.
//! Aims: 1.5 times the throughput of Swarm's encrypted overlay at 0.6 of its latency, and eight connections 1.8 times one
//! on two processors.

use anyhow::{Context, Result, ensure};
use integration_tests::drover::CREATE_ENCRYPTED;
use integration_tests::interrupt;
use integration_tests::lab::Lab;
use integration_tests::measure::{Request, Table, progress, say};
use integration_tests::measured_path::{MeasuredPath, measure_all, play_end};

/// How many connections there are beside one.
const CONNECTIONS: u32 = 8;
const ENCRYPTED: &str = "Drover";
const SWARM: &str = "Swarm, encrypted";

fn main() -> Result<()> {
    if play_end()? {
        return Ok(());
    }
    let request = Request::parse(5, 4)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 2)?;
    let mut paths = prepare(&mut lab)?;
    let each = (request.seconds, CONNECTIONS);
    measure_all(&mut paths, &lab, request.rounds, each)?;
    report(&paths)
}

/// Starts Drover, the Swarm and what is made by hand, and the ends.
fn prepare(lab: &mut Lab) -> Result<Vec<MeasuredPath>> {
    progress("starting Drover, a Swarm, WireGuard and ESP");
    lab.form_cluster()?;
    let (one, two) = lab.pair()?;
    for (network, flags) in [("secret", ""), ("open", "-o encryption=off")] {
        one.run(&format!("{CREATE_ENCRYPTED} {flags} {network}"))?;
        two.wait_for_network(network, 10)?;
    }
    swarm(lab)?;
    wireguard(lab)?;
    esp(lab)?;
    let address = lab.host(1)?.address();
    let underlay = MeasuredPath::between_hosts(lab, "underlay, clear", &address)?;
    underlay.serve_hosts(lab)?;
    let mut paths = vec![underlay];
    for (name, address) in [
        ("WireGuard by hand", "192.168.71.2"),
        ("ESP by hand", "192.168.72.2"),
    ] {
        paths.push(MeasuredPath::between_hosts(lab, name, address)?);
    }
    for (name, network, containers) in [
        ("Drover, clear", "open", ("open1", "open2")),
        (ENCRYPTED, "secret", ("secret1", "secret2")),
        (SWARM, "swarm", ("swarm1", "swarm2")),
    ] {
        let path = MeasuredPath::between_containers(lab, name, 0, network, containers)?;
        paths.push(path);
    }
    let peers = lab.host(0)?.run("drover peers")?;
    ensure!(peers.contains("encrypted networks"), "{peers}");
    Ok(paths)
}

/// A Swarm with an encrypted overlay.
fn swarm(lab: &Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    let (here, there) = (one.address(), two.address());
    one.run(&format!("docker swarm init --advertise-addr {here}"))?;
    let token = one.run("docker swarm join-token -q worker")?;
    two.run(&format!(
        "docker swarm join --advertise-addr {there} --token {token} {here}:2377"
    ))?;
    one.run("docker network create -d overlay --attachable --opt encrypted swarm")?;
    Ok(())
}

/// A WireGuard link between the two hosts.
fn wireguard(lab: &Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    let mut keys = Vec::new();
    for host in [one, two] {
        host.run("umask 077; wg genkey > /run/wireguard.key")?;
        keys.push(host.run("wg pubkey < /run/wireguard.key")?);
    }
    let [first, second] = keys.as_slice() else {
        return Ok(());
    };
    for (host, number, peer, at) in [
        (one, 1, second, two.address()),
        (two, 2, first, one.address()),
    ] {
        host.run(&format!(
            "ip link add wg0 type wireguard; ip addr add 192.168.71.{number}/24 dev wg0
             wg set wg0 listen-port 51820 private-key /run/wireguard.key peer {peer} allowed-ips 192.168.71.0/24 endpoint {at}:51820
             ip link set wg0 up"
        ))?;
    }
    Ok(())
}

/// An ESP tunnel between the two hosts: an association each way, AES-256-GCM, not in UDP.
fn esp(lab: &Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    // Of no worth beyond this run: nothing but noise is sent with it.
    let key = format!("0x{}", "5a".repeat(36));
    let (here, there) = (one.address(), two.address());
    for (host, number, own, other) in [(one, 1, &here, &there), (two, 2, &there, &here)] {
        let state = |from: &str, to: &str, spi: u32| {
            format!(
                "ip xfrm state add src {from} dst {to} proto esp spi {spi} reqid 77 if_id 77 mode tunnel replay-window 128 flag esn aead 'rfc4106(gcm(aes))' {key} 128"
            )
        };
        let policy = |from: &str, to: &str, direction: &str| {
            format!(
                "ip xfrm policy add dir {direction} if_id 77 tmpl src {from} dst {to} proto esp reqid 77 mode tunnel"
            )
        };
        host.run(&format!(
            "{}\n{}\n{}\n{}
             ip link add esp0 type xfrm dev eth0 if_id 77; ip link set esp0 mtu 1446 up
             ip addr add 192.168.72.{number}/24 dev esp0",
            state(own, other, 1000 + number),
            state(other, own, 1003 - number),
            policy(own, other, "out"),
            policy(other, own, "in"),
        ))?;
    }
    Ok(())
}

fn report(paths: &[MeasuredPath]) -> Result<()> {
    let named = |name: &str| {
        let path = paths.iter().find(|path| path.name == name);
        path.with_context(|| format!("{name} was not measured"))
    };
    let swarm = named(SWARM)?;
    let times = |number: f64| format!("{number:.2}");
    let connections = format!("x{CONNECTIONS}");
    let busy = format!("CPUs {connections}");
    let mut table = Table::new(&[
        "path",
        "MTU",
        "Mbit/s x1",
        "to Swarm",
        &connections,
        "to x1",
        "CPU s/Gbit",
        "CPUs x1",
        &busy,
        "p50 us",
        "to Swarm",
        "p99 us",
    ]);
    for path in paths {
        table.row(&[
            path.name.to_owned(),
            path.mtu.to_string(),
            format!("{:.0}", path.one.median() * 1000.0),
            times(path.one.over(&swarm.one).median()),
            format!("{:.0}", path.many.median() * 1000.0),
            times(path.many.over(&path.one).median()),
            times(path.cost.median()),
            times(path.busy_one.median()),
            times(path.busy_many.median()),
            format!("{:.0}", path.middle.median()),
            times(path.middle.over(&swarm.middle).median()),
            format!("{:.0}", path.late.median()),
        ]);
    }
    say(&table.text());
    let drover = named(ENCRYPTED)?;
    let mut spread = Table::new(&["Drover to Swarm, encrypted", "least", "median", "greatest"]);
    for (what, ratios) in [
        ("stream x1", drover.one.over(&swarm.one)),
        ("round trip", drover.middle.over(&swarm.middle)),
    ] {
        spread.row(&[
            what.to_owned(),
            times(ratios.quantile(0)),
            times(ratios.median()),
            times(ratios.quantile(100)),
        ]);
    }
    say(&spread.text());
    Ok(())
}
