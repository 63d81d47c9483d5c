//! Single addresses of this host's blocks that are kept for other hosts.

use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;
use drover_model::HostName;

use super::block::Aside;
use super::{AddressState, HostPool};
use crate::range;

impl HostPool {
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

    /// What an address is counted by, for [`Self::agree`].
    #[must_use]
    pub const fn mark(&self) -> u64 {
        self.clock
    }

    pub(super) fn is_set_aside(&self, address: IpAddr) -> bool {
        self.own_block(address)
            .is_some_and(|block| block.set_aside.contains_key(&address))
    }
}
