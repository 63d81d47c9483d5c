//! What is to be changed, and on which conditions: all of it, or nothing.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::store::LeaseId;

/// The most conditions, and the most changes, of one transaction (etcd's limit).
pub const MAX_OPERATIONS: usize = 128;

/// The most bytes of keys and values in one transaction, together: below what etcd takes (1.5 MiB).
pub const MAX_VALUE_BYTES: usize = 1 << 20;

const MAX_KEY_BYTES: usize = 1024;

/// Changes that are made together, if all conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) key: String,
    pub(crate) expected: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Absent,
    Present,
    Revision(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Put {
        key: String,
        value: Vec<u8>,
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
    },
}

impl Operation {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len().saturating_add(value.len()),
            Self::Delete { key } => key.len(),
        }
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a conflict means that nothing was changed"]
pub enum Outcome {
    /// All conditions held and all changes were made.
    Committed {
        /// The revision of these changes.
        revision: u64,
    },
    /// A condition did not hold; nothing was changed.
    Conflict,
}

impl Outcome {
    /// Whether the changes were made.
    #[must_use]
    pub const fn is_committed(self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}

impl Transaction {
    /// No condition and no change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if there is no such key.
    #[must_use]
    pub fn if_absent(self, key: impl Into<String>) -> Self {
        self.condition(key.into(), Expected::Absent)
    }

    /// Only if there is such a key.
    #[must_use]
    pub fn if_present(self, key: impl Into<String>) -> Self {
        self.condition(key.into(), Expected::Present)
    }

    /// Only if the key was last changed at `revision` ([`crate::Entry::revision`]).
    #[must_use]
    pub fn if_unchanged(self, key: impl Into<String>, revision: u64) -> Self {
        self.condition(key.into(), Expected::Revision(revision))
    }

    fn condition(mut self, key: String, expected: Expected) -> Self {
        self.conditions.push(Condition { key, expected });
        self
    }

    /// Sets the value of a key.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.operations.push(Operation::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Sets the value of a key, which the store deletes when the lease ends.
    #[must_use]
    pub fn put_leased(
        mut self,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
        lease: LeaseId,
    ) -> Self {
        let (key, value, lease) = (key.into(), value.into(), Some(lease));
        self.operations.push(Operation::Put { key, value, lease });
        self
    }

    /// Sets the value of a key to a record, as JSON.
    ///
    /// # Errors
    /// When the record cannot be written as JSON.
    pub fn put_record<T: Serialize>(self, key: impl Into<String>, record: &T) -> Result<Self> {
        let key = key.into();
        let value = encode(&key, record)?;
        Ok(self.put(key, value))
    }

    /// Sets the value of a key to a record, as JSON, for as long as the lease is held.
    ///
    /// # Errors
    /// When the record cannot be written as JSON.
    pub fn put_record_leased<T: Serialize>(
        self,
        key: impl Into<String>,
        record: &T,
        lease: LeaseId,
    ) -> Result<Self> {
        let key = key.into();
        let value = encode(&key, record)?;
        Ok(self.put_leased(key, value, lease))
    }

    /// Deletes a key; one that is not there is no fault.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    /// How many more changes fit.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_OPERATIONS.saturating_sub(self.operations.len())
    }

    /// Whether it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// What every implementation must refuse, checked in one place.
    pub(crate) fn check(&self) -> Result<()> {
        let count = self.conditions.len().max(self.operations.len());
        if count > MAX_OPERATIONS {
            let what = format!("{count} conditions or changes");
            return Err(Error::TooLarge {
                what,
                limit: MAX_OPERATIONS,
            });
        }
        let bytes: usize = self.operations.iter().map(Operation::size).sum();
        if bytes > MAX_VALUE_BYTES {
            return Err(Error::TooLarge {
                what: format!("{bytes} bytes"),
                limit: MAX_VALUE_BYTES,
            });
        }
        for condition in &self.conditions {
            check_key(&condition.key)?;
        }
        let mut seen = BTreeSet::new();
        for operation in &self.operations {
            check_key(operation.key())?;
            if !seen.insert(operation.key()) {
                return Err(Error::Repeated {
                    key: operation.key().to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|source| Error::Record {
        key: key.to_owned(),
        source,
    })
}

pub(crate) fn check_key(key: &str) -> Result<()> {
    let problem = if key.is_empty() {
        "it is empty"
    } else if key.len() > MAX_KEY_BYTES {
        "it is longer than 1024 bytes"
    } else if key.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(Error::Key {
        key: key.escape_debug().take(80).collect(),
        problem,
    })
}
