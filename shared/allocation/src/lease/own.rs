//! The blocks of this host: how they come and go, and what room they have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::{BlockRecord, UnixSeconds};
use drover_model::{Block, HostName};

use super::block::{Aside, HostBlock};
use super::{AddressState, HostPool};
use crate::block::granted;
use crate::range;

impl HostPool {
    /// A block has become this host's.
    pub fn add_block(&mut self, record: &BlockRecord, now: UnixSeconds) {
        if !self.blocks.contains_key(&record.block) {
            // One that is only asked for is not set aside: a container here may have it.
            self.insert_block(record.block, granted(record), now);
        }
    }

    /// A block is this host's, though it knows nothing of it: the answer to its claim was lost, or this host's
    /// state was. Nothing is given out of it by itself, and it does not go back, until
    /// [`confirm`](Self::confirm) has told what is in use, and all that may rest has rested.
    pub fn adopt_block(&mut self, record: &BlockRecord, now: UnixSeconds) {
        self.add_block(record, now);
        if let Some(block) = self.blocks.get_mut(&record.block) {
            block.unconfirmed = Some(now);
        }
    }

    /// The pool's reserved addresses, as the cluster has them now.
    pub fn set_reserved(&mut self, reserved: &BTreeSet<IpAddr>) {
        for address in reserved {
            if self.reserved.insert(*address) {
                let number = range::number(*address);
                if let Some(block) = self.own_block_mut(*address) {
                    block.take_out(number);
                }
            }
        }
    }

    /// The blocks that nothing has been in since `before`, and that are not needed to have some room.
    #[must_use]
    pub fn idle_blocks(&self, before: UnixSeconds) -> Vec<Block> {
        let mut room = self.free();
        let leased = self.leased();
        let mut idle = Vec::new();
        for (block, state) in self.blocks.iter().rev() {
            let unused = state.is_open() && state.held == 0 && state.idle_since < before;
            if unused && (leased == 0 || room - state.free() > self.low_mark()) {
                room -= state.free();
                idle.push(*block);
            }
        }
        idle
    }

    /// Gives nothing more out of a block that is to be given back; `false` when something is in it.
    pub fn begin_leave(&mut self, block: Block) -> bool {
        let pending = self.pending.iter().any(|address| block.contains(*address));
        match self.blocks.get_mut(&block) {
            Some(state) if state.held == 0 && state.unconfirmed.is_none() && !pending => {
                state.leaving = true;
                true
            }
            _ => false,
        }
    }

    /// The blocks that are to be given back to the cluster.
    pub fn leaving_blocks(&self) -> impl Iterator<Item = Block> {
        self.blocks
            .iter()
            .filter(|(_, state)| state.leaving)
            .map(|(block, _)| *block)
    }

    /// The cluster has the block again, or this host has lost it.
    pub fn remove_block(&mut self, block: Block) {
        self.blocks.remove(&block);
    }

    /// Whether an address lies in a block of this host, and this host knows what is in use of it.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        self.own_block(address)
            .is_some_and(|block| block.unconfirmed.is_none())
    }

    /// Whether it is not known of a block what is in use of it.
    #[must_use]
    pub fn has_unconfirmed(&self) -> bool {
        self.blocks
            .values()
            .any(|block| block.unconfirmed.is_some())
    }

    /// Whether this host has a block of the pool.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Whether it is time to claim another block before the last address is gone.
    #[must_use]
    pub fn is_low(&self) -> bool {
        !self.blocks.is_empty() && self.free() <= self.low_mark()
    }

    /// How many addresses can be given at once.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.blocks
            .values()
            .filter(|block| block.is_open())
            .map(HostBlock::free)
            .sum()
    }

    /// Each block with how many addresses containers can have of it at all, and how many are given.
    pub fn usage(&self) -> impl Iterator<Item = (Block, u64, u64)> {
        self.blocks.iter().map(|(block, state)| {
            let used = state.used().saturating_sub(self.resting_in(*block));
            (
                *block,
                u64::try_from(state.usable()).unwrap_or(u64::MAX),
                used,
            )
        })
    }

    pub(super) fn insert_block(
        &mut self,
        block: Block,
        set_aside: BTreeMap<IpAddr, HostName>,
        now: UnixSeconds,
    ) {
        let mut state = HostBlock::new(block, now);
        let inside = |address: &&IpAddr| block.contains(**address);
        for address in self.reserved.iter().filter(inside) {
            state.take_out(range::number(*address));
        }
        for address in self.pending.iter().filter(inside) {
            state.take_out(range::number(*address));
        }
        let (network, broadcast) = (block.prefix().network(), block.prefix().broadcast());
        for (address, _) in self.addresses.range(network..=broadcast) {
            state.take_out(range::number(*address));
            state.held += 1;
        }
        for (address, holder) in set_aside {
            if !self.addresses.contains_key(&address) {
                state.take_out(range::number(address));
            }
            self.clock += 1;
            state.set_aside.insert(
                address,
                Aside {
                    holder,
                    clock: self.clock,
                },
            );
        }
        self.blocks.insert(block, state);
    }

    pub(super) fn touch_idle(&mut self, address: IpAddr, now: UnixSeconds) {
        if let Some(block) = self.own_block_mut(address) {
            block.idle_since = now;
        }
    }

    /// With fewer free addresses than this it is time for another block: a tenth of a block.
    fn low_mark(&self) -> u128 {
        self.blocks
            .values()
            .map(HostBlock::usable)
            .max()
            .unwrap_or(0)
            / 10
    }

    fn resting_in(&self, block: Block) -> u64 {
        let (network, broadcast) = (block.prefix().network(), block.prefix().broadcast());
        let states = self.addresses.range(network..=broadcast);
        let resting = states.filter(|(_, state)| matches!(state, AddressState::Resting { .. }));
        u64::try_from(resting.count()).unwrap_or(u64::MAX)
    }
}
