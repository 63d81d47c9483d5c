//! Changes as they come.

use crate::{embedded, etcd};

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision it was made at; changes of one transaction share it.
    pub revision: u64,
    /// Which key.
    pub key: String,
    /// Its new value; `None` when it was deleted, or its lease ended.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// The new value as a record; `None` when the key was deleted.
    ///
    /// # Errors
    /// When the value is not such a record.
    pub fn decode<T: serde::de::DeserializeOwned>(&self) -> crate::Result<Option<T>> {
        let decode = |value: &Vec<u8>| serde_json::from_slice(value);
        let failed = |source| crate::Error::Record {
            key: self.key.clone(),
            source,
        };
        self.value.as_ref().map(decode).transpose().map_err(failed)
    }
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The store no longer has all changes since the revision: list again, and watch from the
    /// listing's revision + 1.
    #[error("the store has forgotten the changes since that revision")]
    Compacted,
    /// The connection ended. Watch again from [`Watch::position`], or list again.
    #[error("the connection to the store was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The changes under a prefix from a revision on, each once, in order.
#[derive(Debug)]
pub struct Watch(pub(crate) Inner);

#[derive(Debug)]
pub(crate) enum Inner {
    Embedded(embedded::Watch),
    Etcd(Box<etcd::Watch>),
}

impl Watch {
    /// The next change; waits for it. After an error the watch is at its end. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// When there will be no more: see [`WatchError`].
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        match &mut self.0 {
            Inner::Embedded(watch) => watch.next().await,
            Inner::Etcd(watch) => watch.next().await,
        }
    }

    /// The revision to watch from so as to go on after the last change that [`Self::next`] gave. When
    /// that change was not the last of its transaction, the whole transaction comes again.
    #[must_use]
    pub fn position(&self) -> u64 {
        match &self.0 {
            Inner::Embedded(watch) => watch.position(),
            Inner::Etcd(watch) => watch.position(),
        }
    }
}
