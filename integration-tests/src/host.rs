//! A host of the lab: its namespaces, its disk, and commands on it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::engine::Release;
use crate::network::{Site, Underlay};
use crate::process::{self, Output};
use crate::wait;

/// What a host's first process runs.
const INIT: &str = include_str!("../lab/host-init");
/// How long a command may take when nothing else is said.
const LIMIT: Duration = Duration::from_secs(90);

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its number: the last part of its address.
    pub number: u8,
    /// Its host name.
    pub name: String,
    /// Which engine it has.
    pub release: Release,
    /// Where it hangs.
    pub site: Site,
    state: PathBuf,
    power: Option<Power>,
    background: Vec<Child>,
}

/// How soon it is looked again whether a host is off, and how many times what is frozen in it is thawed.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 500;

/// A host that is on.
#[derive(Debug)]
struct Power {
    keeper: Child,
    init: u32,
}

impl Host {
    /// Makes a host and switches it on.
    ///
    /// # Errors
    /// Fails when a namespace or mount is refused.
    pub fn boot(
        underlay: &Underlay,
        release: Release,
        site: Site,
        number: u8,
        run: &Path,
    ) -> Result<Self> {
        let name = format!("host{number}");
        let state = run.join(&name);
        fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
        let mut host = Self {
            number,
            name,
            release,
            site,
            state,
            power: None,
            background: Vec::new(),
        };
        host.switch_on(underlay)?;
        Ok(host)
    }

    /// The control group that its containers are in.
    #[must_use]
    pub fn control_group(&self) -> String {
        let run = self.state.parent().and_then(Path::file_name);
        let run = run.unwrap_or_default().to_string_lossy();
        format!("/drover-lab/{run}-{}", self.name)
    }

    /// Switches it on.
    ///
    /// # Errors
    /// Fails when a namespace or mount is refused.
    pub fn switch_on(&mut self, underlay: &Underlay) -> Result<()> {
        let log = self.state.join("init.log");
        let compose = self.release.borrowed_compose();
        let mut command = process::in_own_namespaces(&[
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child=KILL",
            "--",
            "bash",
            "-c",
            INIT,
            "host-init",
        ]);
        let mut keeper = command
            .arg(&self.name)
            .arg(cache::root(self.release.suite()))
            .arg(&self.state)
            .arg(cache::binaries()?)
            .arg(compose.unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting a host")?;
        let said = keeper.stdout.take().context("the host's output")?;
        let mut init = None;
        let mut ready = false;
        for line in BufReader::new(said).lines() {
            let line = line?;
            if let Some(pid) = line.strip_prefix("pid ") {
                init = pid.parse().ok();
            }
            if line == "ready" {
                // Its parent keeps the pipe open, so no end of it will come.
                ready = true;
                break;
            }
        }
        let (Some(init), true) = (init, ready) else {
            let _killed = keeper.kill();
            let _waited = keeper.wait();
            bail!(
                "{} does not come up: {}",
                self.name,
                fs::read_to_string(&log).unwrap_or_default()
            );
        };
        self.power = Some(Power { keeper, init });
        underlay.plug(self.site, self.number, init)
    }

    /// Pulls the plug: every process in it ends at once, its memory is gone, its disk stays.
    pub fn switch_off(&mut self) {
        if let Some(mut power) = self.power.take() {
            // Killing the first process is what ends the others; its parent ends by itself then.
            let _killed = process::machine(&["kill", "-9", &power.init.to_string()]);
            for _ in 0..LOOKS {
                if !matches!(power.keeper.try_wait(), Ok(None)) {
                    break;
                }
                self.thaw();
                std::thread::sleep(LOOK);
            }
            let _waited = power.keeper.wait();
        }
        for mut child in self.background.drain(..) {
            let _killed = child.kill();
            let _waited = child.wait();
        }
    }

    /// Thaws what a container's runtime had frozen when it was killed: in control groups of version 1 that does not end before.
    fn thaw(&self) {
        let script = "for state in $(find \"/sys/fs/cgroup/freezer$1\" -name freezer.state 2>/dev/null); do echo THAWED >\"$state\"; done";
        let group = self.control_group();
        let _thawed = process::machine(&["sh", "-c", script, "thaw", &group]);
    }

    /// Puts a program of the machine on it, below `/tmp`, and says where.
    ///
    /// # Errors
    /// Fails when it cannot be read or written.
    pub fn lend(&self, program: &Path) -> Result<String> {
        let name = program.file_name().context("a program")?.to_string_lossy();
        let place = format!("tmp/lent-{name}");
        fs::copy(program, self.root()?.join(&place)).context("lending a program")?;
        Ok(format!("/{place}"))
    }

    /// Writes a file on it.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let place = self.root()?.join(path.trim_start_matches('/'));
        fs::write(place, text).with_context(|| format!("writing {path}"))
    }

    /// Its root file system, as the machine sees it.
    ///
    /// # Errors
    /// Fails when it is off.
    pub fn root(&self) -> Result<PathBuf> {
        let init = self.init()?.to_string();
        Ok(Path::new("/proc").join(init).join("root"))
    }

