//! `drover-ipam`: gives Docker pools and addresses.
//!
//! ```text
//!   engine --IpamDriver.*--> driver --+--> ledger (memory + one file): addresses of this host's blocks
//!                                     |
//!                                     +--> coordinator: pools, blocks, single addresses of other hosts' blocks
//!   coordinator, drover --Drover.*--> methods --> ledger
//!   fabric stream --> standing: who this host is, whether it may give out anything
//!   housekeeping: what rests long enough is free, what is idle goes back to the cluster
//! ```
//!
//! An address of a block of this host is given without asking anybody, and is on disk before the engine
//! hears of it. What is asked of the coordinator for one pool is asked one at a time (the pool's gate), and
//! keeps no other pool waiting.

mod coordinator;
mod driver;
mod error;
mod housekeeping;
mod ledger;
mod methods;
mod offer;
mod pool_id;
mod standing;

use std::sync::Arc;

use anyhow::Context as _;
use drover_daemon::{Settings, task};
use drover_http::{Client, Limits, serve};
use drover_plugin_host::IpamService;
use drover_store::local::Database;
use tokio::sync::watch;

use coordinator::Coordinator;
use driver::Ipam;
use ledger::Ledger;
use methods::Methods;

/// The name of the process, and of its socket.
pub const NAME: &str = "drover-ipam";

/// Runs the process until the shutdown.
///
/// # Errors
/// When the socket or the state file cannot be opened.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    // The socket first: what the engine asks meanwhile waits in its queue.
    let listener = drover_daemon::listener(NAME, &settings.plugin_socket(NAME))?;
    let database = Database::open_own(settings.state_dir.join("ipam.redb")).await?;
    let quarantine = settings.pools.quarantine.as_secs();
    let ledger = Ledger::open(&database, quarantine).context("the leases cannot be read")?;
    let coordinator = Coordinator::new(Client::unix(settings.control_socket()));
    let ipam = Arc::new(Ipam::new(ledger, coordinator));
    let background = [
        task::spawn("standing", standing::watch(ipam.clone(), shutdown.clone())),
        task::spawn(
            "housekeeping",
            housekeeping::serve(ipam.clone(), shutdown.clone()),
        ),
    ];
    let service = Arc::new(IpamService::new(ipam.clone(), Methods::new(ipam)));
    serve(listener, service, Limits::default(), shutdown).await;
    for task in background {
        task.await?;
    }
    Ok(())
}
