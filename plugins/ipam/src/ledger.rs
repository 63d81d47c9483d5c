//! Every pool this host has something of, in memory and on disk.
//!
//! One lock, held for the time of a decision and one write to disk, never across an `await`. What
//! a caller hears is on disk.

mod agree;
mod report;
mod tidy;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use drover_allocation::PoolShape;
use drover_allocation::lease::{AddressState, Explicit, Holding, HostPool, LeaseError};
use drover_control_api::coordinator::ClaimedBlock;
use drover_control_api::record::{PoolRecord, UnixSeconds};
use drover_model::{MacAddress, Pool};
use drover_store::local::{Batch, Database, Table};
use ipnet::IpNet;
use tokio::time::Instant;

use crate::error::Error;
pub(crate) use agree::View;

/// Held while the coordinator is asked something for a pool, so that one thing is asked at a time.
pub(crate) type Gate = Arc<tokio::sync::Mutex<()>>;

/// The pools of this host.
pub(crate) struct Ledger {
    pools: Mutex<BTreeMap<Pool, Entry>>,
    database: Database,
    holdings: Table<Holding>,
    addresses: Table<AddressState>,
    quarantine: u64,
    /// Counts what [`Self::open_pool`] did.
    openings: AtomicU64,
}

struct Entry {
    pool: HostPool,
    gate: Gate,
    /// Which opening was its last; 0 when there was none since the start.
    opened: u64,
    /// Whether the engine has given the pool back: what is left goes back to the cluster at once.
    released: bool,
    /// Not before then another block is claimed in advance, since none was to be had.
    no_prefetch_before: Option<Instant>,
    complaints: Vec<String>,
}

/// An address that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    /// With the prefix length for the container.
    pub(crate) address: IpNet,
    /// Whether another block should be claimed before this one is full.
    pub(crate) low: bool,
}

/// What a request for a certain address comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExplicitGiven {
    Given(IpNet),
    /// It lies in no block of this host.
    Claim,
}

impl Ledger {
    /// Reads what was kept.
    pub(crate) fn open(database: &Database, quarantine: u64) -> Result<Self, drover_store::Error> {
        let holdings: Table<Holding> = Table::open(database, "pools")?;
        let addresses: Table<AddressState> = Table::open(database, "addresses")?;
        let mut states: BTreeMap<String, Vec<(IpAddr, AddressState)>> = BTreeMap::new();
        for (key, state) in addresses.list()? {
            if let Some((pool, address)) = key.split_once('/')
                && let Ok(address) = address.parse()
            {
                states
                    .entry(pool.to_owned())
                    .or_default()
                    .push((address, state));
            }
        }
        let mut pools = BTreeMap::new();
        for (key, holding) in holdings.list()? {
            let states = states.remove(&key).unwrap_or_default();
            let pool = HostPool::restore(holding, states, quarantine, now());
            pools.insert(pool.shape().pool, Entry::new(pool));
        }
        let pools = Mutex::new(pools);
        Ok(Self {
            pools,
            database: database.clone(),
            holdings,
            addresses,
            quarantine,
            openings: AtomicU64::new(0),
        })
    }

    /// Takes note of a pool that was claimed. `true` when this host has blocks of it from before, and
    /// they have to be compared with the cluster's.
    pub(crate) fn open_pool(&self, record: &PoolRecord) -> Result<bool, Error> {
        let mut pools = self.lock();
        let shape = PoolShape::from(record);
        let fresh = || HostPool::new(shape, record.reserved.clone(), self.quarantine);
        let entry = pools
            .entry(record.pool)
            .or_insert_with(|| Entry::new(fresh()));
        if *entry.pool.shape() != shape {
            if entry.pool.has_leases() {
                return Err(Error::Reshaped(record.pool));
            }
            let old: Vec<IpAddr> = entry.pool.addresses().map(|(address, _)| address).collect();
            entry.pool = fresh();
            self.save(&entry.pool, true, &old)?;
        }
        entry.released = false;
        entry.opened = self.openings.fetch_add(1, Ordering::Relaxed) + 1;
        entry.pool.set_reserved(&record.reserved);
        self.save(&entry.pool, true, &[])?;
        Ok(entry.pool.has_blocks())
    }

    /// The engine has given a pool back.
    pub(crate) fn close_pool(&self, pool: Pool) {
        if let Some(entry) = self.lock().get_mut(&pool) {
            entry.released = true;
        }
    }

    /// Whether the pool is known here.
    pub(crate) fn has_pool(&self, pool: Pool) -> bool {
        self.lock().contains_key(&pool)
    }

    /// The pools that are known here.
    pub(crate) fn pools(&self) -> Vec<Pool> {
        self.lock().keys().copied().collect()
    }

    /// The gate of a pool.
    pub(crate) fn gate(&self, pool: Pool) -> Option<Gate> {
        self.lock().get(&pool).map(|entry| entry.gate.clone())
    }

    /// Gives an address of this host's blocks.
    pub(crate) fn allocate(&self, pool: Pool, mac: Option<MacAddress>) -> Result<Given, Error> {
        let mut pools = self.lock();
        let entry = entry(&mut pools, pool)?;
        let now = now();
        let mut touched = Vec::new();
        let address = match entry.pool.allocate(mac, now) {
            Err(LeaseError::Exhausted { .. }) => {
                // What is about to rest long enough, a moment before the housekeeping sees it.
                touched = entry.pool.expire(now);
                entry.pool.allocate(mac, now)?
            }
            other => other?,
        };
        touched.push(address);
        entry.released = false;
        self.save_given(&mut entry.pool, address, &touched)?;
        Ok(Given {
            address: with_prefix(&entry.pool, address),
            low: entry.wants_block(),
        })
    }