    /// Its first process, as the machine sees it.
    ///
    /// # Errors
    /// Fails when it is off.
    pub fn init(&self) -> Result<u32> {
        self.power
            .as_ref()
            .map(|power| power.init)
            .with_context(|| format!("{} is off", self.name))
    }

    /// Its address on the underlay.
    #[must_use]
    pub fn address(&self) -> String {
        self.site.address(self.number)
    }

    /// Its IPv6 address on the underlay.
    #[must_use]
    pub fn address_v6(&self) -> String {
        self.site.address_v6(self.number)
    }

    /// Where a log of it, a name in `/var/log`, lies on the machine.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(name)
    }

    /// A shell command on it, as root.
    ///
    /// # Errors
    /// Fails when it is off.
    pub fn command(&self, script: &str, limit: Duration) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init()?.to_string()])
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--"])
            .args([
                "timeout",
                "--kill-after=2",
                &(limit * wait::patience()).as_secs().max(1).to_string(),
            ])
            .args(["sh", "-c", script])
            .env_clear()
            .env("PATH", "/run/lab/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        if self.release.borrowed_compose().is_some() {
            command.env("DOCKER_CONFIG", "/run/lab/docker");
        }
        Ok(command)
    }

    /// Runs a shell command on it and tells all that came of it.
    ///
    /// # Errors
    /// Fails when the command cannot be started.
    pub fn attempt(&self, script: &str) -> Result<Output> {
        process::output(
            &mut self.command(script, LIMIT)?,
            &format!("{}# {script}", self.name),
        )
    }

    /// Runs a shell command on it.
    ///
    /// # Errors
    /// Fails when the command does.
    pub fn run(&self, script: &str) -> Result<String> {
        self.attempt(script)?.succeeded()
    }

    /// Runs a shell command on it that must fail, and tells what it said.
    ///
    /// # Errors
    /// Fails when the command succeeds.
    pub fn refused(&self, script: &str) -> Result<String> {
        self.attempt(script)?.failed()
    }

    /// Starts a shell command on it that goes on, its output in a log of the host.
    ///
    /// # Errors
    /// Fails when it cannot be started.
    pub fn start(&mut self, script: &str, log: &str) -> Result<()> {
        let child = self.spawn(script, log)?;
        self.keep(child);
        Ok(())
    }

    /// Has a process that was spawned end with the host.
    pub(crate) fn keep(&mut self, child: Child) {
        self.background.push(child);
    }

    /// What [`Host::start`] starts; it ends when the script does.
    pub(crate) fn spawn(&self, script: &str, log: &str) -> Result<Child> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init()?.to_string()])
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--"])
            .args([
                "setsid",
                "sh",
                "-c",
                &format!("exec >>/var/log/{log} 2>&1; {script}"),
            ])
            .env_clear()
            .env("PATH", "/run/lab/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting `{script}` on {}", self.name))
    }

    /// The ids, in the host, of the processes that run a program.
    ///
    /// # Errors
    /// Fails when the host is off.
    pub fn processes(&self, program: &str) -> Result<Vec<u32>> {
        // Its own /proc, read from outside: a shell that does it starts a program for each process.
        let processes = self.root()?.join("proc");
        let mut found = BTreeMap::new();
        for process in fs::read_dir(processes)? {
            let process = process?;
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that has ended meanwhile, or has no program, runs none.
            let runs = fs::read_link(process.path().join("exe")).unwrap_or_default();
            let runs = runs.file_name().unwrap_or_default().to_string_lossy();
            if runs.strip_suffix(" (deleted)").unwrap_or(&runs) == program {
                let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
                found.insert(pid, parent(&stat));
            }
        }
        // A child of one of them is about to become another program.
        let is_child = |parent: &Option<u32>| parent.is_some_and(|it| found.contains_key(&it));
        let own = found.iter().filter(|(_, parent)| !is_child(parent));
        Ok(own.map(|(pid, _)| *pid).collect())
    }

    /// Kills every process of a program, and waits until it is gone.
    ///
    /// # Errors
    /// Fails when there is none.
    pub fn kill(&self, program: &str, signal: &str) -> Result<()> {
        let pids = self.processes(program)?;
        if pids.is_empty() {
            bail!("{} runs no {program}", self.name);
        }
        for pid in &pids {
            self.run(&format!("kill -{signal} {pid}"))?;
        }
        wait::until(&format!("the end of {program}"), wait::seconds(30), || {
            let left = self.processes(program)?;
            if left.iter().any(|pid| pids.contains(pid)) {
                bail!("{program} still runs on {}", self.name);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The end of a log of it.
    #[must_use]
    pub fn tail(&self, log: &str, lines: usize) -> String {
        let text = fs::read(self.log(log)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        let kept = all
            .get(all.len().saturating_sub(lines)..)
            .unwrap_or_default();
        kept.join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.switch_off();
    }
}

/// The parent in a process' `stat` (proc_pid_stat(5)).
fn parent(stat: &str) -> Option<u32> {
    let (_, after_the_name) = stat.rsplit_once(')')?;
    after_the_name.split_whitespace().nth(1)?.parse().ok()
}
