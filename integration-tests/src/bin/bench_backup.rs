//! Backups of a block device against restic on the same data: a full backup, one of 1 % changed, a restore, and memory.
//!
//! `cargo run --release -p integration-tests --bin bench_backup [-- --rounds 3 --mebibytes 1024]`, after
//! `cargo build --release -p drover-backup`; restic has to be installed.
//!
//! The image is half noise, half text that compresses. Each round begins with empty repositories in directories. Drover
//! is told which ranges have changed, as the metadata of a thin pool tells them; restic reads the image, as it has to.
//! Aims: full at restic's speed; 1 % changed at most 3 % of full; less than 200 MB of memory.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::cache;
use integration_tests::measure::{Samples, Table, progress, say};
use serde_json::{Value, json};

const MEBIBYTE: u64 = 1 << 20;

/// How often the memory of a process is looked at.
const LOOK: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let (rounds, mebibytes) = arguments()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench::prepare(folder.path(), mebibytes)?;
    let build = if cfg!(debug_assertions) {
        "built without optimisation"
    } else {
        "release build"
    };
    say(&format!("{mebibytes} MiB, {rounds} rounds, {build}"));
    let mut drover = Measured::default();
    let mut restic = Measured::default();
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        bench.reset()?;
        let full = bench.drover(bench.create(None, json!(null)))?;
        let id = text(&full.outcome, "/outcome/backup/id")?;
        drover.full.push(full.seconds);
        restic
            .full
            .push(bench.restic(&["backup", "--quiet", "image"])?.seconds);
        let changed = bench.change(round)?;
        let second = bench.drover(bench.create(Some(&id), changed))?;
        drover.changed.push(second.seconds);
        restic
            .changed
            .push(bench.restic(&["backup", "--quiet", "image"])?.seconds);
        let restored = bench.drover(bench.restore())?;
        drover.restore.push(restored.seconds);
        bench.compare()?;
        let of_restic = ["restore", "latest", "--target", "by-restic"];
        restic.restore.push(bench.restic(&of_restic)?.seconds);
        for run in [&full, &second, &restored] {
            drover.memory.push(run.memory);
        }
    }
    report(&drover, &restic, mebibytes);
    Ok(())
}

fn arguments() -> Result<(usize, u64)> {
    let (mut rounds, mut mebibytes) = (3, 1024);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => rounds = value.parse().context("--rounds")?,
            "--mebibytes" => mebibytes = value.parse().context("--mebibytes")?,
            _ => bail!("unknown {flag}; there are --rounds and --mebibytes"),
        }
    }
    ensure!(
        rounds > 0 && mebibytes >= 100,
        "at least one round, and 100 MiB"
    );
    Ok((rounds, mebibytes))
}

#[derive(Debug, Default)]
struct Measured {
    full: Samples,
    changed: Samples,
    restore: Samples,
    memory: Samples,
}

fn report(drover: &Measured, restic: &Measured, mebibytes: u64) {
    let size = f64::from(u32::try_from(mebibytes).unwrap_or(u32::MAX));
    let mut table = Table::new(&[
        "",
        "Drover s",
        "MiB/s",
        "restic s",
        "MiB/s",
        "Drover to restic",
    ]);
    for (name, ours, theirs) in [
        ("full", &drover.full, &restic.full),
        ("1 % changed", &drover.changed, &restic.changed),
        ("restore", &drover.restore, &restic.restore),
    ] {
        let (ours, theirs) = (ours.median(), theirs.median());
        table.row(&[
            name.to_owned(),
            format!("{ours:.2}"),
            format!("{:.0}", size / ours),
            format!("{theirs:.2}"),
            format!("{:.0}", size / theirs),
            format!("{:.2}", ours / theirs),
        ]);
    }
    say(&table.text());
    let part = 100.0 * drover.changed.median() / drover.full.median();
    let of_restic = 100.0 * restic.changed.median() / restic.full.median();
    say(&format!(
        "1 % changed takes {part:.1} % of a full backup (restic: {of_restic:.1} %); memory {:.0} MB at most",
        drover.memory.quantile(100)
    ));
}

/// What a run took.
struct Run {
    outcome: Value,
    seconds: f64,
    /// The largest resident set that was seen, MB.
    memory: f64,
}

struct Bench {
    folder: PathBuf,
    program: PathBuf,
    size: u64,
}

impl Bench {
    fn prepare(folder: &Path, mebibytes: u64) -> Result<Self> {
        let bench = Self {
            folder: folder.to_owned(),
            program: cache::binaries()?.join("drover-backup"),
            size: mebibytes * MEBIBYTE,
        };
        ensure!(
            bench.program.exists(),
            "there is no {}; build it: cargo build --release -p drover-backup",
            bench.program.display()
        );
        let password = folder.join("password");
        fs::write(&password, "benchmark\n")?;
        fs::set_permissions(
            &password,
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )?;
        let mut image = File::create(folder.join("image"))?;
        for number in 0..mebibytes {
            image.write_all(&mebibyte(number))?;
        }
        image.sync_all()?;
        Ok(bench)
    }