    /// Gives a certain address, if it lies in a block of this host.
    pub(crate) fn allocate_explicit(
        &self,
        pool: Pool,
        address: IpAddr,
        mac: Option<MacAddress>,
    ) -> Result<ExplicitGiven, Error> {
        let mut pools = self.lock();
        let entry = entry(&mut pools, pool)?;
        match entry.pool.allocate_explicit(address, mac, now())? {
            Explicit::Claim => return Ok(ExplicitGiven::Claim),
            Explicit::Already => {}
            Explicit::Given => self.save_given(&mut entry.pool, address, &[address])?,
        }
        entry.released = false;
        Ok(ExplicitGiven::Given(with_prefix(&entry.pool, address)))
    }

    /// Keeps an address from being given while it is being claimed.
    pub(crate) fn begin_claim(&self, pool: Pool, address: IpAddr) -> Result<(), Error> {
        entry(&mut self.lock(), pool)?.pool.begin_claim(address);
        Ok(())
    }

    /// The claim was granted.
    pub(crate) fn finish_claim(
        &self,
        pool: Pool,
        address: IpAddr,
        mac: Option<MacAddress>,
    ) -> Result<IpNet, Error> {
        let mut pools = self.lock();
        let entry = entry(&mut pools, pool)?;
        entry.pool.finish_claim(address, mac, now());
        entry.released = false;
        self.save_given(&mut entry.pool, address, &[address])?;
        Ok(with_prefix(&entry.pool, address))
    }

    /// The claim was not granted, or nobody knows.
    pub(crate) fn abandon_claim(&self, pool: Pool, address: IpAddr) {
        if let Some(entry) = self.lock().get_mut(&pool) {
            entry.pool.abandon_claim(address);
        }
    }

    /// Takes an address back from a container; `false` when none had it.
    pub(crate) fn release(&self, pool: Pool, address: IpAddr) -> Result<bool, Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(false);
        };
        let released = entry.pool.release(address, now());
        if released {
            self.save(&entry.pool, false, &[address])?;
        }
        Ok(released)
    }

    /// Whether no container gets the address.
    pub(crate) fn is_reserved(&self, pool: Pool, address: IpAddr) -> bool {
        self.lock()
            .get(&pool)
            .is_some_and(|entry| entry.pool.is_reserved(address))
    }

    /// An address was reserved in the cluster.
    pub(crate) fn reserve(&self, pool: Pool, address: IpAddr) -> Result<IpNet, Error> {
        let mut pools = self.lock();
        let entry = entry(&mut pools, pool)?;
        entry.pool.set_reserved(&[address].into());
        self.save(&entry.pool, true, &[])?;
        Ok(with_pool_prefix(pool, address))
    }

    /// A block was claimed.
    pub(crate) fn add_block(&self, claimed: &ClaimedBlock) -> Result<(), Error> {
        let mut pools = self.lock();
        let entry = entry(&mut pools, claimed.pool.pool)?;
        entry.pool.set_reserved(&claimed.pool.reserved);
        entry.pool.add_block(&claimed.block, now());
        self.save(&entry.pool, true, &[])
    }

    /// Whether another block is to be claimed before the last address is gone.
    pub(crate) fn wants_block(&self, pool: Pool) -> bool {
        self.lock().get(&pool).is_some_and(Entry::wants_block)
    }

    /// No block is to be had for now.
    pub(crate) fn postpone_prefetch(&self, pool: Pool, until: Instant) {
        if let Some(entry) = self.lock().get_mut(&pool) {
            entry.no_prefetch_before = Some(until);
        }
    }

    /// Makes an address durable that was given in memory. If that fails it rests, as nobody got it.
    fn save_given(
        &self,
        pool: &mut HostPool,
        address: IpAddr,
        touched: &[IpAddr],
    ) -> Result<(), Error> {
        let saved = self.save(pool, false, touched);
        if saved.is_err() {
            pool.release(address, now());
        }
        saved
    }

    fn save(&self, pool: &HostPool, holding: bool, touched: &[IpAddr]) -> Result<(), Error> {
        let name = pool.shape().pool.key();
        let mut batch = Batch::new();
        if holding {
            batch = batch.put(&self.holdings, &name, &pool.holding())?;
        }
        for address in touched {
            let key = format!("{name}/{address}");
            batch = match pool.address(*address) {
                Some(state) => batch.put(&self.addresses, &key, state)?,
                None => batch.delete(&self.addresses, &key),
            };
        }
        if !batch.is_empty() {
            self.database.commit(batch)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pool, Entry>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(pool: HostPool) -> Self {
        Self {
            pool,
            gate: Gate::default(),
            opened: 0,
            released: false,
            no_prefetch_before: None,
            complaints: Vec::new(),
        }
    }

    fn wants_block(&self) -> bool {
        self.pool.is_low()
            && self
                .no_prefetch_before
                .is_none_or(|until| Instant::now() >= until)
    }
}

fn entry(pools: &mut BTreeMap<Pool, Entry>, pool: Pool) -> Result<&mut Entry, Error> {
    pools
        .get_mut(&pool)
        .ok_or_else(|| Error::UnknownPool(pool.to_string()))
}

fn with_prefix(pool: &HostPool, address: IpAddr) -> IpNet {
    let length = pool.prefix_length(address);
    IpNet::new(address, length).unwrap_or_else(|_| address.into())
}

/// An address with the prefix length of its pool: the engine takes a gateway so.
pub(crate) fn with_pool_prefix(pool: Pool, address: IpAddr) -> IpNet {
    IpNet::new(address, pool.prefix().prefix_len()).unwrap_or_else(|_| address.into())
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
