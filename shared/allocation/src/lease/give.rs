//! Giving addresses to containers, claiming single ones, and taking them back.

use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;
use drover_model::MacAddress;

use super::block::HostBlock;
use super::{AddressState, HostPool, LeaseError};
use crate::range;
use crate::shape::AddressError;

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

impl HostPool {
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
