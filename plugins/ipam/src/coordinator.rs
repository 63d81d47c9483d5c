//! The coordinator of this host, as seen from here: one that is just being restarted is waited for, one that
//! is gone is said in a sentence.

use std::time::Duration;

use drover_control_api::{Failure, FailureKind, Method};
use drover_http::control::{CallError, call};
use drover_http::{Client, ClientError};
use tokio::time::Instant;

/// How long a coordinator that does not listen is waited for.
const RESTART: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
/// How long an answer may take: longer than the coordinator takes at most, so that nothing is done
/// after it was given up here.
const LIMIT: Duration = Duration::from_millis(3500);

/// A client of the coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    client: Client,
}

impl Coordinator {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Calls a method.
    pub(crate) async fn call<M: Method>(&self, request: &M) -> Result<M::Answer, Failure> {
        let began = Instant::now();
        loop {
            match call(&self.client, request, LIMIT).await {
                Ok(answer) => return Ok(answer),
                // Not connected, so not asked: asking again asks once.
                Err(CallError::Transport {
                    source: ClientError::Connect { .. },
                    ..
                }) if began.elapsed() < RESTART => {
                    tokio::time::sleep(POLL).await;
                }
                Err(CallError::Failure(failure)) => return Err(failure),
                Err(error) => return Err(unreachable_coordinator(&error)),
            }
        }
    }
}

fn unreachable_coordinator(error: &CallError) -> Failure {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    Failure::new(
        FailureKind::Unavailable,
        format!(
            "the coordinator of this host does not answer ({}); check `drover status`, and try again",
            causes.join(": ")
        ),
    )
}
