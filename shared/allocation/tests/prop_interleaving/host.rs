//! A host: what it knows, what is on its disk, and its containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_allocation::block::Member;
use drover_allocation::lease::{AddressState, Holding, HostPool};
use drover_control_api::record::BlockRecord;
use drover_model::MacAddress;

use crate::asking::{Asking, Request};

pub(crate) struct Host {
    pub(crate) member: Member,
    pub(crate) pool: HostPool,
    /// What is on its disk.
    pub(crate) disk: (Holding, BTreeMap<IpAddr, AddressState>),
    /// The addresses its containers have.
    pub(crate) containers: BTreeSet<IpAddr>,
    pub(crate) request: Option<Request>,
    /// What it has read of the store to compare with, and not compared yet.
    pub(crate) view: Option<(Vec<BlockRecord>, u64)>,
    pub(crate) cut: bool,
    /// Removed from the cluster, and until when its containers may live on.
    pub(crate) removed: Option<u64>,
    /// Containers from before it was removed, and until when they may live on.
    pub(crate) survivors: (u64, BTreeSet<IpAddr>),
    pub(crate) next_mac: u8,
}

impl Host {
    pub(crate) fn mac(&mut self) -> Option<MacAddress> {
        self.next_mac = self.next_mac.wrapping_add(1);
        Some(MacAddress::new([2, 0, 0, 0, 0, self.next_mac]))
    }

    pub(crate) fn keep(&mut self) {
        let addresses = self
            .pool
            .addresses()
            .map(|(address, state)| (address, state.clone()));
        self.disk = (self.pool.holding(), addresses.collect());
    }

    /// Durable first, then the container has it.
    pub(crate) fn give(&mut self, address: IpAddr) {
        self.keep();
        self.survivors.1.remove(&address);
        self.containers.insert(address);
    }

    pub(crate) fn confirm(&mut self, now: u64) {
        self.pool.confirm(&self.containers, now + 1, now);
        self.keep();
    }

    pub(crate) fn expire(&mut self, now: u64) {
        if !self.pool.expire(now).is_empty() {
            self.keep();
        }
    }

    pub(crate) fn ask(&mut self, asking: Asking) {
        // One at a time, and none between reading the store and comparing with it.
        if self.request.is_none() && self.view.is_none() {
            self.request = Some(Request {
                asking,
                decided: None,
                waiting: false,
            });
        }
    }
}

pub(crate) fn member(host: usize, number: u64) -> Member {
    Member {
        host: format!("h{host}").parse().unwrap(),
        id: number.to_string(),
    }
}
