//! Programs that the lab runs, and what came of them.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// Its standard output without the last line end, when it succeeded.
    ///
    /// # Errors
    /// Fails with everything it said when it did not.
    pub fn succeeded(self) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout.trim_end().to_owned());
        }
        bail!(
            "`{}` ended with {:?} after {:?}: {}{}",
            self.command,
            self.code,
            self.took,
            self.stdout,
            self.stderr
        )
    }

    /// All that it said, when it failed.
    ///
    /// # Errors
    /// Fails when it succeeded.
    pub fn failed(self) -> Result<String> {
        if self.code == Some(0) {
            bail!(
                "`{}` succeeded, and was to fail; it said: {}{}",
                self.command,
                self.stdout,
                self.stderr
            )
        }
        Ok(format!("{}{}", self.stdout, self.stderr)
            .trim_end()
            .to_owned())
    }
}

/// Runs a prepared command to its end. With `DROVER_LAB_TRACE` each is told, with the time that it took.
///
/// # Errors
/// Fails when it cannot be started.
pub fn output(command: &mut Command, shown: &str) -> Result<Output> {
    let begun = Instant::now();
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{shown}`"))?;
    if std::env::var_os("DROVER_LAB_TRACE").is_some() {
        // Whoever asked for it has closed the stream, then.
        let _told = writeln!(std::io::stderr(), "{:8.2?} {shown}", begun.elapsed());
    }
    Ok(Output {
        command: shown.to_owned(),
        code: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        took: begun.elapsed(),
    })
}

/// Runs a program on the machine itself.
///
/// # Errors
/// Fails when it does.
pub fn machine<S: AsRef<OsStr>>(arguments: &[S]) -> Result<String> {
    let Some((program, rest)) = arguments.split_first() else {
        bail!("no program was named")
    };
    let shown = arguments
        .iter()
        .map(|argument| argument.as_ref().to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    output(Command::new(program).args(rest), &shown)?.succeeded()
}

/// A command that begins a set of namespaces and dies with this process.
#[must_use]
pub fn in_own_namespaces(flags: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(flags);
    command
}
