//! How long `drover-net` takes to program the routes to 1,000 other hosts, told at once, and one block that moves
//! among them.
//!
//! `cargo run --release -p integration-tests --bin bench_routes [-- HOSTS [MOVES]]`, as root, after
//! `cargo build --release -p drover-net`. It needs no engine: the program is a coordinator that tells what it likes,
//! each case in network and mount namespaces of its own. The encrypted case is measured where the kernel has ESP:
//! `integration-tests/vm/run --bench bench_routes`.
//!
//! The first time is from when everything has been said until `drover-net` answers with a path to each host: it answers
//! nothing while it programs; on encrypted paths until the kernel has every association, for which this host's key is
//! made and one is agreed on with each host. The second is from when a block's new owner is said until the kernel reports
//! the route; not on encrypted paths, where only a host that answers has a route, and nobody answers here.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::cache;
use integration_tests::measure::{Samples, Table, progress, say};
use integration_tests::wait;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// As an argument: measure one case, which follows with the numbers of hosts and moves.
const CASE: &str = "--case";
const NETWORK: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const DIRECT: &str = "direct";
const IPSEC: &str = "ipsec";
/// Associations each way with each host: as many as a machine of two cores has.
const LANES: u8 = 2;
/// What the route to another host's block has in it.
const VIA: &str = " via ";
const POOL: &str = "10.64.0.0/12";
/// How long everything may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How often the coordinator gives a sign of life.
const ALIVE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: Option<&String>, otherwise| text.map_or(Ok(otherwise), |it| it.parse());
    if arguments.first().is_some_and(|first| first == CASE) {
        let case = arguments.get(1).context("no case")?;
        let hosts = number(arguments.get(2), 1000)?;
        return measure(case, hosts, number(arguments.get(3), 30)?);
    }
    let hosts = number(arguments.first(), 1000)?;
    let moves = number(arguments.get(1), 30)?;
    ensure!((2..=2000).contains(&hosts), "between 2 and 2000 hosts");
    let mut table = Table::new(&[
        "path",
        "hosts",
        "all at once ms",
        "associations",
        "move p50 ms",
        "p90",
        "RSS MB",
    ]);
    let mut cases = vec![DIRECT, "vxlan"];
    if encrypts() {
        cases.push(IPSEC);
    } else {
        progress("this kernel has no ESP: encrypted paths are not measured");
    }
    for case in cases {
        progress(case);
        // Its own path is no path in a virtual machine.
        let output = Command::new("/proc/self/exe")
            .args([CASE, case, &hosts.to_string(), &moves.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the case {case} failed");
        let figures: Vec<String> = serde_json::from_slice(&output.stdout)?;
        let mut row = vec![case.to_owned(), hosts.to_string()];
        row.extend(figures);
        table.row(&row);
    }
    say(&table.text());
    Ok(())
}

/// Whether the kernel has what encrypted paths need.
fn encrypts() -> bool {
    let script = "ip link add dvr-bench type xfrm if_id 1 && ip link del dvr-bench";
    let tried = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// Measures a case in namespaces that go with this process, and prints the figures for the one that began it.
fn measure(case: &str, hosts: u32, moves: u32) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("namespaces cannot be made; run it as root")?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none)?;
    for line in [
        "link set lo up",
        "link add eth0 type veth peer name eth1",
        "addr add 198.18.0.1/15 dev eth0",
        "link set eth0 up",
        "link set eth1 up",
    ] {
        ip(line)?;
    }
    let folder = tempfile::tempdir()?;
    let bench = Bench::start(folder.path(), case)?;
    let encryption = if case == IPSEC { "on" } else { "off" };
    bench.call(
        "NetworkDriver.CreateNetwork",
        &json!({
            "NetworkID": NETWORK,
            "Options": {"com.docker.network.generic": {"encryption": encryption}},
            "IPv4Data": [{"AddressSpace": "drover", "Pool": POOL, "Gateway": "10.64.0.1/12"}],
            "IPv6Data": [],
        }),
    )?;
    let told = introduction(hosts, case);
    let begun = Instant::now();
    bench.tell(&told)?;
    wait::until("a path to every host", LIMIT, || {
        let table = bench.call("Drover.Paths", &json!({}))?;
        let paths = table.get("paths").and_then(Value::as_array);
        let count = paths.map_or(0, Vec::len);
        ensure!(u32::try_from(count)? == hosts, "{count} of {hosts} paths");
        Ok(())
    })?;
    let mut associations = 0;
    if case == IPSEC {
        wait::until("an association each way, lane and host", LIMIT, || {
            associations = count_associations()?;
            let wanted = 2 * u32::from(LANES) * hosts;
            ensure!(associations == wanted, "{associations} of {wanted}");
            Ok(())
        })?;
    }
    let all = begun.elapsed();
    let [median, most] = if case == IPSEC {
        ["-".to_owned(), "-".to_owned()]
    } else {
        bench.check_routes(hosts)?;
        let samples = bench.moves(hosts, moves)?;
        [samples.median(), samples.quantile(90)].map(|figure| format!("{figure:.1}"))
    };
    let figures = [
        format!("{:.0}", all.as_secs_f64() * 1000.0),
        associations.to_string(),
        median,
        most,
        format!("{:.1}", bench.resident()?),
    ];
    say(&serde_json::to_string(&figures)?);
    Ok(())
}

