//! Throughput and round trips between two hosts: on Drover (direct, VXLAN), on a Swarm overlay between the same
//! two engines, and on the bare underlay.
//!
//! `cargo run --release -p integration-tests --bin bench_network [-- --engine 28.5 --rounds 7 --seconds 3]`, as root,
//! after `cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net` and
//! `integration-tests/make-root sid`.
//!
//! Two hosts of the lab run Drover as it comes, and a Swarm; two more, with the same engine, run Drover with
//! `DROVER_OVERLAY_ENCAPSULATION=vxlan`. Links have the MTU that users get. Each round measures every path once, each
//! round beginning with another one:
//! - a TCP stream of one and of four connections (iperf3);
//! - round trips of one byte on one TCP connection: how many in a second, and how long the middle one and the
//!   hundredth-longest take.
//!
//! The programs run in the containers' network namespaces, not in their cells of system calls (seccomp), so that the
//! networks are compared and nothing else. All hosts share one machine: what is spent on a packet anywhere comes out
//! of the throughput. Ratios are to the underlay of the same round; aim: direct 0.95, VXLAN 0.85 of the stream.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration_tests::drover::CREATE;
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::measure::{Request, Samples, Table, progress, say};
use integration_tests::wait;

/// This program on a host.
const SELF: &str = "/run/lab/bin/bench_network";
/// As an argument: answer bytes with bytes.
const ANSWER: &str = "--answer";
/// As an argument: send bytes to an address for so many seconds, one after the other's answer.
const ASK: &str = "--ask";
const PORT: u16 = 5300;
const STREAM_PORT: u16 = 5301;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [ANSWER] => return answer(),
        [ASK, address, seconds] => return ask(address, seconds.parse()?),
        _ => {}
    }
    let request = Request::parse(7, 3)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 4)?;
    let mut paths = prepare(&mut lab)?;
    for round in 0..request.rounds {
        progress(&format!("round {} of {}", round + 1, request.rounds));
        for place in 0..paths.len() {
            let place = (place + round) % paths.len();
            if let Some(path) = paths.get_mut(place) {
                path.measure(&lab, request.seconds)
                    .with_context(|| format!("measuring {}", path.name))?;
            }
        }
    }
    report(&paths)
}

/// Two ends, and what was measured between them.
struct Path {
    name: &'static str,
    /// The places of the hosts in the lab.
    from: usize,
    to: usize,
    /// The containers at both ends; the hosts themselves when there is none.
    containers: Option<(&'static str, &'static str)>,
    address: String,
    mtu: u32,
    one: Samples,
    four: Samples,
    trips: Samples,
    middle: Samples,
    late: Samples,
}

