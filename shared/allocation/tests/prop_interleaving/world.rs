//! The store and the hosts, what can happen to them, and what must hold all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_allocation::block::{self, Change};
use drover_allocation::lease::{Explicit, HostPool, PoolView};
use drover_allocation::{PoolShape, pool};
use drover_control_api::record::{BlockRecord, PoolRecord};
use drover_model::Block;
use proptest::prelude::*;

use crate::asking::Asking;
use crate::host::{Host, member};

pub(crate) const HOSTS: usize = 3;
const QUARANTINE: u64 = 4;
const IDLE: u64 = 6;

#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// The engine of a host asks for any address.
    Request(usize),
    /// The engine asks for a certain address.
    RequestNamed(usize, u8),
    /// A container of a host stops.
    Release(usize, usize),
    /// A request under way takes its next step.
    Advance(usize),
    /// The answer to a request under way is lost; the request may have been written.
    LoseAnswer(usize),
    /// The owner of a block answers the claims of others, the two halves one by one.
    Grant(usize, bool),
    /// Every process of the host dies and starts again. Containers live.
    Crash(usize),
    /// The same, and its disk is lost.
    LoseState(usize),
    /// The host is cut off from the store, or is there again.
    Cut(usize, bool),
    /// The host reads the store, or compares with what it has read.
    Agree(usize),
    /// The engine tells which addresses its containers have.
    Confirm(usize),
    /// The host reads the store, compares, and asks its engine, without anything coming between.
    Round(usize),
    /// Idle blocks and rested addresses are given back.
    Tidy(usize),
    /// Somebody removes the host from the cluster.
    Remove(usize),
    /// A host that was removed joins again. Its containers may still run: they end with the quarantine.
    Rejoin(usize),
    Tick(u8),
}

