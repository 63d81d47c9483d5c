//! The registry: this host writes what containers it has, and everybody reads all of them.
//!
//! ```text
//!   engine events --which--> inspect (each once at a time) --> observed --+
//!   engine list (at start, on reconnect, now and then) --which--^         +--> plan --> store
//!                                     mirror: networks, own records ------+
//! ```
//!
//! One task has what was observed, and writes. The engine is asked in tasks of their own, so that a container that
//! the engine is busy with holds up nobody. While the engine does not answer nothing is decided: what was
//! observed last stays.

mod events;
pub mod observe;
pub mod plan;
mod stream;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::record::{CopyRecord, NetworkRecord};
use drover_engine::{Container, ContainerDetail, Error};
use drover_store::{MAX_VALUE_BYTES, Outcome, Transaction};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

pub use stream::stream;

use crate::Coordinator;
use crate::context::{Context, now};
use crate::mirror::{Snapshot, chain};
use events::Told;
use observe::{Owner, Place};
use plan::{Change, Observed, Stored};
use work::Work;

/// Where the records are: `containers/<host>/<container id>`.
pub(crate) const CONTAINERS: &str = "containers/";
/// How often every container is looked at although nothing was heard.
const FULL: Duration = Duration::from_secs(180);
/// How soon to try again after the engine or the store did not answer.
const RETRY: Duration = Duration::from_millis(500);
/// How many events may wait.
const QUEUE: usize = 1024;
/// Leaves room for keys beside the values.
const BATCH_BYTES: usize = MAX_VALUE_BYTES / 2;

/// What others may know of the feed.
#[derive(Debug, Default)]
pub struct Registry {
    state: watch::Sender<State>,
}

/// How the feed is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// When every container was listed last; 0 for never.
    pub listed_at: u64,
    /// Since when something that was observed waits to be written; `None` when nothing does.
    pub behind_since: Option<u64>,
    /// How many labels of this host's containers did not fit into their records.
    pub labels_left_out: usize,
}

impl Registry {
    /// How the feed is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }
}

/// Feeds the registry until the shutdown.
pub async fn serve(coordinator: Arc<Coordinator>, mut shutdown: watch::Receiver<bool>) {
    let context = &coordinator.context;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let feed = Feed {
        cluster: context.cluster.clone(),
        context: context.clone(),
        registry: &coordinator.registry,
        owner: Owner {
            host: context.host().clone(),
            member: context.member().to_owned(),
            networks: BTreeMap::new(),
        },
        networks_revision: None,
        observed: BTreeMap::new(),
        undecided: Undecided::Nothing,
        written: BTreeMap::new(),
        work: Work::default(),
        asked: JoinSet::new(),
    };
    let work = async {
        tokio::join!(feed.run(receiver), events::listen(&context.engine, sender));
    };
    // A transaction under way is cut; the next start looks at everything.
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// An answer of the engine.
enum Answer {
    Listed(Result<Vec<Container>, Error>),
    Inspected(String, Result<ContainerDetail, Error>),
}

/// Whether there is something to decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Undecided {
    Nothing,
    /// Since when.
    Since(u64),
}

/// What this process has written and the mirror may not show yet.
struct Written {
    revision: u64,
    change: Change,
}

struct Feed<'a> {
    context: Arc<Context>,
    registry: &'a Registry,
    cluster: watch::Receiver<Snapshot>,
    owner: Owner,
    networks_revision: Option<u64>,
    /// `None` for a container that the engine does not have any more.
    observed: BTreeMap<String, Option<ContainerDetail>>,
    undecided: Undecided,
    written: BTreeMap<String, Written>,
    work: Work,
    asked: JoinSet<Answer>,
}