/// Starts Drover, the Swarm, and the containers.
fn prepare(lab: &mut Lab) -> Result<Vec<Path>> {
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
        paths.push(between_containers(lab, name, first, network, containers)?);
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

fn underlay(lab: &mut Lab) -> Result<Path> {
    let address = lab.host(1)?.address();
    let mtu = lab.host(0)?.run("cat /sys/class/net/eth0/mtu")?.parse()?;
    begin_servers(lab.host(1)?, "")?;
    Ok(Path::new("underlay", 0, None, address, mtu))
}

fn between_containers(
    lab: &mut Lab,
    name: &'static str,
    first: usize,
    network: &str,
    containers: (&'static str, &'static str),
) -> Result<Path> {
    for (place, container) in [(first, containers.0), (first + 1, containers.1)] {
        let host = lab.host(place)?;
        // A Swarm's network comes to a worker with the first container there, and may need a second try.
        let command =
            format!("docker run -d --name {container} --network {network} {IMAGE} sleep 1000000");
        wait::until("a container", wait::seconds(30), || {
            host.run(&format!("docker rm -f {container} 2>/dev/null; {command}"))
        })?;
    }
    let address = lab.host(first + 1)?.address_of(containers.1, network)?;
    let host = lab.host(first)?;
    host.reaches(containers.0, &address, 10)?;
    let mtu = host.sends_full_size(containers.0, &address)?;
    let server = lab.host(first + 1)?;
    let pid = server.pid_of(containers.1)?;
    begin_servers(server, &format!("nsenter --target {pid} --net -- "))?;
    Ok(Path::new(name, first, Some(containers), address, mtu))
}

fn begin_servers(host: &mut Host, prefix: &str) -> Result<()> {
    host.start(&format!("exec {prefix}{SELF} {ANSWER}"), "answer.log")?;
    host.start(
        &format!("exec {prefix}iperf3 --server --port {STREAM_PORT}"),
        "iperf3.log",
    )
}

impl Path {
    fn new(
        name: &'static str,
        from: usize,
        containers: Option<(&'static str, &'static str)>,
        address: String,
        mtu: u32,
    ) -> Self {
        Self {
            name,
            from,
            to: from + 1,
            containers,
            address,
            mtu,
            one: Samples::default(),
            four: Samples::default(),
            trips: Samples::default(),
            middle: Samples::default(),
            late: Samples::default(),
        }
    }

    fn measure(&mut self, lab: &Lab, seconds: u32) -> Result<()> {
        let one = self.stream(lab, seconds, 1)?;
        self.one.push(one);
        let four = self.stream(lab, seconds, 4)?;
        self.four.push(four);
        let command = format!("{SELF} {ASK} {}:{PORT} {seconds}", self.address);
        let said = self.run(lab, &command)?;
        let numbers: Vec<f64> = said
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the asker said: {said}"))?;
        let [trips, middle, late] = numbers.as_slice() else {
            bail!("the asker said: {said}")
        };
        self.trips.push(*trips);
        self.middle.push(*middle);
        self.late.push(*late);
        Ok(())
    }

    /// Gigabits of payload in a second, as the receiver counts.
    fn stream(&self, lab: &Lab, seconds: u32, connections: u32) -> Result<f64> {
        let command = format!(
            "iperf3 --client {} --port {STREAM_PORT} --time {seconds} --omit 1 --parallel {connections} --json",
            self.address
        );
        // The server of the stream before may not have said its last word yet.
        let (said, _) = wait::until("a stream", wait::seconds(20), || self.run(lab, &command))?;
        let result: serde_json::Value = serde_json::from_str(&said)?;
        let bits = result.pointer("/end/sum_received/bits_per_second");
        let bits = bits.and_then(serde_json::Value::as_f64);
        Ok(bits.with_context(|| format!("iperf3 said: {said}"))? / 1e9)
    }

    /// Runs a command at the end that sends.
    fn run(&self, lab: &Lab, command: &str) -> Result<String> {
        let host = lab.hosts.get(self.from).context("no such host")?;
        ensure!(lab.hosts.len() > self.to, "no such host");
        match self.containers {
            Some((container, _)) => host.beside(container, command)?.succeeded(),
            None => host.run(command),
        }
    }
}

fn report(paths: &[Path]) -> Result<()> {
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
            format!("{:.2}", path.four.median()),
            format!("{:.2}", path.four.over(&base.four).median()),
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

/// Answers every byte with itself, on every connection.
fn answer() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    for connection in listener.incoming() {
        let mut connection = connection?;
        connection.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut byte = [0];
            while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
        });
    }
    Ok(())
}

/// Prints round trips in a second, and the median and 99th percentile in microseconds.
fn ask(address: &str, seconds: u64) -> Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let mut byte = [7];
    let mut times = Samples::default();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let sent = Instant::now();
        connection.write_all(&byte)?;
        connection.read_exact(&mut byte)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let count = u32::try_from(times.count())?;
    say(&format!(
        "{} {} {}",
        f64::from(count) / elapsed,
        times.median(),
        times.quantile(99)
    ));
    Ok(())
}
