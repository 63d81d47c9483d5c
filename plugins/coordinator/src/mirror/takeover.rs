//! Records of blocks that somebody changes in the store beside their owners.
//!
//! A block goes from hand to hand by nobody's: its owner writes that it is nobody's, or is removed, and a block that
//! nobody owns is claimed. No Drover writes another owner over one that is there, and none deletes the record of an owned
//! block while its network is there. Who does is not believed: the owner's record stays in the copy, and is put back into the
//! store ([`crate::claims`]). What was so before the copy began is taken as it was found.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_allocation::block::Member;
use drover_control_api::coordinator::{Finding, Severity};
use drover_control_api::record::{
    BlockRecord, HostRecord, NetworkRecord, NetworkState, PoolRecord, UnixSeconds,
};
use drover_model::HostName;
use drover_store::Entry;
use serde::de::DeserializeOwned;

use crate::context::now;

/// How long a change that was refused is worth telling, in seconds.
const TOLD: u64 = 3600;

/// A change of a block that has another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The record's key.
    pub key: String,
    /// What is in the store.
    pub found: Found,
    /// The record that is believed.
    pub believed: BlockRecord,
    /// Whose block it is.
    pub owner: Member,
    /// When it was seen.
    pub at: UnixSeconds,
}

/// What is in the place of a record that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A record of another owner.
    Claim {
        /// The record.
        entry: Arc<Entry>,
        /// Whom it names.
        claimant: HostName,
    },
    /// Nothing: it was deleted.
    Nothing,
}

/// What was not believed since the copy began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takeovers {
    /// What is so in the store still, by key.
    pub standing: BTreeMap<String, Takeover>,
    /// How many there were.
    pub count: u64,
    /// The last one.
    pub last: Option<Takeover>,
}

type Entries = BTreeMap<String, Arc<Entry>>;

impl Takeovers {
    /// Judges a record that was put into the store; whether it is to be believed.
    pub(super) fn believe(&mut self, entries: &Entries, entry: &Arc<Entry>) -> bool {
        let takeover = claimed(entries, entry);
        self.take_note(&entry.key, takeover)
    }

    /// Judges the deletion of a record; whether it is to be believed.
    pub(super) fn believe_deleted(&mut self, entries: &Entries, key: &str) -> bool {
        let takeover = deleted(entries, key);
        self.take_note(key, takeover)
    }

    fn take_note(&mut self, key: &str, takeover: Option<Takeover>) -> bool {
        let Some(takeover) = takeover else {
            self.standing.remove(key);
            return true;
        };
        tracing::warn!("{}, and that is not believed", takeover.sentence());
        self.count = self.count.saturating_add(1);
        self.last = Some(takeover.clone());
        self.standing.insert(takeover.key.clone(), takeover);
        false
    }

    /// What stands although it is right by now: the owner was removed, or a block that was deleted has no network any more.
    pub(super) fn freed(&mut self, entries: &Entries) -> Vec<Takeover> {
        let freed = self.standing.extract_if(.., |_, it| {
            let deleted = it.found == Found::Nothing;
            !is_member(entries, &it.owner) || deleted && !is_in_use(entries, &it.believed)
        });
        freed.map(|(_, it)| it).collect()
    }

    /// What an operator should know of it.
    #[must_use]
    pub fn findings(&self, now: UnixSeconds) -> Vec<Finding> {
        let standing = self.standing.values().map(|it| Finding {
            severity: Severity::Error,
            problem: format!(
                "{}: it is not believed, and the record is put back",
                it.sentence()
            ),
            remedy: it.remedy(),
        });
        let last = self.last.iter();
        let past = last.filter(|it| self.standing.is_empty() && now < it.at.saturating_add(TOLD));
        let past = past.map(|it| Finding {
            severity: Severity::Warning,
            problem: format!(
                "changes of other hosts' blocks have been refused {} times, the last: {}",
                self.count,
                it.sentence()
            ),
            remedy: it.remedy(),
        });
        standing.chain(past).collect()
    }
}

impl Takeover {
    /// Puts what is believed among records that were read from the store, if they have what was found there.
    pub(crate) fn correct(&self, blocks: &mut Vec<BlockRecord>) {
        let read = blocks.iter_mut().find(|it| it.block == self.believed.block);
        match read {
            Some(read) if read.owner != self.believed.owner => read.clone_from(&self.believed),
            Some(_) => {}
            None => blocks.push(self.believed.clone()),
        }
    }

    fn sentence(&self) -> String {
        let (block, owner) = (self.believed.block, &self.owner.host);
        match &self.found {
            Found::Claim { claimant, .. } => {
                format!(
                    "block {block} of host `{owner}` is claimed by host `{claimant}` in the store"
                )
            }
            Found::Nothing => {
                format!("the record of block {block} of host `{owner}` was deleted from the store")
            }
        }
    }

    fn remedy(&self) -> String {
        match &self.found {
            Found::Claim { claimant, .. } => format!(
                "no host does that by itself: find out who writes to the store in the name of `{claimant}`; `drover host rm {claimant}` takes it out of the cluster, and a firewall its machine away from port 4749"
            ),
            Found::Nothing => "no host does that by itself: find out who has a host's certificate and writes to the store with it".to_owned(),
        }
    }
}

/// The owner of a record that is believed, if it is a member.
fn owner(entries: &Entries, believed: &BlockRecord) -> Option<Member> {
    let owner = Member {
        host: believed.owner.clone()?,
        id: believed.owner_member.clone()?,
    };
    is_member(entries, &owner).then_some(owner)
}

fn claimed(entries: &Entries, entry: &Arc<Entry>) -> Option<Takeover> {
    let believed = block(entries, &entry.key)?;
    let now_claimed: BlockRecord = entry.decode().ok()?;
    let owner = owner(entries, &believed)?;
    let claimant = now_claimed.owner.clone()?;
    (!owner.owns(&now_claimed)).then(|| Takeover {
        key: entry.key.clone(),
        found: Found::Claim {
            entry: entry.clone(),
            claimant,
        },
        believed,
        owner,
        at: now(),
    })
}

fn deleted(entries: &Entries, key: &str) -> Option<Takeover> {
    let believed = block(entries, key)?;
    let owner = owner(entries, &believed)?;
    is_in_use(entries, &believed).then(|| Takeover {
        key: key.to_owned(),
        found: Found::Nothing,
        believed,
        owner,
        at: now(),
    })
}

fn block(entries: &Entries, key: &str) -> Option<BlockRecord> {
    let is_block = key.starts_with("blocks/");
    is_block.then(|| record(entries, key)).flatten()
}

/// Whether there is a pool that the block is of, and its network is not being removed: who removes it deletes its blocks first.
fn is_in_use(entries: &Entries, block: &BlockRecord) -> bool {
    let pool: Option<PoolRecord> = record(entries, &format!("pools/{}", block.pool.key()));
    pool.is_some_and(|pool| {
        let network = pool.network.map(|id| format!("networks/{id}"));
        let network = network.and_then(|key| record::<NetworkRecord>(entries, &key));
        network.is_none_or(|network| network.state != NetworkState::Removing)
    })
}

fn is_member(entries: &Entries, owner: &Member) -> bool {
    let record: Option<HostRecord> = record(entries, &format!("hosts/{}", owner.host));
    record.is_some_and(|record| record.member == owner.id)
}

fn record<T: DeserializeOwned>(entries: &Entries, key: &str) -> Option<T> {
    entries.get(key)?.decode().ok()
}
