//! A machine for Drover: namespaces, directories, `drover up`, and no engine.
//!
//! All of its processes are in one process namespace whose first process ends with the test: nothing
//! outlives a test, not even one that is killed.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use drover_testkit::capability::{Capability, can_test};
use drover_testkit::{EngineVersion, FakeEngine, Fault};
use integration_tests::cache;

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the machine cannot run these tests; says so, and fails where it must be able to.
pub(crate) fn skip() -> bool {
    let needs = [
        Capability::Namespaces,
        Capability::Vxlan,
        Capability::Forwarding,
    ];
    !can_test(&needs)
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
        let namespace = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
            ])
            .args(["--kill-child", "--mount-proc", "sh", "-ec", &script])
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
        let child = self
            .enter(&["--net", "--mount", "--pid"])
            .args(["sh", "-c", "echo $$ > \"$0\"; exec \"$@\""])
            .arg(path("drover.pid"))
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

    /// A command in these of the machine's namespaces.
    fn enter(&self, namespaces: &[&str]) -> Command {
        let unshare = self.namespace.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let first = fs::read_to_string(children).unwrap();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", first.trim()))
            .args(namespaces)
            .arg("--");
        command
    }

    /// The process that serves a socket, by its number on the machine.
    fn process(&self, program: &str) -> Option<String> {
        let file = self.path("run/pids").join(program).with_extension("pid");
        let text = fs::read_to_string(file).ok()?;
        let process = text.split_whitespace().next()?.to_owned();
        self.kill("-0", &process).then_some(process)
    }

    /// Sends a signal to a process of the machine, and says whether it was there.
    fn kill(&self, signal: &str, process: &str) -> bool {
        let mut kill = self.enter(&["--mount", "--pid"]);
        kill.args(["kill", signal, "--", process])
            .stderr(Stdio::null());
        kill.status().is_ok_and(|status| status.success())
    }

    fn signal(&self, program: &str, signal: &str) -> String {
        let process = self.process(program);
        let process = process.unwrap_or_else(|| panic!("{program} does not run\n{}", self.logs()));
        assert!(
            self.kill(signal, &process),
            "{program} is gone\n{}",
            self.logs()
        );
        process
    }

    /// Kills a process and waits until another has taken its place.
    pub(crate) fn crash_one(&self, program: &str) {
        let before = self.signal(program, "-KILL");
        self.wait(program, |machine| {
            machine
                .process(program)
                .is_some_and(|process| process != before)
        });
    }

    /// Asks a process to stop. Another takes its place.
    pub(crate) fn stop(&self, program: &str) {
        self.signal(program, "-TERM");
    }

    /// Makes a process do nothing more.
    pub(crate) fn freeze(&self, program: &str) {
        self.signal(program, "-STOP");
    }

    /// Makes it go on.
    pub(crate) fn thaw(&self, program: &str) {
        self.signal(program, "-CONT");
    }

    /// Stops all of Drover in order.
    pub(crate) fn down(&mut self) {
        let process = fs::read_to_string(self.path("drover.pid")).unwrap();
        assert!(self.kill("-TERM", process.trim()), "{}", self.logs());
        let began = Instant::now();
        let drover = self.drover.as_mut().unwrap();
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
        // All but the first process of the namespace, and the one that says so.
        self.kill("-KILL", "-1");
        if let Some(mut drover) = self.drover.take() {
            drover.wait().unwrap();
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
        let listed = self
            .enter(&["--net"])
            .args(["ip", "-brief", "link"])
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
        let _killed = self.namespace.kill();
        let _ended = self.namespace.wait();
        if let Some(mut drover) = self.drover.take() {
            let _killed = drover.kill();
            let _ended = drover.wait();
        }
    }
}
