//! The store, whichever it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::RwLock;

use crate::embedded::{Embedded, EmbeddedOptions};
use crate::error::{Error, Result};
use crate::etcd::{Etcd, EtcdConfig};
use crate::transaction::{Outcome, Transaction};
use crate::watch::{Inner, Watch};

/// The store. A clone is the same store.
#[derive(Debug, Clone)]
pub struct Store {
    kind: Kind,
    /// Whether it is frozen. A commit holds it for reading, so that freezing waits for those under
    /// way.
    frozen: Arc<RwLock<bool>>,
    /// The key that every commit depends on.
    fence: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
enum Kind {
    Embedded(Arc<Embedded>),
    Etcd(Arc<Etcd>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of its last change.
    pub revision: u64,
}

impl Entry {
    /// The value as a record.
    ///
    /// # Errors
    /// When the value is not such a record.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        let failed = |source| Error::Record {
            key: self.key.clone(),
            source,
        };
        serde_json::from_slice(&self.value).map_err(failed)
    }
}

/// All keys under a prefix, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries, by key.
    pub entries: Vec<Entry>,
    /// The store's revision at that moment: watch from the next.
    pub revision: u64,
}

/// A lease: what is bound to it goes when it is not kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub(crate) i64);

impl Store {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            frozen: Arc::new(RwLock::new(false)),
            fence: None,
        }
    }

    /// Opens the embedded store in a file, and makes it if it is not there. Blocks for the time of a
    /// file access.
    ///
    /// # Errors
    /// When the file cannot be opened, or another process has it open.
    pub fn open_embedded(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_embedded_with(path, EmbeddedOptions::default())
    }

    /// [`Self::open_embedded`], with options.
    ///
    /// # Errors
    /// When the file cannot be opened, or another process has it open.
    pub fn open_embedded_with(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self> {
        Ok(Self::of(Kind::Embedded(Arc::new(Embedded::open(
            path.as_ref(),
            options,
        )?))))
    }

    /// Connects to etcd. Whether it answers shows at the first call.
    ///
    /// # Errors
    /// When endpoints or certificates cannot be used at all.
    pub async fn connect_etcd(config: EtcdConfig) -> Result<Self> {
        Ok(Self::of(Kind::Etcd(Arc::new(Etcd::connect(config).await?))))
    }

    /// The same store, whose every commit is made only while `key` is there, and otherwise ends in
    /// [`Error::Fenced`]. Whoever deletes the key shuts its holder out, even one that does not know yet.
    #[must_use]
    pub fn fenced_by(&self, key: &str) -> Self {
        Self {
            fence: Some(key.into()),
            ..self.clone()
        }
    }

    /// The same store without [`Self::fenced_by`].
    #[must_use]
    pub fn unfenced(&self) -> Self {
        Self {
            fence: None,
            ..self.clone()
        }
    }

    /// Goes on with another configuration, for all clones: a new certificate, or other endpoints.
    /// Watches that run go on with the old one until they are cut. Nothing for the embedded store.
    ///
    /// # Errors
    /// When endpoints or certificates cannot be used at all.
    pub async fn reconfigure(&self, config: EtcdConfig) -> Result<()> {
        match &self.kind {
            Kind::Embedded(_) => Ok(()),
            Kind::Etcd(store) => store.reconfigure(config).await,
        }
    }

    /// `embedded` or `etcd`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Embedded(_) => "embedded",
            Kind::Etcd(_) => "etcd",
        }
    }

    /// Where it is; empty for the embedded store.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        match &self.kind {
            Kind::Embedded(_) => Vec::new(),
            Kind::Etcd(store) => store.endpoints(),
        }
    }

    /// The entry of a key.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>> {
        match &self.kind {
            Kind::Embedded(store) => store.get(key),
            Kind::Etcd(store) => store.get(key).await,
        }
    }

    /// The record of a key and the revision of its last change.
    ///
    /// # Errors
    /// When the store does not answer, or the value is not such a record.
    pub async fn get_record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>> {
        let entry = self.get(key).await?;
        entry
            .map(|entry| Ok((entry.decode()?, entry.revision)))
            .transpose()
    }

    /// All entries whose keys begin with `prefix` (all of them for an empty one), at one moment.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Listing> {
        match &self.kind {
            Kind::Embedded(store) => store.list(prefix),
            Kind::Etcd(store) => store.list(prefix).await,
        }
    }

    /// Makes the changes if the conditions hold.
    ///
    /// # Errors
    /// When the transaction is too large or has a wrong key, its lease is gone, this host is fenced, or
    /// the store does not answer; only in the last case it is not known whether the changes were made.
    pub async fn commit(&self, mut transaction: Transaction) -> Result<Outcome> {
        if let Some(fence) = &self.fence {
            transaction = transaction.if_present(&**fence);
        }
        transaction.check()?;
        let frozen = self.frozen.read().await;
        if *frozen {
            return Err(Error::Moving);
        }
        let outcome = match &self.kind {
            Kind::Embedded(store) => store.commit(transaction).await?,
            Kind::Etcd(store) => store.commit(transaction).await?,
        };
        if let (Outcome::Conflict, Some(fence)) = (outcome, &self.fence)
            && self.get(fence).await?.is_none()
        {
            return Err(Error::Fenced);
        }
        Ok(outcome)
    }

    /// Refuses every commit of this and all clones from now on ([`Error::Moving`]), and lists what
    /// there is: nothing comes after it, so it can be carried to another store. Leases go on.
    ///
    /// # Errors
    /// When the store does not answer; then it is not frozen.
    pub async fn freeze(&self) -> Result<Listing> {
        let mut frozen = self.frozen.write().await;
        let listing = self.list("").await?;
        *frozen = true;
        Ok(listing)
    }

    /// Takes commits again.
    pub async fn thaw(&self) {
        *self.frozen.write().await = false;
    }

    /// The changes under a prefix, from `from_revision` on (that one included).
    ///
    /// # Errors
    /// When the store does not answer. Forgotten changes show at the first [`Watch::next`].
    pub async fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch> {
        match &self.kind {
            Kind::Embedded(store) => Ok(Watch(Inner::Embedded(
                store.clone().watch(prefix, from_revision),
            ))),
            Kind::Etcd(store) => Ok(Watch(Inner::Etcd(Box::new(
                store.watch(prefix, from_revision).await?,
            )))),
        }
    }

    /// Forgets the changes before `revision`; the present values stay.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn compact(&self, revision: u64) -> Result<()> {
        match &self.kind {
            Kind::Embedded(store) => store.compact(revision).await,
            Kind::Etcd(store) => store.compact(revision).await,
        }
    }

    /// A new lease. It ends when it is not kept alive for `ttl` (etcd counts whole seconds, and no less
    /// than its election time-out, 2 s), or is revoked.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        match &self.kind {
            Kind::Embedded(store) => store.grant_lease(ttl).await,
            Kind::Etcd(store) => store.grant_lease(ttl).await,
        }
    }

    /// Starts the lease's time anew.
    ///
    /// # Errors
    /// [`Error::LeaseGone`], or when the store does not answer.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        match &self.kind {
            Kind::Embedded(store) => store.keep_alive(lease).await,
            Kind::Etcd(store) => store.keep_alive(lease).await,
        }
    }

    /// Ends a lease and deletes what is bound to it. One that is gone already is no fault.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revoke(&self, lease: LeaseId) -> Result<()> {
        match &self.kind {
            Kind::Embedded(store) => store.revoke(lease).await,
            Kind::Etcd(store) => store.revoke(lease).await,
        }
    }
}
