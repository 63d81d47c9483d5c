//! What the catalogue of volumes, snapshots and backups costs with three hosts' worth of volumes: written down, listed,
//! and one changed; in the embedded store, and in etcd.
//!
//! `cargo run --release -p integration-tests --bin bench_catalogue [VOLUMES [CHANGES]]`, after
//! `cargo build --release -p drover-coordinator`. It needs root and etcd, and no engine: one coordinator runs in a folder and
//! a network namespace of its own, and is told of all the volumes as the first host's, each with as many snapshots as are
//! kept of one. Somebody follows its stream meanwhile, as drover-vol does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::call::{Connection, request};
use integration_tests::measure::{Samples, Table, say};
use integration_tests::process::machine;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// How long a process may take to answer for the first time, and a change to be heard.
const START: Duration = Duration::from_secs(30);
/// How many volumes are told in one call, as drover-vol does.
const AT_ONCE: usize = 50;
/// How many snapshots of a volume are listed at most.
const SNAPSHOTS: usize = 64;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut number = |default: usize| {
        let word = words.next();
        word.map_or(Ok(default), |word| word.parse())
    };
    let (volumes, changes) = (number(3000)?, number(200)?);
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("this needs root")?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none)?;
    machine(&["ip", "link", "set", "lo", "up"])?;
    let build = if cfg!(debug_assertions) {
        "built without optimisation"
    } else {
        "release build"
    };
    say(&format!(
        "{volumes} volumes of {SNAPSHOTS} snapshots, {changes} changes, {build}"
    ));
    let mut table = Table::new(&[
        "store",
        "told s",
        "on disk MB",
        "all p50 ms",
        "MB",
        "of one name ms",
        "change p50 ms",
        "p99",
        "kB",
        "heard p50 ms",
        "p99",
        "RSS MB",
    ]);
    for is_cluster in [false, true] {
        let bench = Bench::start(is_cluster)?;
        table.row(&bench.measure(volumes, changes)?);
    }
    say(&table.text());
    Ok(())
}

/// The coordinator, in a folder that goes with it.
struct Bench {
    running: Option<Child>,
    folder: tempfile::TempDir,
    is_cluster: bool,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // A cluster's etcd ends with its coordinator when that is asked to end.
            drop(machine(&["kill", "-TERM", &running.id().to_string()]));
            drop(running.wait());
        }
    }
}

