//! How long `docker start` takes until the container's first packet is answered: on Drover, on a bridge network of
//! Docker's own, and on a Swarm overlay.
//!
//! `cargo run --release -p integration-tests --bin bench_start [-- --engine 28.5 --rounds 25]`, as root, after
//! `cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net -p drover-name-service -p drover-vol` and
//! `integration-tests/make-root sid`.
//!
//! Each round starts a container that exists already, once on every network, each round beginning with another one.
//! The container connects to a peer over TCP as the first thing it does; the time is from the call of `docker start`
//! until the peer has the connection, so that a packet has gone each way. Some cases are there to explain others: a
//! container on Drover has a second interface for what leaves the network, as has one on two bridges; one on an
//! internal network has none. Ratios are to the bridge of the same round; aim: at most 1.2.
//!
//! The second table is what Drover's plugins took of it, as they log it themselves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::drover::{CREATE, LOG};
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::measure::{Request, Samples, Table, progress, say};
use integration_tests::wait;

/// This program on a host.
const SELF: &str = "/run/lab/bin/bench_start";
/// As an argument: tell of every connection that comes.
const LISTEN: &str = "--listen";
const PORT: u16 = 5400;
/// What `drover up` gets, so that the plugins tell how long each call took.
const VARIABLES: &str = "DROVER_LOG_LEVEL=info,drover_plugin_host=debug DROVER_LOG_FORMAT=json";
/// Rounds that do not count.
const WARM_UP: usize = 2;

fn main() -> Result<()> {
    if std::env::args().nth(1).is_some_and(|first| first == LISTEN) {
        return listen();
    }
    let request = Request::parse(25, 0)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 2)?;
    let mut cases = prepare(&mut lab)?;
    let host = lab.hosts.first().context("no host")?;
    let mut seen = 0;
    for round in 0..request.rounds + WARM_UP {
        progress(&format!("round {round} of {}", request.rounds + WARM_UP));
        if round == WARM_UP {
            seen = log_lines(host).len();
        }
        for place in 0..cases.len() {
            let place = (place + round) % cases.len();
            if let Some(case) = cases.get_mut(place) {
                case.measure(host, round >= WARM_UP)
                    .with_context(|| format!("measuring {}", case.name))?;
            }
        }
    }
    report(&cases)?;
    report_calls(host, seen)
}

/// A container that is started again and again.
struct Case {
    name: &'static str,
    container: String,
    peer: Peer,
    packet: Samples,
    returned: Samples,
}

/// Who it connects to.
struct Peer {
    listener: Child,
    connections: Receiver<Instant>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its host at the latest.
        drop(self.listener.kill());
        drop(self.listener.wait());
    }
}

fn prepare(lab: &mut Lab) -> Result<Vec<Case>> {
    progress("starting Drover and a Swarm");
    lab.form_cluster_with(VARIABLES)?;
    let (one, two) = lab.pair()?;
    one.run(&format!(
        "docker swarm init --advertise-addr {}",
        one.address()
    ))?;
    one.run("docker network create -d overlay --attachable swarm")?;
    one.run("docker network create plain; docker network create second")?;
    lab.network("app", "")?;
    one.run(&format!("{CREATE} --internal inside"))?;
    for network in ["plain", "app", "inside", "swarm"] {
        one.sleeper(&format!("{network}-peer"), &format!("--network {network}"))?;
    }
    two.sleeper("far-peer", "--network app")?;
    let mut cases = Vec::new();
    for (name, network, peer) in [
        ("Docker's bridge", "plain", "plain-peer"),
        ("Drover", "app", "app-peer"),
        ("Swarm overlay", "swarm", "swarm-peer"),
        ("two of Docker's bridges", "plain", "plain-peer"),
        ("Drover, internal", "inside", "inside-peer"),
    ] {
        cases.push(Case::create(name, one, network, (one, peer), cases.len())?);
    }
    one.run("docker network connect second case3")?;
    let far = (two, "far-peer");
    cases.push(Case::create(
        "Drover, peer on the other host",
        one,
        "app",
        far,
        9,
    )?);
    Ok(cases)
}