fn ip(line: &str) -> Result<()> {
    let status = Command::new("ip").args(line.split(' ')).status()?;
    ensure!(status.success(), "`ip {line}` failed");
    Ok(())
}

/// Host 1 is the one that is measured; the others are those after it.
fn host(number: u32) -> Value {
    let address = format!("198.18.{}.{}", number / 256, number % 256);
    json!({
        "event": "host", "version": 1, "name": format!("host{number}"), "member": format!("member{number}"),
        "index": number, "advertise": address, "link": "198.18.0.0/15", "underlay_mtu": 1500,
        "prefixes": [], "software": "", "joined_at": 0,
    })
}

/// A block of the pool, and who owns it.
fn block(number: u32, owner: u32) -> Value {
    json!({
        "event": "block", "version": 1, "pool": POOL, "block": prefix(number),
        "owner": format!("host{owner}"), "owner_member": format!("member{owner}"),
        "quarantined_until": 0, "claims": {},
    })
}

fn prefix(number: u32) -> String {
    format!("10.{}.{}.0/24", 64 + number / 256, number % 256)
}

/// A key of another host. Any 32 bytes are a public key, but for a few that are refused.
fn key(number: u32) -> Value {
    let digits = format!("{number:08x}{}", "8d".repeat(28));
    let octets = digits.as_bytes().chunks(2).filter_map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let public: Vec<u8> = octets.collect();
    json!({
        "event": "key", "host": format!("host{number}"), "member": format!("member{number}"),
        "generation": 1, "public": base64(&public), "lanes": LANES, "udp_port": 4740, "created_at": 0,
    })
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let all = [0, 1, 2].map(|place| group.get(place).copied().unwrap_or(0));
        let [a, b, c] = all.map(u32::from);
        let bits = a << 16 | b << 8 | c;
        for place in 0..4_usize {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            let digit = DIGITS.get(index).copied().unwrap_or(b'=');
            text.push(if place > group.len() {
                '='
            } else {
                digit.into()
            });
        }
    }
    text
}

fn count_associations() -> Result<u32> {
    let output = Command::new("ip")
        .args(["xfrm", "state", "count"])
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    let count = said.split_whitespace().find_map(|word| word.parse().ok());
    count.with_context(|| format!("`ip xfrm state count` says: {said}"))
}

/// This host and all others, with a block each, and a key each where packets are encrypted.
fn introduction(others: u32, case: &str) -> String {
    let mut lines = vec![json!({
        "event": "reset", "this_host": "host1", "fenced": false,
        "cluster": "00112233445566778899aabbccddeeff",
    })];
    lines.extend((1..=others + 1).map(host));
    lines.extend((1..=others + 1).map(|number| block(number, number)));
    if case == IPSEC {
        lines.extend((2..=others + 1).map(key));
    }
    lines.push(json!({"event": "synced"}));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The plugin, and the coordinator that it listens to.
struct Bench {
    folder: PathBuf,
    plugin: Child,
    said: Sender<String>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.plugin.kill());
        drop(self.plugin.wait());
        // Not there, when it was never made.
        let _result = nix::mount::umount2(&self.overlay(), nix::mount::MntFlags::MNT_DETACH);
    }
}

