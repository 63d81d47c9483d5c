//! What hosts ask of the store, step by step: a read with a decision, a conditional write, an answer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_allocation::PoolShape;
use drover_allocation::block::{self, Change};
use drover_allocation::claim::{self, Asker, Step};
use drover_control_api::record::{BlockRecord, ClaimState};
use drover_model::Block;

use crate::world::World;

/// What a host is asking of the store.
#[derive(Debug, Clone)]
pub(crate) enum Asking {
    Block,
    Single(IpAddr),
    ReleaseBlock(Block),
    ReleaseSingle(IpAddr),
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) asking: Asking,
    /// The decision: the record to write, and the revision it was made of.
    pub(crate) decided: Option<(Block, Option<BlockRecord>, u64)>,
    /// For a single claim: whether it is waiting for the owner.
    pub(crate) waiting: bool,
}

impl World {
    pub(crate) fn advance(&mut self, index: usize) {
        if self.hosts[index].cut || self.hosts[index].removed.is_some() {
            return;
        }
        let Some(mut request) = self.hosts[index].request.take() else {
            return;
        };
        let done = match request.decided.take() {
            None => self.decide(index, &mut request),
            Some((block, record, revision)) => {
                let written = self.write(block, record.clone(), revision);
                written && self.answer(index, &mut request, record)
            }
        };
        if !done {
            self.hosts[index].request = Some(request);
        }
    }

    /// Reads and decides; `true` when the request is over.
    pub(crate) fn decide(&mut self, index: usize, request: &mut Request) -> bool {
        let me = self.hosts[index].member.clone();
        let shape = PoolShape::from(&self.record);
        let put = |change: Change| match change {
            Change::Unchanged => None,
            Change::Put(record) => Some(Some(record)),
            Change::Delete => Some(None),
        };
        match request.asking {
            Asking::Block => {
                let blocks: BTreeMap<_, _> = self
                    .store
                    .iter()
                    .map(|(block, (_, record))| (*block, record.clone()))
                    .collect();
                let Ok(record) = block::claim(&self.record, &blocks, &me, self.now) else {
                    return true;
                };
                let revision = self.read(record.block).0;
                request.decided = Some((record.block, Some(record), revision));
                false
            }
            Asking::ReleaseBlock(block) => {
                let (revision, record) = self.read(block);
                match record.and_then(|record| put(block::release(record, &me))) {
                    Some(record) => request.decided = Some((block, record, revision)),
                    None => return self.answer(index, request, None),
                }
                false
            }
            Asking::ReleaseSingle(address) => {
                let block = shape.block_of(address).unwrap();
                let (revision, record) = self.read(block);
                match record.and_then(|record| put(claim::release(record, address, &me.host))) {
                    Some(record) => request.decided = Some((block, record, revision)),
                    None => return self.answer(index, request, None),
                }
                false
            }
            Asking::Single(address) => self.decide_single(index, request, address),
        }
    }

    pub(crate) fn decide_single(
        &mut self,
        index: usize,
        request: &mut Request,
        address: IpAddr,
    ) -> bool {
        let me = self.hosts[index].member.clone();
        let block = self.block_of(address);
        let (revision, record) = self.read(block);
        let asked = record.and_then(|record| record.claims.get(&address));
        let refused = asked.is_none_or(|claim| claim.state == ClaimState::Refused);
        if request.waiting && refused {
            self.hosts[index].pool.abandon_claim(address);
            return true;
        }
        let asker = Asker {
            member: &me,
            owner_alive: true,
            now: self.now,
        };
        match claim::claim(&self.record, record, address, &asker) {
            Ok(Step::Held) => self.answer(index, request, None),
            Ok(Step::Wait) => false,
            Ok(Step::Grant(record)) => {
                request.decided = Some((block, Some(record), revision));
                false
            }
            Ok(Step::Ask(record)) => {
                request.waiting = true;
                request.decided = Some((block, Some(record), revision));
                false
            }
            Err(_) => {
                self.hosts[index].pool.abandon_claim(address);
                true
            }
        }
    }

    /// The host hears that its request was written; `true` when it is over.
    pub(crate) fn answer(
        &mut self,
        index: usize,
        request: &mut Request,
        record: Option<BlockRecord>,
    ) -> bool {
        let now = self.now;
        let host = &mut self.hosts[index];
        match request.asking {
            Asking::Block => {
                host.pool.add_block(&record.unwrap(), now);
                host.keep();
            }
            Asking::ReleaseBlock(block) => {
                host.pool.remove_block(block);
                host.keep();
            }
            Asking::ReleaseSingle(address) => {
                host.pool.finish_release(address);
                host.keep();
            }
            Asking::Single(address) => {
                let asked = record.and_then(|record| record.claims.get(&address).cloned());
                if asked.is_some_and(|claim| claim.state == ClaimState::Requested) {
                    return false;
                }
                let mac = host.mac();
                host.pool.finish_claim(address, mac, now);
                host.give(address);
            }
        }
        true
    }

    pub(crate) fn lose_answer(&mut self, index: usize) {
        let Some(request) = self.hosts[index].request.take() else {
            return;
        };
        if let Some((block, record, revision)) = request.decided
            && !self.hosts[index].cut
            && self.hosts[index].removed.is_none()
        {
            self.write(block, record, revision);
        }
        if let Asking::Single(address) = request.asking {
            self.hosts[index].pool.abandon_claim(address);
        }
    }

    /// Answers the first claim of another host; with `whole` false the process dies between the halves.
    pub(crate) fn grant(&mut self, index: usize, whole: bool) {
        let me = self.hosts[index].member.clone();
        if self.hosts[index].cut || self.hosts[index].removed.is_some() {
            return;
        }
        let asked = self.store.values().find_map(|(revision, record)| {
            let first = claim::requested(record).into_iter().next();
            first
                .filter(|_| me.owns(record))
                .map(|first| (*revision, record.clone(), first))
        });
        let Some((revision, record, (address, asker))) = asked else {
            return;
        };
        let host = &mut self.hosts[index];
        if !host.pool.knows(address) {
            return;
        }
        let granted = host.pool.set_aside(address, &asker);
        host.keep();
        if whole {
            let change = claim::settle(&record, address, &asker, &me, granted);
            self.change(record.block, change, revision);
        }
    }
}
