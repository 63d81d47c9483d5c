//! A reader of the log that waits at its end.

use std::collections::VecDeque;
use std::sync::Arc;

use redb::ReadableDatabase;
use tokio::sync::watch as channel;

use super::{Embedded, schema};
use crate::error::Result;
use crate::watch::{Change, WatchError};

/// The most changes that are read from the log at once.
const BATCH: usize = 512;

/// A watch of the embedded store.
#[derive(Debug)]
pub(crate) struct Watch {
    store: Arc<Embedded>,
    revision: channel::Receiver<u64>,
    prefix: String,
    /// The first revision that has not been read from the log.
    unread: u64,
    /// Read, and not given yet.
    ready: VecDeque<Change>,
}

impl Watch {
    pub(super) fn new(
        store: Arc<Embedded>,
        revision: channel::Receiver<u64>,
        prefix: String,
        from_revision: u64,
    ) -> Self {
        Self {
            store,
            revision,
            prefix,
            unread: from_revision,
            ready: VecDeque::new(),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.ready
            .front()
            .map_or(self.unread, |change| change.revision)
    }

    pub(crate) async fn next(&mut self) -> std::result::Result<Change, WatchError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let current = *self.revision.borrow_and_update();
            let whole = self
                .read(current)
                .map_err(|error| WatchError::Cut(error.into()))?;
            if !whole {
                return Err(WatchError::Compacted);
            }
            if self.ready.is_empty() && self.unread > current {
                self.revision
                    .changed()
                    .await
                    .map_err(|gone| WatchError::Cut(gone.into()))?;
            }
        }
    }

    /// Reads on in the log, up to `current`; whether the log still had it all.
    fn read(&mut self, current: u64) -> Result<bool> {
        let transaction = self.store.database.begin_read()?;
        let first = schema::number(&transaction.open_table(schema::META)?, schema::FIRST)?;
        if self.unread < first {
            return Ok(false);
        }
        let log = transaction.open_table(schema::LOG)?;
        for item in log.range((self.unread, 0)..=(current, u32::MAX))? {
            let (position, change) = item?;
            let (revision, _) = position.value();
            // Only between transactions, so that a revision is never read by half.
            if self.ready.len() >= BATCH && revision > self.unread {
                self.unread = revision;
                return Ok(true);
            }
            self.unread = revision;
            let (key, value) = change.value();
            if key.starts_with(&self.prefix) {
                let (key, value) = (key.to_owned(), value.map(<[u8]>::to_vec));
                self.ready.push_back(Change {
                    revision,
                    key,
                    value,
                });
            }
        }
        self.unread = self.unread.max(current.saturating_add(1));
        Ok(true)
    }
}
