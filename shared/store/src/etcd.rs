//! The store on etcd, v3 API: 3.4 and later.

mod connection;
mod watch;

use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, WatchOptions,
};

use self::connection::Connection;
pub use self::connection::EtcdConfig;
pub(crate) use self::watch::Watch;
use crate::error::{Error, Result};
use crate::store::{Entry, LeaseId, Listing};
use crate::transaction::{Condition, Expected, Operation, Outcome, Transaction, check_key};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How many entries are asked for at once.
const PAGE: i64 = 500;
/// The largest answer: a page of the largest values.
const ANSWER_LIMIT: usize = 600 << 20;

/// A connection to etcd.
pub(crate) struct Etcd {
    prefix: String,
    connection: RwLock<Connection>,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let endpoints = self.endpoints();
        formatter
            .debug_struct("Etcd")
            .field("endpoints", &endpoints)
            .finish_non_exhaustive()
    }
}

impl Etcd {
    pub(crate) async fn connect(config: EtcdConfig) -> Result<Self> {
        let connection = RwLock::new(Connection::open(&config).await?);
        Ok(Self {
            prefix: config.prefix,
            connection,
        })
    }

    pub(crate) async fn reconfigure(&self, config: EtcdConfig) -> Result<()> {
        let connection = Connection::open(&config).await?;
        *self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner) = connection;
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .endpoints
            .clone()
    }

    fn client(&self) -> Client {
        self.connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .client
            .clone()
    }

    fn key(&self, key: &str) -> Result<String> {
        check_key(key)?;
        Ok(format!("{}{key}", self.prefix))
    }

    /// Runs one call with the time limit, and says of a failure whether asking again may help.
    async fn call<T>(
        &self,
        during: &'static str,
        call: impl Future<Output = std::result::Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(CALL_LIMIT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(during, error)),
            Err(_elapsed) => Err(self.unavailable(during, None)),
        }
    }

    fn unavailable(&self, during: &'static str, source: Option<etcd_client::Error>) -> Error {
        let endpoints = self.endpoints().join(", ");
        Error::Unavailable {
            endpoints,
            during,
            source: source.map(Into::into),
        }
    }

    fn failure(&self, during: &'static str, error: etcd_client::Error) -> Error {
        match &error {
            etcd_client::Error::LeaseKeepAliveError(_) => Error::LeaseGone,
            etcd_client::Error::GRpcStatus(status) if lease_is_gone(status.message()) => {
                Error::LeaseGone
            }
            etcd_client::Error::GRpcStatus(status) if is_final(status.code().into()) => {
                Error::Refused {
                    during,
                    source: error.into(),
                }
            }
            _ => self.unavailable(during, Some(error)),
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let full = self.key(key)?;
        let mut client = self
            .client()
            .kv_client()
            .max_decoding_message_size(ANSWER_LIMIT);
        let answer = self.call("get", client.get(full, None)).await?;
        let Some(pair) = answer.kvs().first() else {
            return Ok(None);
        };
        let revision = number(pair.mod_revision());
        Ok(Some(Entry {
            key: key.to_owned(),
            value: pair.value().to_vec(),
            revision,
        }))
    }

    pub(crate) async fn list(&self, prefix: &str) -> Result<Listing> {
        let from = format!("{}{prefix}", self.prefix);
        let mut client = self
            .client()
            .kv_client()
            .max_decoding_message_size(ANSWER_LIMIT);
        let options = GetOptions::new().with_prefix().with_limit(PAGE);
        let mut answer = self
            .call("list", client.get(from.clone(), Some(options)))
            .await?;
        let revision = answer
            .header()
            .map_or(0, |header| number(header.revision()));
        let mut entries = Vec::new();
        loop {
            for pair in answer.kvs() {
                let Some(key) = own_key(&self.prefix, pair.key()) else {
                    continue;
                };
                let (value, revision) = (pair.value().to_vec(), number(pair.mod_revision()));
                entries.push(Entry {
                    key,
                    value,
                    revision,
                });
            }
            let last = answer.kvs().last().map(|pair| pair.key().to_vec());
            let (true, Some(mut next)) = (answer.more(), last) else {
                return Ok(Listing { entries, revision });
            };
            // All pages at one revision, or the listing would not be of one moment.
            next.push(0);
            let options = GetOptions::new()
                .with_range(after_prefix(from.as_bytes()))
                .with_limit(PAGE)
                .with_revision(signed(revision));
            answer = self.call("list", client.get(next, Some(options))).await?;
        }
    }

    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Outcome> {
        let conditions = transaction
            .conditions
            .iter()
            .map(|condition| self.compare(condition));
        let operations = transaction
            .operations
            .into_iter()
            .map(|operation| self.change(operation));
        let txn = Txn::new()
            .when(conditions.collect::<Vec<_>>())
            .and_then(operations.collect::<Vec<_>>());
        let answer = self.call("commit", self.client().txn(txn)).await?;
        if !answer.succeeded() {
            return Ok(Outcome::Conflict);
        }
        let revision = answer
            .header()
            .map_or(0, |header| number(header.revision()));
        Ok(Outcome::Committed { revision })
    }

    fn compare(&self, condition: &Condition) -> Compare {
        let key = format!("{}{}", self.prefix, condition.key);
        match condition.expected {
            Expected::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            Expected::Present => Compare::create_revision(key, CompareOp::Greater, 0),
            Expected::Revision(revision) => {
                // Revision 0 would hold for a key that is absent; no key has it.
                let revision = if revision == 0 { -1 } else { signed(revision) };
                Compare::mod_revision(key, CompareOp::Equal, revision)
            }
        }
    }

    fn change(&self, operation: Operation) -> TxnOp {
        match operation {
            Operation::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(format!("{}{key}", self.prefix), value, options)
            }
            Operation::Delete { key } => TxnOp::delete(format!("{}{key}", self.prefix), None),
        }
    }

    pub(crate) async fn watch(&self, prefix: &str, from_revision: u64) -> Result<Watch> {
        let full = format!("{}{prefix}", self.prefix);
        let from_revision = from_revision.max(1);
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(signed(from_revision));
        let mut client = self
            .client()
            .watch_client()
            .max_decoding_message_size(ANSWER_LIMIT);
        let stream = self
            .call("watch", client.watch(full, Some(options)))
            .await?;
        Ok(Watch::new(stream, self.prefix.clone(), from_revision))
    }

    pub(crate) async fn compact(&self, revision: u64) -> Result<()> {
        let options = CompactionOptions::new().with_physical();
        let result = self
            .call(
                "compact",
                self.client().compact(signed(revision), Some(options)),
            )
            .await;
        match result {
            // Somebody else, or etcd itself, has done it before.
            Err(Error::Refused { source, .. })
                if source.to_string().contains("has been compacted") =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    pub(crate) async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        let whole = ttl
            .as_secs()
            .saturating_add(u64::from(ttl.subsec_nanos() > 0))
            .max(1);
        let answer = self
            .call(
                "grant_lease",
                self.client().lease_grant(signed(whole), None),
            )
            .await?;
        Ok(LeaseId(answer.id()))
    }

    pub(crate) async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.call("keep_alive", self.client().lease_keep_alive(lease.0))
            .await
            .map(drop)
    }

    pub(crate) async fn revoke(&self, lease: LeaseId) -> Result<()> {
        match self
            .call("revoke", self.client().lease_revoke(lease.0))
            .await
        {
            Err(Error::LeaseGone) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The key without our prefix; `None`, with a warning, for one that no Drover has written.
fn own_key(prefix: &str, key: &[u8]) -> Option<String> {
    let own = std::str::from_utf8(key)
        .ok()
        .and_then(|key| key.strip_prefix(prefix));
    let own = own.filter(|key| check_key(key).is_ok());
    if own.is_none() {
        let key = String::from_utf8_lossy(key);
        tracing::warn!(%key, "etcd has a key under Drover's prefix that is not Drover's; left out");
    }
    own.map(ToOwned::to_owned)
}

/// The first key after all keys with this prefix.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last.saturating_add(1));
            return end;
        }
    }
    vec![0]
}

fn lease_is_gone(message: &str) -> bool {
    message.contains("lease not found")
}

/// The gRPC codes that asking again does not change.
fn is_final(code: i32) -> bool {
    const INVALID_ARGUMENT: i32 = 3;
    const NOT_FOUND: i32 = 5;
    const PERMISSION_DENIED: i32 = 7;
    const FAILED_PRECONDITION: i32 = 9;
    const OUT_OF_RANGE: i32 = 11;
    const UNIMPLEMENTED: i32 = 12;
    const UNAUTHENTICATED: i32 = 16;
    matches!(
        code,
        INVALID_ARGUMENT
            | NOT_FOUND
            | PERMISSION_DENIED
            | FAILED_PRECONDITION
            | OUT_OF_RANGE
            | UNIMPLEMENTED
            | UNAUTHENTICATED
    )
}

fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
