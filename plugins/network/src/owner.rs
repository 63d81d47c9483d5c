//! The one task that owns the records and the kernel's state. It takes one command at a time; after
//! each, and after every change of the cluster, the kernel is what the records ask for.
//!
//! Records are on the disk before the kernel is touched, so that a start after a crash is just a
//! reconcile. What the kernel has is remembered between commands ([`settle`]): a Join is a plan of two
//! or three steps and observes nothing.

mod encryption;
mod endpoint;
mod settle;
mod status;
mod sweep;
mod watch;

pub(crate) use encryption::Encryption;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::plugin::{EndpointTable, PathTable, Reconciled, TornDown};
use drover_daemon::Settings;
use drover_http::Client;
use drover_http::control::CallError;
use drover_kernel::{Kernel, Probed};
use drover_model::{EndpointId, NetworkId};
use drover_overlay::State;
use drover_plugin_host::DriverError;
use drover_plugin_protocol::network::JoinAnswer;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::record::{Endpoint, Network, Records};
use crate::report::Reporter;

/// How often the kernel is compared with what it should be, though nothing has happened.
const EVERY: Duration = Duration::from_secs(300);
/// How soon again when something could not be done.
const SOON: Duration = Duration::from_secs(5);

/// What the owner is asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Make a network.
    CreateNetwork(NetworkId, Network, Reply<()>),
    /// Remove a network.
    DeleteNetwork(NetworkId, Reply<()>),
    /// Make an endpoint.
    CreateEndpoint(EndpointId, Endpoint, Reply<()>),
    /// Remove an endpoint.
    DeleteEndpoint(EndpointId, Reply<()>),
    /// Make the link of an endpoint for a sandbox.
    Join(EndpointId, String, Reply<JoinAnswer>),
    /// The sandbox that an endpoint is joined to.
    SandboxOf(EndpointId, Reply<Option<String>>),
    /// Remove the link of an endpoint.
    Leave(EndpointId, Reply<()>),
    /// A new engine process has activated the plugin.
    EngineStarted,
    /// Which probes have been answered.
    Probed(Probed),
    /// Somebody on the underlay says that a packet to an address was too large.
    TooBig(IpAddr),
    /// The number of this host's next key.
    Generation(Result<u64, CallError>),
    /// Whether a key is known to the cluster.
    Published(u64, Result<(), CallError>),
    /// Compare and mend.
    Reconcile(Reply<Reconciled>),
    /// How other hosts are reached.
    Paths(Reply<PathTable>),
    /// What there is.
    Endpoints(Reply<EndpointTable>),
    /// Remove everything.
    TearDown(Reply<TornDown>),
}

/// Where the answer goes.
type Reply<T> = oneshot::Sender<Result<T, DriverError>>;

/// The way to the owner.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    complaints: channel::Receiver<Vec<String>>,
}

impl Handle {
    /// Asks and waits. The command is carried out even if the asker goes away.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, DriverError> {
        let (reply, answer) = oneshot::channel();
        let ended = || DriverError::new("drover-net is ending; try again");
        self.commands
            .send(command(reply))
            .map_err(|_gone| ended())?;
        answer.await.map_err(|_gone| ended())?
    }

    /// Tells the owner that an engine has started, before whatever that engine asks for.
    pub(crate) fn engine_started(&self) {
        if self.commands.send(Command::EngineStarted).is_err() {
            warn!("the owner has ended");
        }
    }

    /// What is not as it should be.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.borrow().clone()
    }
}

/// The owner.
pub(crate) struct Owner {
    settings: Settings,
    records: Records,
    view: channel::Receiver<Arc<Cluster>>,
    cluster: Arc<Cluster>,
    reporter: Reporter,
    commands: mpsc::UnboundedReceiver<Command>,
    /// The way back to itself, for what runs beside it. Weak, so that the owner ends with its askers.
    myself: mpsc::WeakUnboundedSender<Command>,
    watch: watch::Watch,
    encryption: Encryption,
    coordinator: Client,
    complaints: channel::Sender<Vec<String>>,
    kernel: Option<Arc<Kernel>>,
    sweep: sweep::Sweep,
    /// What the kernel has, when that is known for sure.
    known: Option<State>,
    /// The device with the advertised address.
    underlay: Option<String>,
    /// Everything was removed on request: nothing is made any more.
    torn_down: bool,
    /// When to compare with the kernel next.
    next: Instant,
}

