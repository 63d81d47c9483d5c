//! `drover-vol`: volumes for Docker.
//!
//! ```text
//!   engine --VolumeDriver.*--> driver --+--> catalogue (memory + one file): what volumes and snapshots there are
//!                                       |
//!   drover --Drover.*--> control -------+--> work: one change of a volume at a time
//!                                       |      |
//!   detach: asks the engine who uses ---+      +--> pools: backends, opened in the background
//!           what, and detaches late     |
//!   housekeeping: schedules, trash, ----+      +--> worker: a process for each backup and each restore
//!           figures, announcements
//!   registry: tells the coordinator what there is, for every host to list and restore
//! ```
//! `Get` and `List` are answered from the catalogue, whatever else goes on: a failure there makes the engine forget
//! the volume. What is attached is never remembered, but read from the kernel's list of mounts.

mod catalogue;
mod clock;
mod control;
mod detach;
mod driver;
mod error;
mod gate;
mod hooks;
mod housekeeping;
mod pools;
mod recovery;
mod registry;
mod state;
mod work;
mod worker;

use std::sync::Arc;

use drover_daemon::{Settings, task};
use drover_engine::Engine;
use drover_http::{Limits, serve};
use drover_plugin_host::VolumeService;
use tokio::sync::watch;

use control::Control;
use driver::Driver;
use gate::Gate;
use pools::Pools;
use work::Work;

/// The name of the process, and of its socket.
pub const NAME: &str = "drover-vol";

/// Runs the process until the shutdown.
///
/// # Errors
/// When the socket or the state file cannot be opened.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    // The socket first: what the engine asks meanwhile waits in its queue.
    let listener = drover_daemon::listener(NAME, &settings.plugin_socket(NAME))?;
    let catalogue = state::open(&settings.state_dir).await?;
    let engine = Engine::new(&settings.docker_host)?;
    let work = Arc::new(Work::new(
        &settings,
        catalogue,
        Pools::new(&settings),
        engine,
    ));
    let background = [
        task::spawn("pools", recovery::run(work.clone(), shutdown.clone())),
        task::spawn("hooks", hooks::owed::run(work.clone(), shutdown.clone())),
        task::spawn("detach", detach::run(work.clone(), shutdown.clone())),
        task::spawn(
            "housekeeping",
            housekeeping::run(work.clone(), shutdown.clone()),
        ),
        task::spawn("registry", registry::run(work.clone(), shutdown.clone())),
    ];
    let driver = Arc::new(Driver::new(work.clone()));
    let service = VolumeService::new(driver, Control::new(work.clone()));
    serve(
        listener,
        Arc::new(Gate::new(service, &work.catalogue, work.pools.clone())),
        Limits::default(),
        shutdown,
    )
    .await;
    for task in background {
        task.await?;
    }
    Ok(())
}
