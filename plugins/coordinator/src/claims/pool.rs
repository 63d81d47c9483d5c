//! Claims of pools, and addresses of them that no container gets.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_allocation::pool::{self, AutomaticPools, Taken};
use drover_allocation::{PoolShape, claim};
use drover_control_api::coordinator::{ClaimPool, ReserveAddress, ReservedAddress};
use drover_control_api::record::{CopyRecord, HostRecord, NetworkState, PoolRecord};
use drover_control_api::{Empty, Failure};
use drover_model::{Family, Pool};
use drover_store::Transaction;
use ipnet::IpNet;

use super::failure::ClaimFailure;
use super::registrar::{ATTEMPTS, POOL_CLAIMS, Registrar, Result, block_key, pool_key, unchanged};
use crate::context::now;

/// How long a network that is being created may take until this host has seen it: until then its subnet is not
/// given to a second one here.
const CREATION: u64 = 30;
/// How long a claim waits for the removal of what had the subnet before.
const REMOVAL: Duration = Duration::from_millis(2500);
/// How long a claim waits for this host to notice that its copy is gone.
const FORGETTING: Duration = Duration::from_millis(1000);
const POLL: Duration = Duration::from_millis(25);

/// What became of a claim of a pool that is there.
enum Joined {
    /// It is this host's too.
    Granted(PoolRecord),
    /// It is gone meanwhile.
    Gone,
}

impl Registrar {
    /// Claims a pool.
    ///
    /// # Errors
    /// When there is no such pool to have.
    pub async fn claim_pool(
        &self,
        request: &ClaimPool,
    ) -> std::result::Result<PoolRecord, Failure> {
        Ok(self.try_claim_pool(request).await?)
    }

    async fn try_claim_pool(&self, request: &ClaimPool) -> Result<PoolRecord> {
        let sub_pool = match (request.pool, request.sub_pool) {
            (Some(pool), Some(sub_pool)) => pool::check_sub_pool(pool, sub_pool)?,
            (None, Some(_)) => return Err(ClaimFailure::RangeAlone),
            (_, None) => None,
        };
        for _ in 0..ATTEMPTS {
            // Read before the pools: a claim that is not among them changes it after.
            let last_claim = self.store.get(POOL_CLAIMS).await?;
            let last_claim = last_claim.map(|entry| ((), entry.revision));
            let pools: Vec<PoolRecord> = self.list("pools/").await?;
            let there = request
                .pool
                .filter(|pool| pools.iter().any(|other| other.pool == *pool));
            if let Some(pool) = there {
                match self.join_pool(pool, sub_pool).await? {
                    Joined::Granted(record) => return Ok(record),
                    Joined::Gone => continue,
                }
            }
            let hosts: Vec<HostRecord> = self.list("hosts/").await?;
            let taken = Taken {
                pools: &pools,
                hosts: &hosts,
            };
            let pool = match request.pool {
                Some(pool) => {
                    pool::check_explicit(pool, taken)?;
                    pool
                }
                None => self.choose_pool(request.family, taken, &request.refused)?,
            };
            let record = self.new_record(pool, sub_pool, request.pool.is_none());
            let transaction = unchanged(Transaction::new(), POOL_CLAIMS, last_claim.as_ref())
                .if_absent(pool_key(pool))
                .put(POOL_CLAIMS, pool.to_string())
                .put_record(pool_key(pool), &record)?;
            if !self.remove_blocks(pool).await? {
                continue;
            }
            if self.store.commit(transaction).await?.is_committed() {
                return Ok(record);
            }
        }
        Err(ClaimFailure::Contended(POOL_CLAIMS.to_owned()))
    }

    fn choose_pool(
        &self,
        family: Family,
        taken: Taken<'_>,
        refused: &BTreeSet<Pool>,
    ) -> Result<Pool> {
        let (mut ranges, prefix) = match family {
            Family::V4 => (self.pools.default.clone(), self.pools.prefix),
            Family::V6 => (self.pools.default_v6.clone(), self.pools.prefix_v6),
        };
        if family == Family::V6 && ranges.is_empty() {
            ranges.extend(pool::ipv6_range(&self.cluster));
        }
        Ok(pool::choose(
            family,
            &AutomaticPools { ranges, prefix },
            taken,
            refused,
        )?)
    }

    fn new_record(&self, pool: Pool, sub_pool: Option<IpNet>, automatic: bool) -> PoolRecord {
        let wanted = match pool.family() {
            Family::V4 => self.pools.block_prefix,
            Family::V6 => self.pools.block_prefix_v6,
        };
        let range = sub_pool.unwrap_or_else(|| pool.prefix());
        PoolRecord {
            version: 1,
            pool,
            sub_pool,
            block_prefix: pool::block_prefix(range, wanted.filter(|_| automatic)),
            reserved: BTreeSet::new(),
            claimed_by: self.member.host.clone(),
            claimed_at: now(),
            network: None,
        }
    }

