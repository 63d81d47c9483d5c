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
mod block;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::{BlockRecord, UnixSeconds};
use drover_model::{Block, HostName, MacAddress, Pool};

use crate::block::granted;
use crate::range;
use crate::shape::{AddressError, PoolShape};
use block::{Aside, HostBlock};

pub use agree::{Agreement, PoolView};
pub use record::{AddressState, HeldBlock, Holding};

/// How long an address rests before it is given again, seconds, unless set otherwise.
pub const QUARANTINE_SECONDS: u64 = 60;

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No container can have it.
    #[error(transparent)]
    Unusable(#[from] AddressError),
    /// A container here has it.
    #[error("address `{address}` is in use on this host{}; choose another", holder(.mac.as_ref()))]
    Taken {
        /// The address.
        address: IpAddr,
        /// The link address of the container.
        mac: Option<MacAddress>,
    },
    /// Another host has it.
    #[error("address `{address}` is in use on another host; choose another")]
    SetAside {
        /// The address.
        address: IpAddr,
    },
    /// Another host had it a moment ago.
    #[error(
        "address `{address}` was in use on another host and is not given again for {seconds} s; wait, or choose another"
    )]
    Resting {
        /// The address.
        address: IpAddr,
        /// For how long.
        seconds: u64,
    },
    /// It is not known whether it is in use.
    #[error(
        "address `{address}` lies in a block of which it is not known yet what is in use here; try again in a few minutes, or choose another"
    )]
    Unconfirmed {
        /// The address.
        address: IpAddr,
    },
    /// It is being claimed for another container.
    #[error("address `{address}` is being claimed for another container; choose another")]
    Pending {
        /// The address.
        address: IpAddr,
    },
    /// The blocks of this host are used up.
    #[error("no address of subnet `{pool}` is free on this host ({leased} in use{})", waiting(*.resting, *.next))]
    Exhausted {
        /// The pool.
        pool: Pool,
        /// How many are in use.
        leased: usize,
        /// How many were given back and rest.
        resting: usize,
        /// When the first of these is free, seconds.
        next: Option<u64>,
    },
}

fn holder(mac: Option<&MacAddress>) -> String {
    mac.map(|mac| format!(" by the container with link address {mac}"))
        .unwrap_or_default()
}

fn waiting(resting: usize, next: Option<u64>) -> String {
    next.map(|seconds| format!(", {resting} not given again yet, the first in {seconds} s"))
        .unwrap_or_default()
}

