#![cfg(test)]
//! `drover up`, run for real over processes that only answer who they are.
//!
//! This program is the test and, under the names of Drover's processes, those processes: `drover` finds
//! its children beside itself, so each test gets a folder with links to both programs.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use drover_control_api::coordinator::{EngineStatus, StatusAnswer, StoreStatus};
use drover_control_api::plugin::Identity;
use drover_http::{Client, Limits, Method, Request, Response, Service};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CHILDREN: [&str; 5] = [
    "drover-coordinator",
    "drover-ipam",
    "drover-net",
    "drover-names",
    "drover-vol",
];
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    if let Some(child) = CHILDREN.into_iter().find(|child| *child == name) {
        return act_as(child);
    }
    let trial = |name: &str, test: fn() -> anyhow::Result<()>| {
        Trial::test(name, move || {
            test().map_err(|error| Failed::from(format!("{error:?}")))
        })
    };
    let trials = vec![
        trial(
            "comes_up_once_and_goes_down_clean",
            comes_up_once_and_goes_down_clean,
        ),
        trial("a_second_one_is_refused", a_second_one_is_refused),
        trial(
            "a_killed_child_comes_back_on_the_same_socket",
            a_killed_child_comes_back,
        ),
        trial(
            "a_child_that_asks_is_restarted",
            a_child_that_asks_is_restarted,
        ),
        trial(
            "children_outlive_a_killed_supervisor",
            children_outlive_a_killed_supervisor,
        ),
        trial("a_service_manager_is_told", a_service_manager_is_told),
        trial("a_missing_program_is_named", a_missing_program_is_named),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The fake process.
fn act_as(name: &'static str) -> ExitCode {
    drover_daemon::run(name, move |settings, shutdown| async move {
        let path = match name {
            "drover-coordinator" => settings.control_socket(),
            "drover-names" => settings.names_socket(),
            _ => settings.plugin_socket(name),
        };
        let listener = drover_daemon::listener(name, &path)?;
        drover_http::serve(listener, Arc::new(Fake(name)), Limits::default(), shutdown).await;
        Ok(())
    })
}

struct Fake(&'static str);

impl Service for Fake {
    async fn call(&self, request: Request) -> Response {
        let identity = Identity {
            process: self.0.to_owned(),
            version: drover_daemon::VERSION.to_owned(),
            pid: std::process::id(),
            complaints: Vec::new(),
        };
        match request.path.as_str() {
            "/Drover.WhoAreYou" => Response::json(200, &identity),
            "/v1/Status" => Response::json(200, &status(identity)),
            "/end" => {
                let code = request.query.and_then(|code| code.parse().ok());
                std::process::exit(code.unwrap_or(1));
            }
            other => Response::not_found(other),
        }
    }
}

fn status(identity: Identity) -> StatusAnswer {
    StatusAnswer {
        identity,
        host: "h1".parse().unwrap(),
        store: StoreStatus {
            kind: "embedded".to_owned(),
            endpoints: Vec::new(),
            reachable: true,
            problem: None,
        },
        cluster: "0".repeat(32),
        hosts: Vec::new(),
        engine: EngineStatus {
            address: String::new(),
            version: None,
            problem: None,
        },
        certificate_expires_at: None,
        fenced: false,
    }
}

/// A folder with the programs, and the directories of a host.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let programs = folder.path().join("programs");
        std::fs::create_dir(&programs)?;
        std::fs::copy(env!("CARGO_BIN_EXE_drover"), programs.join("drover"))?;
        for child in CHILDREN {
            std::fs::copy(std::env::current_exe()?, programs.join(child))?;
        }
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path("programs/drover"));
        command.arg("up");
        for flag in ["state-dir", "run-dir", "plugin-dir"] {
            command.arg(format!("--{flag}")).arg(self.path(flag));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.env("PATH", "");
        command
    }

    fn up(&self) -> anyhow::Result<Up> {
        Self::started(self.command())
    }

    fn started(mut command: Command) -> anyhow::Result<Up> {
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let first = lines.next().context("it said nothing")??;
        ensure!(first == "drover is up", "it said {first}");
        Ok(Up {
            child,
            lines: Box::new(lines.map_while(Result::ok)),
        })
    }

    fn socket(&self, child: &str) -> PathBuf {
        match child {
            "drover-coordinator" => self.path("run-dir/control.sock"),
            "drover-names" => self.path("run-dir/names.sock"),
            plugin => self.path("plugin-dir").join(format!("{plugin}.sock")),
        }
    }

    fn pid(&self, child: &str) -> anyhow::Result<i32> {
        let file = self.path("run-dir/pids").join(format!("{child}.pid"));
        let text = std::fs::read_to_string(file)?;
        Ok(text.lines().next().context("an empty pid file")?.parse()?)
    }

    /// The process id that answers on the socket of a child.
    fn ask(&self, child: &str) -> anyhow::Result<i32> {
        let path = match child {
            "drover-coordinator" => "/v1/Status",
            _ => "/Drover.WhoAreYou",
        };
        let answer = self.post(child, path)?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let pid = answer
            .pointer("/pid")
            .or_else(|| answer.pointer("/identity/pid"));
        Ok(i32::try_from(
            pid.and_then(serde_json::Value::as_i64).context("no pid")?,
        )?)
    }

    fn post(&self, child: &str, path: &str) -> anyhow::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = Client::unix(self.socket(child));
        let sent = client.send(
            Method::POST,
            path,
            Some(b"{}".to_vec()),
            Duration::from_secs(10),
        );
        Ok(runtime.block_on(sent)?.body.to_vec())
    }
}