impl Owner {
    /// The owner and the way to it.
    pub(crate) fn new(
        settings: Settings,
        records: Records,
        mut view: channel::Receiver<Arc<Cluster>>,
        reporter: Reporter,
        coordinator: Client,
    ) -> (Self, Handle) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (complaints, complaint_view) = channel::channel(Vec::new());
        let cluster = view.borrow_and_update().clone();
        let encryption = Encryption::new(&settings.encryption);
        let owner = Self {
            encryption,
            coordinator,
            settings,
            records,
            view,
            cluster,
            reporter,
            commands,
            myself: sender.downgrade(),
            watch: watch::Watch::default(),
            complaints,
            kernel: None,
            sweep: sweep::Sweep::default(),
            known: None,
            underlay: None,
            torn_down: false,
            next: Instant::now(),
        };
        (
            owner,
            Handle {
                commands: sender,
                complaints: complaint_view,
            },
        )
    }

    /// Works until every handle is gone.
    pub(crate) async fn run(mut self) {
        let steps = self.reconcile().await;
        info!(steps = steps.len(), "the data path is as recorded");
        loop {
            let (next, probe, tend) = (self.next, self.watch.next(), self.encryption.next());
            // The arms are cancel-safe: a command or a change that lost stays where it is.
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.carry_out(command).await,
                    None => return,
                },
                changed = self.view.changed() => match changed {
                    Ok(()) => self.follow_cluster().await,
                    Err(_) => return,
                },
                swept = self.sweep.ended() => self.swept(swept).await,
                () = sleep_until(probe) => self.probe().await,
                () = sleep_until(tend) => self.tend().await,
                () = sleep_until(next) => {
                    for step in self.reconcile().await {
                        info!(%step, "mended");
                    }
                }
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::CreateNetwork(id, network, reply) => {
                answer(reply, self.create_network(&id, network).await);
            }
            Command::DeleteNetwork(id, reply) => answer(reply, self.delete_network(id).await),
            Command::CreateEndpoint(id, endpoint, reply) => {
                answer(reply, self.create_endpoint(&id, endpoint).await);
            }
            Command::DeleteEndpoint(id, reply) => answer(reply, self.delete_endpoint(id).await),
            Command::Join(id, sandbox, reply) => answer(reply, self.join(&id, sandbox).await),
            Command::SandboxOf(id, reply) => answer(reply, Ok(self.sandbox_of(&id))),
            Command::Leave(id, reply) => answer(reply, self.leave(&id).await),
            Command::EngineStarted => self.engine_started().await,
            Command::Probed(probed) => self.probed(&probed).await,
            Command::TooBig(destination) => self.too_big(destination),
            Command::Generation(answer) => self.generation(answer).await,
            Command::Published(number, answer) => self.published(number, answer).await,
            Command::Reconcile(reply) => {
                let steps = self.reconcile().await;
                answer(reply, Ok(Reconciled { steps }));
            }
            Command::Paths(reply) => answer(reply, self.paths().await),
            Command::Endpoints(reply) => answer(reply, self.endpoints().await),
            Command::TearDown(reply) => answer(reply, self.tear_down().await),
        }
        self.reporter.attachments(self.records.attachments());
    }

    async fn follow_cluster(&mut self) {
        self.cluster = self.view.borrow_and_update().clone();
        self.underlay = None;
        self.meet();
        self.settle().await;
        self.watch.soon();
    }

    /// A new engine process knows nothing of endpoints that an earlier one had not joined yet.
    async fn engine_started(&mut self) {
        self.reporter.engine_started();
        let unjoined = self
            .records
            .endpoints()
            .iter()
            .filter(|(_, it)| it.joined.is_none());
        let unjoined: BTreeSet<_> = unjoined.map(|(id, _)| id.clone()).collect();
        if let Err(error) = self.records.remove_endpoints(&unjoined) {
            warn!(%error, "cannot forget endpoints of an earlier engine");
        }
        self.reconcile().await;
    }

    async fn tear_down(&mut self) -> Result<TornDown, DriverError> {
        self.finish_sweep().await;
        self.torn_down = true;
        self.known = None;
        let networks = self.records.networks().keys().cloned().collect();
        self.records
            .remove_networks(&networks)
            .map_err(|error| DriverError::chain(&error))?;
        self.open_kernel().await?;
        let Some(kernel) = self.kernel.take() else {
            return Ok(TornDown::default());
        };
        let removed = kernel.tear_down().await.map_err(|errors| {
            let errors = errors
                .iter()
                .map(|error| DriverError::chain(error).to_string());
            DriverError::new(errors.collect::<Vec<_>>().join("; "))
        })?;
        Ok(TornDown { removed })
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, DriverError>) {
    // Whoever asked has gone; the command was carried out all the same.
    drop(reply.send(result));
}
