//! What authorization adds to calls of a real engine: with the plugin, with one that only says yes, by a role's socket, and without any, in one
//! run.
//!
//! `cargo run --release -p integration-tests --bin bench_authz_calls [-- --engine 28.5 --rounds 300]`, as root, after
//! `cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net -p drover-name-service -p drover-vol -p drover-authz` and
//! `integration-tests/make-root sid`.
//!
//! Three hosts with the same engine, the same containers and the same processes of Drover: one engine asks the plugin, one asks a plugin of the
//! benchmark's that reads every question and says yes, and the third one asks nobody, and has a role's socket in front of it beside its own.
//! Every round makes each call once by each way, beginning with another one; every container that is created
//! has another name, image tag, port and label. Milliseconds from the first byte sent to the last one received, on kept connections
//! at the sockets, so without a command line's own time. "Added" is the difference of the same quantile to "neither", "own" that to the plugin
//! that says yes: what an engine takes to ask at all is in the one and not in the other. "Neither" of the odd rounds against the even ones shows
//! what such a difference is when there is none.
//!
//! The stream is `exec` of `cat`: one byte there and back, and how fast 200 MB come out.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use integration_tests::call::{Connection, container, request};
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::measure::{Request, Samples, Table, progress, say};
use serde_json::{Value, json};

#[path = "bench_authz_calls/null_plugin.rs"]
mod null_plugin;

/// The version of the API: every engine of the lab has it.
const API: &str = "/v1.41";
/// Who asks: a developer at the engine's own socket.
const SETUP: &str = "[roles]\ndeveloper = [\"local\"]\n";
const ROLE_SOCKET: &str = "/run/drover-sockets/developer/docker.sock";
/// The ways.
const NEITHER: &str = "neither";
const ROLE: &str = "a role's socket";
const SAYS_YES: &str = "one that says yes";
const PLUGIN: &str = "the plugin";
/// Rounds that do not count.
const WARM_UP: usize = 20;
/// Bytes that are sent and come back, a round.
const ECHOES: usize = 20;
/// How often a long stream is read.
const STREAMS: usize = 5;
/// How long it is, bytes.
const STREAM: usize = 200_000_000;

fn main() -> Result<()> {
    let wanted = Request::parse(300, 0)?;
    interrupt::handle()?;
    say(&wanted.machine()?);
    let mut lab = Lab::start(wanted.release, 3)?;
    let mut ways = prepare(&mut lab)?;
    let mut number = 0;
    for round in 0..wanted.rounds + WARM_UP {
        if round % 50 == 0 {
            progress(&format!("round {round} of {}", wanted.rounds + WARM_UP));
        }
        for place in 0..ways.len() {
            let place = (place + round) % ways.len();
            if let Some(way) = ways.get_mut(place) {
                number += 1;
                let name = way.name;
                way.round(number, round >= WARM_UP).context(name)?;
            }
        }
    }
    for _ in 0..STREAMS {
        for way in &mut ways {
            way.long_stream()?;
        }
    }
    report(&ways);
    Ok(())
}

/// A way to an engine.
struct Way {
    name: &'static str,
    socket: PathBuf,
    connection: Connection,
    /// By the calls in [`CALLS`], milliseconds.
    times: [Samples; CALLS.len()],
    /// Bytes a second, in millions.
    rates: Samples,
}

const CALLS: [&str; 5] = [
    "docker ps",
    "create, 5 kB",
    "create, 50 kB",
    "create, 5 kB, new volume",
    "a byte through exec",
];