impl Bench {
    fn start(is_cluster: bool) -> Result<Self> {
        let mut bench = Self {
            running: None,
            folder: tempfile::tempdir()?,
            is_cluster,
        };
        bench.spawn()?;
        if is_cluster {
            let init = json!({"advertise": "127.0.0.1", "etcd_endpoints": []});
            ask(&mut bench.connect()?, "Init", &init)?;
            let ended = bench.running.take().context("nothing runs")?.wait()?;
            ensure!(ended.code() == Some(75), "the coordinator ended: {ended}");
            bench.spawn()?;
        }
        Ok(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    /// Starts the coordinator and waits until its socket takes connections.
    fn spawn(&mut self) -> Result<()> {
        let own = std::env::current_exe()?;
        let program = own.with_file_name("drover-coordinator");
        let child = Command::new(&program)
            .env("DROVER_CONFIG", "/dev/null")
            .env("DROVER_STATE_DIR", self.path("state"))
            .env("DROVER_RUN_DIR", self.path("run"))
            .env("DROVER_PLUGIN_DIR", self.path("plugins"))
            .env("DROVER_HOST_NAME", "bench")
            .env("DROVER_ADVERTISE_ADDR", "127.0.0.1")
            .env(
                "DROVER_DOCKER_HOST",
                format!("unix://{}", self.path("no-engine.sock").display()),
            )
            .env("DROVER_LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`: build it first", program.display()))?;
        let running = self.running.insert(child);
        let began = Instant::now();
        let socket = self.folder.path().join("run/control.sock");
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = running.try_wait()? {
                bail!("the coordinator ended with {status}");
            }
            ensure!(began.elapsed() < START, "the coordinator does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn connect(&self) -> Result<Connection> {
        Connection::open(&self.socket())
    }

    fn measure(&self, volumes: usize, changes: usize) -> Result<Vec<String>> {
        let heard = listen(&self.socket())?;
        let mut control = self.connect()?;
        let began = Instant::now();
        let numbers: Vec<usize> = (0..volumes).collect();
        for numbers in numbers.chunks(AT_ONCE) {
            let told: Vec<Value> = numbers.iter().map(|number| volume(*number, 0)).collect();
            let backups: Vec<Value> = numbers.iter().map(|number| backup(*number)).collect();
            record(&mut control, told, backups)?;
        }
        let told = began.elapsed().as_secs_f64();
        await_volume(&heard, volumes - 1, 0)?;
        let (mut all, mut one, mut bytes) = (Samples::default(), Samples::default(), 0);
        for _ in 0..20 {
            let began = Instant::now();
            bytes = ask(&mut control, "Catalogue", &json!({}))?.len();
            all.push(milliseconds(began));
            let began = Instant::now();
            let asked = json!({"volume": name(volumes / 2)});
            let answer = ask(&mut control, "Catalogue", &asked)?;
            one.push(milliseconds(began));
            let answer: Value = serde_json::from_slice(&answer)?;
            let found = |kind: &str| answer.get(kind).and_then(Value::as_array).map(Vec::len);
            ensure!(
                (found("volumes"), found("backups")) == (Some(1), Some(1)),
                "{answer}"
            );
        }
        let (mut change, mut hearing, mut size) = (Samples::default(), Samples::default(), 0);
        for round in 1..=changes {
            let number = round * 7 % volumes;
            let it = volume(number, round);
            size = it.to_string().len();
            let began = Instant::now();
            record(&mut control, vec![it], Vec::new())?;
            change.push(milliseconds(began));
            await_volume(&heard, number, round)?;
            hearing.push(milliseconds(began));
        }
        let store = if self.is_cluster { "etcd" } else { "embedded" };
        let figure =
            |samples: &Samples, percent: usize| format!("{:.1}", samples.quantile(percent));
        Ok(vec![
            store.to_owned(),
            format!("{told:.1}"),
            format!("{:.1}", megabytes(self.on_disk()?)),
            figure(&all, 50),
            format!("{:.1}", megabytes(bytes as u64)),
            figure(&one, 50),
            figure(&change, 50),
            figure(&change, 99),
            format!("{:.1}", megabytes(size as u64) * 1000.0),
            figure(&hearing, 50),
            figure(&hearing, 99),
            format!("{:.1}", self.memory()?),
        ])
    }

    /// What the files of the state take.
    fn on_disk(&self) -> Result<u64> {
        let state = self.path("state").to_string_lossy().into_owned();
        let said = machine(&["du", "-s", "--block-size=1", &state])?;
        let bytes = said.split_whitespace().next().context("du says nothing")?;
        Ok(bytes.parse()?)
    }

    fn memory(&self) -> Result<f64> {
        let pid = self.running.as_ref().context("nothing runs")?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let kilobytes: f64 = kilobytes.context("no VmRSS")?.parse()?;
        Ok(kilobytes * 1.024 / 1000.0)
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 100).unwrap_or(u32::MAX)) / 10_000.0
}

fn ask(control: &mut Connection, method: &str, body: &Value) -> Result<Vec<u8>> {
    let sent = request("POST", &format!("/v1/{method}"), "", Some(body));
    let (status, answer) = control.call(&sent)?;
    let text = || String::from_utf8_lossy(&answer).into_owned();
    ensure!(status == 200, "{method}: {status} {}", text());
    Ok(answer)
}

fn record(control: &mut Connection, volumes: Vec<Value>, backups: Vec<Value>) -> Result<()> {
    let told = json!({"volumes": volumes, "gone": [], "backups": backups});
    ask(control, "RecordCatalogue", &told).map(drop)
}

fn name(number: usize) -> String {
    format!("project_volume-{number}")
}

/// A volume as it is told, after so many changes.
fn volume(number: usize, changes: usize) -> Value {
    let snapshot = |of: usize| {
        json!({
            "name": format!("auto-20261130T{of:06}Z"), "taken_at": 1_796_000_000 + of,
            "reason": "scheduled", "application_consistent": false,
        })
    };
    let snapshots: Vec<Value> = (changes..changes + SNAPSHOTS).map(snapshot).collect();
    json!({
        "id": format!("{number:016x}"), "name": name(number), "backend": "btrfs",
        "state": "ready", "size": null, "created_at": 1_796_000_000, "snapshots": snapshots,
        "older_snapshots": changes,
    })
}

fn backup(number: usize) -> Value {
    json!({
        "volume": name(number), "to": "s3://backups/cluster", "id": format!("{number:064x}"),
        "by": "bench", "taken_at": 1_796_000_000, "size": 1 << 30,
    })
}

/// Follows the stream; gives each volume's number, and after how many changes it is.
fn listen(socket: &Path) -> Result<Receiver<(usize, usize)>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&request("GET", "/v1/catalogue", "", None))?;
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            // No other event has an id of this form and a number of snapshots.
            let number = event.get("id").and_then(Value::as_str);
            let number = number.and_then(|id| usize::from_str_radix(id, 16).ok());
            let changes = event.get("older_snapshots").and_then(Value::as_u64);
            let changes = changes.and_then(|changes| usize::try_from(changes).ok());
            if let (Some(number), Some(changes)) = (number, changes)
                && sender.send((number, changes)).is_err()
            {
                return;
            }
        }
    });
    Ok(heard)
}

fn await_volume(heard: &Receiver<(usize, usize)>, number: usize, changes: usize) -> Result<()> {
    loop {
        let told = heard.recv_timeout(START).context("a change is not heard")?;
        if told == (number, changes) {
            return Ok(());
        }
    }
}
