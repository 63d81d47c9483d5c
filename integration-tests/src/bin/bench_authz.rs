//! Decisions of `drover-authz` over its socket: how many a second on one processor, and how long each takes.
//!
//! `cargo run --release -p integration-tests --bin bench_authz [ROUNDS [REQUESTS]]`, after `cargo build --release -p drover-authz`.
//! It needs neither root nor an engine: one with some thousand containers and volumes is played by this program. The questions are
//! those that an engine asks for `docker ps`, for looking at a container, and for creating one with a body of 5 kB and of 50 kB: the
//! same one again and again, which the plugin remembers, and all of them different in every name, image, volume and port.
//!
//! The plugin is bound to one processor and this program to another. A decision is timed by the plugin itself, as it stands in its log
//! (microseconds); a question over the socket is timed here, on one kept connection. Decisions a second come from eight
//! connections that always wait for an answer: by the clock, and by the processor time that the plugin took.

use std::fs;
use std::io::{BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::call::{Connection, container, head};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::{Value, json};

/// How long the plugin may take to answer for the first time.
const START: Duration = Duration::from_secs(15);
/// Connections that ask at the same time.
const CONNECTIONS: usize = 8;
/// Who is asked about: a user with a role that permits by rules of its own, not `admin`.
const SETUP: &str = "[roles]\ndeveloper = [\"ann\"]\n";
/// A rule of the operator's that looks at every image.
const RULE: &str = "@id(\"our-images\") forbid (principal, action == Action::\"RunImage\", resource)\n\
     unless { resource.name like \"registry.example.org/*\" };\n";
/// How many containers and volumes the engine has that are Ann's.
const THINGS: usize = 2_000;

fn main() -> Result<()> {
    let arguments: Vec<usize> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let number = |position: usize, default| arguments.get(position).copied().unwrap_or(default);
    let (rounds, requests) = (number(0, 7), number(1, 2_000));
    let plugin = Plugin::start()?;
    let mut kinds = vec![Kind::new("docker ps", false, |_| {
        question("GET", "/v1.47/containers/json", None)
    })];
    for differ in [false, true] {
        kinds.extend([
            Kind::new("docker inspect", differ, |number| {
                let name = number % THINGS;
                question("GET", &format!("/v1.47/containers/mine-{name}/json"), None)
            }),
            Kind::new("create, 5 kB", differ, |number| create(number, 5_000)),
            Kind::new("create, 50 kB", differ, |number| create(number, 50_000)),
        ]);
    }
    let mut seen: Vec<Vec<Round>> = kinds.iter().map(|_| Vec::new()).collect();
    let mut asked = 0;
    for _ in 0..rounds {
        for (kind, rows) in kinds.iter().zip(&mut seen) {
            rows.push(plugin.round(&kind.questions(asked, requests), requests)?);
            asked += 2 * requests;
        }
    }
    let mut text = format!(
        "{:<24} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11}   medians of {rounds} rounds of {requests}\n",
        "question", "p50", "p99", "trip p50", "trip p99", "a second", "a CPU second"
    );
    for (kind, rows) in kinds.iter().zip(&seen) {
        let of = |value: fn(&Round) -> f64| median(rows.iter().map(value).collect());
        text.push_str(&format!(
            "{:<24} {:>6.0} us {:>6.0} us {:>6.0} us {:>6.0} us {:>11.0} {:>11.0}\n",
            kind.name,
            of(|round| round.decision.p50),
            of(|round| round.decision.p99),
            of(|round| round.trip.p50),
            of(|round| round.trip.p99),
            of(|round| round.by_clock),
            of(|round| round.by_processor),
        ));
    }
    let changes = Times::of(plugin.changes(11)?);
    text.push_str(&format!(
        "a changed policy is in force after {:.0} ms (p50), {:.0} ms (greatest of 11)\n",
        changes.p50 / 1e3,
        changes.p99 / 1e3
    ));
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// A kind of question.
struct Kind {
    name: String,
    /// Whether no two of them are the same.
    differ: bool,
    make: fn(usize) -> Vec<u8>,
}

impl Kind {
    fn new(name: &str, differ: bool, make: fn(usize) -> Vec<u8>) -> Self {
        let which = if differ { "all different" } else { "the same" };
        Self {
            name: format!("{name}, {which}"),
            differ,
            make,
        }
    }

    /// Those of a round: for the times, and for the rate.
    fn questions(&self, begin: usize, requests: usize) -> Vec<Vec<u8>> {
        let count = if self.differ { 2 * requests } else { 1 };
        let begin = if self.differ { begin } else { 0 };
        (begin..begin + count).map(self.make).collect()
    }
}

/// A question as an engine sends it: head and body.
fn question(method: &str, uri: &str, body: Option<&Value>) -> Vec<u8> {
    let mut headers = json!({
        "Accept-Encoding": "gzip",
        "User-Agent": "Docker-Client/28.5.2 (linux)",
    });
    let body = body.map(|body| {
        merge(&mut headers, &json!({"Content-Type": "application/json"}));
        json!({"RequestBody": base64(body.to_string().as_bytes())})
    });
    let mut asked = json!({
        "User": "ann",
        "UserAuthNMethod": "TLS",
        "RequestMethod": method,
        "RequestUri": uri,
        "RequestHeaders": headers,
        // As long as an engine's of a client with a key of 2048 bits; the plugin does not read it.
        "RequestPeerCertificates": ["A".repeat(1576)],
    });
    merge(&mut asked, &body.unwrap_or_default());
    let body = format!("{asked}\n");
    let head = format!(
        "POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// Creating a container: each number has another name, image, volume, port and label.
fn create(number: usize, length: usize) -> Vec<u8> {
    let uri = format!("/v1.47/containers/create?name=web-{number}");
    let image = format!("registry.example.org/shop/web:1.4.{number}");
    let (volume, port) = (
        format!("data-{}", number % THINGS),
        (8080 + number % 50_000).to_string(),
    );
    let body = container(&image, &volume, &port, &number.to_string(), length);
    question("POST", &uri, Some(&body))
}

/// Puts the members of one object into another.
fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.clone());
    }
}

/// `RequestBody` is in base64.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = (group >> (18 - 6 * place)) & 63;
            let letter = usize::try_from(letter)
                .ok()
                .and_then(|letter| LETTERS.get(letter));
            text.push(match letter {
                Some(letter) if place <= three.len() => char::from(*letter),
                _ => '=',
            });
        }
    }
    text
}