pub(crate) struct World {
    pub(crate) record: PoolRecord,
    /// Records with the revision of their last change.
    pub(crate) store: BTreeMap<Block, (u64, BlockRecord)>,
    pub(crate) revision: u64,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) members: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let pool = "10.90.0.0/26".parse().unwrap();
        let mut record = PoolRecord {
            version: 1,
            pool,
            sub_pool: None,
            block_prefix: pool::block_prefix(pool.prefix(), Some(29)),
            reserved: BTreeSet::new(),
            claimed_by: "h0".parse().unwrap(),
            claimed_at: 0,
            network: None,
        };
        record
            .reserved
            .insert(PoolShape::from(&record).default_gateway());
        record.reserved.insert("10.90.0.11".parse().unwrap());
        let shape = PoolShape::from(&record);
        let hosts = (0..HOSTS).map(|host| {
            let pool = HostPool::new(shape, record.reserved.clone(), QUARANTINE);
            Host {
                member: member(host, 0),
                disk: (pool.holding(), BTreeMap::new()),
                pool,
                containers: BTreeSet::new(),
                request: None,
                view: None,
                cut: false,
                removed: None,
                survivors: (0, BTreeSet::new()),
                next_mac: 0,
            }
        });
        let hosts = hosts.collect();
        Self {
            record,
            store: BTreeMap::new(),
            revision: 0,
            now: 1_000,
            hosts,
            members: 0,
        }
    }

    pub(crate) fn read(&self, block: Block) -> (u64, Option<&BlockRecord>) {
        self.store
            .get(&block)
            .map_or((0, None), |(revision, record)| (*revision, Some(record)))
    }

    /// Compare and swap.
    pub(crate) fn write(
        &mut self,
        block: Block,
        record: Option<BlockRecord>,
        revision: u64,
    ) -> bool {
        if self.read(block).0 != revision {
            return false;
        }
        self.revision += 1;
        match record {
            Some(record) => self.store.insert(block, (self.revision, record)),
            None => self.store.remove(&block),
        };
        true
    }

    pub(crate) fn change(&mut self, block: Block, change: Change, revision: u64) -> bool {
        match change {
            Change::Unchanged => true,
            Change::Put(record) => self.write(block, Some(record), revision),
            Change::Delete => self.write(block, None, revision),
        }
    }

    pub(crate) fn block_of(&self, address: IpAddr) -> Block {
        PoolShape::from(&self.record).block_of(address).unwrap()
    }

    pub(crate) fn act(&mut self, act: &Act) {
        match act {
            Act::Request(host) => self.request(*host),
            Act::RequestNamed(host, last) => self.request_named(*host, *last),
            Act::Release(host, which) => self.release(*host, *which),
            Act::Advance(host) => self.advance(*host),
            Act::LoseAnswer(host) => self.lose_answer(*host),
            Act::Grant(host, whole) => self.grant(*host, *whole),
            Act::Crash(host) => self.crash(*host),
            Act::Cut(host, cut) => self.hosts[*host].cut = *cut,
            Act::Agree(host) => self.agree(*host),
            Act::Confirm(host) => self.hosts[*host].confirm(self.now),
            Act::Round(host) => {
                self.agree(*host);
                self.agree(*host);
                self.hosts[*host].confirm(self.now);
            }
            Act::LoseState(host) => self.lose_state(*host),
            Act::Tidy(host) => self.tidy(*host),
            Act::Remove(host) => self.remove(*host),
            Act::Rejoin(host) if self.hosts[*host].cut => {}
            Act::Rejoin(host) => self.rejoin(*host),
            Act::Tick(seconds) => self.tick(u64::from(*seconds)),
        }
    }

    pub(crate) fn request(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.removed.is_some_and(|until| until <= now) {
            return;
        }
        host.expire(now);
        let mac = host.mac();
        match host.pool.allocate(mac, now) {
            Ok(address) => host.give(address),
            Err(_) => host.ask(Asking::Block),
        }
    }

    pub(crate) fn request_named(&mut self, index: usize, last: u8) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.removed.is_some_and(|until| until <= now) {
            return;
        }
        host.expire(now);
        let address = IpAddr::from([10, 90, 0, last]);
        let mac = host.mac();
        match host.pool.allocate_explicit(address, mac, now) {
            Ok(Explicit::Given) => host.give(address),
            Ok(Explicit::Claim) if host.request.is_none() && host.view.is_none() => {
                if host.pool.begin_claim(address) {
                    host.ask(Asking::Single(address));
                }
            }
            Ok(_) | Err(_) => {}
        }
    }

    pub(crate) fn release(&mut self, index: usize, which: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let Some(address) = host
            .containers
            .iter()
            .nth(which % host.containers.len().max(1))
            .copied()
        else {
            return;
        };
        host.containers.remove(&address);
        host.survivors.1.remove(&address);
        host.pool.release(address, now);
        host.keep();
    }

    pub(crate) fn crash(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let (holding, addresses) = host.disk.clone();
        host.pool = HostPool::restore(holding, addresses, QUARANTINE, now);
        host.request = None;
        host.view = None;
    }

    /// The disk is lost, and the host starts: it compares with the cluster before it gives anything, and
    /// its engine tells later what is in use.
    pub(crate) fn lose_state(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.cut || host.removed.is_some() {
            return;
        }
        let shape = PoolShape::from(&self.record);
        let empty = HostPool::new(shape, self.record.reserved.clone(), QUARANTINE);
        host.disk = (empty.holding(), BTreeMap::new());
        self.crash(index);
        self.agree(index);
        self.agree(index);
    }

    pub(crate) fn agree(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.cut || host.removed.is_some() || host.request.is_some() {
            return;
        }
        let Some((blocks, mark)) = host.view.take() else {
            let blocks = self.store.values().map(|(_, record)| record.clone());
            host.view = Some((blocks.collect(), host.pool.mark()));
            return;
        };
        let member = host.member.clone();
        let view = PoolView {
            record: Some(&self.record),
            blocks: &blocks,
            member: &member,
            mark,
        };
        let agreement = host.pool.agree(&view, now);
        host.keep();
        if let Some(block) = agreement.release_blocks.first() {
            host.ask(Asking::ReleaseBlock(*block));
        } else if let Some(address) = agreement.release_addresses.first() {
            host.ask(Asking::ReleaseSingle(*address));
        }
    }

    pub(crate) fn tidy(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        host.expire(now);
        if host.request.is_some() || host.view.is_some() {
            return;
        }
        let leaving = host.pool.leaving_addresses().next();
        if let Some(address) = leaving {
            host.ask(Asking::ReleaseSingle(address));
            return;
        }
        if let Some(block) = host
            .pool
            .idle_blocks(now.saturating_sub(IDLE))
            .first()
            .copied()
            && host.pool.begin_leave(block)
        {
            host.keep();
            host.ask(Asking::ReleaseBlock(block));
        }
    }

    pub(crate) fn remove(&mut self, index: usize) {
        if self.hosts[index].removed.is_some() {
            return;
        }
        let member = self.hosts[index].member.clone();
        let until = self.now + QUARANTINE;
        for (block, (revision, record)) in self.store.clone() {
            self.change(
                block,
                block::remove_member(&record, &member, until),
                revision,
            );
        }
        // A host that is cut off does not hear of it, and goes on until the quarantine ends: by then
        // it is off, as the person who removed it has promised.
        let host = &mut self.hosts[index];
        host.removed = Some(until);
        host.view = None;
        self.lose_answer(index);
    }

    /// A removed host joins as another member, with what was left on its disk.
    pub(crate) fn rejoin(&mut self, index: usize) {
        if let Some(until) = self.hosts[index].removed.take() {
            self.members += 1;
            let host = &mut self.hosts[index];
            host.member = member(index, self.members);
            host.survivors = (until, host.containers.clone());
            self.crash(index);
            self.agree(index);
            self.agree(index);
        }
    }

    pub(crate) fn tick(&mut self, seconds: u64) {
        self.now += seconds;
        for host in &mut self.hosts {
            if host.removed.is_some_and(|until| until <= self.now) {
                host.containers.clear();
            }
            if host.survivors.0 <= self.now {
                // Nobody tells their host, whose engine does when it is asked.
                for address in std::mem::take(&mut host.survivors.1) {
                    host.containers.remove(&address);
                }
            }
            host.expire(self.now);
        }
    }

    pub(crate) fn check(&self) -> Result<(), TestCaseError> {
        let mut holders: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (index, host) in self.hosts.iter().enumerate() {
            for address in &host.containers {
                let other = holders.insert(*address, index);
                prop_assert!(
                    other.is_none(),
                    "{address} is on hosts {other:?} and {index}"
                );
                prop_assert!(!self.record.reserved.contains(address));
            }
        }
        Ok(())
    }

    /// Everything answers again; containers stop; time passes.
    pub(crate) fn heal(&mut self) -> Result<(), TestCaseError> {
        for index in 0..HOSTS {
            self.hosts[index].cut = false;
            self.rejoin(index);
            while !self.hosts[index].containers.is_empty() {
                self.release(index, 0);
            }
            // Requests whose answer nobody waits for, and leases that the engine never heard of.
            self.lose_answer(index);
            self.hosts[index].confirm(self.now);
        }
        for _ in 0..200 {
            self.tick(IDLE);
            for index in 0..HOSTS {
                self.grant(index, true);
                self.agree(index);
                self.hosts[index].confirm(self.now);
                self.tidy(index);
                for _ in 0..3 {
                    self.advance(index);
                }
            }
            self.check()?;
        }
        // Only quarantines of removed hosts may be left in the store, and they are over.
        for (_, record) in self.store.values() {
            prop_assert!(
                record.owner.is_none() && record.claims.is_empty(),
                "lost: {record:?}"
            );
            prop_assert!(record.quarantined_until <= self.now);
        }
        for host in &self.hosts {
            prop_assert!(host.pool.is_unused(), "lost: {:?}", host.pool);
            prop_assert!(host.pool.holding().blocks.is_empty());
        }
        Ok(())
    }
}
