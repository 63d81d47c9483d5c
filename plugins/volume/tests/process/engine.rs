//! A real engine, with nothing but what volumes need: no networks, and an image of this machine's shell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

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

    /// The same, with a script as its last word.
    pub(crate) fn docker_with(&self, words: &str, script: &str) -> String {
        self.done(self.command().args(words.split_whitespace()).arg(script))
    }

    /// The same, which must fail; what it says.
    pub(crate) fn refused(&self, words: &str, script: &str) -> String {
        let mut command = self.command();
        let done = command
            .args(words.split_whitespace())
            .arg(script)
            .output()
            .unwrap();
        assert!(!done.status.success(), "{command:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
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