/// What one round saw, microseconds.
struct Round {
    decision: Times,
    trip: Times,
    by_clock: f64,
    by_processor: f64,
}

struct Times {
    p50: f64,
    p99: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| {
            let position = times.len().saturating_mul(percent) / 100;
            times.get(position).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

fn median(values: Vec<f64>) -> f64 {
    Times::of(values).p50
}

/// The plugin, in a folder that goes with it.
struct Plugin {
    folder: tempfile::TempDir,
    process: Child,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // Nothing is to be kept of it, and it may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Plugin {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("policy"))?;
        fs::write(at("policy/authorization.toml"), SETUP)?;
        fs::write(at("policy/site.cedar"), RULE)?;
        let engine = UnixListener::bind(at("engine.sock"))?;
        thread::spawn(move || play_engine(&engine));
        let own = std::env::current_exe()?;
        let program = own
            .parent()
            .context("this program lies in no folder")?
            .join("drover-authz");
        // What a process starts is bound as it is itself.
        bind(0)?;
        let process = Command::new(&program)
            .env("DROVER_CONFIG", "/dev/null")
            .env("DROVER_STATE_DIR", at("state"))
            .env("DROVER_RUN_DIR", at("run"))
            .env("DROVER_PLUGIN_DIR", at("plugins"))
            .env("DROVER_AUTHORIZATION_POLICY_DIR", at("policy"))
            .env("DROVER_HOST_NAME", "bench")
            .env("DROVER_ADVERTISE_ADDR", "127.0.0.1")
            .env(
                "DROVER_DOCKER_HOST",
                format!("unix://{}", at("engine.sock").display()),
            )
            .env("DROVER_LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| {
                let shown = program.display();
                format!("cannot start `{shown}`: build drover-authz first, in the same profile")
            })?;
        if bind(1).is_err() {
            let note = "one processor alone: the plugin shares it with this program\n";
            std::io::stderr().write_all(note.as_bytes())?;
        }
        let mut plugin = Self { folder, process };
        let began = Instant::now();
        while UnixStream::connect(plugin.socket()).is_err() {
            if let Some(status) = plugin.process.try_wait()? {
                bail!("`{}` ended with {status}", program.display());
            }
            ensure!(began.elapsed() < START, "drover-authz does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(plugin)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("plugins/drover-authz.sock")
    }

    fn round(&self, questions: &[Vec<u8>], requests: usize) -> Result<Round> {
        let log = self.folder.path().join("state/authz/decisions.log");
        // It is made behind the socket, a moment later.
        let before = fs::metadata(&log).map_or(0, |found| found.len());
        let mut connection = Connection::open(&self.socket())?;
        let mut trips = Vec::with_capacity(requests);
        for question in questions.iter().cycle().take(requests) {
            let began = Instant::now();
            ask(&mut connection, question)?;
            trips.push(began.elapsed().as_secs_f64() * 1e6);
        }
        let decisions = decisions(&log, before, requests)?;
        let (began, spent) = (Instant::now(), self.processor_time()?);
        let askers: Vec<_> = (0..CONNECTIONS)
            .map(|_| Connection::open(&self.socket()))
            .collect::<Result<_>>()?;
        thread::scope(|scope| {
            let mut askers_at_work = Vec::new();
            for (place, mut asker) in askers.into_iter().enumerate() {
                let own = questions
                    .iter()
                    .cycle()
                    .skip(requests + place * (requests / CONNECTIONS));
                askers_at_work.push(scope.spawn(move || {
                    own.take(requests / CONNECTIONS)
                        .try_for_each(|question| ask(&mut asker, question))
                }));
            }
            askers_at_work.into_iter().try_for_each(|asker| {
                asker
                    .join()
                    .map_err(|_panic| anyhow::anyhow!("an asker has panicked"))?
            })
        })?;
        let asked = f64::from(u32::try_from(requests / CONNECTIONS * CONNECTIONS)?);
        let took = began.elapsed();
        let spent = self.processor_time()? - spent;
        // Its lines are written now, so that the next round finds its own alone.
        thread::sleep(Duration::from_millis(200));
        Ok(Round {
            decision: Times::of(decisions),
            trip: Times::of(trips),
            by_clock: asked / took.as_secs_f64(),
            by_processor: asked / spent,
        })
    }

    /// How long it takes from a changed file in the policy folder to the first answer by it, microseconds.
    fn changes(&self, count: u32) -> Result<Vec<f64>> {
        let ping = question("GET", "/v1.47/info", None);
        let mut connection = Connection::open(&self.socket())?;
        let mut times = Vec::new();
        for number in 0..count {
            let may = number % 2 == 1;
            let setup = if may { SETUP } else { "[roles]\n" };
            fs::write(self.folder.path().join("new"), setup)?;
            let began = Instant::now();
            fs::rename(
                self.folder.path().join("new"),
                self.folder.path().join("policy/authorization.toml"),
            )?;
            while is_allowed(&mut connection, &ping)? != may {
                ensure!(began.elapsed() < START, "a changed policy is not in force");
                thread::sleep(Duration::from_millis(2));
            }
            times.push(began.elapsed().as_secs_f64() * 1e6);
            // The next one comes at another moment between two looks.
            thread::sleep(Duration::from_millis(u64::from(number) * 90));
        }
        Ok(times)
    }

    /// The processor time that the plugin has taken, seconds.
    fn processor_time(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        // Fields 14 and 15 of proc_pid_stat(5); the state after `)` is the third.
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<f64>)
            .sum::<Result<f64, _>>()?;
        let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(ticks / f64::from(u32::try_from(a_second)?))
    }
}

/// Binds this thread, and what it starts from now on, to one processor.
fn bind(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// What the plugin itself says of its last decisions, once they are all in its log.
fn decisions(log: &Path, before: u64, requests: usize) -> Result<Vec<f64>> {
    let began = Instant::now();
    loop {
        let mut text = fs::read(log)?;
        // A file that was rotated begins anew: what is in it is of this round, or there is too little of it.
        let from = usize::try_from(before)?;
        if text.len() >= from {
            text.drain(..from);
        }
        let times: Vec<f64> = text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
            .filter_map(|line| line.get("micros")?.as_f64())
            .collect();
        if times.len() >= requests * 9 / 10 || began.elapsed() > Duration::from_secs(3) {
            ensure!(!times.is_empty(), "nothing is in the log of decisions");
            return Ok(times);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks, and makes sure that the answer is yes.
fn ask(connection: &mut Connection, question: &[u8]) -> Result<()> {
    ensure!(is_allowed(connection, question)?, "a question was denied");
    Ok(())
}

fn is_allowed(connection: &mut Connection, question: &[u8]) -> Result<bool> {
    let (_, body) = connection.call(question)?;
    let answer: Value = serde_json::from_slice(&body)?;
    let allow = answer.get("Allow").and_then(Value::as_bool);
    allow.with_context(|| format!("answered with {answer}"))
}

/// An engine with a network, and containers and volumes that are Ann's but for two.
fn play_engine(listener: &UnixListener) {
    let owned = json!({"io.drover.owner": "ann"});
    let mut containers = vec![
        json!({"Id": "b".repeat(64), "Names": ["/hers"], "Labels": {"io.drover.owner": "eve"}, "Mounts": []}),
        json!({"Id": "c".repeat(64), "Names": ["/nobodys"], "Labels": {}, "Mounts": []}),
    ];
    containers.extend((0..THINGS).map(|number| {
        json!({"Id": format!("{number:064x}"), "Names": [format!("/mine-{number}")], "Labels": owned, "Mounts": []})
    }));
    let containers = json!(containers);
    let networks = json!([{"Id": "d".repeat(64), "Name": "bridge", "Labels": {}}]);
    let volumes = (0..THINGS)
        .map(|number| json!({"Name": format!("data-{number}"), "Labels": owned, "Options": null}));
    let volumes = json!({"Volumes": volumes.collect::<Vec<_>>()});
    for stream in listener.incoming().flatten() {
        let mut stream = BufReader::new(stream);
        let (containers, networks, volumes) = (
            containers.to_string(),
            networks.to_string(),
            volumes.to_string(),
        );
        thread::spawn(move || {
            while let Ok(head) = head(&mut stream) {
                let path = head.first.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match path.split('?').next().unwrap_or_default() {
                    "/containers/json" => ("200 OK", containers.as_str()),
                    "/networks" => ("200 OK", networks.as_str()),
                    "/volumes" => ("200 OK", volumes.as_str()),
                    _ => ("404 Not Found", "{}"),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}