    /// Empty repositories; nothing that was restored.
    fn reset(&self) -> Result<()> {
        for name in ["drover", "restic", "restored", "by-restic"] {
            let path = self.folder.join(name);
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if path.exists() {
                fs::remove_file(path)?;
            }
        }
        self.drover(json!({"kind": "init"}))?;
        self.restic(&["init", "--quiet"])?;
        Ok(())
    }

    fn create(&self, parent: Option<&str>, changed: Value) -> Value {
        let image = self.folder.join("image");
        json!({
            "kind": "create", "volume": "disk", "host": "bench", "parent": parent,
            "source": {"kind": "block", "path": image, "size": self.size, "changed": changed},
        })
    }

    fn restore(&self) -> Value {
        let path = self.folder.join("restored");
        json!({
            "kind": "restore", "backup": {"volume": "disk"},
            "target": {"kind": "block", "path": path},
        })
    }

    /// Changes 1 % of the image, in pieces of 1 MiB that lie apart; tells where.
    fn change(&self, round: usize) -> Result<Value> {
        let image = File::options()
            .write(true)
            .open(self.folder.join("image"))?;
        let pieces = self.size / MEBIBYTE / 100;
        let mut changed = Vec::new();
        for piece in 0..pieces {
            let offset = piece * 100 * MEBIBYTE;
            let seed = u64::try_from(round)? * 1_000_003 + piece + 0x00ab_cdef;
            image.write_all_at(&mebibyte(seed * 2), offset)?;
            changed.push(json!({"offset": offset, "length": MEBIBYTE}));
        }
        image.sync_all()?;
        Ok(Value::Array(changed))
    }

    fn compare(&self) -> Result<()> {
        let same = Command::new("cmp")
            .args(["image", "restored"])
            .current_dir(&self.folder)
            .status()?;
        ensure!(
            same.success(),
            "what was restored is not what was backed up"
        );
        Ok(())
    }

    fn drover(&self, operation: Value) -> Result<Run> {
        let request = json!({
            "repository": {
                "url": self.folder.join("drover"),
                "password_file": self.folder.join("password"),
            },
            "operation": operation,
        });
        let begun = Instant::now();
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(request.to_string().as_bytes())?;
        drop(stdin);
        let mut run = watched(child, begun)?;
        let last = run.1.lines().last().unwrap_or_default().to_owned();
        run.0.outcome = serde_json::from_str(&last).with_context(|| last.clone())?;
        ensure!(
            run.0.outcome.pointer("/event") == Some(&json!("done")),
            "drover-backup: {last}"
        );
        Ok(run.0)
    }

    fn restic(&self, arguments: &[&str]) -> Result<Run> {
        let begun = Instant::now();
        let child = Command::new("restic")
            .args([
                "--no-cache",
                "--repo",
                "restic",
                "--password-file",
                "password",
            ])
            .args(arguments)
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting restic")?;
        Ok(watched(child, begun)?.0)
    }
}

/// Waits for a process, and looks at its memory meanwhile.
fn watched(mut child: Child, begun: Instant) -> Result<(Run, String)> {
    let stdout = child.stdout.take().context("no standard output")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
    let status = format!("/proc/{}/status", child.id());
    let mut memory: f64 = 0.0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        let seen = fs::read_to_string(&status).unwrap_or_default();
        let peak = seen.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kilobytes) = peak.and_then(|peak| peak.split_whitespace().next()) {
            memory = memory.max(kilobytes.parse::<f64>()? / 1000.0);
        }
        std::thread::sleep(LOOK);
    };
    let seconds = begun.elapsed().as_secs_f64();
    let said = reader.join().ok().context("a reader panicked")??;
    ensure!(ended.success(), "it failed: {said}");
    let run = Run {
        outcome: Value::Null,
        seconds,
        memory,
    };
    Ok((run, said))
}

/// A mebibyte of its own: of an even number noise, of an odd one text.
fn mebibyte(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    if number.is_multiple_of(2) {
        return std::iter::repeat_with(|| next().to_le_bytes())
            .flatten()
            .take(1 << 20)
            .collect();
    }
    let mut text = String::with_capacity((1 << 20) + 40);
    while text.len() < 1 << 20 {
        text.push_str(&format!("row {} of the table\n", next() % 100_000));
    }
    text.truncate(1 << 20);
    text.into_bytes()
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(ToOwned::to_owned)
        .with_context(|| format!("no {pointer} in {value}"))
}
