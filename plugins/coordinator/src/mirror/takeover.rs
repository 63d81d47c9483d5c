//! Blocks that somebody takes from a host that is a member.
//!
//! A block goes from hand to hand by nobody's: its owner gives it back, or is removed, and a block that nobody owns is
//! claimed. No Drover writes another owner over one that is there. Who does is not believed: the owner's record stays
//! in the copy, and the owner puts it back into the store ([`crate::claims`]). What was so before the copy began is taken
//! as it was found.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_allocation::block::Member;
use drover_control_api::coordinator::{Finding, Severity};
use drover_control_api::record::{BlockRecord, HostRecord, UnixSeconds};
use drover_model::HostName;
use drover_store::Entry;

use crate::context::now;

/// How long a claim that was refused is worth telling, in seconds.
const TOLD: u64 = 3600;

/// A claim of a block of another host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The record as it is in the store.
    pub claim: Arc<Entry>,
    /// The record that is believed.
    pub believed: BlockRecord,
    /// Whose block it is.
    pub owner: Member,
    /// Who claims it.
    pub claimant: HostName,
    /// When it was seen.
    pub at: UnixSeconds,
}

/// What was not believed since the copy began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takeovers {
    /// What is in the store still, by key.
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
        let Some(takeover) = judge(entries, entry) else {
            self.standing.remove(&entry.key);
            return true;
        };
        tracing::warn!(
            block = %takeover.believed.block, owner = %takeover.owner.host, claimant = %takeover.claimant,
            "a host claims a block of another one, and is not believed"
        );
        self.count = self.count.saturating_add(1);
        self.last = Some(takeover.clone());
        self.standing.insert(entry.key.clone(), takeover);
        false
    }

    /// The claims that stand although their block is nobody's by now: its owner was removed.
    pub(super) fn freed(&mut self, entries: &Entries) -> Vec<Arc<Entry>> {
        let freed = self
            .standing
            .extract_if(.., |_, it| !is_member(entries, &it.owner));
        freed.map(|(_, it)| it.claim).collect()
    }

    /// What an operator should know of it.
    #[must_use]
    pub fn findings(&self, now: UnixSeconds) -> Vec<Finding> {
        let standing = self.standing.values().map(|it| Finding {
            severity: Severity::Error,
            problem: format!(
                "{} in the store: it is not believed, and its owner puts its record back",
                it.sentence()
            ),
            remedy: it.remedy(),
        });
        let last = self.last.iter();
        let past = last.filter(|it| self.standing.is_empty() && now < it.at.saturating_add(TOLD));
        let past = past.map(|it| Finding {
            severity: Severity::Warning,
            problem: format!(
                "claims of other hosts' blocks have been refused {} times, the last: {}",
                self.count,
                it.sentence()
            ),
            remedy: it.remedy(),
        });
        standing.chain(past).collect()
    }
}

impl Takeover {
    fn sentence(&self) -> String {
        format!(
            "block {} of host `{}` is claimed by host `{}`",
            self.believed.block, self.owner.host, self.claimant
        )
    }

    fn remedy(&self) -> String {
        format!(
            "no host does that by itself: find out who writes to the store in the name of `{0}`; `drover host rm {0}` shuts it out",
            self.claimant
        )
    }
}

fn judge(entries: &Entries, entry: &Arc<Entry>) -> Option<Takeover> {
    if !entry.key.starts_with("blocks/") {
        return None;
    }
    let believed: BlockRecord = entries.get(&entry.key)?.decode().ok()?;
    let now_claimed: BlockRecord = entry.decode().ok()?;
    let owner = Member {
        host: believed.owner.clone()?,
        id: believed.owner_member.clone()?,
    };
    let claimant = now_claimed.owner.clone()?;
    let taken = !owner.owns(&now_claimed) && is_member(entries, &owner);
    taken.then(|| Takeover {
        claim: entry.clone(),
        believed,
        owner,
        claimant,
        at: now(),
    })
}

fn is_member(entries: &Entries, owner: &Member) -> bool {
    let record = entries.get(&format!("hosts/{}", owner.host));
    let record = record.and_then(|entry| entry.decode::<HostRecord>().ok());
    record.is_some_and(|record| record.member == owner.id)
}
