//! A copy of the store in memory, kept current by one watch.
//!
//! Everything here that reads the cluster's state reads this: it is there also while the store cannot
//! be reached, and a snapshot is one moment of the store. It may be a moment old, so
//! whoever changes the store does so on the condition that what was read is unchanged.

mod takeover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_store::{Change, Entry, Listing, Store, WatchError};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub use takeover::{Found, Takeover, Takeovers};

/// How long to wait before a store that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long changes that come one right after the other are gathered, so that a snapshot does not
/// show half of a transaction.
const GATHER: Duration = Duration::from_millis(2);
/// How many changes are gathered at most.
const GATHER_MOST: usize = 10_000;

/// The store at one moment. A clone is the same moment, and costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Which listing it began with; 0 before the first. Increases when the watch had to begin anew.
    pub generation: u64,
    /// Why the store cannot be reached, if it cannot.
    pub problem: Option<String>,
    /// Since when it cannot be reached.
    pub problem_since: Option<u64>,
    entries: Arc<BTreeMap<String, Arc<Entry>>>,
    networks_revision: u64,
    takeovers: Arc<Takeovers>,
}

/// What the reconciliation of networks reads.
const NETWORK_KEYS: [&str; 5] = ["networks/", "names/", "copies/", "attachments/", "pools/"];

impl Snapshot {
    /// A snapshot of given entries.
    #[must_use]
    pub fn of(entries: Vec<Entry>) -> Self {
        let mut snapshot = Self::default();
        snapshot.begin(Listing {
            entries,
            revision: 1,
        });
        snapshot
    }

    /// Whether the store has been read at all.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.generation > 0
    }

    /// The entry of a key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).map(Arc::as_ref)
    }

    /// The revision of a key's last change; 0 when it is absent.
    #[must_use]
    pub fn revision(&self, key: &str) -> u64 {
        self.entry(key).map_or(0, |entry| entry.revision)
    }

    /// The record of a key, if there is one and it can be read.
    #[must_use]
    pub fn record<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.entry(key).and_then(|entry| decode(entry))
    }

    /// The revision of the last change that concerned networks.
    #[must_use]
    pub const fn networks_revision(&self) -> u64 {
        self.networks_revision
    }

    /// Which changes of blocks are not believed.
    #[must_use]
    pub fn takeovers(&self) -> &Takeovers {
        &self.takeovers
    }

    /// What follows `prefix` in each key that begins with it, and the entry.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Arc<Entry>)> {
        self.entries
            .range(prefix.to_owned()..)
            .map_while(move |(key, entry)| Some((key.strip_prefix(prefix)?, entry)))
    }

    /// The records under a prefix; one that cannot be read is left out, and told in the log.
    pub fn records<'a, T: DeserializeOwned + 'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, T)> {
        self.under(prefix)
            .filter_map(|(rest, entry)| Some((rest, decode(entry)?)))
    }

    fn begin(&mut self, listing: Listing) {
        self.networks_revision = listing.revision;
        let entries = listing.entries.into_iter();
        self.entries = Arc::new(
            entries
                .map(|entry| (entry.key.clone(), Arc::new(entry)))
                .collect(),
        );
        self.generation = self.generation.saturating_add(1);
        Arc::make_mut(&mut self.takeovers).standing.clear();
        self.recover();
    }

    fn fail(&mut self, problem: String) {
        self.problem = Some(problem);
        self.problem_since.get_or_insert_with(crate::context::now);
    }

    /// Returns whether there was a problem.
    fn recover(&mut self) -> bool {
        self.problem_since = None;
        self.problem.take().is_some()
    }

    fn apply(&mut self, changes: Vec<Change>) {
        let entries = Arc::make_mut(&mut self.entries);
        let takeovers = Arc::make_mut(&mut self.takeovers);
        for Change {
            revision,
            key,
            value,
        } in changes
        {
            if NETWORK_KEYS.iter().any(|prefix| key.starts_with(prefix)) {
                self.networks_revision = revision;
            }
            match value {
                Some(value) => {
                    let entry = Arc::new(Entry {
                        key: key.clone(),
                        value,
                        revision,
                    });
                    if takeovers.believe(entries, &entry) {
                        entries.insert(key, entry);
                    }
                }
                None => {
                    if takeovers.believe_deleted(entries, &key) {
                        entries.remove(&key);
                    }
                }
            }
        }
        for Takeover { key, found, .. } in takeovers.freed(entries) {
            match found {
                Found::Claim { entry, .. } => entries.insert(key, entry),
                Found::Nothing => entries.remove(&key),
            };
        }
    }
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    match entry.decode() {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(key = entry.key, %error, "a record of the store cannot be read");
            None
        }
    }
}

/// Keeps `sender` current until `shutdown` is set.
pub async fn run(
    store: Store,
    sender: Arc<watch::Sender<Snapshot>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let follow = async {
        let mut position = None;
        loop {
            if let Some(problem) = follow(&store, &sender, &mut position).await {
                tracing::warn!(
                    problem,
                    "the store cannot be read; what is known stays in use"
                );
                sender.send_modify(|snapshot| snapshot.fail(problem));
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = follow => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// Goes on from `position`, or lists first, and follows until the watch ends. Returns why the store
/// cannot be reached, if so.
async fn follow(
    store: &Store,
    sender: &watch::Sender<Snapshot>,
    position: &mut Option<u64>,
) -> Option<String> {
    let from = match *position {
        Some(from) => from,
        None => {
            let listing = match store.list("").await {
                Ok(listing) => listing,
                Err(error) => return Some(chain(&error)),
            };
            let from = listing.revision.saturating_add(1);
            sender.send_modify(|snapshot| snapshot.begin(listing));
            *position = Some(from);
            from
        }
    };
    let mut watch = match store.watch("", from).await {
        Ok(watch) => watch,
        Err(error) => return Some(chain(&error)),
    };
    sender.send_if_modified(Snapshot::recover);
    loop {
        let (changes, end) = gather(&mut watch).await;
        if !changes.is_empty() {
            sender.send_modify(|snapshot| snapshot.apply(changes));
        }
        match end {
            None => {}
            Some(WatchError::Compacted) => {
                *position = None;
                return None;
            }
            Some(error) => {
                *position = Some(watch.position());
                return Some(chain(&error));
            }
        }
    }
}

/// Waits for a change, and takes what follows it at once.
async fn gather(watch: &mut drover_store::Watch) -> (Vec<Change>, Option<WatchError>) {
    let mut changes = Vec::new();
    match watch.next().await {
        Ok(change) => changes.push(change),
        Err(error) => return (changes, Some(error)),
    }
    while changes.len() < GATHER_MOST {
        match tokio::time::timeout(GATHER, watch.next()).await {
            Ok(Ok(change)) => changes.push(change),
            Ok(Err(error)) => return (changes, Some(error)),
            Err(_) => break,
        }
    }
    (changes, None)
}

/// An error and its causes, joined by `: `.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
