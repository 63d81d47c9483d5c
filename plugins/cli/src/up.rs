//! `drover up`: runs the processes of a host and keeps them running.
//!
//! ```text
//! lock run_dir -> bind sockets -> end orphans -> start children -> all answer: "drover is up"
//!                     |                              ^   |
//!                     +--- stay bound for ever       +---+ dies: started again, same socket
//! ```
//! The sockets belong to this process, so that a restart of a child is invisible: a request waits in the
//! socket's queue. Children run in process groups of their own. If this process is killed they go
//! on serving; the next `drover up` binds new sockets in the place of theirs, ends them, and starts
//! anew. Stopping it stops the children and leaves the data path in place.

mod binary;
mod child;
mod folder;
mod handover;
mod lock;
mod orphan;
mod readiness;
mod service_manager;

use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use drover_daemon::{Settings, task};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use crate::authorization;
use crate::output;
use crate::process::Process;

pub(crate) use binary::find as find_program;
pub(crate) use binary::find_named;
pub(crate) use folder::STATE_MARK;
pub(crate) use lock::{LOCK_FILE, holder};
pub(crate) use orphan::{end_all as end_processes, wait_for_end};
use service_manager::State;

/// How long a service manager waits at most until it starts what is ordered after us.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until it is asked to stop.
pub(crate) fn run(settings: Settings) -> ExitCode {
    drover_daemon::run_with("drover", settings, supervise)
}

async fn supervise(settings: Settings, mut shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    folder::prepare(&settings)?;
    let _lock = lock::take(&settings.run_dir)?;
    drover_daemon::authorization_token(&settings.run_dir)
        .context("cannot make the token of this host")?;
    let mut processes = Process::of(&settings);
    if authorization::is_run_by_another(&settings) {
        info!("the authorization plugin is run by another service already");
        processes.retain(|process| *process != Process::Authorization);
    }
    let programs: Vec<_> = processes
        .iter()
        .map(|process| binary::find(*process))
        .collect();
    let mut plans = Vec::new();
    for (process, program) in processes.iter().zip(programs) {
        plans.push((*process, program?, bind(*process, &settings)?));
    }
    // Only now: until here, orphans were served by sockets that answered.
    orphan::end(&settings).await;
    let mut children = Vec::new();
    for (process, program, listener) in plans {
        let plan = child::Plan {
            process,
            program,
            listener,
            settings: settings.clone(),
        };
        children.push(task::spawn(
            process.name(),
            child::keep_running(plan, shutdown.clone()),
        ));
    }
    let announced = tokio::select! {
        () = announce(&settings, &processes) => true,
        _ = shutdown.wait_for(|stop| *stop) => false,
    };
    if announced {
        shutdown
            .wait_for(|stop| *stop)
            .await
            .context("the shutdown signal is lost")?;
    }
    info!("stops");
    service_manager::tell(State::Stopping);
    for child in children {
        child.await.context("a child is lost")?;
    }
    folder::remove_sockets(&settings, &processes);
    Ok(())
}

/// Says that the host is up once every process answers. A service manager hears it earlier if that takes long: it holds
/// back the engine until then, and containers that need nothing of ours are to run all the same.
async fn announce(settings: &Settings, processes: &[Process]) {
    let mut answers = pin!(readiness::all_answer(settings, processes));
    if timeout(PATIENCE, answers.as_mut()).await.is_err() {
        service_manager::tell(State::Incomplete);
        answers.await;
    }
    output::line("drover is up");
    service_manager::tell(State::Up);
}

fn bind(process: Process, settings: &Settings) -> anyhow::Result<UnixListener> {
    Ok(drover_daemon::bind(&process.socket(settings))?)
}
