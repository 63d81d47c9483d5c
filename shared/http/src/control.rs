//! The control API over HTTP: calling a method, answering one, and reading a stream of events.

use std::time::Duration;

use drover_control_api::{Failure, FailureKind, Method};
use serde::de::DeserializeOwned;

use crate::{Client, ClientError, Lines, Response};

/// The coordinator's streams show a sign of life, an empty line, more often than this.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a stream of events does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Neither an event nor a sign of life for a minute.
    #[error("it shows no sign of life")]
    Silent,
    /// The connection is gone.
    #[error("it was cut")]
    Cut(#[from] ClientError),
    /// A line that is no event.
    #[error("a line of it is not an event")]
    Malformed(#[source] serde_json::Error),
}

/// The next event of a stream of the coordinator's; `None` when it has ended in good order.
///
/// Cancel-safe: nothing that was read is lost.
///
/// # Errors
/// When the stream is cut, shows no sign of life, or has a line that is no event.
pub async fn next_event<T: DeserializeOwned>(lines: &mut Lines) -> Result<Option<T>, StreamError> {
    loop {
        let line = tokio::time::timeout(SILENCE, lines.next()).await;
        let Some(line) = line.map_err(|_elapsed| StreamError::Silent)?? else {
            return Ok(None);
        };
        if !line.is_empty() {
            let event = serde_json::from_str(&line).map_err(StreamError::Malformed)?;
            return Ok(Some(event));
        }
    }
}

/// Why a call of the control API has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other side was reached and said no.
    #[error(transparent)]
    Failure(Failure),
    /// The other side was not reached, or did not answer in time.
    #[error("`{method}` was not answered")]
    Transport {
        /// The path of the method.
        method: &'static str,
        /// What happened.
        source: ClientError,
    },
    /// The other side answered something else than the method's answer.
    #[error("the answer to `{method}` (status {status}) is not what it should be")]
    Malformed {
        /// The path of the method.
        method: &'static str,
        /// The status it came with.
        status: u16,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl CallError {
    /// Whether asking again later may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failure(failure) => failure.kind == FailureKind::Unavailable,
            Self::Transport { .. } => true,
            Self::Malformed { .. } => false,
        }
    }
}

impl From<CallError> for Failure {
    /// What to tell somebody who asked us, when we had to ask somebody else.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Failure(failure) => failure,
            CallError::Transport { method, source } => {
                let text = format!("`{method}` was not answered: {}", chain(&source));
                Self::new(FailureKind::Unavailable, text)
            }
            CallError::Malformed { ref source, .. } => {
                Self::new(FailureKind::Internal, format!("{error}: {source}"))
            }
        }
    }
}

/// An error and its causes, joined by `: `.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Calls a method and waits at most `limit` for the answer.
///
/// # Errors
/// When the other side refuses, cannot be reached, or does not answer in time.
pub async fn call<M: Method>(
    client: &Client,
    request: &M,
    limit: Duration,
) -> Result<M::Answer, CallError> {
    let method = M::PATH;
    let malformed = |status| {
        move |source| CallError::Malformed {
            method,
            status,
            source,
        }
    };
    let body = serde_json::to_vec(request).map_err(malformed(0))?;
    let answer = client
        .send(hyper::Method::POST, method, Some(body), limit)
        .await
        .map_err(|source| CallError::Transport { method, source })?;
    if answer.status == 200 {
        return serde_json::from_slice(&answer.body).map_err(malformed(answer.status));
    }
    let failure = serde_json::from_slice(&answer.body).map_err(malformed(answer.status))?;
    Err(CallError::Failure(failure))
}

/// Reads a request. An empty body is never a request: it is what a client sends that lost the body.
///
/// # Errors
/// [`FailureKind::InvalidInput`] when the body is not the method's request.
pub fn decode<M: Method>(body: &[u8]) -> Result<M, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let message = if body.is_empty() {
            format!(
                "`{}` came without a body: send the request as JSON",
                M::PATH
            )
        } else {
            format!("the body of `{}` is not its request: {error}", M::PATH)
        };
        Failure::new(FailureKind::InvalidInput, message)
    })
}

/// Writes an answer or a failure.
#[must_use]
pub fn answer<M: Method>(result: Result<M::Answer, Failure>) -> Response {
    match result {
        Ok(answer) => Response::json(200, &answer),
        Err(failure) => Response::failure(&failure),
    }
}