impl Feed<'_> {
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        let mut next_list = Instant::now() + FULL;
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.ask();
            let waits = self.work.waits() || self.undecided != Undecided::Nothing;
            // Each arm is cancel-safe.
            tokio::select! {
                event = told.recv() => match event {
                    None => return,
                    Some(Told::Container(id)) => {
                        self.work.add(id);
                        continue;
                    }
                    Some(Told::Everything) => self.list(),
                },
                Some(answer) = self.asked.join_next() => {
                    self.take(answer.ok());
                    while let Some(answer) = self.asked.try_join_next() {
                        self.take(answer.ok());
                    }
                }
                changed = self.cluster.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(next_list) => {
                    next_list = Instant::now() + FULL;
                    self.list();
                }
                _ = retry.tick(), if waits => self.work.retry(),
            }
            self.decide().await;
        }
    }

    /// Asks the engine for the containers that are due.
    fn ask(&mut self) {
        while let Some(id) = self.work.begin() {
            let engine = self.context.engine.clone();
            self.asked.spawn(async move {
                let answer = engine.container(&id).await;
                Answer::Inspected(id, answer)
            });
        }
    }

    fn list(&mut self) {
        let engine = self.context.engine.clone();
        self.asked
            .spawn(async move { Answer::Listed(engine.containers().await) });
    }

    fn take(&mut self, answer: Option<Answer>) {
        match answer {
            None => {}
            Some(Answer::Listed(Ok(containers))) => self.take_list(&containers),
            Some(Answer::Listed(Err(error))) => {
                tracing::debug!(error = chain(&error), "the containers are not listed");
            }
            Some(Answer::Inspected(id, answer)) => self.take_container(id, answer),
        }
    }

    /// Everything that may have changed is to be looked at: what the engine has, what was observed, and what the
    /// store has. The look itself tells what is gone.
    fn take_list(&mut self, containers: &[Container]) {
        let owner = &self.owner;
        let listed = containers
            .iter()
            .filter(|container| owner.concerns(container.endpoints()))
            .map(|container| &container.id);
        let prefix = self.prefix();
        let snapshot = self.cluster.borrow();
        let stored = snapshot.under(&prefix).map(|(id, _)| id.to_owned());
        let ids = listed.chain(self.observed.keys()).cloned().chain(stored);
        ids.for_each(|id| self.work.add(id));
        // The mirror has had time to show what was written.
        self.written.clear();
        let listed_at = now();
        self.tell(|state| state.listed_at = listed_at);
    }

    fn take_container(&mut self, id: String, answer: Result<ContainerDetail, Error>) {
        let observed = match answer {
            Ok(container) => Some(container),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::debug!(
                    container = id,
                    error = chain(&error),
                    "it cannot be looked at"
                );
                return self.work.end(&id, true);
            }
        };
        self.work.end(&id, false);
        if self.observed.get(&id) != Some(&observed) {
            self.observed.insert(id, observed);
        }
        self.is_undecided();
    }

    fn is_undecided(&mut self) {
        if self.undecided == Undecided::Nothing {
            self.undecided = Undecided::Since(now());
        }
    }

    fn prefix(&self) -> String {
        format!("{CONTAINERS}{}/", self.owner.host)
    }

    /// Plans and writes, if there is a reason to.
    async fn decide(&mut self) {
        let snapshot = self.cluster.borrow_and_update().clone();
        if !snapshot.is_complete() || self.context.is_fenced() {
            return;
        }
        if self.networks_revision != Some(snapshot.networks_revision()) {
            self.networks_revision = Some(snapshot.networks_revision());
            let networks = networks(&snapshot, self.owner.host.as_str());
            if networks != self.owner.networks {
                self.owner.networks = networks;
                self.is_undecided();
                // A container that was no concern may be one now.
                self.list();
            }
        }
        let Undecided::Since(since) = self.undecided else {
            return;
        };
        let stored = self.stored(&snapshot);
        let observed: Observed<'_> = self
            .observed
            .iter()
            .map(|(id, seen)| (id.as_str(), seen.as_ref()))
            .collect();
        let changes = plan::plan(&self.owner, &observed, &stored);
        match self.commit(changes).await {
            Ok(()) => {
                self.undecided = Undecided::Nothing;
                let owner = &self.owner;
                self.observed.retain(|_, seen| {
                    seen.as_ref()
                        .is_some_and(|seen| owner.concerns(&seen.network_settings.networks))
                });
                let labels_left_out = self.labels_left_out();
                self.tell(|state| {
                    state.behind_since = None;
                    state.labels_left_out = labels_left_out;
                });
            }
            Err(error) => {
                tracing::debug!(
                    error = chain(&error),
                    "containers wait to be written down; it is tried again"
                );
                self.tell(|state| state.behind_since = Some(since));
            }
        }
    }

    /// What the store has of this host's containers, with what was written a moment ago.
    fn stored(&mut self, snapshot: &Snapshot) -> Stored {
        let prefix = self.prefix();
        let entries = snapshot.under(&prefix);
        let mut stored: Stored = entries
            .map(|(id, entry)| (id.to_owned(), entry.decode().ok()))
            .collect();
        self.written.retain(|id, written| {
            let shown = snapshot.revision(&format!("{prefix}{id}"));
            match &written.change {
                Change::Put(_) => shown < written.revision,
                Change::Delete { .. } => shown != 0,
            }
        });
        for (id, written) in &self.written {
            match &written.change {
                Change::Put(record) => stored.insert(id.clone(), Some((**record).clone())),
                Change::Delete { .. } => stored.remove(id),
            };
        }
        stored
    }

    /// Writes in batches. That this host is still a member is a condition of every transaction of its store.
    async fn commit(&mut self, changes: Vec<Change>) -> drover_store::Result<()> {
        let prefix = self.prefix();
        let mut batch = Transaction::new();
        let mut in_batch = Vec::new();
        let mut bytes = 0_usize;
        for change in changes {
            let key = format!("{prefix}{}", change.id());
            let size = size(&change);
            let is_full = bytes.saturating_add(size) > BATCH_BYTES && !in_batch.is_empty();
            if batch.room() == 0 || is_full {
                self.commit_batch(std::mem::take(&mut batch), std::mem::take(&mut in_batch))
                    .await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            batch = match &change {
                Change::Put(record) => batch.put_record(key, record)?,
                Change::Delete { .. } => batch.delete(key),
            };
            in_batch.push(change);
        }
        self.commit_batch(batch, in_batch).await
    }

    async fn commit_batch(
        &mut self,
        batch: Transaction,
        changes: Vec<Change>,
    ) -> drover_store::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        // Nobody else writes these keys, so there is no condition but the membership.
        if let Outcome::Committed { revision } = self.context.store().commit(batch).await? {
            for change in changes {
                let id = change.id().to_owned();
                tracing::debug!(container = id, "the registry has it");
                self.written.insert(id, Written { revision, change });
            }
        }
        Ok(())
    }

    fn labels_left_out(&self) -> usize {
        let seen = self.observed.values().flatten();
        seen.map(|seen| observe::labels(&seen.config.labels).1)
            .sum()
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        self.registry.state.send_modify(change);
    }
}

/// How long what is written is.
fn size(change: &Change) -> usize {
    match change {
        Change::Put(record) => serde_json::to_vec(record).map_or(0, |value| value.len()),
        Change::Delete { .. } => 0,
    }
}

/// The cluster's networks by the engine's id of a host's copy.
fn networks(snapshot: &Snapshot, host: &str) -> BTreeMap<String, Place> {
    let copies = snapshot.records::<CopyRecord>("copies/");
    let networks = copies.filter_map(|(rest, copy)| {
        let id = rest.strip_suffix(host)?.strip_suffix('/')?;
        let record: NetworkRecord = snapshot.record(&format!("networks/{id}"))?;
        let place = Place {
            id: record.id,
            name: record.name,
        };
        Some((copy.network.as_str().to_owned(), place))
    });
    networks.collect()
}
