//! Docker's network driver on one host.
//!
//! ```text
//! engine --NetworkDriver.*--> driver --+
//! drover --Drover.*--------> control --+--command--> owner --plan--> kernel
//! coordinator --fabric stream--> fabric --watch------^  |
//!             <--ReportAttachments, EngineStarted-- report <--watch--+
//! ```
//!
//! The owner is one task that has the records of networks and endpoints and the state of the kernel.
//! Everybody else hands it commands and waits; a connection that is dropped stops nothing half-way.
//! Docker is answered from what is recorded here; the coordinator is never asked during a call.

mod cluster;
mod control;
mod desired;
mod driver;
mod fabric;
mod owner;
mod record;
mod report;
mod routes;

use std::sync::Arc;

use anyhow::Context as _;
use drover_daemon::{Settings, listener, task};
use drover_http::{Client, Limits, serve};
use drover_plugin_host::NetworkService;
use drover_store::local::Database;
use tokio::sync::watch;

/// The name of the process, of its socket and of the driver.
pub const NAME: &str = "drover-net";

/// Runs the plugin until `shutdown` is true. The data path stays as it is.
///
/// # Errors
/// When the state cannot be opened or the socket cannot be bound.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let path = settings.state_dir.join("network.redb");
    std::fs::create_dir_all(&settings.state_dir)
        .with_context(|| format!("cannot make `{}`", settings.state_dir.display()))?;
    let database = Database::open(&path).context("cannot open the network plugin's state")?;
    let socket = listener(NAME, &settings.plugin_socket(NAME))?;
    let coordinator = Client::unix(settings.control_socket());
    let names = Client::unix(settings.names_socket());
    let fabric = fabric::Fabric::open(&database)?;
    let records = record::Records::open(&database)?;
    let (view, connected) = (fabric.view(), fabric.connected());
    let (reporter, to_report) = report::channel();
    let (owner, handle) = owner::Owner::new(settings, records, view, reporter, coordinator.clone());
    task::spawn("owner", owner.run());
    task::spawn("fabric", fabric.follow(coordinator.clone()));
    task::spawn("report", report::run(coordinator, to_report, connected));
    let driver = Arc::new(driver::Driver::new(handle.clone(), names));
    let service = NetworkService::new(driver, control::Control::new(handle));
    serve(socket, Arc::new(service), Limits::default(), shutdown).await;
    Ok(())
}
