//! Makes what this host knows of a pool agree with what the store has: after a start, after a cut, and now
//! and then.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_control_api::record::{BlockRecord, ClaimState, PoolRecord, UnixSeconds};
use drover_model::{Block, HostName};

use crate::block::{Member, claimed, granted};
use crate::lease::{AddressState, HostPool};

/// What the store has of a pool. It must have been read while no claim or release of this host for
/// the pool was under way.
#[derive(Debug, Clone, Copy)]
pub struct PoolView<'a> {
    /// The pool; `None` when it is gone.
    pub record: Option<&'a PoolRecord>,
    /// Its blocks.
    pub blocks: &'a [BlockRecord],
    /// This host.
    pub member: &'a Member,
    /// [`HostPool::mark`] from before the store was read.
    pub mark: u64,
}

/// What is to be done after a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Whether [`HostPool::holding`] changed.
    pub changed: bool,
    /// The addresses whose kept form changed.
    pub touched: Vec<IpAddr>,
    /// Blocks to give back to the cluster.
    pub release_blocks: Vec<Block>,
    /// Single addresses to give back to the cluster.
    pub release_addresses: Vec<IpAddr>,
    /// What cannot be mended here, a sentence each.
    pub complaints: Vec<String>,
}

impl HostPool {
    /// Takes over what the store says, and tells what the store has to be told.
    pub fn agree(&mut self, view: &PoolView<'_>, now: UnixSeconds) -> Agreement {
        let mut agreement = Agreement::default();
        let before = self.holding();
        if let Some(record) = view.record {
            self.set_reserved(&record.reserved);
        }
        let records: &[BlockRecord] = if view.record.is_some() {
            view.blocks
        } else {
            &[]
        };
        let own: BTreeMap<Block, &BlockRecord> = records
            .iter()
            .filter(|record| view.member.owns(record))
            .map(|record| (record.block, record))
            .collect();
        self.drop_lost_blocks(&own);
        for record in own.values() {
            self.agree_on_block(record, view.mark, now, &mut agreement);
        }
        self.agree_on_singles(records, view.member, now, &mut agreement);
        agreement.release_blocks = self.leaving_blocks().collect();
        agreement.changed = self.holding() != before;
        agreement
    }

    /// Whether a block's record says nothing that is not known here.
    #[must_use]
    pub fn agrees_with(&self, record: &BlockRecord, member: &Member) -> bool {
        if member.owns(record) {
            let (least, most) = (granted(record), claimed(record));
            return self.blocks.get(&record.block).is_some_and(|block| {
                let kept = |address: &IpAddr, holder: &HostName| {
                    block
                        .set_aside
                        .get(address)
                        .is_some_and(|aside| aside.holder == *holder)
                };
                !block.leaving
                    && least.iter().all(|(address, holder)| kept(address, holder))
                    && block
                        .set_aside
                        .iter()
                        .all(|(address, aside)| most.get(address) == Some(&aside.holder))
            });
        }
        let mut mine = record
            .claims
            .iter()
            .filter(|(_, claim)| claim.host == member.host);
        !self.blocks.contains_key(&record.block)
            && mine.all(|(address, _)| {
                self.addresses.contains_key(address) || self.pending.contains(address)
            })
    }

    /// Whether nothing of a block that has no record any more is thought to be this host's.
    #[must_use]
    pub fn agrees_without(&self, block: Block) -> bool {
        let (first, last) = (block.prefix().network(), block.prefix().broadcast());
        let lost = |state: &AddressState| matches!(state, AddressState::Lost { .. });
        !self.blocks.contains_key(&block)
            && self
                .addresses
                .range(first..=last)
                .all(|(_, state)| lost(state))
    }

    fn drop_lost_blocks(&mut self, own: &BTreeMap<Block, &BlockRecord>) {
        self.blocks.retain(|block, _| own.contains_key(block));
    }

