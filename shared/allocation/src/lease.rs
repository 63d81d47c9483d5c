//! What one host knows of one pool: its blocks, and every address it has given or keeps.
//!
//! An address of the pool is in one of these states here:
//!
//! ```text
//!   free --allocate--> leased --release--> resting --expire--> free       (in a block of this host)
//!   (elsewhere) --begin_claim--> pending --finish_claim--> leased
//!               --release--> resting --expire--> leaving --finish_release--> (elsewhere)
//!   leased --agree, no longer this host's--> lost --release--> resting (in a block of this host), or forgotten
//!          <--agree, when it has been this host's again for as long as an address rests--
//! ```
//!
//! A change is made here first, then made durable by the caller, then told to anybody: what a method
//! touched, [`HostPool::address`] and [`HostPool::holding`] give the form to keep. The time an address
//! rests is kept too, so that a restart does not shorten it.

mod agree;
mod aside;
mod block;
mod confirm;
mod error;
mod give;
mod own;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;
use drover_model::{Block, MacAddress};

use crate::range;
use crate::shape::PoolShape;
use block::HostBlock;

pub use agree::{Agreement, PoolView};
pub use confirm::Confirmed;
pub use error::LeaseError;
pub use give::Explicit;
pub use record::{AddressState, HeldBlock, Holding};

/// How long an address rests before it is given again, seconds, unless set otherwise.
pub const QUARANTINE_SECONDS: u64 = 60;

/// One host's part of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPool {
    shape: PoolShape,
    reserved: BTreeSet<IpAddr>,
    quarantine: u64,
    blocks: BTreeMap<Block, HostBlock>,
    addresses: BTreeMap<IpAddr, AddressState>,
    resting: BTreeSet<(UnixSeconds, IpAddr)>,
    pending: BTreeSet<IpAddr>,
    /// Counts what was set aside, so that a view that is older than a change does not undo it.
    clock: u64,
}
impl HostPool {
    /// A pool of which this host has nothing.
    #[must_use]
    pub fn new(shape: PoolShape, reserved: BTreeSet<IpAddr>, quarantine: u64) -> Self {
        Self {
            shape,
            reserved,
            quarantine,
            blocks: BTreeMap::new(),
            addresses: BTreeMap::new(),
            resting: BTreeSet::new(),
            pending: BTreeSet::new(),
            clock: 0,
        }
    }

    /// A pool as it was kept.
    #[must_use]
    pub fn restore(
        holding: Holding,
        addresses: impl IntoIterator<Item = (IpAddr, AddressState)>,
        quarantine: u64,
        now: UnixSeconds,
    ) -> Self {
        let mut pool = Self::new(holding.shape, holding.reserved, quarantine);
        for (address, mut state) in addresses {
            if let AddressState::Resting { until, .. } = &mut state {
                // A clock that was set back must not make an address rest for years.
                *until = (*until).min(now.saturating_add(quarantine));
                pool.resting.insert((*until, address));
            }
            pool.addresses.insert(address, state);
        }
        for held in holding.blocks {
            pool.insert_block(held.block, held.set_aside, now);
            if let Some(block) = pool.blocks.get_mut(&held.block) {
                block.leaving = held.leaving;
                block.unconfirmed = held.unconfirmed;
            }
        }
        pool
    }

    /// What the pool is.
    #[must_use]
    pub const fn shape(&self) -> &PoolShape {
        &self.shape
    }

    /// The form in which everything but the addresses is kept.
    #[must_use]
    pub fn holding(&self) -> Holding {
        let blocks = self.blocks.iter().map(|(block, state)| HeldBlock {
            block: *block,
            set_aside: state
                .set_aside
                .iter()
                .map(|(address, aside)| (*address, aside.holder.clone()))
                .collect(),
            leaving: state.leaving,
            unconfirmed: state.unconfirmed,
        });
        Holding {
            version: 1,
            shape: self.shape,
            reserved: self.reserved.clone(),
            blocks: blocks.collect(),
        }
    }

    /// The form in which an address is kept; `None` when nothing is kept of it.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Option<&AddressState> {
        self.addresses.get(&address)
    }

    /// Every address that is kept.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &AddressState)> {
        self.addresses
            .iter()
            .map(|(address, state)| (*address, state))
    }

    /// Whether nothing here needs the pool: no address is given or rests.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.addresses.is_empty() && self.pending.is_empty()
    }

    /// The prefix length a container gets with an address: that of its block, or of the address alone.
    #[must_use]
    pub fn prefix_length(&self, address: IpAddr) -> u8 {
        match self.own_block(address) {
            Some(_) => self.shape.block_prefix,
            None => self.shape.pool.family().bits(),
        }
    }

    /// Whether a container has an address of the pool, or is about to.
    #[must_use]
    pub fn has_leases(&self) -> bool {
        self.leased() > 0 || !self.pending.is_empty()
    }

    /// Whether a container never gets the address.
    #[must_use]
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved.contains(&address)
    }

    fn own_block(&self, address: IpAddr) -> Option<&HostBlock> {
        self.blocks.get(&self.shape.block_of(address).ok()?)
    }

    fn own_block_mut(&mut self, address: IpAddr) -> Option<&mut HostBlock> {
        self.blocks.get_mut(&self.shape.block_of(address).ok()?)
    }

    fn rest(&mut self, address: IpAddr, foreign: bool, now: UnixSeconds) {
        let until = now.saturating_add(self.quarantine);
        self.addresses
            .insert(address, AddressState::Resting { until, foreign });
        self.resting.insert((until, address));
    }

    fn insert_lost(
        &mut self,
        address: IpAddr,
        mac: Option<MacAddress>,
        given_at: UnixSeconds,
        until: Option<UnixSeconds>,
    ) {
        let lost = AddressState::Lost {
            mac,
            given_at,
            until,
        };
        self.addresses.insert(address, lost);
    }

    /// Keeps nothing more of an address, which is not this host's.
    fn forget(&mut self, address: IpAddr) {
        if let Some(state) = self.addresses.remove(&address) {
            if let AddressState::Resting { until, .. } = state {
                self.resting.remove(&(until, address));
            }
            self.count(address, -1);
            self.put_free(address);
        }
    }

    fn put_free(&mut self, address: IpAddr) {
        if self.reserved.contains(&address) || self.pending.contains(&address) {
            return;
        }
        if let Some(block) = self.own_block_mut(address)
            && !block.set_aside.contains_key(&address)
        {
            block.put(range::number(address));
        }
    }

    /// Counts an address in or out of the block it lies in, if that is this host's.
    fn count(&mut self, address: IpAddr, step: i64) {
        if let Some(block) = self.own_block_mut(address) {
            block.held = block.held.saturating_add_signed(step);
        }
    }

    fn leased(&self) -> usize {
        self.addresses.len().saturating_sub(self.resting.len())
    }
}

#[cfg(test)]
mod tests;
