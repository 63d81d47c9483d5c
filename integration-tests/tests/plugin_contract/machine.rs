//! A machine for Drover: a namespace, directories, `drover up`, and no engine.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use drover_testkit::capability::{Capability, Verdict, judge};
use drover_testkit::{EngineVersion, FakeEngine, Fault};
use integration_tests::cache;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAMS: [&str; 3] = ["drover-coordinator", "drover-ipam", "drover-net"];
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the machine cannot run these tests; says so, and fails where it must be able to.
pub(crate) fn skip() -> bool {
    let needs = [
        Capability::Namespaces,
        Capability::Vxlan,
        Capability::Forwarding,
    ];
    match judge(&needs) {
        Verdict::Run => false,
        Verdict::Skip(missing) => {
            println!("skipped: this machine has no {missing:?}");
            true
        }
        Verdict::Fail(missing) => panic!("this machine has no {missing:?}"),
    }
}

/// Drover on a machine of its own. All of it ends, and all files go, when it is dropped.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    namespace: Child,
    drover: Option<Child>,
    /// Accepts connections and never answers, as an engine that boots.
    _engine: UnixListener,
}

impl Machine {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let ready = directory.path().join("ready");
        let script = format!(
            "ip link set lo up; ip link add underlay type bridge
             ip addr add 192.0.2.1/24 dev underlay; ip link set underlay up
             : > {}; exec sleep infinity",
            ready.display()
        );
        let namespace = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-ec", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut machine = Self {
            directory,
            namespace,
            drover: None,
            _engine: engine,
        };
        machine.wait("the namespace", |_| ready.exists());
        machine.up();
        machine
    }

    pub(crate) fn engine(&self, version: EngineVersion) -> FakeEngine {
        let (network, ipam) = (self.socket("drover-net"), self.socket("drover-ipam"));
        FakeEngine::new(version, &network, &ipam)
            .with_pause(Duration::from_millis(100))
            .with_option("encryption", "off")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self, plugin: &str) -> PathBuf {
        self.path("plugins").join(plugin).with_extension("sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs `drover up` until it says that it is.
    pub(crate) fn up(&mut self) {
        let binary = cache::binaries().unwrap().join("drover");
        assert!(
            binary.exists(),
            "`{}` is not there: build it first",
            binary.display()
        );
        let said = |machine: &Self| machine.log().matches("drover is up").count();
        let before = said(self);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let path = |name: &str| self.path(name).into_os_string();
        let mut engine = std::ffi::OsString::from("unix://");
        engine.push(path("docker.sock"));
        let child = Command::new("nsenter")
            .arg(format!("--target={}", self.namespace.id()))
            .args(["--net", "--mount", "--"])
            .arg(binary)
            .arg("up")
            .env("DROVER_CONFIG", "/dev/null")
            .env("DROVER_STATE_DIR", path("state"))
            .env("DROVER_RUN_DIR", path("run"))
            .env("DROVER_PLUGIN_DIR", path("plugins"))
            .env("DROVER_DOCKER_HOST", engine)
            .env("DROVER_HOST_NAME", "alone")
            .env("DROVER_ADVERTISE_ADDR", "192.0.2.1")
            .env("DROVER_LOG_LEVEL", "debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.drover = Some(child);
        self.wait("drover", |machine| said(machine) > before);
    }

    /// The process that serves a socket.
    fn process(&self, program: &str) -> Option<Pid> {
        let file = self.path("run/pids").join(program).with_extension("pid");
        let text = fs::read_to_string(file).ok()?;
        let pid = text.split_whitespace().next()?.parse().ok()?;
        Path::new(&format!("/proc/{pid}"))
            .exists()
            .then(|| Pid::from_raw(pid))
    }

    fn signal(&self, program: &str, signal: Signal) -> Pid {
        let process = self.process(program);
        let process = process.unwrap_or_else(|| panic!("{program} does not run\n{}", self.logs()));
        kill(process, signal).unwrap();
        process
    }

    /// Ends a process with a signal and waits until another has taken its place.
    pub(crate) fn replace(&self, program: &str, signal: Signal) {
        let before = self.signal(program, signal);
        self.wait(program, |machine| {
            machine
                .process(program)
                .is_some_and(|process| process != before)
        });
    }

    /// Asks a process to stop. Another takes its place.
    pub(crate) fn stop(&self, program: &str) {
        self.signal(program, Signal::SIGTERM);
    }

    /// Makes a process do nothing more.
    pub(crate) fn freeze(&self, program: &str) {
        self.signal(program, Signal::SIGSTOP);
    }

    /// Makes it go on.
    pub(crate) fn thaw(&self, program: &str) {
        self.signal(program, Signal::SIGCONT);
    }

    /// Stops all of Drover in order.
    pub(crate) fn down(&mut self) {
        let drover = self.drover.as_mut().unwrap();
        kill(process(drover), Signal::SIGTERM).unwrap();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if drover.try_wait().unwrap().is_some() {
                self.drover = None;
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("drover does not stop\n{}", self.logs());
    }

    /// Kills all of Drover at once, as a loss of power does.
    pub(crate) fn crash(&mut self) {
        if let Some(mut drover) = self.drover.take() {
            let _killed = drover.kill();
            let _ended = drover.wait();
        }
        for program in PROGRAMS {
            if let Some(process) = self.process(program) {
                let _killed = kill(process, Signal::SIGKILL);
            }
        }
    }

    /// Tries again until it succeeds.
    pub(crate) fn eventually<T>(&self, mut attempt: impl FnMut() -> Result<T, Fault>) -> T {
        let began = Instant::now();
        loop {
            match attempt() {
                Ok(done) => return done,
                Err(fault) if began.elapsed() > PATIENCE => panic!("{fault}\n{}", self.logs()),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(
                began.elapsed() < PATIENCE,
                "{what} is not there\n{}",
                self.logs()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The links of the namespace that an engine would be in.
    pub(crate) fn links(&self) -> String {
        let listed = Command::new("nsenter")
            .arg(format!("--target={}", self.namespace.id()))
            .args(["--net", "--", "ip", "-brief", "link"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }

    /// The end of the log.
    pub(crate) fn logs(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.crash();
        let _killed = self.namespace.kill();
        let _ended = self.namespace.wait();
    }
}

fn process(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}
