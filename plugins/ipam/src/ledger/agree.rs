//! Comparing the ledger with the store, and what other hosts and the engine say of its addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use drover_allocation::block::Member;
use drover_allocation::lease::{Agreement, PoolView};
use drover_control_api::coordinator::PoolTable;
use drover_control_api::plugin::LeakedLeases;
use drover_control_api::record::{BlockRecord, UnixSeconds};
use drover_model::{Block, HostName, Pool};
use tracing::{info, warn};

use super::{Entry, Ledger, now};
use crate::error::Error;

/// What the store has, read while the pool's gate was held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) table: &'a PoolTable,
    pub(crate) member: &'a Member,
    /// [`Ledger::mark`] from before the store was read.
    pub(crate) mark: Mark,
}

/// What was known of a pool at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pool: u64,
    opened: u64,
}

impl Ledger {
    /// What a later view is compared by.
    pub(crate) fn mark(&self, pool: Pool) -> Mark {
        let mark = |entry: &Entry| Mark {
            pool: entry.pool.mark(),
            opened: entry.opened,
        };
        self.lock().get(&pool).map(mark).unwrap_or_default()
    }

    /// Whether what the cluster says of a block is what is known here; always so for pools that are not.
    pub(crate) fn agrees_with(&self, record: &BlockRecord, member: &Member) -> bool {
        let pools = self.lock();
        pools
            .get(&record.pool)
            .is_none_or(|entry| entry.pool.agrees_with(record, member))
    }

    /// The same for a block that has no record any more.
    pub(crate) fn agrees_without(&self, block: Block) -> bool {
        self.lock()
            .values()
            .all(|entry| entry.pool.agrees_without(block))
    }

    /// Takes over what the store says of a pool, and says what the store has to be told.
    pub(crate) fn agree(&self, pool: Pool, view: &View<'_>) -> Result<Agreement, Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(Agreement::default());
        };
        let of_pool = view
            .table
            .blocks
            .iter()
            .filter(|record| record.pool == pool);
        let blocks: Vec<_> = of_pool.cloned().collect();
        let opened_since = entry.opened != view.mark.opened;
        let view = PoolView {
            record: view.table.pools.iter().find(|record| record.pool == pool),
            blocks: &blocks,
            member: view.member,
            mark: view.mark.pool,
        };
        // A pool that was asked for after the store was read is there.
        if view.record.is_none() && !opened_since {
            entry.released = true;
        }
        let agreement = entry.pool.agree(&view, now());
        if agreement.changed {
            info!(%pool, "the blocks of this host are what the cluster says");
        }
        for complaint in &agreement.complaints {
            warn!(%pool, complaint);
        }
        entry.complaints.clone_from(&agreement.complaints);
        if agreement.changed || !agreement.touched.is_empty() {
            self.save(&entry.pool, agreement.changed, &agreement.touched)?;
        }
        Ok(agreement)
    }

    /// Keeps an address for another host. `None` when the block is not known to be this host's.
    pub(crate) fn set_aside(
        &self,
        pool: Pool,
        address: IpAddr,
        holder: &HostName,
    ) -> Result<Option<bool>, Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(None);
        };
        if !entry.pool.knows(address) {
            return Ok(None);
        }
        let granted = entry.pool.set_aside(address, holder);
        if granted {
            self.save(&entry.pool, true, &[address])?;
        }
        Ok(Some(granted))
    }

    /// Another host no longer has the address.
    pub(crate) fn take_back(
        &self,
        pool: Pool,
        address: IpAddr,
        holder: &HostName,
    ) -> Result<(), Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(());
        };
        if entry.pool.take_back(address, holder, now()) {
            self.save(&entry.pool, true, &[address])?;
        }
        Ok(())
    }

    /// The engine has exactly these addresses in use.
    pub(crate) fn confirm(
        &self,
        in_use: &BTreeSet<IpAddr>,
        before: UnixSeconds,
    ) -> Result<LeakedLeases, Error> {
        let mut pools = self.lock();
        let mut released = Vec::new();
        for (pool, entry) in pools.iter_mut() {
            let unconfirmed = entry.pool.has_unconfirmed();
            let confirmed = entry.pool.confirm(in_use, before, now());
            let mut touched = confirmed.released.clone();
            touched.extend(&confirmed.adopted);
            self.save(&entry.pool, unconfirmed, &touched)?;
            if !touched.is_empty() {
                let (leaked, adopted) = (&confirmed.released, &confirmed.adopted);
                warn!(%pool, ?leaked, ?adopted, "leases differed from what the engine has");
            }
            released.extend(confirmed.released);
        }
        Ok(LeakedLeases { released })
    }
}