fn prepare(lab: &mut Lab) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (place, plugin) in [None, Some(null_plugin::NAME), Some("drover-authz")]
        .into_iter()
        .enumerate()
    {
        let host = lab.host(place)?;
        host.run("mkdir -p /etc/drover/policy /run/docker/plugins")?;
        host.write("/etc/drover/policy/authorization.toml", SETUP)?;
        host.stop_engine("TERM")?;
        host.drover_up("")?;
        if plugin == Some(null_plugin::NAME) {
            null_plugin::serve(&host.root()?.join("run/docker/plugins"))?;
        }
        let flag = plugin.map(|name| format!("--authorization-plugin={name}"));
        host.start_engine(&flag.unwrap_or_default())?;
        host.run("docker volume create data")?;
        host.run(&format!(
            "for n in 1 2 3 4 5 6 7 8 9; do docker create --name idle$n {IMAGE} true; done; \
             docker run -d --name echo {IMAGE} sleep 1000000"
        ))?;
        host.run(&format!(
            "docker tag {IMAGE} registry.example.org/shop/web:1"
        ))?;
        ways.push(Way::new(
            plugin.map_or(NEITHER, |name| match name {
                null_plugin::NAME => SAYS_YES,
                _ => PLUGIN,
            }),
            host,
            "/run/docker.sock",
        )?);
        if plugin.is_none() {
            // Its own name is its owner: what it is to use has to be made by it.
            host.run(&format!(
                "drover authz socket --role developer {ROLE_SOCKET}; until test -S {ROLE_SOCKET}; do sleep 0.1; done"
            ))?;
            let by = format!("DOCKER_HOST=unix://{ROLE_SOCKET}");
            host.run(&format!(
                "{by} docker volume create mine && {by} docker run -d --name my-echo {IMAGE} sleep 1000000"
            ))?;
            ways.push(Way::new(ROLE, host, ROLE_SOCKET)?);
        }
    }
    Ok(ways)
}

impl Way {
    fn new(name: &'static str, host: &Host, socket: &str) -> Result<Self> {
        // The host has files of its own, which the machine sees behind its first process.
        let socket = host.root()?.join(socket.trim_start_matches('/'));
        Ok(Self {
            name,
            connection: Connection::open(&socket)?,
            socket,
            times: <[Samples; CALLS.len()]>::default(),
            rates: Samples::default(),
        })
    }

    fn is_a_role(&self) -> bool {
        self.name == ROLE
    }

    fn round(&mut self, number: usize, counts: bool) -> Result<()> {
        let port = (20_000 + number % 30_000).to_string();
        let image = "registry.example.org/shop/web:1";
        let volume = if self.is_a_role() { "mine" } else { "data" };
        let new_volume = format!("new-{number}");
        let bodies = [
            (volume, 5_000),
            (volume, 50_000),
            (new_volume.as_str(), 5_000),
        ]
        .into_iter();
        let mut times = vec![
            self.timed(
                &request("GET", &format!("{API}/containers/json"), "", None),
                200,
            )?
            .0,
        ];
        for (place, (volume, length)) in bodies.enumerate() {
            let body = container(image, volume, &port, &number.to_string(), length);
            let uri = format!("{API}/containers/create?name=made-{number}-{place}");
            let (time, answer) = self.timed(&request("POST", &uri, "", Some(&body)), 201)?;
            times.push(time);
            let made: Value = serde_json::from_slice(&answer)?;
            let id = made.get("Id").and_then(Value::as_str).context("no id")?;
            self.timed(
                &request("DELETE", &format!("{API}/containers/{id}"), "", None),
                204,
            )?;
        }
        self.timed(
            &request("DELETE", &format!("{API}/volumes/{new_volume}"), "", None),
            204,
        )?;
        times.push(self.echo()?);
        for (samples, time) in self.times.iter_mut().zip(times).filter(|_| counts) {
            samples.push(time);
        }
        Ok(())
    }

