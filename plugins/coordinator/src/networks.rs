//! The same networks on every host: what the engine has and what the cluster has are made one.
//!
//! ```text
//!   engine events, store watch, reports of drover-net, a timer --> look again
//!       look again: engine's list + snapshot of the store --view--> plan --> steps (engine, store)
//! ```
//!
//! One task looks, plans and acts, in turns; whatever happens meanwhile only makes it look once more.
//! While the engine does not answer nothing is decided: an engine that is away has lost nothing.

mod events;
pub mod execute;
mod memory;
pub mod observe;
pub mod plan;
pub mod record;
pub mod refusals;
pub mod step;
pub mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_model::{NetworkId, Pool};
use drover_store::local::Database;
use tokio::sync::{Notify, watch};

use crate::context::{Context, now};
use crate::mirror::{Snapshot, chain};
use execute::{Effect, Executor};
use memory::{Memory, Told};
use plan::{Plan, Step};
use record::Writer;
use view::View;

/// How often everything is looked at although nothing was heard.
const FULL: Duration = Duration::from_secs(60);
/// How often a conflict is looked at: a person may be solving it.
const CONFLICT: Duration = Duration::from_secs(5);
/// How soon to look again at something that is under way.
const SOON: Duration = Duration::from_millis(500);
/// How soon to look again after the store or the engine did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The least time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What others tell the reconciliation, and what it tells them.
#[derive(Debug, Default)]
pub struct Networks {
    wake: Notify,
    reported: Mutex<Option<BTreeMap<NetworkId, u32>>>,
    removed: Mutex<Vec<NetworkId>>,
    engine_started: watch::Sender<u64>,
    state: watch::Sender<State>,
}

/// How the last look went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// What a person has to decide.
    pub conflicts: Vec<String>,
    /// The subnets of this engine's networks that are being removed since the cluster has others in their place, and why.
    pub discarded: BTreeMap<Pool, String>,
    /// Why the engine could not be asked.
    pub engine_problem: Option<String>,
    /// How often everything was in order, with nothing left to do.
    pub settled: u64,
}

impl Networks {
    /// Makes it look again.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// The endpoints of this host, all of them.
    pub fn report(&self, endpoints: BTreeMap<NetworkId, u32>) {
        let endpoints = endpoints
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoints);
        self.look_again();
    }

    /// A new engine process may be there.
    pub fn engine_started(&self) {
        self.engine_started
            .send_modify(|count| *count = count.wrapping_add(1));
        self.look_again();
    }

    /// Changes when a new engine process may be there.
    #[must_use]
    pub fn engine_starts(&self) -> watch::Receiver<u64> {
        self.engine_started.subscribe()
    }

    /// How the last look went.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Changes with every look.
    #[must_use]
    pub fn looks(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn take_told(&self) -> Told {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        Told {
            endpoints: reported.clone(),
            removed: std::mem::take(&mut *removed),
        }
    }

    fn note_removed(&self, network: NetworkId) {
        self.removed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(network);
    }
}

/// Notes that these networks of this engine were of a cluster that this host has left: the next start
/// removes those that nobody uses.
///
/// # Errors
/// When this host's own memory cannot be written.
pub fn leave(database: &Database, networks: &[NetworkId]) -> drover_store::Result<()> {
    memory::leave(database, networks)
}

/// Keeps the networks of this host and of the cluster one, until the shutdown. `database` is this host's own
/// memory.
///
/// # Errors
/// When the memory cannot be read.
pub async fn serve(
    context: Arc<Context>,
    networks: Arc<Networks>,
    database: Database,
    mut shutdown: watch::Receiver<bool>,
) -> drover_store::Result<()> {
    let mut reconciler = Reconciler {
        cluster: context.cluster.clone(),
        memory: Memory::open(&database)?,
        context: context.clone(),
        networks: networks.clone(),
    };
    let work = async {
        tokio::join!(reconciler.run(), events::listen(&context.engine, &networks));
    };
    // A step under way is cut; the next start finds what it left, by its intent.
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
    Ok(())
}

struct Reconciler {
    context: Arc<Context>,
    networks: Arc<Networks>,
    cluster: watch::Receiver<Snapshot>,
    memory: Memory,
}

