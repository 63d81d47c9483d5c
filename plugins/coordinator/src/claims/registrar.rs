//! The records of pools and blocks, read and conditionally written for one host.

use std::collections::BTreeMap;

use drover_allocation::block::{Change, Member};
use drover_control_api::coordinator::PoolTable;
use drover_control_api::record::{BlockRecord, NetworkRecord, PoolRecord};
use drover_daemon::PoolSettings;
use drover_model::{Block, Pool};
use drover_store::{Store, Transaction};
use serde::de::DeserializeOwned;

use super::failure::ClaimFailure;
use crate::context::Context;

/// How often a method begins anew when others were faster.
pub(super) const ATTEMPTS: usize = 32;

pub(super) type Result<T> = std::result::Result<T, ClaimFailure>;

/// The key that every claim of a pool writes.
pub(super) const POOL_CLAIMS: &str = "claims/pools";

/// Claims and releases for one host.
#[derive(Debug, Clone)]
pub struct Registrar {
    pub(super) store: Store,
    pub(super) member: Member,
    pub(super) cluster: String,
    pub(super) pools: PoolSettings,
}

/// A record and the revision of its last change, if it is there.
pub(super) type Read<T> = Option<(T, u64)>;

impl Registrar {
    /// For the host of a context.
    #[must_use]
    pub fn of(context: &Context) -> Self {
        Self {
            store: context.store().clone(),
            member: Member {
                host: context.host().clone(),
                id: context.member().to_owned(),
            },
            cluster: context.membership.cluster.clone(),
            pools: context.settings.pools.clone(),
        }
    }

    /// The pool's record.
    pub(super) async fn pool(&self, pool: Pool) -> Result<(PoolRecord, u64)> {
        let record = self.store.get_record(&pool_key(pool)).await?;
        record.ok_or(ClaimFailure::UnknownPool(pool))
    }

    /// A block's record.
    pub(super) async fn block(&self, pool: Pool, block: Block) -> Result<Read<BlockRecord>> {
        Ok(self.store.get_record(&block_key(pool, block)).await?)
    }

    /// Every block of a pool that has a record.
    pub(super) async fn blocks(&self, pool: Pool) -> Result<BTreeMap<Block, (BlockRecord, u64)>> {
        let listing = self.store.list(&format!("blocks/{}/", pool.key())).await?;
        let mut blocks = BTreeMap::new();
        for entry in listing.entries {
            let record: BlockRecord = entry.decode()?;
            blocks.insert(record.block, (record, entry.revision));
        }
        Ok(blocks)
    }

    /// The pools and blocks of the cluster.
    pub(super) async fn table(&self) -> Result<PoolTable> {
        Ok(PoolTable {
            pools: self.list("pools/").await?,
            blocks: self.list("blocks/").await?,
        })
    }

    /// Every record under a prefix.
    pub(super) async fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>> {
        let listing = self.store.list(prefix).await?;
        let records = listing.entries.iter().map(drover_store::Entry::decode);
        Ok(records.collect::<drover_store::Result<_>>()?)
    }

    /// The network that has a pool.
    pub(super) async fn network_of(&self, record: &PoolRecord) -> Result<Option<NetworkRecord>> {
        let has = |network: &NetworkRecord| {
            network
                .subnets
                .iter()
                .any(|subnet| subnet.pool == record.pool)
        };
        if let Some(id) = &record.network {
            let network = self.store.get_record(&format!("networks/{id}")).await?;
            return Ok(network.map(|(network, _)| network).filter(has));
        }
        let networks: Vec<NetworkRecord> = self.list("networks/").await?;
        Ok(networks.into_iter().find(has))
    }

    /// Writes a change of a block if the block is as it was read; `false` when it is not.
    pub(super) async fn change(
        &self,
        record: &BlockRecord,
        revision: u64,
        change: Change,
    ) -> Result<bool> {
        let key = block_key(record.pool, record.block);
        let transaction = Transaction::new().if_unchanged(&key, revision);
        let transaction = match change {
            Change::Unchanged => return Ok(true),
            Change::Put(record) => transaction.put_record(key, &record)?,
            Change::Delete => transaction.delete(key),
        };
        Ok(self.store.commit(transaction).await?.is_committed())
    }
}

/// Adds the condition that a record is as it was read.
pub(super) fn unchanged<T>(
    transaction: Transaction,
    key: &str,
    read: Option<&(T, u64)>,
) -> Transaction {
    match read {
        Some((_, revision)) => transaction.if_unchanged(key, *revision),
        None => transaction.if_absent(key),
    }
}

pub(super) fn pool_key(pool: Pool) -> String {
    format!("pools/{}", pool.key())
}

pub(super) fn block_key(pool: Pool, block: Block) -> String {
    format!("blocks/{}/{}", pool.key(), block.key())
}
