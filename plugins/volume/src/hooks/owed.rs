//! Commands that containers are owed after a snapshot: written down before the one that comes before it is begun, so that neither a kill
//! of this process nor an engine that is away loses one.
//!
//! A kill between a command and the note that it was run has it run twice; that is why they are to be such that a second time does
//! no harm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_daemon::Backoff;
use drover_engine::Engine;
use drover_store::local::{Batch, Database, Table};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::command::{Command, Outcome};
use crate::error::{Error, Result};
use crate::work::Work;

/// How long until an engine or a container that was not to be had is asked again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is owed.
pub(crate) struct Owed {
    database: Database,
    table: Table<Command>,
    /// What no snapshot that is being taken will run: of a process before this one, or put off.
    left: Mutex<BTreeMap<String, Command>>,
    /// They are run by one at a time.
    settling: tokio::sync::Mutex<()>,
    put_off: Notify,
}

impl Owed {
    pub(crate) fn open(database: &Database) -> Result<Self> {
        let table: Table<Command> = Table::open(database, "owed")?;
        let left = table.list()?.into_iter().collect();
        Ok(Self {
            database: database.clone(),
            table,
            left: Mutex::new(left),
            settling: tokio::sync::Mutex::default(),
            put_off: Notify::new(),
        })
    }

    fn left(&self) -> BTreeMap<String, Command> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.clone()
    }

    /// Writes commands down, all of them or none; the key of each.
    pub(super) fn note(&self, commands: &[&Command]) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut batch = Batch::new();
        for command in commands {
            let key = crate::clock::random_id();
            let key: String = key.map_err(|error| Error::Internal(error.to_string()))?;
            batch = batch.put(&self.table, &key, command)?;
            keys.push(key);
        }
        if !batch.is_empty() {
            self.database.commit(batch)?;
        }
        Ok(keys)
    }

    /// Notes what came of a command.
    pub(super) fn settle(&self, key: &str, command: &Command, outcome: &Outcome) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Outcome::NotBegun(_) = outcome {
            if left.insert(key.to_owned(), command.clone()).is_none() {
                self.put_off.notify_one();
            }
            return;
        }
        left.remove(key);
        if let Err(error) = self.table.delete(key) {
            warn!(%error, container = command.name, "a command that was run will be run again");
        }
    }

    /// Runs what is left; whether nothing is left then.
    pub(super) async fn settle_all(&self, engine: &Engine) -> bool {
        let _one_at_a_time = self.settling.lock().await;
        for (key, command) in self.left() {
            let outcome = command.run(engine).await;
            let container = &command.name;
            match &outcome {
                Outcome::Done => info!(container, "what was owed to it after a snapshot is run"),
                Outcome::Failed(problem) => {
                    warn!(
                        container,
                        problem, "what was owed to it after a snapshot failed"
                    );
                }
                Outcome::NotBegun(problem) => {
                    debug!(container, problem, "is owed a command still");
                }
                Outcome::NoContainer(_) => {
                    info!(
                        container,
                        "is gone, and what was owed to it after a snapshot"
                    );
                }
            }
            self.settle(&key, &command, &outcome);
        }
        self.left().is_empty()
    }
}

/// Runs what is owed, as soon as that is possible, until the shutdown.
pub(crate) async fn run(work: Arc<Work>, mut shutdown: watch::Receiver<bool>) {
    let owed = &work.catalogue.owed;
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        let pass = async {
            if owed.settle_all(&work.engine).await {
                backoff.reset();
                owed.put_off.notified().await;
            }
            sleep(backoff.next_delay()).await;
        };
        // What is cut by the shutdown is run again by the next process.
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = pass => {}
        }
    }
}
