//! The hosts' keys for encrypted traffic: this host's is signed and published, the others' are checked
//! before anybody here hears of them.
//!
//! ```text
//!   drover-net --PublishKey--> own (sign) --keys/<host>--> store --> mirror --> book (check) --> fabric
//!                               ^                                                |
//!                               +--- writes it again: a new certificate, ---------+
//!                                    or somebody has overwritten it
//! ```
//!
//! A key is believed for its signature, not for where it was found: everybody in the cluster can write
//! everywhere in the store. Nothing here is secret; the private halves never leave `drover-net`.
//!
//! | module | what it does |
//! |---|---|
//! | `record` | what is signed, and whether a record is to be believed |
//! | `book` | which keys are believed now, each checked once |
//! | `own` | publishes this host's key, and keeps it published |

mod book;
mod own;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_control_api::coordinator::{
    Finding, NextGenerationAnswer, PublishKey, PublishedKey, Severity,
};
use drover_control_api::fabric::PeerKey;
use drover_control_api::{Failure, FailureKind};
use drover_model::HostName;
use drover_store::local::{Database, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::context::{Context, StoreKind, now};
use crate::membership::{self, Signer};
use crate::mirror::chain;
use book::Book;
use own::Publisher;
use record::Fault;

/// How often certificates are looked at for their time: this host's own and the others'.
const LOOK: Duration = Duration::from_secs(60);
/// How long the own key rests after it was written again: whoever overwrites it may do so for ever.
const REST: Duration = Duration::from_secs(1);
/// How many keys that are not believed are told one by one.
const TOLD: usize = 20;
/// The key in the table of what this host remembers.
const OWN: &str = "own";

/// What is known of keys; in the context of the process.
#[derive(Debug)]
pub struct Keys {
    view: watch::Sender<Arc<View>>,
    /// This host's key as it should be in the store, once it is known.
    own: Mutex<Option<PeerKey>>,
    table: Table<Remembered>,
    /// One writes this host's key at a time.
    turn: tokio::sync::Mutex<()>,
    renewed: Notify,
}

/// The keys that are believed, and the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Whether the store was read.
    pub is_complete: bool,
    /// The key of each host that has one.
    pub keys: BTreeMap<HostName, PeerKey>,
    /// What is wrong with the others, by what follows `keys/` in the store.
    pub(crate) faults: BTreeMap<String, Fault>,
    /// Why no key is believed at all.
    pub(crate) problem: Option<String>,
}

/// The highest generation that this host has published: a store that was put back to an earlier state
/// does not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    member: String,
    generation: u64,
}

impl Keys {
    /// Reads what this host remembers of its own keys.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn open(database: &Database) -> Result<Self, drover_store::Error> {
        Ok(Self {
            view: watch::Sender::default(),
            own: Mutex::default(),
            table: Table::open(database, "published-key")?,
            turn: tokio::sync::Mutex::default(),
            renewed: Notify::new(),
        })
    }

    /// The keys, as they change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// This host's certificate may be another now.
    pub fn certificate_renewed(&self) {
        self.renewed.notify_one();
    }

    /// What is wrong with keys, for `drover doctor`.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.view.borrow().findings()
    }

    fn show(&self, view: View) {
        self.view.send_if_modified(|shown| {
            let is_news = **shown != view;
            if is_news {
                *shown = Arc::new(view);
            }
            is_news
        });
    }

    /// This host's key, as it should be in the store.
    fn own(&self) -> Option<PeerKey> {
        self.own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes note that this is this host's key.
    fn remember(&self, key: PeerKey) {
        let remembered = Remembered {
            member: key.member.clone(),
            generation: key.generation,
        };
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        if self.recorded(&remembered.member) < remembered.generation
            && let Err(error) = self.table.put(OWN, &remembered)
        {
            // It matters only if the store is put back to an earlier state.
            tracing::warn!(
                error = chain(&error),
                "the generation of this host's key is not recorded"
            );
        }
    }

    /// The highest generation that the member is known to have published from here; 0 for none.
    fn highest(&self, member: &str) -> u64 {
        let own = self.own().filter(|own| own.member == member);
        own.map_or(0, |own| own.generation)
            .max(self.recorded(member))
    }

    fn recorded(&self, member: &str) -> u64 {
        let recorded = self.table.get(OWN).ok().flatten();
        let recorded = recorded.filter(|recorded| recorded.member == member);
        recorded.map_or(0, |recorded| recorded.generation)
    }
}

