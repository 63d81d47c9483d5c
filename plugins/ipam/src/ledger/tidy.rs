//! What time does to the ledger: addresses are free again, blocks that are not used go back.

use std::net::IpAddr;

use drover_allocation::lease::AddressState;
use drover_model::{Block, Pool};
use drover_store::local::Batch;

use super::{Ledger, now};
use crate::error::Error;

/// What is to be given back to the cluster for one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Returns {
    pub(crate) blocks: Vec<Block>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Ledger {
    /// Ends the rest of what has rested long enough, marks what is to go back, and says what that is. Blocks go
    /// when nothing was in them for `idle` seconds, or at once when the engine has given the pool back.
    pub(crate) fn tidy(&self, pool: Pool, idle: u64) -> Result<Returns, Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(Returns::default());
        };
        let now = now();
        let touched = entry.pool.expire(now);
        let before = if entry.released && !entry.pool.has_leases() {
            u64::MAX
        } else {
            now.saturating_sub(idle)
        };
        let idle = entry.pool.idle_blocks(before);
        for block in &idle {
            entry.pool.begin_leave(*block);
        }
        self.save(&entry.pool, !idle.is_empty(), &touched)?;
        Ok(Returns {
            blocks: entry.pool.leaving_blocks().collect(),
            addresses: entry.pool.leaving_addresses().collect(),
        })
    }

    /// The cluster has a block again.
    pub(crate) fn finish_leave(&self, pool: Pool, block: Block) -> Result<(), Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(());
        };
        entry.pool.remove_block(block);
        self.save(&entry.pool, true, &[])
    }

    /// The cluster has a single address again.
    pub(crate) fn finish_release(&self, pool: Pool, address: IpAddr) -> Result<(), Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get_mut(&pool) else {
            return Ok(());
        };
        entry.pool.finish_release(address);
        self.save(&entry.pool, false, &[address])
    }

    /// Whether a single address is still to go back: it may have been asked for again meanwhile.
    pub(crate) fn is_leaving(&self, pool: Pool, address: IpAddr) -> bool {
        let pools = self.lock();
        let state = pools
            .get(&pool)
            .and_then(|entry| entry.pool.address(address));
        matches!(state, Some(AddressState::Leaving))
    }

    /// Forgets a pool that the engine has given back and of which nothing is left.
    pub(crate) fn forget_pool(&self, pool: Pool) -> Result<(), Error> {
        let mut pools = self.lock();
        let Some(entry) = pools.get(&pool) else {
            return Ok(());
        };
        if entry.released && entry.pool.is_unused() && !entry.pool.has_blocks() {
            self.database
                .commit(Batch::new().delete(&self.holdings, &pool.key()))?;
            pools.remove(&pool);
        }
        Ok(())
    }
}
