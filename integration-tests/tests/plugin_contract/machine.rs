//! A machine for Drover's programs: a namespace, directories, the programs, and no engine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
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

/// The programs on a machine of their own. All ends, and all files go, when it is dropped.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    namespace: Child,
    programs: BTreeMap<&'static str, Child>,
    binaries: PathBuf,
    /// Accepts connections and never answers, as an engine that boots.
    _engine: UnixListener,
}

impl Machine {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["state", "run", "plugins"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
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
        wait("the namespace", || ready.exists());
        let binaries = cache::binaries().unwrap();
        let programs = BTreeMap::new();
        let mut machine = Self {
            directory,
            namespace,
            programs,
            binaries,
            _engine: engine,
        };
        for program in PROGRAMS {
            machine.run(program);
        }
        machine
    }

    pub(crate) fn engine(&self, version: EngineVersion) -> FakeEngine {
        let (network, ipam) = (self.socket("drover-net"), self.socket("drover-ipam"));
        FakeEngine::new(version, &network, &ipam)
            .with_pause(Duration::from_millis(100))
            .with_option("encryption", "off")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self, program: &str) -> PathBuf {
        match program {
            "drover-coordinator" => self.path().join("run/control.sock"),
            plugin => self
                .path()
                .join("plugins")
                .join(plugin)
                .with_extension("sock"),
        }
    }

    /// Starts a program and waits until its socket takes connections.
    pub(crate) fn run(&mut self, program: &'static str) {
        let binary = self.binaries.join(program);
        assert!(
            binary.exists(),
            "`{}` is not there: build it first",
            binary.display()
        );
        let log = self.path().join(format!("{program}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let path = |name: &str| self.path().join(name).display().to_string();
        let child = Command::new("nsenter")
            .arg(format!("--target={}", self.namespace.id()))
            .args(["--net", "--mount", "--"])
            .arg(binary)
            .env("DROVER_CONFIG", "/dev/null")
            .env("DROVER_STATE_DIR", path("state"))
            .env("DROVER_RUN_DIR", path("run"))
            .env("DROVER_PLUGIN_DIR", path("plugins"))
            .env(
                "DROVER_DOCKER_HOST",
                format!("unix://{}", path("docker.sock")),
            )
            .env("DROVER_HOST_NAME", "alone")
            .env("DROVER_ADVERTISE_ADDR", "192.0.2.1")
            .env("DROVER_POOLS_QUARANTINE", "1s")
            .env("DROVER_LOG_LEVEL", "debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut child = child;
        let socket = self.socket(program);
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "{program} does not serve ({ended:?})\n{}",
                self.logs()
            );
            thread::sleep(Duration::from_millis(10));
        }
        self.programs.insert(program, child);
    }

    /// Kills a program as a crash does.
    pub(crate) fn kill(&mut self, program: &str) {
        let mut child = self.programs.remove(program).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a program in order, and waits for its end.
    pub(crate) fn stop(&mut self, program: &str) {
        let mut child = self.programs.remove(program).unwrap();
        kill(process(&child), Signal::SIGTERM).unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < PATIENCE,
                "{program} does not stop\n{}",
                self.logs()
            );
            thread::sleep(Duration::from_millis(5));
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

    /// The links of the namespace that an engine would be in.
    pub(crate) fn links(&self) -> String {
        let listed = Command::new("nsenter")
            .arg(format!("--target={}", self.namespace.id()))
            .args(["--net", "--", "ip", "-brief", "link"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }

    /// The ends of the logs.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for program in PROGRAMS {
            let log = fs::read_to_string(self.path().join(format!("{program}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(25)..].join("\n");
            text.push_str(&format!("---- {program}\n{end}\n"));
        }
        text
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in self.programs.values_mut() {
            let _killed = child.kill();
            let _ended = child.wait();
        }
        let _killed = self.namespace.kill();
        let _ended = self.namespace.wait();
    }
}

fn process(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what} is not there");
        thread::sleep(Duration::from_millis(5));
    }
}