/// What a request for a certain address comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explicit {
    /// It is given now: make it durable.
    Given,
    /// The same container has it already.
    Already,
    /// It lies in no block of this host, and has to be claimed singly.
    Claim,
}

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

    /// Gives the next free address of the lowest block that has one.
    ///
    /// # Errors
    /// When every address of this host's blocks is given, rests, or is not for containers.
    pub fn allocate(
        &mut self,
        mac: Option<MacAddress>,
        now: UnixSeconds,
    ) -> Result<IpAddr, LeaseError> {
        let family = self.shape.pool.family();
        let free = self.blocks.values_mut().filter(|block| block.is_open());
        let Some(number) = free.into_iter().find_map(HostBlock::take_next) else {
            return Err(self.exhausted(now));
        };
        let address = range::address(family, number);
        self.addresses
            .insert(address, AddressState::Leased { mac, given_at: now });
        Ok(address)
    }

    /// Gives a certain address, if this host can give it by itself. One that rests is given: whoever names an
    /// address means it.
    ///
    /// # Errors
    /// When no container can have it, or another one has it.
    pub fn allocate_explicit(
        &mut self,
        address: IpAddr,
        mac: Option<MacAddress>,
        now: UnixSeconds,
    ) -> Result<Explicit, LeaseError> {
        self.shape.check_address(address)?;
        if self.reserved.contains(&address) {
            return Err(AddressError::Reserved {
                address,
                pool: self.shape.pool,
            }
            .into());
        }
        if self.pending.contains(&address) {
            return Err(LeaseError::Pending { address });
        }
        if self.is_set_aside(address) {
            return Err(LeaseError::SetAside { address });
        }
        let leased = AddressState::Leased { mac, given_at: now };
        match self.addresses.get(&address) {
            Some(AddressState::Leased { mac: holder, .. }) if mac.is_some() && *holder == mac => {
                return Ok(Explicit::Already);
            }
            // Its own again, if the cluster agrees.
            Some(AddressState::Lost { mac: holder, .. }) if mac.is_some() && *holder == mac => {
                return Ok(Explicit::Claim);
            }
            Some(AddressState::Leased { mac, .. } | AddressState::Lost { mac, .. }) => {
                return Err(LeaseError::Taken { address, mac: *mac });
            }
            Some(AddressState::Resting {
                until,
                foreign: true,
            }) => {
                return Err(LeaseError::Resting {
                    address,
                    seconds: until.saturating_sub(now),
                });
            }
            Some(AddressState::Resting { until, .. }) => {
                self.resting.remove(&(*until, address));
                self.addresses.insert(address, leased);
                return Ok(Explicit::Given);
            }
            Some(AddressState::Unconfirmed) => {
                // A claim whose answer was lost, asked for again.
                self.addresses.insert(address, leased);
                return Ok(Explicit::Given);
            }
            Some(AddressState::Leaving) => return Ok(Explicit::Claim),
            None => {}
        }
        let Some(block) = self.own_block_mut(address).filter(|block| !block.leaving) else {
            return Ok(Explicit::Claim);
        };
        if block.unconfirmed.is_some() {
            return Err(LeaseError::Unconfirmed { address });
        }
        block.take(range::number(address));
        self.addresses.insert(address, leased);
        Ok(Explicit::Given)
    }

    /// Keeps an address from being given here while it is being claimed; `false` when it is kept already.
    pub fn begin_claim(&mut self, address: IpAddr) -> bool {
        self.pending.insert(address)
    }

    /// The claim was granted: the address is leased.
    pub fn finish_claim(&mut self, address: IpAddr, mac: Option<MacAddress>, now: UnixSeconds) {
        self.pending.remove(&address);
        let leased = AddressState::Leased { mac, given_at: now };
        if self.addresses.insert(address, leased).is_none() {
            self.count(address, 1);
        }
    }

    /// The claim was not granted, or nobody knows.
    pub fn abandon_claim(&mut self, address: IpAddr) {
        if !self.pending.remove(&address) || self.addresses.contains_key(&address) {
            return;
        }
        self.put_free(address);
    }

    /// Takes an address back from its container; `false` when none had it. It rests from now on.
    pub fn release(&mut self, address: IpAddr, now: UnixSeconds) -> bool {
        match self.addresses.get(&address) {
            Some(AddressState::Leased { .. } | AddressState::Unconfirmed) => {
                self.rest(address, false, now);
                true
            }
            Some(AddressState::Lost { .. }) => {
                if self.own_block(address).is_some() && !self.is_set_aside(address) {
                    self.rest(address, true, now);
                } else {
                    self.forget(address);
                }
                true
            }
            Some(AddressState::Resting { .. } | AddressState::Leaving) | None => false,
        }
    }

    /// Ends the rest of what has rested long enough, and says of which addresses the kept form changed.
    pub fn expire(&mut self, now: UnixSeconds) -> Vec<IpAddr> {
        let mut touched = Vec::new();
        while let Some((until, address)) = self.resting.first().copied() {
            if until > now {
                break;
            }
            self.resting.remove(&(until, address));
            touched.push(address);
            if self.own_block(address).is_some() {
                self.addresses.remove(&address);
                self.count(address, -1);
                self.touch_idle(address, now);
                self.put_free(address);
            } else {
                self.addresses.insert(address, AddressState::Leaving);
            }
        }
        touched
    }

    /// The single addresses that are to be given back to the cluster.
    pub fn leaving_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let leaving = |state: &AddressState| matches!(state, AddressState::Leaving);
        self.addresses
            .iter()
            .filter(move |(_, state)| leaving(state))
            .map(|(address, _)| *address)
    }

    /// The cluster has the address again.
    pub fn finish_release(&mut self, address: IpAddr) {
        if matches!(self.addresses.get(&address), Some(AddressState::Leaving)) {
            self.addresses.remove(&address);
            self.count(address, -1);
            self.put_free(address);
        }
    }

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

    /// Keeps an address for another host; `false` when it is not this host's to keep, or in use here.
    pub fn set_aside(&mut self, address: IpAddr, holder: &HostName) -> bool {
        let aside = self
            .own_block(address)
            .and_then(|block| block.set_aside.get(&address));
        if let Some(aside) = aside
            && aside.holder != *holder
        {
            return false;
        }
        let reserved =
            self.reserved.contains(&address) || self.shape.check_address(address).is_err();
        if reserved || self.pending.contains(&address) {
            return false;
        }
        let leased = matches!(
            self.addresses.get(&address),
            Some(
                AddressState::Leased { .. }
                    | AddressState::Lost { .. }
                    | AddressState::Leaving
                    | AddressState::Unconfirmed
                    | AddressState::Resting { foreign: true, .. }
            )
        );
        if leased || !self.knows(address) {
            return false;
        }
        if let Some(AddressState::Resting { until, .. }) = self.addresses.remove(&address) {
            self.resting.remove(&(until, address));
            self.count(address, -1);
        }
        self.clock += 1;
        let clock = self.clock;
        if let Some(block) = self.own_block_mut(address) {
            block.take_out(range::number(address));
            block.set_aside.insert(
                address,
                Aside {
                    holder: holder.clone(),
                    clock,
                },
            );
        }
        true
    }

    /// Another host no longer has the address: it rests; `false` when none had it.
    pub fn take_back(&mut self, address: IpAddr, holder: &HostName, now: UnixSeconds) -> bool {
        let kept = self.own_block_mut(address).and_then(|block| {
            block
                .set_aside
                .get(&address)
                .filter(|aside| aside.holder == *holder)?;
            block.set_aside.remove(&address)
        });
        if kept.is_none() {
            return false;
        }
        let until = now.saturating_add(self.quarantine);
        match self.addresses.get(&address).cloned() {
            // A container here has had it all the while, from before this host was removed. The other one may
            // still run, so that it is not this host's to give when that container stops.
            Some(
                AddressState::Leased { mac, given_at } | AddressState::Lost { mac, given_at, .. },
            ) => self.insert_lost(address, mac, given_at, Some(until)),
            Some(AddressState::Unconfirmed) => self.insert_lost(address, None, now, Some(until)),
            Some(AddressState::Resting { until, .. }) => {
                self.resting.remove(&(until, address));
                self.rest(address, true, now);
            }
            Some(AddressState::Leaving) => self.rest(address, true, now),
            None => {
                self.count(address, 1);
                self.rest(address, true, now);
            }
        }
        true
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

    /// What an address is counted by, for [`Self::agree`].
    #[must_use]
    pub const fn mark(&self) -> u64 {
        self.clock
    }

    /// Compares the leases with what the engine has in use. Leases from before `before` that it does not have
    /// are released; addresses of this host's blocks that it has and nobody gave are taken as given.
    pub fn confirm(
        &mut self,
        in_use: &BTreeSet<IpAddr>,
        before: UnixSeconds,
        now: UnixSeconds,
    ) -> Confirmed {
        let mut released = Vec::new();
        let mut adopted = Vec::new();
        for (address, state) in &self.addresses {
            let known = in_use.contains(address);
            match state {
                AddressState::Leased { given_at, .. } | AddressState::Lost { given_at, .. }
                    if *given_at < before && !known =>
                {
                    released.push(*address);
                }
                AddressState::Unconfirmed if known => adopted.push(*address),
                AddressState::Unconfirmed => released.push(*address),
                AddressState::Leased { .. }
                | AddressState::Lost { .. }
                | AddressState::Resting { .. }
                | AddressState::Leaving => {}
            }
        }
        for address in &released {
            self.release(*address, now);
        }
        for block in self.blocks.values_mut() {
            // What rested in it is not known either, so all of it rests.
            let rested = |since: &UnixSeconds| since.saturating_add(self.quarantine) <= now;
            block.unconfirmed = block.unconfirmed.filter(|since| !rested(since));
        }
        for address in in_use {
            let number = range::number(*address);
            if self
                .own_block_mut(*address)
                .is_some_and(|block| block.take(number))
            {
                adopted.push(*address);
            }
        }
        for address in &adopted {
            let leased = AddressState::Leased {
                mac: None,
                given_at: now,
            };
            self.addresses.insert(*address, leased);
        }
        Confirmed { released, adopted }
    }

    fn insert_block(
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

    fn own_block(&self, address: IpAddr) -> Option<&HostBlock> {
        self.blocks.get(&self.shape.block_of(address).ok()?)
    }

    fn is_set_aside(&self, address: IpAddr) -> bool {
        self.own_block(address)
            .is_some_and(|block| block.set_aside.contains_key(&address))
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

    fn touch_idle(&mut self, address: IpAddr, now: UnixSeconds) {
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

    fn leased(&self) -> usize {
        self.addresses.len().saturating_sub(self.resting.len())
    }

    fn resting_in(&self, block: Block) -> u64 {
        let (network, broadcast) = (block.prefix().network(), block.prefix().broadcast());
        let states = self.addresses.range(network..=broadcast);
        let resting = states.filter(|(_, state)| matches!(state, AddressState::Resting { .. }));
        u64::try_from(resting.count()).unwrap_or(u64::MAX)
    }

    fn exhausted(&self, now: UnixSeconds) -> LeaseError {
        let next = self
            .resting
            .first()
            .map(|(until, _)| until.saturating_sub(now));
        LeaseError::Exhausted {
            pool: self.shape.pool,
            leased: self.leased(),
            resting: self.resting.len(),
            next,
        }
    }
}

/// What [`HostPool::confirm`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Leases that had leaked; they rest now.
    pub released: Vec<IpAddr>,
    /// Addresses that were in use though nobody knew.
    pub adopted: Vec<IpAddr>,
}

#[cfg(test)]
mod tests;