    /// Claims a pool that is there: for a copy of its network, or for a network of the same name that
    /// is being created here at the same time as elsewhere.
    async fn join_pool(&self, pool: Pool, sub_pool: Option<IpNet>) -> Result<Joined> {
        let began = tokio::time::Instant::now();
        loop {
            let key = pool_key(pool);
            let Some((record, revision)) = self.store.get_record::<PoolRecord>(&key).await? else {
                return Ok(Joined::Gone);
            };
            let Some(network) = self.network_of(&record).await? else {
                // What was removed as soon as it was created is given back in a moment.
                if self.is_being_created_here(&record) && began.elapsed() <= REMOVAL {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                return self.join_creation(record, revision, sub_pool).await;
            };
            let copy_key = format!("copies/{}/{}", network.id, self.member.host);
            let copy = self.store.get_record::<CopyRecord>(&copy_key).await?;
            let removing = network.state == NetworkState::Removing;
            if copy.is_none() && !removing {
                pool::check_same_range(&record, sub_pool)?;
                return Ok(Joined::Granted(record));
            }
            // The engine asks right after it has removed the network, before anybody has heard of that.
            let patience = if removing { REMOVAL } else { FORGETTING };
            if began.elapsed() > patience {
                return Err(ClaimFailure::InUse {
                    pool,
                    network: network.name,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Claims a pool whose network nobody has seen yet.
    async fn join_creation(
        &self,
        record: PoolRecord,
        revision: u64,
        sub_pool: Option<IpNet>,
    ) -> Result<Joined> {
        if self.is_being_created_here(&record) {
            return Err(ClaimFailure::BeingCreated(record.pool));
        }
        if record.claimed_by != self.member.host {
            pool::check_same_range(&record, sub_pool)?;
            return Ok(Joined::Granted(record));
        }
        // A creation that failed here without a word: the engine died, or its release was lost.
        self.remove_pool(&record, revision).await?;
        Ok(Joined::Gone)
    }

    /// Whether this host has claimed the pool a moment ago, for a network that nobody has seen yet.
    fn is_being_created_here(&self, record: &PoolRecord) -> bool {
        let recent = record.claimed_at.saturating_add(CREATION) > now();
        recent && record.claimed_by == self.member.host
    }

    /// Gives a pool back. It goes if its network was never seen.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn release_pool(&self, pool: Pool) -> std::result::Result<Empty, Failure> {
        Ok(self.try_release_pool(pool).await?)
    }

    async fn try_release_pool(&self, pool: Pool) -> Result<Empty> {
        for _ in 0..ATTEMPTS {
            let read = self.store.get_record::<PoolRecord>(&pool_key(pool)).await?;
            let Some((record, revision)) = read else {
                return Ok(Empty {});
            };
            let own = record.claimed_by == self.member.host;
            if !own || self.network_of(&record).await?.is_some() {
                return Ok(Empty {});
            }
            if self.remove_pool(&record, revision).await? {
                return Ok(Empty {});
            }
        }
        Err(ClaimFailure::Contended(pool_key(pool)))
    }

    /// Removes a pool that no network has; `false` when it changed meanwhile. A pool of which another host
    /// owns a block is left: that host is creating the same network.
    pub(super) async fn remove_pool(&self, record: &PoolRecord, revision: u64) -> Result<bool> {
        let blocks = self.blocks(record.pool).await?;
        let elsewhere = |(block, _): &(drover_control_api::record::BlockRecord, u64)| {
            block
                .owner
                .as_ref()
                .is_some_and(|owner| *owner != self.member.host)
        };
        if blocks.values().any(elsewhere) {
            return Ok(true);
        }
        let key = pool_key(record.pool);
        let transaction = Transaction::new().if_unchanged(&key, revision).delete(key);
        if !self.store.commit(transaction).await?.is_committed() {
            return Ok(false);
        }
        // What is left of it is removed before the pool is claimed again, too.
        self.remove_blocks(record.pool).await?;
        Ok(true)
    }

    /// Removes the blocks of a pool that is not there; `false` when it is there meanwhile.
    async fn remove_blocks(&self, pool: Pool) -> Result<bool> {
        let blocks: Vec<_> = self.blocks(pool).await?.into_keys().collect();
        for some in blocks.chunks(100) {
            let transaction = Transaction::new().if_absent(pool_key(pool));
            let transaction = some.iter().fold(transaction, |transaction, block| {
                transaction.delete(block_key(pool, *block))
            });
            if !self.store.commit(transaction).await?.is_committed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps an address of a pool from containers.
    ///
    /// # Errors
    /// When containers may have it already, or it is not in the pool.
    pub async fn reserve_address(
        &self,
        request: &ReserveAddress,
    ) -> std::result::Result<ReservedAddress, Failure> {
        Ok(self.try_reserve(request).await?)
    }

    async fn try_reserve(&self, request: &ReserveAddress) -> Result<ReservedAddress> {
        let key = pool_key(request.pool);
        for _ in 0..ATTEMPTS {
            let (record, revision) = self.pool(request.pool).await?;
            let shape = PoolShape::from(&record);
            let address = request.address.unwrap_or_else(|| shape.default_gateway());
            let block = shape.block_of(address).map_err(claim::ClaimError::from)?;
            let read = self.block(request.pool, block).await?;
            let reserved =
                claim::reserve(&record, read.as_ref().map(|(record, _)| record), address)?;
            let Some(changed) = reserved else {
                return Ok(ReservedAddress { address });
            };
            let transaction = Transaction::new().if_unchanged(&key, revision);
            let transaction =
                unchanged(transaction, &block_key(request.pool, block), read.as_ref())
                    .put_record(&key, &changed)?;
            if self.store.commit(transaction).await?.is_committed() {
                return Ok(ReservedAddress { address });
            }
        }
        Err(ClaimFailure::Contended(key))
    }
}