    fn agree_on_block(
        &mut self,
        record: &BlockRecord,
        mark: u64,
        now: UnixSeconds,
        agreement: &mut Agreement,
    ) {
        if !self.blocks.contains_key(&record.block) {
            // Claimed by a request whose answer was lost; or this host has lost its state.
            self.adopt_block(record, now);
            return;
        }
        let wanted = claimed(record);
        let gone: Vec<(IpAddr, HostName)> = match self.blocks.get(&record.block) {
            Some(block) => block
                .set_aside
                .iter()
                .filter(|(address, aside)| {
                    aside.clock <= mark && wanted.get(*address) != Some(&aside.holder)
                })
                .map(|(address, aside)| (*address, aside.holder.clone()))
                .collect(),
            None => Vec::new(),
        };
        for (address, holder) in gone {
            self.take_back(address, &holder, now);
            agreement.touched.push(address);
        }
        for (address, holder) in granted(record) {
            let kept = self
                .blocks
                .get(&record.block)
                .and_then(|block| block.set_aside.get(&address));
            if kept.is_some_and(|aside| aside.holder == holder) {
                continue;
            }
            if self.set_aside(address, &holder) {
                agreement.touched.push(address);
            } else {
                agreement.complaints.push(format!(
                    "address `{address}` is in use here and on host `{holder}`; remove one of the two containers"
                ));
            }
        }
    }

    fn agree_on_singles(
        &mut self,
        records: &[BlockRecord],
        member: &Member,
        now: UnixSeconds,
        agreement: &mut Agreement,
    ) {
        let mine: BTreeMap<IpAddr, ClaimState> = records
            .iter()
            .flat_map(|record| record.claims.iter())
            .filter(|(_, claim)| claim.host == member.host)
            .map(|(address, claim)| (*address, claim.state))
            .collect();
        let leaving: Vec<IpAddr> = self.leaving_addresses().collect();
        for address in leaving {
            if mine.contains_key(&address) {
                agreement.release_addresses.push(address);
            } else {
                self.finish_release(address);
                agreement.touched.push(address);
            }
        }
        for (address, state) in &mine {
            if self.addresses.contains_key(address) || self.pending.contains(address) {
                continue;
            }
            if *state == ClaimState::Granted {
                self.addresses.insert(*address, AddressState::Unconfirmed);
                agreement.touched.push(*address);
            } else {
                // It was never granted, so no container has it.
                agreement.release_addresses.push(*address);
            }
        }
        self.agree_on_ownership(&mine, now, agreement);
    }

    /// What lies in no block of this host and is not claimed by it is not its own.
    fn agree_on_ownership(
        &mut self,
        mine: &BTreeMap<IpAddr, ClaimState>,
        now: UnixSeconds,
        agreement: &mut Agreement,
    ) {
        // Both are in order, so that ten thousand leases cost one pass.
        let mut blocks = self.blocks.iter().peekable();
        let mut wrong = Vec::new();
        for (address, state) in &self.addresses {
            while blocks
                .next_if(|(block, _)| block.prefix().broadcast() < *address)
                .is_some()
            {}
            let in_block = blocks.peek().is_some_and(|(block, state)| {
                block.contains(*address) && !state.set_aside.contains_key(address)
            });
            let own = in_block || mine.get(address) == Some(&ClaimState::Granted);
            let wrongly = match state {
                AddressState::Lost { until, .. } if own => until.is_none_or(|until| until <= now),
                AddressState::Lost { until, .. } => until.is_some(),
                _ => !own,
            };
            if wrongly {
                wrong.push((*address, state.clone(), own));
            }
        }
        for (address, state, own) in wrong {
            match state {
                AddressState::Leased { mac, given_at } => {
                    let until = None;
                    self.insert_lost(address, mac, given_at, until);
                }
                AddressState::Lost {
                    mac,
                    given_at,
                    until,
                } => {
                    let over = own && until.is_some_and(|until| until <= now);
                    if over {
                        let leased = AddressState::Leased { mac, given_at };
                        self.addresses.insert(address, leased);
                    } else {
                        // Others may have had it in between, and one of them may have been removed with
                        // its container still running: it rests first, though it is in use.
                        let until = own.then_some(now.saturating_add(self.quarantine));
                        self.insert_lost(address, mac, given_at, until);
                    }
                }
                AddressState::Resting { .. } | AddressState::Unconfirmed => self.forget(address),
                AddressState::Leaving => continue,
            }
            agreement.touched.push(address);
        }
        let lost = self
            .addresses()
            .filter(|(_, state)| matches!(state, AddressState::Lost { .. }));
        agreement.complaints.extend(lost.map(|(address, _)| {
            format!(
                "address `{address}` is in use here, but this host no longer owns it; restart its container to give it another"
            )
        }));
    }
}