    /// A call on the kept connection: how long it took, and the body.
    fn timed(&mut self, request: &[u8], expected: u16) -> Result<(f64, Vec<u8>)> {
        let began = Instant::now();
        let (status, body) = self.connection.call(request)?;
        let time = began.elapsed().as_secs_f64() * 1e3;
        ensure!(
            status == expected,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok((time, body))
    }

    /// Begins a command in a container whose output comes as it is.
    fn exec(&mut self, command: &[&str]) -> Result<Connection> {
        let container = if self.is_a_role() { "my-echo" } else { "echo" };
        let uri = format!("{API}/containers/{container}/exec");
        let body = json!({"AttachStdin": true, "AttachStdout": true, "Tty": false, "Cmd": command});
        let (_, answer) = self.timed(&request("POST", &uri, "", Some(&body)), 201)?;
        let made: Value = serde_json::from_slice(&answer)?;
        let id = made.get("Id").and_then(Value::as_str).context("no id")?;
        let mut stream = Connection::open(&self.socket)?;
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        let body = json!({"Detach": false, "Tty": false});
        let start = request(
            "POST",
            &format!("{API}/exec/{id}/start"),
            upgrade,
            Some(&body),
        );
        let (status, _) = stream.call(&start)?;
        ensure!(status == 101, "the stream was answered with {status}");
        Ok(stream)
    }

    /// The median time of a byte there and back.
    fn echo(&mut self) -> Result<f64> {
        let mut connection = self.exec(&["cat"])?;
        let stream = connection.stream();
        let mut times = Samples::default();
        for _ in 0..ECHOES {
            let began = Instant::now();
            stream.get_mut().write_all(b"x")?;
            // A frame of the engine's: eight bytes of head, and the byte.
            let mut frame = [0; 9];
            stream.read_exact(&mut frame)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times.median())
    }

    fn long_stream(&mut self) -> Result<()> {
        let mut connection = self.exec(&["head", "-c", &STREAM.to_string(), "/dev/zero"])?;
        let began = Instant::now();
        let mut piece = vec![0; 1 << 16];
        let mut received = 0;
        loop {
            let count = connection.stream().read(&mut piece)?;
            received += count;
            if count == 0 {
                break;
            }
        }
        ensure!(
            received > STREAM,
            "the stream was cut after {received} bytes"
        );
        let megabytes = f64::from(u32::try_from(STREAM)?) / 1e6;
        self.rates.push(megabytes / began.elapsed().as_secs_f64());
        Ok(())
    }
}

fn report(ways: &[Way]) {
    let of = |name: &str, call: usize| {
        let way = ways.iter().find(|way| way.name == name);
        way.and_then(|way| way.times.get(call))
    };
    let less = |own: &Samples, other: Option<&Samples>, percent| {
        other.map_or_else(String::new, |other| {
            format!("{:.3}", own.quantile(percent) - other.quantile(percent))
        })
    };
    let mut table = Table::new(&[
        "call",
        "way",
        "p50 ms",
        "p99 ms",
        "added p50",
        "added p99",
        "own p50",
        "own p99",
    ]);
    for (place, call) in CALLS.iter().enumerate() {
        let plain = of(NEITHER, place);
        for way in ways {
            let Some(times) = way.times.get(place) else {
                continue;
            };
            let says_yes = of(SAYS_YES, place).filter(|_| way.name == PLUGIN);
            table.row(&[
                (*call).to_owned(),
                way.name.to_owned(),
                format!("{:.3}", times.quantile(50)),
                format!("{:.3}", times.quantile(99)),
                less(times, plain, 50),
                less(times, plain, 99),
                less(times, says_yes, 50),
                less(times, says_yes, 99),
            ]);
        }
        if let Some(plain) = plain {
            let (even, odd) = plain.halves();
            table.row(&[
                (*call).to_owned(),
                "neither, odd to even".to_owned(),
                format!("{:.3}", odd.quantile(50)),
                format!("{:.3}", odd.quantile(99)),
                less(&odd, Some(&even), 50),
                less(&odd, Some(&even), 99),
                String::new(),
                String::new(),
            ]);
        }
    }
    say(&table.text());
    let mut table = Table::new(&["way", "MB/s out of exec", "of that without"]);
    let Some(plain) = ways.first() else {
        return;
    };
    for way in ways {
        let ratio = way.rates.over(&plain.rates).median();
        table.row(&[
            way.name.to_owned(),
            format!("{:.0}", way.rates.median()),
            format!("{ratio:.2}"),
        ]);
    }
    say(&table.text());
}