impl Bench {
    fn start(folder: &Path, case: &str) -> Result<Self> {
        for part in ["state", "run", "plugins"] {
            std::fs::create_dir(folder.join(part))?;
        }
        let (said, hear) = channel();
        let listener = UnixListener::bind(folder.join("run/control.sock"))?;
        std::thread::spawn(move || coordinate(&listener, hear));
        let program = cache::binaries()?.join("drover-net");
        let plugin = Command::new(&program)
            .env("DROVER_CONFIG", "/dev/null")
            .env("DROVER_STATE_DIR", folder.join("state"))
            .env("DROVER_RUN_DIR", folder.join("run"))
            .env("DROVER_PLUGIN_DIR", folder.join("plugins"))
            .env(
                "DROVER_OVERLAY_ENCAPSULATION",
                if case == IPSEC { DIRECT } else { case },
            )
            .env("DROVER_ENCRYPTION_LANES", LANES.to_string())
            .env("DROVER_LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`: build it first", program.display()))?;
        let bench = Self {
            folder: folder.to_owned(),
            plugin,
            said,
        };
        wait::until("drover-net answers", wait::seconds(30), || {
            bench.call("Plugin.Activate", &json!({})).map(drop)
        })?;
        Ok(bench)
    }

    fn overlay(&self) -> PathBuf {
        self.folder.join("run/netns/overlay")
    }

    fn tell(&self, lines: &str) -> Result<()> {
        Ok(self.said.send(lines.to_owned())?)
    }

    fn call(&self, method: &str, body: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(self.folder.join("plugins/drover-net.sock"))?;
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "POST /{method} HTTP/1.1\r\nHost: plugin\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let answer: Value = serde_json::from_str(body)?;
        ensure!(answer.get("Err").is_none(), "{method}: {answer}");
        Ok(answer)
    }

    /// A command in the namespace that is programmed.
    fn inside(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.overlay().display()));
        command.arg("ip").args(line.split(' '));
        command
    }

    /// The figures are for nothing when the routes are not there.
    fn check_routes(&self, hosts: u32) -> Result<()> {
        let output = self.inside("route show").output()?;
        let routes = String::from_utf8(output.stdout)?;
        let blocks = routes.lines().filter(|line| line.contains("/24 "));
        let count = blocks.filter(|line| line.contains(VIA)).count();
        ensure!(
            u32::try_from(count)? == hosts,
            "{count} routes to {hosts} hosts"
        );
        Ok(())
    }

    /// One block goes from host to host: the milliseconds until the kernel reports its route.
    fn moves(&self, hosts: u32, count: u32) -> Result<Samples> {
        let moving = hosts + 2;
        let mut monitor = self
            .inside("monitor route")
            .stdout(Stdio::piped())
            .spawn()?;
        let reports = monitor.stdout.take().context("no reports")?;
        let (sender, receiver) = channel();
        let wanted = prefix(moving);
        std::thread::spawn(move || {
            let lines = BufReader::new(reports).lines().map_while(Result::ok);
            for line in lines.filter(|line| line.starts_with(&wanted) && line.contains(VIA)) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let samples = self.each_move(moving, hosts, count, &receiver);
        monitor.kill()?;
        monitor.wait()?;
        samples
    }

    fn each_move(
        &self,
        moving: u32,
        hosts: u32,
        count: u32,
        reports: &Receiver<String>,
    ) -> Result<Samples> {
        let mut samples = Samples::default();
        // The first ones find out that the reports have begun, and do not count.
        let mut heard = false;
        for round in 0..count + 5 {
            let owner = 2 + (round * 7) % hosts;
            let begun = Instant::now();
            self.tell(&format!("{}\n", block(moving, owner)))?;
            let limit = if heard { LIMIT } else { wait::seconds(2) };
            heard |= match reports.recv_timeout(limit) {
                Ok(_) => true,
                Err(RecvTimeoutError::Timeout) if !heard && round < 5 => false,
                Err(error) => return Err(error).context("no route to the block that moved"),
            };
            if round >= 5 {
                samples.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(samples)
    }

    /// The plugin's resident memory, MB.
    fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.plugin.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes.context("no VmRSS")?.parse::<f64>()? / 1024.0)
    }
}

/// Answers as a coordinator does: the first who asks for the fabric hears everything, numbers of keys are given, and every
/// report is taken.
fn coordinate(listener: &UnixListener, said: Receiver<String>) {
    let mut said = Some(said);
    let mut generation = 0;
    for stream in listener.incoming().map_while(Result::ok) {
        let mut reader = BufReader::new(stream);
        let Ok(asked) = read_request(&mut reader) else {
            continue;
        };
        let stream = reader.into_inner();
        match said.take_if(|_| asked.contains("/v1/fabric")) {
            Some(said) => drop(std::thread::spawn(move || tell_fabric(stream, &said))),
            None if asked.contains("/v1/NextGeneration") => {
                generation += 1;
                drop(answer(stream, &json!({"generation": generation})));
            }
            None => drop(answer(stream, &json!({}))),
        }
    }
}

/// Reads a request, and gives its first line.
fn read_request(reader: &mut BufReader<UnixStream>) -> Result<String> {
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(first)
}

fn answer(mut stream: UnixStream, body: &Value) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let body = body.to_string();
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn tell_fabric(mut stream: UnixStream, said: &Receiver<String>) -> std::io::Result<()> {
    let kind = "application/x-ndjson";
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    loop {
        let lines = match said.recv_timeout(ALIVE) {
            Ok(lines) => lines,
            Err(RecvTimeoutError::Timeout) => "\n".to_owned(),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        write!(stream, "{:x}\r\n{lines}\r\n", lines.len())?;
    }
}
