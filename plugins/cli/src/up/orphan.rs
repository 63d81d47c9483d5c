//! Processes that an earlier supervisor left behind when it was killed.

use std::time::Duration;

use drover_daemon::Settings;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::process::{Process, Running};

/// How long a process may take to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the orphans of this run directory: asks them, and makes them when they do not listen.
pub(crate) async fn end(settings: &Settings) {
    let orphans = Process::every().filter_map(|process| {
        let found = Running::from_pid_file(&process.pid_file(settings), process.name())?;
        info!(
            process = process.name(),
            pid = found.pid(),
            "ends an earlier one, to take over"
        );
        Some(found)
    });
    end_all(orphans.collect()).await;
}

/// Ends processes, and returns when they have ended.
pub(crate) async fn end_all(processes: Vec<Running>) {
    for process in &processes {
        process.signal(Signal::SIGTERM);
    }
    wait_for_end(&processes, PATIENCE).await;
}

/// Waits until processes that were asked to end have ended; those that take too long are killed.
pub(crate) async fn wait_for_end(processes: &[Running], patience: Duration) {
    let deadline = Instant::now() + patience;
    let remaining = || processes.iter().any(|process| process.is_there());
    while remaining() && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    for process in processes.iter().filter(|process| process.is_there()) {
        warn!(pid = process.pid(), "did not end in time, and is killed");
        process.signal(Signal::SIGKILL);
    }
    while remaining() {
        sleep(LOOK).await;
    }
}
