//! Asking the processes of this host, and what an error means for the exit code.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_control_api::coordinator::{Status, StatusAnswer};
use drover_control_api::plugin::Identity;
use drover_control_api::{Failure, FailureKind, Method, plugin};
use drover_daemon::{Exit, Settings};
use drover_http::control::{CallError, call};
use drover_http::{Client, ClientError};
use tokio::time::{Instant, sleep};

use crate::process::Process;

/// The exit code of a command that was refused, or that found something.
pub(crate) const REFUSED: u8 = 1;
/// How long a question about what is there may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// How often is asked whether the coordinator is there again.
const AGAIN: Duration = Duration::from_millis(50);

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Nobody answers on a socket.
    #[error(
        "`{}` does not answer on `{}` ({reason}): is `drover up` running?", .process.name(), .socket.display()
    )]
    NotRunning {
        /// Who should.
        process: Process,
        /// Where.
        socket: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// The socket is another user's.
    #[error("you may not use `{}`: run this as root", .0.display())]
    NotAllowed(PathBuf),
    /// The process answered with a refusal.
    #[error("{0}")]
    Refused(Failure),
    /// The process answered something else.
    #[error("`{}` answers in a form this `drover` does not know ({reason}): run the same version of both", .process.name())]
    Foreign {
        /// Who.
        process: Process,
        /// What is wrong.
        reason: String,
    },
    /// The coordinator was to come back and did not.
    #[error("the coordinator did not come back within {} s: see the log of `drover up`, then `drover status`", .0.as_secs())]
    NotBack(Duration),
    /// Something else, in a sentence, with its exit code.
    #[error("{sentence}")]
    Other {
        /// What is wrong and what to do.
        sentence: String,
        /// The exit code.
        code: u8,
    },
}

impl CommandError {
    /// Something that is not there or does not answer.
    pub(crate) fn unavailable(sentence: impl Into<String>) -> Self {
        Self::Other {
            sentence: sentence.into(),
            code: Exit::Unavailable.code(),
        }
    }

    /// Something that may not be done as things are.
    pub(crate) fn refused(sentence: impl Into<String>) -> Self {
        Self::Other {
            sentence: sentence.into(),
            code: REFUSED,
        }
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } | Self::NotBack(_) => Exit::Unavailable.code(),
            Self::NotAllowed(_) => Exit::Permission.code(),
            Self::Foreign { .. } => Exit::Bug.code(),
            Self::Other { code, .. } => *code,
            Self::Refused(failure) => match failure.kind {
                FailureKind::InvalidInput => Exit::Usage.code(),
                FailureKind::Unavailable => Exit::Unavailable.code(),
                FailureKind::Internal => Exit::Bug.code(),
                FailureKind::NotFound | FailureKind::Conflict | FailureKind::Denied => REFUSED,
            },
        }
    }
}

/// Calls a method of a process of this host.
pub(crate) async fn ask<M: Method>(
    settings: &Settings,
    process: Process,
    request: &M,
    limit: Duration,
) -> Result<M::Answer, CommandError> {
    let socket = process.socket(settings);
    let client = Client::unix(&socket);
    call(&client, request, limit)
        .await
        .map_err(|error| explain(process, &socket, error))
}

fn explain(process: Process, socket: &Path, error: CallError) -> CommandError {
    match error {
        CallError::Failure(failure) => CommandError::Refused(failure),
        CallError::Malformed { source, .. } => CommandError::Foreign {
            process,
            reason: source.to_string(),
        },
        CallError::Transport { source, .. } => match source {
            ClientError::Connect { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                CommandError::NotAllowed(socket.to_owned())
            }
            other => CommandError::NotRunning {
                process,
                socket: socket.to_owned(),
                reason: innermost(&other),
            },
        },
    }
}

/// The last cause of an error: the sentence around it is ours.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .by_ref()
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// The engine, asked with the token of this host: an authorization plugin lets Drover's own calls pass.
pub(crate) fn engine(settings: &Settings) -> Result<drover_engine::Engine, drover_engine::Error> {
    let engine = drover_engine::Engine::new(&settings.docker_host)?;
    Ok(engine.with_header(
        drover_daemon::AUTHORIZATION_HEADER,
        drover_daemon::read_authorization_token(&settings.run_dir),
    ))
}

/// Asks a process who it is.
pub(crate) async fn identity(
    settings: &Settings,
    process: Process,
) -> Result<Identity, CommandError> {
    match process {
        Process::Coordinator => Ok(status(settings).await?.identity),
        Process::Ipam
        | Process::Network
        | Process::Names
        | Process::Volumes
        | Process::Authorization => ask(settings, process, &plugin::WhoAreYou {}, LIMIT).await,
    }
}

/// Asks the coordinator how it is.
pub(crate) async fn status(settings: &Settings) -> Result<StatusAnswer, CommandError> {
    ask(settings, Process::Coordinator, &Status {}, LIMIT).await
}

/// Waits until the coordinator says what is expected of it; it restarts meanwhile.
pub(crate) async fn status_when(
    settings: &Settings,
    limit: Duration,
    expected: impl Fn(&StatusAnswer) -> bool,
) -> Result<StatusAnswer, CommandError> {
    let deadline = Instant::now() + limit;
    loop {
        match status(settings).await {
            Ok(status) if expected(&status) => return Ok(status),
            _ if Instant::now() >= deadline => return Err(CommandError::NotBack(limit)),
            _ => sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_refusal_decides_the_exit_code() {
        let code = |kind| CommandError::Refused(Failure::new(kind, "no")).code();
        assert_eq!(code(FailureKind::Conflict), 1);
        assert_eq!(code(FailureKind::Denied), 1);
        assert_eq!(code(FailureKind::InvalidInput), 64);
        assert_eq!(code(FailureKind::Unavailable), 69);
        assert_eq!(code(FailureKind::Internal), 70);
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            run_dir: folder.path().to_owned(),
            ..Settings::default()
        };
        let error = status(&settings).await.unwrap_err();
        assert_eq!(error.code(), 69);
        assert!(
            error.to_string().contains("is `drover up` running?"),
            "{error}"
        );
    }
}
