//! `drover-backup` and restic, run and watched.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::cache;
use serde_json::{Value, json};

/// How often the memory of a process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a run took.
pub(crate) struct Run {
    /// The last line of `drover-backup`.
    pub(crate) outcome: Value,
    pub(crate) seconds: f64,
    /// What it took of processors, seconds: nearly the same whatever else runs.
    pub(crate) processor: f64,
    /// The largest resident set, MB.
    pub(crate) memory: f64,
}

/// The programs, and the password of all repositories.
pub(crate) struct Programs {
    drover_backup: PathBuf,
    password: PathBuf,
    /// Where keys that were derived are known, as they are to `drover-vol`'s workers.
    keys: PathBuf,
    /// restic's, as it has one unless it is told otherwise.
    cache: PathBuf,
}

impl Programs {
    pub(crate) fn prepare(folder: &Path) -> Result<Self> {
        let drover_backup = cache::binaries()?.join("drover-backup");
        ensure!(
            drover_backup.exists(),
            "there is no {}; build it: cargo build --release -p drover-backup",
            drover_backup.display()
        );
        let password = folder.join("password");
        fs::write(&password, "benchmark\n")?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            drover_backup,
            password,
            keys: folder.join("memory/keys"),
            cache: folder.join("cache"),
        })
    }

    /// As on a host that knows nothing of the repository.
    pub(crate) fn drover(&self, repository: &Path, operation: &Value) -> Result<Run> {
        self.ask(
            json!({"url": repository, "password_file": self.password}),
            operation,
        )
    }

    /// As on a host that backs up to it, now and again.
    pub(crate) fn drover_again(&self, repository: &Path, operation: &Value) -> Result<Run> {
        self.ask(
            json!({"url": repository, "password_file": self.password, "keys": self.keys}),
            operation,
        )
    }

    fn ask(&self, repository: Value, operation: &Value) -> Result<Run> {
        let request = json!({"repository": repository, "operation": operation});
        let begun = Instant::now();
        let mut child = Command::new(&self.drover_backup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(request.to_string().as_bytes())?;
        drop(stdin);
        let (mut run, said) = watched(child, begun)?;
        let last = said.lines().last().unwrap_or_default().to_owned();
        run.outcome = serde_json::from_str(&last).with_context(|| last.clone())?;
        let is_done = run.outcome.pointer("/event") == Some(&json!("done"));
        ensure!(is_done, "drover-backup: {last}");
        Ok(run)
    }

    pub(crate) fn restic(&self, repository: &Path, arguments: &[&str]) -> Result<Run> {
        let begun = Instant::now();
        let child = Command::new("restic")
            .arg("--cache-dir")
            .arg(&self.cache)
            .arg("--repo")
            .arg(repository)
            .arg("--password-file")
            .arg(&self.password)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting restic")?;
        Ok(watched(child, begun)?.0)
    }
}

/// Waits for a process, and looks at its memory and its time on processors meanwhile.
fn watched(mut child: Child, begun: Instant) -> Result<(Run, String)> {
    let stdout = child.stdout.take().context("no standard output")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
    let mut run = Run {
        outcome: Value::Null,
        seconds: 0.0,
        processor: 0.0,
        memory: 0.0,
    };
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        run.memory = memory(child.id()).unwrap_or(0.0).max(run.memory);
        run.processor = processor(child.id()).unwrap_or(0.0).max(run.processor);
        std::thread::sleep(LOOK);
    };
    run.seconds = begun.elapsed().as_secs_f64();
    let said = reader.join().ok().context("a reader panicked")??;
    ensure!(ended.success(), "it failed: {said}");
    Ok((run, said))
}

/// The largest resident set of a process until now, MB.
fn memory(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = peak.split_whitespace().next()?.parse().ok()?;
    // The kernel's kB are of 1024 bytes.
    Some(kilobytes * 1.024 / 1000.0)
}

/// What a process has taken of processors until now, seconds.
fn processor(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second; the second one ends with the last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}