impl View {
    /// A finding a key that is not believed.
    fn findings(&self) -> Vec<Finding> {
        let finding = |problem: String, remedy: String| Finding {
            severity: Severity::Error,
            problem,
            remedy,
        };
        let problem = self.problem.iter().map(|problem| {
            finding(
                format!("no host's key for encrypted traffic can be checked: {problem}"),
                "put that right and restart drover-coordinator; until then encrypted networks carry nothing new"
                    .to_owned(),
            )
        });
        let faults = self.faults.iter().take(TOLD).map(|(name, fault)| {
            let name = shown(name);
            finding(
                format!("the key of host `{name}` for encrypted traffic is not used: {fault}"),
                fault.remedy(&name),
            )
        });
        let more = self.faults.len().saturating_sub(TOLD);
        let more = (more > 0).then(|| {
            finding(
                format!("{more} further keys for encrypted traffic are not used"),
                "put right the first ones and look again".to_owned(),
            )
        });
        problem.chain(faults).chain(more).collect()
    }
}

/// A name that somebody may have made up, for a person's eyes.
fn shown(name: &str) -> String {
    name.escape_debug().take(64).collect()
}

/// Publishes this host's key.
///
/// # Errors
/// With the reason and the remedy; a conflict when the generation is not the next one.
pub async fn publish(context: &Context, request: PublishKey) -> Result<PublishedKey, Failure> {
    context.refuse_when_fenced()?;
    let signer = signer(context)?;
    let published = publisher(context, &signer).publish(request, now()).await;
    published.map(|()| PublishedKey {})
}

/// Which generation this host's next key has.
///
/// # Errors
/// When this host is alone, or the store does not answer.
pub async fn next_generation(context: &Context) -> Result<NextGenerationAnswer, Failure> {
    context.refuse_when_fenced()?;
    let signer = signer(context)?;
    let generation = publisher(context, &signer).next_generation(now()).await?;
    Ok(NextGenerationAnswer { generation })
}

fn signer(context: &Context) -> Result<Signer, Failure> {
    let alone = || {
        let message = format!(
            "host `{}` is alone: it has no certificate to sign a key with, and nobody to encrypt for; \
             `drover init` or `drover join` change that",
            context.host()
        );
        Failure::new(FailureKind::NotFound, message)
    };
    if context.membership.kind == StoreKind::Embedded {
        return Err(alone());
    }
    membership::signer(&context.settings)?.ok_or_else(alone)
}

fn publisher<'a>(context: &'a Context, signer: &'a Signer) -> Publisher<'a> {
    Publisher {
        keys: &context.keys,
        store: context.store(),
        cluster: &context.membership.cluster,
        host: context.host(),
        member: context.member(),
        signer,
    }
}

/// Checks the keys of all hosts and keeps this host's own published, until the shutdown.
pub async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let work = async {
        match signer(&context) {
            Ok(signer) => {
                let book = Book::new(signer.trust, &context.membership.cluster);
                tokio::join!(check(&context, book), keep_published(&context));
            }
            Err(failure) => {
                // The fabric stream waits for the first view.
                let problem = (failure.kind != FailureKind::NotFound).then(|| {
                    tracing::error!(%failure, "no host's key can be checked");
                    failure.message
                });
                context.keys.show(View {
                    is_complete: true,
                    problem,
                    ..View::default()
                });
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

async fn check(context: &Context, mut book: Book) {
    let mut cluster = context.cluster.clone();
    loop {
        let snapshot = cluster.borrow_and_update().clone();
        if snapshot.is_complete() {
            book.read(&snapshot, now()).await;
            context.keys.show(book.view());
        }
        // Both arms are cancel-safe.
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Writes this host's key again when its certificate is another, or when the store has something else in
/// its place.
async fn keep_published(context: &Context) {
    let mut cluster = context.cluster.clone();
    let key = record::key(context.host());
    loop {
        let seen = cluster.borrow_and_update().revision(&key);
        if !context.is_fenced() && context.cluster.borrow().is_complete() {
            match restore(context).await {
                Ok(false) => {}
                Ok(true) => tokio::time::sleep(REST).await,
                Err(failure) => {
                    tracing::warn!(%failure, "whether this host's key is published is not known");
                    tokio::time::sleep(REST).await;
                }
            }
        }
        let other = |snapshot: &crate::mirror::Snapshot| snapshot.revision(&key) != seen;
        // All arms are cancel-safe.
        tokio::select! {
            changed = cluster.wait_for(other) => if changed.is_err() { return },
            () = context.keys.renewed.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn restore(context: &Context) -> Result<bool, Failure> {
    let signer = signer(context)?;
    publisher(context, &signer).restore(now()).await
}
