//! Whether every process answers on its socket.

use std::time::Duration;

use drover_control_api::coordinator::Status;
use drover_control_api::plugin::{Identity, WhoAreYou};
use drover_daemon::Settings;
use drover_http::Client;
use drover_http::control::{CallError, call};
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::process::Process;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How often is asked.
const AGAIN: Duration = Duration::from_millis(50);
/// After how long it is said who is missing.
const LONG: Duration = Duration::from_secs(10);

/// Asks a process who it is.
pub(crate) async fn ask(process: Process, settings: &Settings) -> Result<Identity, CallError> {
    let client = Client::unix(process.socket(settings));
    match process {
        Process::Coordinator => Ok(call(&client, &Status {}, LIMIT).await?.identity),
        Process::Ipam
        | Process::Network
        | Process::Names
        | Process::Volumes
        | Process::Authorization => call(&client, &WhoAreYou {}, LIMIT).await,
    }
}

/// Waits until every process has answered.
pub(crate) async fn all_answer(settings: &Settings, processes: &[Process]) {
    for process in processes.iter().copied() {
        let mut complain_at = Instant::now() + LONG;
        while let Err(error) = ask(process, settings).await {
            if Instant::now() >= complain_at {
                let error = anyhow::Error::new(error);
                warn!(process = process.name(), "does not answer yet: {error:#}");
                complain_at += LONG;
            }
            sleep(AGAIN).await;
        }
    }
}
