//! The thread that makes every change of the embedded store, and ends leases when their time has come.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use redb::ReadableTable;
use tokio::sync::{oneshot, watch as channel};

use super::schema::{ENTRIES, FIRST, LAST_LEASE, LEASES, LOG, META, REVISION, number};
use crate::error::{Error, Result};
use crate::store::LeaseId;
use crate::transaction::{Condition, Expected, Operation, Outcome, Transaction};

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the thread can be asked to do.
pub(super) enum Command {
    Commit(Transaction, Reply<Outcome>),
    Compact(u64, Reply<()>),
    Grant(Duration, Reply<LeaseId>),
    KeepAlive(LeaseId, Reply<()>),
    Revoke(LeaseId, Reply<()>),
}

/// The longest sleep when no lease is held.
const IDLE: Duration = Duration::from_secs(3600);

struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// The state of the thread.
pub(super) struct Writer {
    database: Arc<redb::Database>,
    revision: channel::Sender<u64>,
    leases: BTreeMap<i64, Lease>,
    history: u64,
}

impl Writer {
    /// Makes what is missing in the file; leases that are in it start anew, since their holders
    /// could not reach a store that was not running.
    pub(super) fn new(
        database: Arc<redb::Database>,
        history: u64,
    ) -> Result<(Self, channel::Receiver<u64>)> {
        let transaction = database.begin_write()?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LOG)?;
        let mut leases = BTreeMap::new();
        for pair in transaction.open_table(LEASES)?.iter()? {
            let (id, ttl) = pair?;
            leases.insert(id.value(), Lease::new(Duration::from_millis(ttl.value())));
        }
        let revision = number(&transaction.open_table(META)?, REVISION)?;
        transaction.commit()?;
        let (sender, receiver) = channel::channel(revision);
        Ok((
            Self {
                database,
                revision: sender,
                leases,
                history,
            },
            receiver,
        ))
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        loop {
            let now = Instant::now();
            let next = self.leases.values().map(|lease| lease.ends).min();
            let pause = next.map_or(IDLE, |ends| ends.saturating_duration_since(now));
            let command = inbox.recv_timeout(pause);
            // Leases first: a command must never see one that has ended as if it were held.
            self.expire(Instant::now());
            match command {
                Ok(command) => self.obey(command),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // A failed send means that the asker has gone away.
        match command {
            Command::Commit(transaction, reply) => {
                drop(reply.send(self.commit(&transaction)));
            }
            Command::Compact(revision, reply) => drop(reply.send(self.compact(revision))),
            Command::Grant(ttl, reply) => drop(reply.send(self.grant(ttl))),
            Command::KeepAlive(id, reply) => drop(reply.send(self.keep_alive(id))),
            Command::Revoke(id, reply) => drop(reply.send(self.end_lease(id.0))),
        }
    }

    fn commit(&self, transaction: &Transaction) -> Result<Outcome> {
        let file = self.database.begin_write()?;
        if !conditions_hold(&file, &transaction.conditions)? {
            return Ok(Outcome::Conflict);
        }
        for operation in &transaction.operations {
            if let Operation::Put {
                lease: Some(lease), ..
            } = operation
                && !self.leases.contains_key(&lease.0)
            {
                return Err(Error::LeaseGone);
            }
        }
        let revision = self.apply(file, &transaction.operations)?;
        Ok(Outcome::Committed { revision })
    }

    /// Writes the changes with the next revision; the same revision when nothing changes.
    fn apply(&self, file: redb::WriteTransaction, operations: &[Operation]) -> Result<u64> {
        let current = *self.revision.borrow();
        let revision = current.saturating_add(1);
        let mut changes = 0_u32;
        {
            let mut entries = file.open_table(ENTRIES)?;
            let mut log = file.open_table(LOG)?;
            for operation in operations {
                let new = match operation {
                    Operation::Put { key, value, lease } => {
                        let lease = lease.map_or(0, |lease| lease.0);
                        entries.insert(key.as_str(), (revision, lease, value.as_slice()))?;
                        Some(value.as_slice())
                    }
                    Operation::Delete { key } => {
                        if entries.remove(key.as_str())?.is_none() {
                            continue;
                        }
                        None
                    }
                };
                log.insert((revision, changes), (operation.key(), new))?;
                changes = changes.saturating_add(1);
            }
        }
        if changes == 0 {
            file.commit()?;
            return Ok(current);
        }
        file.open_table(META)?.insert(REVISION, revision)?;
        forget(
            &file,
            revision.saturating_sub(self.history).saturating_add(1),
        )?;
        file.commit()?;
        self.revision.send_replace(revision);
        Ok(revision)
    }

    fn compact(&self, revision: u64) -> Result<()> {
        let file = self.database.begin_write()?;
        forget(&file, revision.min(*self.revision.borrow()))?;
        file.commit()?;
        // Wakes the watches that wait, so that none sleeps on what is no longer there.
        self.revision.send_modify(|_| {});
        Ok(())
    }

    fn grant(&mut self, ttl: Duration) -> Result<LeaseId> {
        let file = self.database.begin_write()?;
        let id = {
            let mut meta = file.open_table(META)?;
            let id = number(&meta, LAST_LEASE)?.saturating_add(1);
            meta.insert(LAST_LEASE, id)?;
            i64::try_from(id).unwrap_or(i64::MAX)
        };
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        file.open_table(LEASES)?.insert(id, millis)?;
        file.commit()?;
        self.leases.insert(id, Lease::new(ttl));
        Ok(LeaseId(id))
    }

    fn keep_alive(&mut self, id: LeaseId) -> Result<()> {
        let lease = self.leases.get_mut(&id.0).ok_or(Error::LeaseGone)?;
        lease.ends = Instant::now() + lease.ttl;
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        let ended = self.leases.iter().filter(|(_, lease)| lease.ends <= now);
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Err(error) = self.end_lease(id) {
                tracing::error!(
                    ?error,
                    lease = id,
                    "a lease could not be ended; trying again"
                );
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.ends = now + Duration::from_secs(1);
                }
            }
        }
    }

    fn end_lease(&mut self, id: i64) -> Result<()> {
        let file = self.database.begin_write()?;
        file.open_table(LEASES)?.remove(id)?;
        let mut bound = Vec::new();
        for pair in file.open_table(ENTRIES)?.iter()? {
            let (key, entry) = pair?;
            if entry.value().1 == id {
                bound.push(Operation::Delete {
                    key: key.value().to_owned(),
                });
            }
        }
        self.apply(file, &bound)?;
        self.leases.remove(&id);
        Ok(())
    }
}

impl Lease {
    fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            ends: Instant::now() + ttl,
        }
    }
}

fn conditions_hold(file: &redb::WriteTransaction, conditions: &[Condition]) -> Result<bool> {
    let entries = file.open_table(ENTRIES)?;
    for condition in conditions {
        let found = entries
            .get(condition.key.as_str())?
            .map(|entry| entry.value().0);
        let holds = match condition.expected {
            Expected::Absent => found.is_none(),
            Expected::Present => found.is_some(),
            Expected::Revision(revision) => found == Some(revision),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes the log before `first`.
fn forget(file: &redb::WriteTransaction, first: u64) -> Result<()> {
    let mut meta = file.open_table(META)?;
    if first <= number(&meta, FIRST)? {
        return Ok(());
    }
    meta.insert(FIRST, first)?;
    file.open_table(LOG)?
        .retain_in(..(first, 0), |_, _| false)?;
    Ok(())
}
