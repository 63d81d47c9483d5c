//! What can go wrong with a store.

use std::path::PathBuf;

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text cannot be a key.
    #[error("`{key}` cannot be a key of the store: {problem}")]
    Key {
        /// The text, cut to 80 characters.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// One transaction changes the same key twice.
    #[error("a transaction changes `{key}` twice; say once what it is to become")]
    Repeated {
        /// The key.
        key: String,
    },
    /// More than the store takes at a time.
    #[error("a transaction has {what}, and the limit is {limit}; cut it into several")]
    TooLarge {
        /// What there is too much of, with the number.
        what: String,
        /// How much is allowed.
        limit: usize,
    },
    /// The lease has expired or was revoked.
    #[error("the lease is gone; grant another and write again what was bound to it")]
    LeaseGone,
    /// The store does not answer now. Whether a commit under way was made is not known.
    #[error("the store at {endpoints} does not answer ({during}); what is known here stays in use")]
    Unavailable {
        /// Where it is.
        endpoints: String,
        /// Which call it was.
        during: &'static str,
        /// Why, when there was an answer at all.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The store answered that it will not.
    #[error("the store refused {during}")]
    Refused {
        /// Which call it was.
        during: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// How to reach etcd was given wrongly.
    #[error("etcd cannot be reached as configured: {problem}")]
    Config {
        /// What is wrong.
        problem: String,
    },
    /// A value is not the record it should be.
    #[error("the value of `{key}` is not a record that this version of Drover can read or write")]
    Record {
        /// Its key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The file cannot be opened.
    #[error("the store file {} cannot be opened; check that no other Drover uses it and that the disk is sound", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the file open.
    #[error("the store file {} is open in another process; end that one, or wait until it has ended", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file is not what was written to it.
    #[error("the store file {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file cannot be read or written.
    #[error("the store file cannot be read or written; check the disk and its free space")]
    Storage(#[source] Box<redb::Error>),
    /// What is in the store is being carried to another.
    #[error("the store is being moved; try again in a few seconds")]
    Moving,
    /// The key is gone that this user's commits depend on ([`crate::Store::fenced_by`]).
    #[error("this host is no longer a member of its cluster and can change nothing in it")]
    Fenced,
    /// The store was closed while the call was under way.
    #[error("the store was closed")]
    Closed,
}

impl Error {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Moving)
    }
}

macro_rules! storage {
    ($($source:ty),*) => {$(
        impl From<$source> for Error {
            fn from(source: $source) -> Self {
                Self::Storage(Box::new(source.into()))
            }
        }
    )*};
}
storage!(
    redb::CommitError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::SetDurabilityError
);