impl Reconciler {
    async fn run(&mut self) {
        loop {
            let pause = match self.look().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "the networks cannot be reconciled now"
                    );
                    RETRY
                }
            };
            tokio::time::sleep(PAUSE).await;
            self.wait(pause).await;
        }
    }

    /// Waits for a reason to look, or for `pause`.
    async fn wait(&mut self, pause: Duration) {
        let seen = self.memory.seen();
        let changed = async {
            // Not every change of the store concerns the networks.
            while self.cluster.changed().await.is_ok() {
                if self.cluster.borrow().networks_revision() != seen {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        // Each arm is cancel-safe: what happens is seen at the next look.
        tokio::select! {
            () = changed => {}
            () = self.networks.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Looks, plans and acts once. Returns when to look again at the latest.
    async fn look(&mut self) -> drover_store::Result<Duration> {
        let snapshot = self.cluster.borrow_and_update().clone();
        if !snapshot.is_complete() || self.context.is_fenced() {
            return Ok(RETRY);
        }
        self.memory.see(snapshot.networks_revision());
        let engine = match self.context.engine.networks().await {
            Ok(engine) => engine,
            Err(error) => {
                self.tell(|state| state.engine_problem = Some(error.sentence()));
                return Ok(RETRY);
            }
        };
        let told = self.networks.take_told();
        self.memory
            .note(self.context.host(), &snapshot, &engine, told)?;
        let mut view = observe::view(
            self.context.host(),
            &snapshot,
            &engine,
            &self.memory.known()?,
        );
        self.look_into(&mut view).await;
        let plan = plan::plan(&view);
        self.tell(|state| state.discarded = discarded(&view, &plan));
        let done = self.act(&snapshot, &view, &plan).await?;
        self.memory.engine_was_seen(&engine, &view)?;
        self.conclude(&plan).await?;
        Ok(if !done {
            RETRY
        } else if plan.look_again {
            SOON
        } else if !plan.conflicts.is_empty() {
            CONFLICT
        } else {
            FULL
        })
    }

    /// A network that nobody knows, or whose last endpoint has just gone, is looked at more closely:
    /// the list does not tell endpoints.
    async fn look_into(&self, view: &mut View) {
        let host = self.context.host();
        let known: std::collections::BTreeSet<NetworkId> = view
            .networks
            .values()
            .filter_map(|network| network.copies.get(host).cloned())
            .collect();
        for (id, local) in &mut view.local {
            if !known.contains(id)
                && let Ok(detail) = self.context.engine.network(id.as_str()).await
            {
                local.in_use |= !detail.containers.is_empty();
            }
        }
        for network in view.networks.values_mut().filter(|network| network.settled) {
            let here = network
                .attachments
                .get(host)
                .is_some_and(|count| *count > 0);
            if here && network.endpoints == Some(0) && network.is_unwanted() {
                let copy = network.copies.get(host);
                network.settled = !self.is_held(copy).await;
            }
        }
    }

    /// Whether a container that runs, or is being started anew, is on the network.
    async fn is_held(&self, network: Option<&NetworkId>) -> bool {
        let Some(network) = network else { return false };
        match self.context.engine.running_containers().await {
            Ok(containers) => containers.iter().any(|container| {
                let mut endpoints = container.endpoints().values();
                endpoints.any(|endpoint| endpoint.network_id == network.as_str())
            }),
            // Not to be decided while the engine is going down.
            Err(_) => true,
        }
    }

    /// Does the steps. Returns whether all of them could be tried.
    async fn act(
        &mut self,
        snapshot: &Snapshot,
        view: &View,
        plan: &Plan,
    ) -> drover_store::Result<bool> {
        for step in &plan.steps {
            let executor = Executor {
                store: self.context.store(),
                copies: &self.context.engine,
                intents: self.memory.intents(),
                view,
                writer: Writer {
                    snapshot,
                    host: self.context.host(),
                    now: now(),
                },
            };
            let effect = executor.execute(step).await?;
            let name = name(view, step);
            match &effect {
                Effect::Done => tracing::info!(network = name, "{step}"),
                Effect::Stale => tracing::debug!(network = name, "{step}: not any more"),
                Effect::Refused { network, reason } => {
                    tracing::warn!(network = name, reason, "{step}: refused");
                    // As it is now, and not when the plan was made: what it has besides may be the reason.
                    if let Ok(engine) = self.context.engine.networks().await {
                        self.memory.refused(network, reason.clone(), &engine);
                    }
                    self.networks.look_again();
                }
                Effect::Away(reason) => {
                    self.tell(|state| state.engine_problem = Some(reason.clone()));
                    return Ok(false);
                }
            }
            self.memory.did(step, &effect, view);
        }
        Ok(true)
    }

    /// Tells what was found.
    async fn conclude(&mut self, plan: &Plan) -> drover_store::Result<()> {
        let mut conflicts = plan.conflicts.clone();
        conflicts.extend(self.memory.notes());
        self.tell(|state| {
            state.engine_problem = None;
            state.discarded.clear();
            state.conflicts.clone_from(&conflicts);
            if plan.steps.is_empty() && !plan.look_again {
                state.settled = state.settled.saturating_add(1);
            }
        });
        self.publish_conflicts(conflicts).await
    }

    /// The other hosts show them too.
    async fn publish_conflicts(&self, conflicts: Vec<String>) -> drover_store::Result<()> {
        let key = format!("conflicts/{}", self.context.host());
        let known: Vec<String> = self.cluster.borrow().record(&key).unwrap_or_default();
        if known == conflicts {
            return Ok(());
        }
        let transaction = drover_store::Transaction::new();
        let transaction = if conflicts.is_empty() {
            transaction.delete(key)
        } else {
            transaction.put_record(key, &conflicts)?
        };
        self.context.store().commit(transaction).await.map(drop)
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        self.networks.state.send_modify(change);
    }
}

/// The subnets of what the plan removes as it cannot be part of the cluster, and why.
fn discarded(view: &View, plan: &Plan) -> BTreeMap<Pool, String> {
    let mut discarded = BTreeMap::new();
    for step in &plan.steps {
        if let Step::Discard { local, reason } = step
            && let Some(network) = view.local.get(local)
        {
            let pools = network.pools().into_iter();
            discarded.extend(pools.map(|pool| (pool, reason.clone())));
        }
    }
    discarded
}

/// The name of the network that a step is about, for a person.
fn name<'a>(view: &'a View, step: &Step) -> &'a str {
    match step {
        Step::Record { local } | Step::Discard { local, .. } => {
            view.local.get(local).map_or("", |local| &local.name)
        }
        Step::ForgetIntent { .. } => "",
        Step::Adopt { network, .. }
        | Step::Forget { network }
        | Step::Attach { network, .. }
        | Step::RequestRemoval { network }
        | Step::BeginRemoval { network }
        | Step::Keep { network }
        | Step::ReleaseName { network }
        | Step::Delete { network }
        | Step::Create { network }
        | Step::Remove { network, .. } => view
            .networks
            .get(network)
            .map_or("", |network| &network.record.name),
    }
}
