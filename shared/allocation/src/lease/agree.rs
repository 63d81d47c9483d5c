//! Makes what this host knows of a pool agree with what the store has: after a start, after a cut, and now
//! and then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::{BlockRecord, ClaimState, PoolRecord, UnixSeconds};
use drover_model::Block;

use crate::block::{Member, claimed};
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
        self.agree_on_singles(records, view.member, &mut agreement);
        agreement.release_blocks = self.leaving_blocks().collect();
        agreement.changed = self.holding() != before;
        agreement
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
            self.add_block(record, now);
            return;
        }
        let wanted = claimed(record);
        let gone: Vec<IpAddr> = match self.blocks.get(&record.block) {
            Some(block) => {
                let old = block.set_aside.iter().filter(|(_, clock)| **clock <= mark);
                old.map(|(address, _)| *address)
                    .filter(|address| !wanted.contains(address))
                    .collect()
            }
            None => Vec::new(),
        };
        for address in gone {
            self.take_back(address, now);
            agreement.touched.push(address);
        }
        let granted = record
            .claims
            .iter()
            .filter(|(_, claim)| claim.state == ClaimState::Granted);
        for (address, claim) in granted {
            let kept = |pool: &Self| {
                pool.blocks
                    .get(&record.block)
                    .is_some_and(|block| block.set_aside.contains_key(address))
            };
            if kept(self) {
                continue;
            }
            if self.set_aside(*address) {
                agreement.touched.push(*address);
            } else {
                agreement.complaints.push(format!(
                    "address `{address}` is in use here and on host `{}`; remove one of the two containers",
                    claim.host
                ));
            }
        }
    }

    fn agree_on_singles(
        &mut self,
        records: &[BlockRecord],
        member: &Member,
        agreement: &mut Agreement,
    ) {
        let mine: BTreeSet<IpAddr> = records
            .iter()
            .flat_map(|record| record.claims.iter())
            .filter(|(_, claim)| claim.host == member.host)
            .map(|(address, _)| *address)
            .collect();
        let leaving: Vec<IpAddr> = self.leaving_addresses().collect();
        for address in leaving {
            if mine.contains(&address) {
                agreement.release_addresses.push(address);
            } else {
                self.finish_release(address);
                agreement.touched.push(address);
            }
        }
        let unknown = mine.iter().filter(|address| {
            !self.addresses.contains_key(*address) && !self.pending.contains(*address)
        });
        agreement.release_addresses.extend(unknown);
        for (address, state) in self.addresses() {
            let leased = matches!(state, AddressState::Leased { .. });
            if leased && self.own_block(address).is_none() && !mine.contains(&address) {
                agreement.complaints.push(format!(
                    "address `{address}` is in use here, but this host no longer owns it; restart its container to give it another"
                ));
            }
        }
    }
}
