//! The coordinator of a host: cluster state, membership, this host's facts, copies of networks, the registry of containers.
//!
//! ```text
//!   drover-ipam, drover-net, drover --control.sock--> server --> claims ----\
//!                                                        |-----> membership -+--> store
//!                     fabric stream <--------------------+-----> fabric ----/       ^
//!                                                                                   |
//!   engine --events, lists--> networks (observe -> plan -> steps) ------------------+
//!                        \--> registry (observe -> plan -> commit) ------------------+
//! ```
//!
//! It is not in the data path: with this process stopped, packets flow and containers run.

pub mod catalogue;
pub mod claims;
pub mod clocks;
pub mod confirm;
pub mod context;
pub mod examine;
pub mod fabric;
pub mod host;
pub mod keys;
pub mod lines;
pub mod membership;
pub mod mirror;
pub mod networks;
pub mod owners;
pub mod registry;
pub mod server;
pub mod status;

use std::sync::Arc;

use anyhow::Context as _;
use drover_daemon::{Exit, Settings, task};
use drover_engine::Engine;
use drover_http::{Client, Limits};
use drover_store::local::Database;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use clocks::Clocks;
use context::Context;
use keys::Keys;
use mirror::Snapshot;
use networks::Networks;
use registry::Registry;
use server::Control;

/// The name of the process and of its socket.
pub const NAME: &str = "drover-coordinator";

/// Everything that the control socket answers from.
pub struct Coordinator {
    /// The shared handles.
    pub context: Arc<Context>,
    /// The reconciliation of networks.
    pub networks: Arc<Networks>,
    /// The clocks of the hosts.
    pub clocks: Arc<Clocks>,
    /// The registry of containers.
    pub registry: Registry,
    /// What this host remembers for itself.
    pub database: Database,
}

/// Runs the coordinator until the shutdown.
///
/// # Errors
/// When it cannot begin; [`Exit::Restart`] when this host has changed its cluster.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let listener = drover_daemon::listener(NAME, &settings.control_socket())?;
    let membership = membership::open(&settings).await?;
    let database = Database::open(settings.state_dir.join("coordinator.redb"))?;
    let engine = Engine::new(&settings.docker_host)?.with_header(
        drover_daemon::AUTHORIZATION_HEADER,
        drover_daemon::read_authorization_token(&settings.run_dir),
    );
    let cluster = Arc::new(watch::Sender::new(Snapshot::default()));
    let context = Arc::new(Context {
        cluster: cluster.subscribe(),
        engine,
        ipam: Client::unix(settings.plugin_socket("drover-ipam")),
        network: Client::unix(settings.plugin_socket("drover-net")),
        keys: Keys::open(&database)?,
        fenced: watch::Sender::new(false),
        restart: watch::Sender::new(false),
        membership,
        settings,
    });
    tracing::info!(
        host = %context.host(),
        cluster = context.membership.cluster,
        store = context.store().kind(),
        "this host is known"
    );
    let coordinator = Arc::new(Coordinator {
        context: context.clone(),
        networks: Arc::default(),
        clocks: Arc::default(),
        registry: Registry::default(),
        database,
    });
    let stop = either(shutdown, context.restart.subscribe());
    let tasks = start(&coordinator, cluster, &stop);
    let control = Arc::new(Control(coordinator));
    drover_http::serve(listener, control, Limits::default(), stop).await;
    for task in tasks {
        task.await.context("a task was cut off")?;
    }
    if *context.restart.borrow() {
        return Err(Exit::Restart.into());
    }
    Ok(())
}

/// Starts all that goes on by itself.
fn start(
    coordinator: &Arc<Coordinator>,
    cluster: Arc<watch::Sender<Snapshot>>,
    stop: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let context = &coordinator.context;
    let networks = networks::serve(
        context.clone(),
        coordinator.networks.clone(),
        coordinator.database.clone(),
        stop.clone(),
    );
    vec![
        task::spawn(
            "mirror",
            mirror::run(context.store().clone(), cluster, stop.clone()),
        ),
        task::spawn("host", host::serve(context.clone(), stop.clone())),
        task::spawn(
            "membership",
            membership::serve(context.clone(), stop.clone()),
        ),
        task::spawn("keys", keys::serve(context.clone(), stop.clone())),
        task::spawn("claims", claims::serve(context.clone(), stop.clone())),
        task::spawn(
            "registry",
            registry::serve(coordinator.clone(), stop.clone()),
        ),
        task::spawn("confirm", confirm::serve(coordinator.clone(), stop.clone())),
        task::spawn(
            "clocks",
            clocks::serve(
                coordinator.clocks.clone(),
                context.cluster.clone(),
                stop.clone(),
            ),
        ),
        task::spawn_fallible("networks", async { Ok(networks.await?) }),
    ]
}

/// Becomes `true` when one of the two does.
fn either(
    mut one: watch::Receiver<bool>,
    mut other: watch::Receiver<bool>,
) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    task::spawn("stop", async move {
        // Both arms are cancel-safe.
        tokio::select! {
            _ = one.wait_for(|stop| *stop) => {}
            _ = other.wait_for(|stop| *stop) => {}
        }
        sender.send_replace(true);
        // A receiver that finds its sender gone could not tell a stop.
        sender.closed().await;
    });
    receiver
}
