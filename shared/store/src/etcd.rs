//! The store on etcd, v3 API: 3.4 and later.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, CompactionOptions, Compare, CompareOp, ConnectOptions, EventType,
    GetOptions, Identity, PutOptions, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};

use crate::error::{Error, Result};
use crate::store::{Entry, LeaseId, Listing};
use crate::transaction::{Condition, Expected, Operation, Outcome, Transaction, check_key};
use crate::watch::{Change, WatchError};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// After this much silence the other side is asked whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(5);
/// How many entries are asked for at once.
const PAGE: i64 = 500;
/// The largest answer: a page of the largest values.
const ANSWER_LIMIT: usize = 600 << 20;

/// Where etcd is, and what to show it.
#[derive(Clone, Default)]
pub struct EtcdConfig {
    /// `http://HOST:PORT` or `https://HOST:PORT`, each a member of one cluster.
    pub endpoints: Vec<String>,
    /// The authority that the members' certificates are checked with, PEM.
    pub ca: Option<Vec<u8>>,
    /// The certificate of this host, PEM.
    pub certificate: Option<Vec<u8>>,
    /// Its private key, PEM.
    pub key: Option<Vec<u8>>,
    /// What every key begins with in etcd, such as `/drover/`.
    pub prefix: String,
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// A connection to etcd.
pub(crate) struct Etcd {
    prefix: String,
    connection: RwLock<Connection>,
}

struct Connection {
    client: Client,
    endpoints: Vec<String>,
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

impl Connection {
    async fn open(config: &EtcdConfig) -> Result<Self> {
        let problem = |problem: &str| Error::Config {
            problem: problem.to_owned(),
        };
        if config.endpoints.is_empty() {
            return Err(problem("no endpoint is given"));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_LIMIT)
            .with_keep_alive(PROBE_AFTER, CONNECT_LIMIT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if config
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("https://"))
        {
            let Some(ca) = &config.ca else {
                return Err(problem(
                    "an https endpoint needs the certificate of its authority",
                ));
            };
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            tls = match (&config.certificate, &config.key) {
                (Some(certificate), Some(key)) => {
                    tls.identity(Identity::from_pem(certificate, key))
                }
                (None, None) => tls,
                _ => return Err(problem("a certificate and its key are needed together")),
            };
            options = options.with_tls(tls);
        }
        let client = Client::connect(&config.endpoints, Some(options)).await;
        let client = client.map_err(|error| Error::Config {
            problem: error.to_string(),
        })?;
        Ok(Self {
            client,
            endpoints: config.endpoints.clone(),
        })
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
        Ok(Watch {
            stream,
            prefix: self.prefix.clone(),
            unread: from_revision,
            ready: VecDeque::new(),
        })
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
