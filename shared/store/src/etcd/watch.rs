//! A watch of etcd: its stream of answers, as changes.

use std::collections::VecDeque;

use etcd_client::{EventType, WatchStream};

use super::{number, own_key};
use crate::watch::{Change, WatchError};

/// A watch of etcd.
pub(crate) struct Watch {
    stream: WatchStream,
    prefix: String,
    /// The revision after the last that was received whole.
    unread: u64,
    /// Received, and not given yet.
    ready: VecDeque<Change>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Watch")
            .field("unread", &self.unread)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new(stream: WatchStream, prefix: String, from_revision: u64) -> Self {
        Self {
            stream,
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

    pub(crate) async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let message = self.stream.message().await;
            let message = message.map_err(|error| WatchError::Cut(error.into()))?;
            let Some(message) = message else {
                return Err(WatchError::Cut("etcd ended the watch".into()));
            };
            if message.compact_revision() > 0 {
                return Err(WatchError::Compacted);
            }
            if message.canceled() {
                let reason = format!("etcd ended the watch: {}", message.cancel_reason());
                return Err(WatchError::Cut(reason.into()));
            }
            for event in message.events() {
                self.receive(event);
            }
        }
    }

    fn receive(&mut self, event: &etcd_client::Event) {
        let Some(pair) = event.kv() else { return };
        let revision = number(pair.mod_revision());
        self.unread = self.unread.max(revision.saturating_add(1));
        let Some(key) = own_key(&self.prefix, pair.key()) else {
            return;
        };
        let value = (event.event_type() == EventType::Put).then(|| pair.value().to_vec());
        self.ready.push_back(Change {
            revision,
            key,
            value,
        });
    }
}