/// A supervisor that runs; killed when dropped, with the children it has then.
struct Up {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Up {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    /// Stops it, and gives what else it had printed.
    fn stop(mut self) -> anyhow::Result<Vec<String>> {
        self.signal(Signal::SIGTERM)?;
        let rest = self.lines.by_ref().collect();
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(rest)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // A test that failed: the supervisor stops its children. One that has ended is no failure.
        drop(self.signal(Signal::SIGTERM));
        drop(self.child.wait());
    }
}

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            bail!("in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn comes_up_once_and_goes_down_clean() -> anyhow::Result<()> {
    let host = Host::new()?;
    // A file that an earlier boot left.
    std::fs::create_dir(host.path("plugin-dir"))?;
    drop(std::os::unix::net::UnixListener::bind(
        host.socket("drover-net"),
    )?);
    let up = host.up()?;
    let mut pids = Vec::new();
    for child in CHILDREN {
        let mode = std::fs::metadata(host.socket(child))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{child} has mode {mode:o}");
        ensure!(
            host.ask(child)? == host.pid(child)?,
            "{child} is another process"
        );
        let group = nix::unistd::getpgid(Some(Pid::from_raw(host.pid(child)?)))?;
        ensure!(
            group.as_raw() == host.pid(child)?,
            "{child} is in the group of its parent"
        );
        pids.push(host.pid(child)?);
    }
    let rest = up.stop()?;
    ensure!(rest.is_empty(), "it also said {rest:?}");
    for (child, pid) in CHILDREN.into_iter().zip(pids) {
        ensure!(!host.socket(child).exists(), "the socket of {child} stays");
        ensure!(host.pid(child).is_err(), "the pid file of {child} stays");
        ensure!(!runs(pid), "{child} runs on");
    }
    Ok(())
}

fn a_second_one_is_refused() -> anyhow::Result<()> {
    let host = Host::new()?;
    let up = host.up()?;
    let second = host.command().output()?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(
        second.status.code() == Some(69),
        "it ended with {}",
        second.status
    );
    ensure!(
        said.contains("runs already") && said.contains(&up.child.id().to_string()),
        "{said}"
    );
    for child in CHILDREN {
        ensure!(
            host.ask(child)? == host.pid(child)?,
            "{child} was disturbed"
        );
    }
    up.stop()?;
    Ok(())
}

fn a_killed_child_comes_back() -> anyhow::Result<()> {
    let host = Host::new()?;
    let up = host.up()?;
    for _ in 0..3 {
        let before = host.pid("drover-net")?;
        kill(Pid::from_raw(before), Signal::SIGKILL)?;
        // At once: the request waits in the socket until the next process takes it.
        wait_until("another process answers", || {
            host.ask("drover-net").is_ok_and(|pid| pid != before)
        })?;
        wait_until("the pid file follows", || {
            host.pid("drover-net").is_ok_and(|pid| pid != before)
        })?;
    }
    up.stop()?;
    Ok(())
}

fn a_child_that_asks_is_restarted() -> anyhow::Result<()> {
    let host = Host::new()?;
    let up = host.up()?;
    let before = host.pid("drover-coordinator")?;
    // The answer is cut off, since the process ends in the middle of it.
    drop(host.post("drover-coordinator", "/end?75"));
    wait_until("another process answers", || {
        host.ask("drover-coordinator")
            .is_ok_and(|pid| pid != before)
    })?;
    up.stop()?;
    Ok(())
}

fn children_outlive_a_killed_supervisor() -> anyhow::Result<()> {
    let host = Host::new()?;
    let mut up = host.up()?;
    up.signal(Signal::SIGKILL)?;
    up.child.wait()?;
    let mut before = Vec::new();
    for child in CHILDREN {
        before.push(
            host.ask(child)
                .with_context(|| format!("{child} died too"))?,
        );
    }
    let up = host.up()?;
    for (child, before) in CHILDREN.into_iter().zip(before) {
        ensure!(!runs(before), "the first {child} runs on");
        ensure!(host.ask(child)? != before, "{child} was not replaced");
    }
    up.stop()?;
    Ok(())
}

fn a_service_manager_is_told() -> anyhow::Result<()> {
    let host = Host::new()?;
    let socket = UnixDatagram::bind(host.path("notify.sock"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let told = || -> anyhow::Result<String> {
        let mut message = [0; 256];
        let length = socket.recv(&mut message)?;
        Ok(String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned())
    };
    let mut command = host.command();
    command.env("NOTIFY_SOCKET", host.path("notify.sock"));
    let up = Host::started(command)?;
    ensure!(told()? == "READY=1\nSTATUS=every process answers\n");
    up.stop()?;
    ensure!(told()? == "STOPPING=1\n");
    Ok(())
}

fn a_missing_program_is_named() -> anyhow::Result<()> {
    let host = Host::new()?;
    std::fs::remove_file(host.path("programs/drover-ipam"))?;
    let output = host.command().output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(69),
        "it ended with {}",
        output.status
    );
    ensure!(
        said.contains("`drover-ipam`") && said.contains("PATH"),
        "{said}"
    );
    ensure!(
        !host.socket("drover-net").exists(),
        "a socket without a process stays"
    );
    Ok(())
}
