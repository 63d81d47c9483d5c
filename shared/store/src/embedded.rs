//! The embedded store: one redb file, one thread that writes, readers beside it.
//!
//! Every commit gets the next revision and is written to a log in the same file transaction, so a
//! watch reads the log from its own position and never misses or repeats a change. The log keeps
//! the last [`EmbeddedOptions::history`] revisions; a watch that is behind them is told so.

mod schema;
mod watch;
mod writer;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::ReadableDatabase;
use tokio::sync::{oneshot, watch as channel};

pub(crate) use self::watch::Watch;
use self::writer::{Command, Reply, Writer};
use crate::error::{Error, Result};
use crate::store::{Entry, LeaseId, Listing};
use crate::transaction::{Outcome, Transaction, check_key};

/// How the embedded store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// How many revisions a watch can be behind.
    pub history: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { history: 4096 }
    }
}

/// An open embedded store. The file is free again when the last clone and the last watch are gone.
#[derive(Debug)]
pub(crate) struct Embedded {
    database: Arc<redb::Database>,
    revision: channel::Receiver<u64>,
    /// `None` only while it is being dropped.
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    pub(crate) fn open(path: &Path, options: EmbeddedOptions) -> Result<Self> {
        let database = Arc::new(crate::local::open_file(path)?);
        let (writer, revision) = Writer::new(Arc::clone(&database), options.history)?;
        let (commands, inbox) = mpsc::channel();
        let failed = |source: std::io::Error| Error::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(failed)?;
        Ok(Self {
            database,
            revision,
            commands: Some(commands),
            writer: Some(writer),
        })
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Entry>> {
        check_key(key)?;
        let entries = self.database.begin_read()?.open_table(schema::ENTRIES)?;
        let Some(found) = entries.get(key)? else {
            return Ok(None);
        };
        let (revision, _, value) = found.value();
        Ok(Some(Entry {
            key: key.to_owned(),
            value: value.to_vec(),
            revision,
        }))
    }

    pub(crate) fn list(&self, prefix: &str) -> Result<Listing> {
        let transaction = self.database.begin_read()?;
        let revision = schema::number(&transaction.open_table(schema::META)?, schema::REVISION)?;
        let table = transaction.open_table(schema::ENTRIES)?;
        let mut entries = Vec::new();
        for pair in table.range(prefix..)? {
            let (key, found) = pair?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (revision, _, value) = found.value();
            entries.push(Entry {
                key: key.value().to_owned(),
                value: value.to_vec(),
                revision,
            });
        }
        Ok(Listing { entries, revision })
    }

    pub(crate) fn watch(self: Arc<Self>, prefix: &str, from_revision: u64) -> Watch {
        let revision = self.revision.clone();
        Watch::new(self, revision, prefix.to_owned(), from_revision)
    }

    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Outcome> {
        self.ask(|reply| Command::Commit(transaction, reply)).await
    }

    pub(crate) async fn compact(&self, revision: u64) -> Result<()> {
        self.ask(|reply| Command::Compact(revision, reply)).await
    }

    pub(crate) async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.ask(|reply| Command::Grant(ttl, reply)).await
    }

    pub(crate) async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Command::KeepAlive(lease, reply)).await
    }

    pub(crate) async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Command::Revoke(lease, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(Error::Closed)?;
        commands
            .send(command(reply))
            .map_err(|_gone| Error::Closed)?;
        answer.await.map_err(|_gone| Error::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The file's lock must be free when the drop returns, so that it can be opened again.
        self.commands = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}
