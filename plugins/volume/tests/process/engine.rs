//! A real engine, with nothing but what volumes need: no networks, and an image of this machine's shell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(120);
/// What there is in the image.
const PROGRAMS: &[&str] = &["/bin/sh", "/bin/dd", "/bin/ls", "/bin/sleep", "/bin/sync"];

/// `dockerd`. It ends when this is dropped.
pub(crate) struct Dockerd {
    folder: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
}

impl Dockerd {
    /// Starts it, and gives it the image `own`.
    pub(crate) fn start(folder: &Path) -> Self {
        let groups = Path::new("/sys/fs/cgroup");
        if !groups.join("cgroup.controllers").exists() {
            let words = ["-t", "cgroup2", "none", "/sys/fs/cgroup"];
            assert!(
                Command::new("mount")
                    .args(words)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let mut engine = Self {
            folder: folder.to_owned(),
            socket: folder.join("docker.sock"),
            child: None,
        };
        engine.run();
        engine.import();
        engine
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs it until it answers.
    pub(crate) fn run(&mut self) {
        // One that was killed has left it.
        drop(fs::remove_file(self.folder.join("docker.pid")));
        let path = |name: &str| self.folder.join(name);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(path("dockerd.log"))
            .unwrap();
        let child = Command::new("dockerd")
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .arg("--data-root")
            .arg(path("docker"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("docker.pid"))
            .args([
                "--bridge",
                "none",
                "--iptables=false",
                "--storage-driver",
                "vfs",
            ])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while !self
            .command()
            .arg("version")
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(began.elapsed() < PATIENCE, "{}", self.log());
            sleep(Duration::from_millis(500));
        }
    }

    /// The shell of this machine, some programs, and the libraries that they need.
    fn import(&self) {
        let root = self.folder.join("own");
        for program in PROGRAMS {
            let libraries = Command::new("ldd").arg(program).output().unwrap();
            let libraries = String::from_utf8(libraries.stdout).unwrap();
            let paths = libraries
                .split_whitespace()
                .filter(|word| word.starts_with('/'));
            for path in paths.chain([*program]) {
                let to = root.join(path.trim_start_matches('/'));
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(path, to).unwrap();
            }
        }
        let archive = self.folder.join("own.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
        assert!(tar.status().unwrap().success());
        let mut import = self.command();
        self.done(import.arg("import").arg(&archive).arg("own"));
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()));
        command
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn done(&self, command: &mut Command) -> String {
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(
            done.status.success(),
            "{command:?}: {}\n{}",
            text(&done.stderr),
            self.log()
        );
        text(&done.stdout)
    }

    /// Runs a command of the engine's.
    pub(crate) fn docker(&self, words: &str) -> String {
        self.done(self.command().args(words.split_whitespace()))
    }

    /// The same, with words that may have spaces.
    pub(crate) fn docker_words(&self, words: &[&str]) -> String {
        self.done(self.command().args(words))
    }

    /// The same, with a script as its last word.
    pub(crate) fn docker_with(&self, words: &str, script: &str) -> String {
        self.done(self.command().args(words.split_whitespace()).arg(script))
    }

    /// The same, or why it failed.
    pub(crate) fn try_docker_with(&self, words: &str, script: &str) -> Result<String, String> {
        let mut command = self.command();
        let command = command.args(words.split_whitespace()).arg(script);
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() {
            Ok(text(&done.stdout))
        } else {
            Err(text(&done.stderr))
        }
    }

    /// The same, which must fail; what it says.
    pub(crate) fn refused(&self, words: &str, script: &str) -> String {
        self.try_docker_with(words, script).unwrap_err()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Ends it, what it has started and its containers, and removes what a restart of the machine does not leave.
    pub(crate) fn cut_power(&mut self) {
        let running = self.docker("ps -q --no-trunc");
        let containers = running.split_whitespace().map(|id| {
            let pid = self.docker(&format!("inspect -f {{{{.State.Pid}}}} {id}"));
            pid.parse::<i32>().unwrap()
        });
        let mut processes: Vec<i32> = containers.collect();
        self.kill();
        let exec = self.folder.join("exec");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = String::from_utf8_lossy(&words).contains(&*exec.to_string_lossy());
            let pid = entry.file_name().to_string_lossy().parse::<i32>();
            processes.extend(pid.ok().filter(|_| is_ours));
        }
        for pid in processes {
            // One may have ended with another.
            let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let began = Instant::now();
        while let Err(error) = fs::remove_dir_all(&exec) {
            assert!(began.elapsed() < PATIENCE, "{error}");
            let at = fs::read_to_string("/proc/thread-self/mounts").unwrap();
            let places = at.lines().filter_map(|line| line.split(' ').nth(1));
            for at in places.filter(|at| Path::new(at).starts_with(&exec)) {
                drop(Command::new("umount").arg(at).status());
            }
            sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.kill();
        // Its containerd outlives it, and ends with the kernel in user mode; elsewhere it is ended here.
        if let Ok(text) = fs::read_to_string(self.folder.join("exec/containerd/containerd.pid")) {
            drop(Command::new("kill").arg(text.trim()).status());
        }
    }
}
