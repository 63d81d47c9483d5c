//! Comparing the leases with what the engine has in use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;

use super::{AddressState, HostPool};
use crate::range;

/// What [`HostPool::confirm`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Leases that had leaked; they rest now.
    pub released: Vec<IpAddr>,
    /// Addresses that were in use though nobody knew.
    pub adopted: Vec<IpAddr>,
}

impl HostPool {
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
}
