//! The backup worker, `drover-backup`: a process for each piece of work.

use std::future::Future;
use std::path::Path;
use std::process::Stdio;

use drover_backup_protocol::{Event, Outcome, Progress, Request};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tracing::warn;

use crate::error::{Error, Result};

/// The program.
pub(crate) const PROGRAM: &str = "drover-backup";

/// Has a piece of work done, or killed once `stop` is there. It has ended when this returns. `told` hears how far it is.
///
/// # Errors
/// When the worker cannot be started, cannot do it, or dies.
pub(crate) async fn run(
    program: &Path,
    request: &Request,
    told: impl Fn(Progress),
    stop: impl Future<Output = ()>,
) -> Result<Outcome> {
    // Also when nobody waits for this any more; and it ends by itself when this process is killed.
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Error::Unavailable(format!(
                "`{}` cannot be started: {error}; install it there",
                program.display()
            ))
        })?;
    let outcome = tokio::select! {
        outcome = converse(&mut child, request, told) => outcome,
        () = stop => Err(Error::Conflict("it was stopped: its volume goes".to_owned())),
    };
    // One that has told how its work ended has nothing left to do.
    child.kill().await.map_err(died)?;
    outcome
}

async fn converse(
    child: &mut Child,
    request: &Request,
    told: impl Fn(Progress),
) -> Result<Outcome> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(died("it has no standard input and output"));
    };
    let asked = serde_json::to_vec(request).map_err(died)?;
    stdin.write_all(&asked).await.map_err(died)?;
    drop(stdin);
    let mut lines = BufReader::new(stdout).lines();
    let mut ended = None;
    while let Some(line) = lines.next_line().await.map_err(died)? {
        match serde_json::from_str(&line).map_err(died)? {
            Event::Progress(progress) => told(progress),
            Event::Warning { message } => warn!("{PROGRAM}: {message}"),
            Event::Done { outcome } => ended = Some(Ok(outcome)),
            Event::Failed(failure) => ended = Some(Err(failure.into())),
        }
    }
    ended.unwrap_or_else(|| Err(died("it did not say how its work ended")))
}

/// An answer of another version.
pub(crate) fn foreign() -> Error {
    Error::Internal(format!(
        "`{PROGRAM}` answered something else: run the same version of both"
    ))
}

/// A worker that ended without a word: what it had sent is found and used by the next.
fn died(reason: impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("`{PROGRAM}` died: {reason}"))
}