impl Case {
    fn create(
        name: &'static str,
        host: &Host,
        network: &str,
        (peer_host, peer): (&Host, &str),
        number: usize,
    ) -> Result<Self> {
        let container = format!("case{number}");
        let address = peer_host.address_of(peer, network)?;
        let port = PORT + u16::try_from(number)?;
        host.run(&format!(
            "docker create --name {container} --network {network} {IMAGE} sh -c 'until nc -w 1 {address} {port} </dev/null; do :; done; exec sleep 1000000'"
        ))?;
        let peer = Peer::begin(peer_host, peer, port)?;
        Ok(Self {
            name,
            container,
            peer,
            packet: Samples::default(),
            returned: Samples::default(),
        })
    }

    fn measure(&mut self, host: &Host, counts: bool) -> Result<()> {
        let mut command = host.command(
            &format!("exec docker start {}", self.container),
            wait::seconds(60),
        )?;
        let begun = Instant::now();
        let done = command.output()?;
        let returned = begun.elapsed();
        ensure!(
            done.status.success(),
            "docker start: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let connected = self
            .peer
            .connections
            .recv_timeout(Duration::from_secs(20))
            .context("no packet came")?;
        if counts {
            let packet = connected.duration_since(begun);
            self.packet.push(packet.as_secs_f64() * 1e3);
            self.returned.push(returned.as_secs_f64() * 1e3);
        }
        host.run(&format!(
            "docker kill {0} >/dev/null; docker wait {0}",
            self.container
        ))?;
        Ok(())
    }
}

impl Peer {
    fn begin(host: &Host, container: &str, port: u16) -> Result<Self> {
        let pid = host.pid_of(container)?;
        let script = format!("exec nsenter --target {pid} --net -- {SELF} {LISTEN} {port}");
        let mut listener = host
            .command(&script, wait::seconds(7200))?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = listener.stdout.take().context("the listener's output")?;
        let (sender, connections) = channel();
        std::thread::spawn(move || {
            for _line in BufReader::new(said).lines().map_while(Result::ok) {
                if sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        connections
            .recv_timeout(Duration::from_secs(10))
            .context("the listener does not listen")?;
        Ok(Self {
            listener,
            connections,
        })
    }
}

/// Says a line when it listens, and one for every connection.
fn listen() -> Result<()> {
    let port: u16 = std::env::args().nth(2).context("no port")?.parse()?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready")?;
    for connection in listener.incoming() {
        drop(connection?);
        writeln!(output, "connected")?;
    }
    Ok(())
}

fn report(cases: &[Case]) -> Result<()> {
    let base = cases.first().context("nothing was measured")?;
    let mut table = Table::new(&[
        "docker start to the first answer",
        "p50 ms",
        "p90 ms",
        "ratio",
        "returned, p50 ms",
        "ratio",
    ]);
    for case in cases {
        table.row(&[
            case.name.to_owned(),
            format!("{:.0}", case.packet.median()),
            format!("{:.0}", case.packet.quantile(90)),
            format!("{:.2}", case.packet.over(&base.packet).median()),
            format!("{:.0}", case.returned.median()),
            format!("{:.2}", case.returned.over(&base.returned).median()),
        ]);
    }
    say(&table.text());
    Ok(())
}

fn log_lines(host: &Host) -> Vec<String> {
    let text = std::fs::read_to_string(host.log(LOG)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What the plugins say of the calls since a line of their log.
fn report_calls(host: &Host, seen: usize) -> Result<()> {
    let mut calls: BTreeMap<String, Samples> = BTreeMap::new();
    for line in log_lines(host).iter().skip(seen) {
        let Some(json) = line.find('{').and_then(|place| line.get(place..)) else {
            continue;
        };
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(json) else {
            continue;
        };
        let field = |name: &str| entry.get(name).and_then(serde_json::Value::as_str);
        let (Some(method), Some(took)) = (field("method"), field("took")) else {
            continue;
        };
        if let Some(milliseconds) = milliseconds(took) {
            calls
                .entry(method.to_owned())
                .or_default()
                .push(milliseconds);
        }
    }
    let mut table = Table::new(&["call of a plugin", "count", "p50 ms", "p99 ms"]);
    for (method, samples) in &calls {
        table.row(&[
            method.clone(),
            samples.count().to_string(),
            format!("{:.2}", samples.median()),
            format!("{:.2}", samples.quantile(99)),
        ]);
    }
    say(&table.text());
    Ok(())
}

/// A duration as Rust writes it for people.
fn milliseconds(text: &str) -> Option<f64> {
    let unit = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let (number, unit) = text.split_at_checked(unit)?;
    let factor = match unit {
        "ns" => 1e-6,
        "µs" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}
