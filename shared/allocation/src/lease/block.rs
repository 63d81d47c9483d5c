//! A block of this host: what is free of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;
use drover_model::{Block, HostName};

use crate::range::FreeRanges;
use crate::shape::usable;

/// An address that is kept for another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aside {
    /// The other host.
    pub(super) holder: HostName,
    /// The count of when it was set aside.
    pub(super) clock: u64,
}

/// What is free of a block, and what is kept for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostBlock {
    free: FreeRanges,
    /// Where the next search begins: behind what was given last, so that an address comes round late.
    cursor: u128,
    usable: u128,
    /// How many addresses of it are given, rest, or leave.
    pub(super) held: u64,
    /// Addresses that other hosts hold.
    pub(super) set_aside: BTreeMap<IpAddr, Aside>,
    /// Whether it is being given back.
    pub(super) leaving: bool,
    /// Since when it is not known what is in use of it, if it is not.
    pub(super) unconfirmed: Option<UnixSeconds>,
    /// Since when nothing has been in it, if nothing is.
    pub(super) idle_since: UnixSeconds,
}

impl HostBlock {
    pub(super) fn new(block: Block, now: UnixSeconds) -> Self {
        let (first, last) = usable(block);
        let free = FreeRanges::new(first, last);
        let usable = free.count();
        Self {
            free,
            cursor: first,
            usable,
            held: 0,
            set_aside: BTreeMap::new(),
            leaving: false,
            unconfirmed: None,
            idle_since: now,
        }
    }

    /// Takes the next free address.
    pub(super) fn take_next(&mut self) -> Option<u128> {
        let number = self.free.next(self.cursor)?;
        self.take(number).then_some(number)
    }

    /// Takes a certain address for a container; `false` when it is not free.
    pub(super) fn take(&mut self, number: u128) -> bool {
        let taken = self.free.take(number);
        if taken {
            self.held += 1;
            self.cursor = number.saturating_add(1);
        }
        taken
    }

    /// Takes an address out of what is free, for something that is not a container's.
    pub(super) fn take_out(&mut self, number: u128) {
        self.free.take(number);
    }

    /// Whether addresses may be given out of it by themselves.
    pub(super) const fn is_open(&self) -> bool {
        !self.leaving && self.unconfirmed.is_none()
    }

    pub(super) fn put(&mut self, number: u128) {
        self.free.put(number);
    }

    pub(super) const fn free(&self) -> u128 {
        self.free.count()
    }

    pub(super) const fn usable(&self) -> u128 {
        self.usable
    }

    pub(super) const fn used(&self) -> u64 {
        self.held
    }
}
