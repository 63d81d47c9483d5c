//! What every part of the coordinator shares: who this host is, and the handles to everything else.
//!
//! Made once, when the store is open, and then only read. The parts around it:
//!
//! | module | what it offers |
//! |---|---|
//! | `membership` | `open(&Settings) -> Membership` (before there is a context), `init`, `join`, `leave`, `remove_host`, `serve(Arc<Context>, shutdown)` |
//! | `claims` | a function a method of IPAM (`claim_pool(&Context, ClaimPool)` and so on), `serve(Arc<Context>, shutdown)` |
//! | `host` | this host's own record, its facts, its sign of life |
//! | `fabric` | the stream of hosts, blocks and keys |
//! | `keys` | the hosts' keys for encrypted traffic |
//! | `networks` | copies of networks on every host |
//! | `catalogue` | which volumes, snapshots and backups there are on all hosts |
//! | `registry` | the records of this host's containers, and the stream of everybody's |
//! | `server` | the control socket |
//!
//! Methods return `Result<Answer, Failure>`; `serve` functions run until the shutdown and return
//! only then.

use std::net::IpAddr;
use std::time::Duration;

use drover_control_api::record::UnixSeconds;
use drover_control_api::{Failure, FailureKind};
use drover_daemon::Settings;
use drover_engine::Engine;
use drover_http::Client;
use drover_model::HostName;
use drover_store::{Outcome, Store, Transaction};
use tokio::sync::watch;

use crate::keys::Keys;
use crate::mirror::{Snapshot, chain};

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// In a file of this host.
    Embedded,
    /// On these etcd members.
    Etcd {
        /// Their client URLs.
        endpoints: Vec<String>,
    },
}

/// What `membership::open` finds: the store, and who this host is in it.
pub struct Membership {
    /// The store, open.
    pub store: Store,
    /// Which store it is.
    pub kind: StoreKind,
    /// The cluster's id.
    pub cluster: String,
    /// This host's name in the cluster.
    pub host: HostName,
    /// This host's member id: random at every join.
    pub member: String,
    /// Where other hosts reach this one, as it was said at `drover init` or `drover join`; `None`
    /// to go by the settings and the default route.
    pub advertise: Option<IpAddr>,
    /// When this host's certificate ends; `None` on one host alone.
    pub certificate_expires_at: Option<UnixSeconds>,
}

/// The shared handles; always behind an `Arc`.
pub struct Context {
    /// The settings of this process.
    pub settings: Settings,
    /// Who this host is, and the store.
    pub membership: Membership,
    /// The store as it was a moment ago, also while it cannot be reached.
    pub cluster: watch::Receiver<Snapshot>,
    /// The engine of this host.
    pub engine: Engine,
    /// The socket of `drover-ipam`.
    pub ipam: Client,
    /// The socket of `drover-net`.
    pub network: Client,
    /// The hosts' keys for encrypted traffic.
    pub keys: Keys,
    /// Becomes `true` when this host finds that it was removed from its cluster: from then on it
    /// claims nothing and gives out nothing new.
    pub fenced: watch::Sender<bool>,
    /// Set to `true` to have the process end with code 75, once the answer under way is sent.
    pub restart: watch::Sender<bool>,
}

impl Context {
    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.membership.store
    }

    /// This host's name.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.membership.host
    }

    /// This host's member id.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.membership.member
    }

    /// Whether this host was removed from its cluster.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        *self.fenced.borrow()
    }

    /// Changes keys that nobody but this host writes: the one condition is that it is a member. Nothing to change is no call.
    ///
    /// # Errors
    /// When it is none any more, or the store does not answer.
    pub async fn commit_own(&self, batch: Transaction) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = self.store().commit(batch).await;
        match outcome.map_err(|error| store_failure(&error))? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict => Err(Failure::new(
                FailureKind::Denied,
                "this host is no member of its cluster any more",
            )),
        }
    }

    /// The batch, or, when it is full, an empty one after it was committed as by [`Context::commit_own`].
    ///
    /// # Errors
    /// As there.
    pub async fn with_room(&self, batch: Transaction) -> Result<Transaction, Failure> {
        if batch.room() > 0 {
            return Ok(batch);
        }
        self.commit_own(batch).await?;
        Ok(Transaction::new())
    }

    /// Refuses with the reason and the remedy when this host was removed from its cluster.
    ///
    /// # Errors
    /// When it was.
    pub fn refuse_when_fenced(&self) -> Result<(), Failure> {
        if self.is_fenced() {
            return Err(Failure::new(
                FailureKind::Denied,
                format!(
                    "host `{}` was removed from its cluster: run `drover leave` here, then join again",
                    self.host()
                ),
            ));
        }
        Ok(())
    }
}

/// Seconds since 1970-01-01 UTC, by this host's clock.
#[must_use]
pub fn now() -> UnixSeconds {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// The store does not answer, or not as it should.
#[must_use]
pub fn store_failure(error: &drover_store::Error) -> Failure {
    Failure::new(FailureKind::Unavailable, chain(error))
}
