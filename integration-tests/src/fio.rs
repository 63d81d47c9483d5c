//! `fio`, as the benchmarks of volumes run it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What `fio` tells of one job, which begins when nothing of an earlier one is left to be written.
///
/// # Errors
/// Fails when the job does.
pub fn fio(place: &Path, flags: &str) -> Result<Value> {
    answer(start(place, flags)?, flags)
}

/// Begins a job.
///
/// # Errors
/// Fails when it cannot be begun.
pub fn start(place: &Path, flags: &str) -> Result<Child> {
    let synced = Command::new("sync").arg("-f").arg(place).status()?;
    ensure!(synced.success(), "`sync -f {}` failed", place.display());
    let mut command = Command::new("fio");
    command
        .args(["--name=job", "--ioengine=psync", "--output-format=json"])
        .args(["--fallocate=none", "--randrepeat=1"])
        .arg(format!("--directory={}", place.display()))
        .args(flags.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().context("starting fio")
}

/// What a job tells that was begun.
///
/// # Errors
/// Fails when the job does.
pub fn answer(fio: Child, flags: &str) -> Result<Value> {
    let done = fio.wait_with_output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "fio {flags}: {text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let from = text.find('{').context("fio tells nothing")?;
    let answer: Value = serde_json::from_str(text.get(from..).unwrap_or_default())?;
    let job = answer.pointer("/jobs/0").cloned();
    job.context("fio tells of no job")
}

/// A figure of what a job tells.
///
/// # Errors
/// Fails when it is not told.
pub fn number(answer: &Value, path: &str) -> Result<f64> {
    let found = answer.pointer(&format!("/{path}"));
    found
        .and_then(Value::as_f64)
        .with_context(|| format!("fio tells no {path}"))
}
