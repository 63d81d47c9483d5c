//! Who owns a block: the changes of a block's record, each to be written only if the record is as it
//! was read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_control_api::record::{BlockRecord, ClaimState, PoolRecord, UnixSeconds};
use drover_model::{Block, HostName, Pool};

use crate::shape::PoolShape;

/// A host as a member of the cluster: one that left and joined again is another member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its name.
    pub host: HostName,
    /// Its member id.
    pub id: String,
}

impl Member {
    /// Whether this member allocates from the block.
    #[must_use]
    pub fn owns(&self, record: &BlockRecord) -> bool {
        record.owner.as_ref() == Some(&self.host) && record.owner_member.as_ref() == Some(&self.id)
    }
}

/// What to do with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is as it should be.
    Unchanged,
    /// Write this.
    Put(BlockRecord),
    /// Remove it: it says nothing any more.
    Delete,
}

/// Why no block was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Every block has an owner, or rests.
    #[error(
        "every block of subnet `{pool}` is in use ({owned} owned by hosts, {resting} resting after a host was removed); remove containers or hosts that are not needed, or use a network with a larger subnet"
    )]
    Exhausted {
        /// The pool.
        pool: Pool,
        /// How many have an owner.
        owned: usize,
        /// How many rest.
        resting: usize,
    },
}

/// Gives the lowest block that nobody owns and that does not rest. Addresses of it that are claimed singly
/// stay with their holders; those of the new owner become its own.
///
/// # Errors
/// When there is none.
pub fn claim(
    pool: &PoolRecord,
    blocks: &BTreeMap<Block, BlockRecord>,
    member: &Member,
    now: UnixSeconds,
) -> Result<BlockRecord, BlockError> {
    let free = |block: &Block| {
        let record = blocks.get(block);
        record.is_none_or(|record| record.owner.is_none() && record.quarantined_until <= now)
    };
    let Some(block) = PoolShape::from(pool).blocks().find(free) else {
        let owned = blocks
            .values()
            .filter(|record| record.owner.is_some())
            .count();
        let resting = blocks
            .values()
            .filter(|record| is_resting(record, now))
            .count();
        return Err(BlockError::Exhausted {
            pool: pool.pool,
            owned,
            resting,
        });
    };
    let mut record = blocks
        .get(&block)
        .cloned()
        .unwrap_or_else(|| empty(pool.pool, block));
    record.owner = Some(member.host.clone());
    record.owner_member = Some(member.id.clone());
    record.quarantined_until = 0;
    record.claims.retain(|_, claim| claim.host != member.host);
    Ok(record)
}

/// Gives a block back. What others claimed of it stays theirs.
#[must_use]
pub fn release(record: &BlockRecord, member: &Member) -> Change {
    if !member.owns(record) {
        return Change::Unchanged;
    }
    disown(record, 0)
}

/// Takes everything from a member that was removed: its blocks rest until `until`, and so do the
/// blocks of nobody in which it had addresses.
#[must_use]
pub fn remove_member(record: &BlockRecord, member: &Member, until: UnixSeconds) -> Change {
    let mut left = record.clone();
    left.claims.retain(|_, claim| claim.host != member.host);
    let had_claims = left.claims.len() != record.claims.len();
    if member.owns(record) {
        return disown(&left, until);
    }
    match (had_claims, &record.owner) {
        (false, _) => Change::Unchanged,
        // The owner hears of it, and lets the addresses rest itself.
        (true, Some(_)) => Change::Put(left),
        (true, None) => {
            left.quarantined_until = left.quarantined_until.max(until);
            Change::Put(left)
        }
    }
}

/// The record of a block that nobody owns, without a word to say.
#[must_use]
pub fn empty(pool: Pool, block: Block) -> BlockRecord {
    BlockRecord {
        version: 1,
        pool,
        block,
        owner: None,
        owner_member: None,
        quarantined_until: 0,
        claims: BTreeMap::new(),
    }
}

/// The record if it says anything, and otherwise its removal.
pub(crate) fn put_or_delete(record: BlockRecord) -> Change {
    let blank = record.owner.is_none() && record.claims.is_empty() && record.quarantined_until == 0;
    if blank {
        Change::Delete
    } else {
        Change::Put(record)
    }
}

/// The single addresses of a block that its owner must not give, with who holds or asks for them.
#[must_use]
pub fn claimed(record: &BlockRecord) -> BTreeMap<IpAddr, HostName> {
    claims_in(record, |state| state != ClaimState::Refused)
}

/// The single addresses of a block that others hold.
pub(crate) fn granted(record: &BlockRecord) -> BTreeMap<IpAddr, HostName> {
    claims_in(record, |state| state == ClaimState::Granted)
}

fn claims_in(
    record: &BlockRecord,
    state: impl Fn(ClaimState) -> bool,
) -> BTreeMap<IpAddr, HostName> {
    let claims = record.claims.iter().filter(|(_, claim)| state(claim.state));
    claims
        .map(|(address, claim)| (*address, claim.host.clone()))
        .collect()
}

fn is_resting(record: &BlockRecord, now: UnixSeconds) -> bool {
    record.owner.is_none() && record.quarantined_until > now
}

fn disown(record: &BlockRecord, until: UnixSeconds) -> Change {
    let mut free = record.clone();
    free.owner = None;
    free.owner_member = None;
    free.quarantined_until = until;
    // With no owner to ask, a request is as good as granted, unless the block rests: then who asked
    // finds no owner, and gives up by itself.
    free.claims.retain(|_, claim| match claim.state {
        ClaimState::Granted => true,
        ClaimState::Requested => until == 0,
        ClaimState::Refused => false,
    });
    for claim in free.claims.values_mut() {
        claim.state = ClaimState::Granted;
    }
    put_or_delete(free)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use drover_control_api::record::AddressClaim;

    use super::*;
    use crate::pool::block_prefix;

    fn pool() -> PoolRecord {
        let pool: Pool = "10.90.0.0/26".parse().unwrap();
        PoolRecord {
            version: 1,
            pool,
            sub_pool: None,
            block_prefix: block_prefix(pool.prefix(), None),
            reserved: BTreeSet::new(),
            claimed_by: "a".parse().unwrap(),
            claimed_at: 0,
            network: None,
        }
    }

    fn member(name: &str) -> Member {
        Member {
            host: name.parse().unwrap(),
            id: format!("{name}-1"),
        }
    }

    fn table(records: impl IntoIterator<Item = BlockRecord>) -> BTreeMap<Block, BlockRecord> {
        records
            .into_iter()
            .map(|record| (record.block, record))
            .collect()
    }

    #[test]
    fn blocks_are_given_lowest_first_until_there_is_none() {
        let mut blocks = BTreeMap::new();
        for expected in [
            "10.90.0.0/28",
            "10.90.0.16/28",
            "10.90.0.32/28",
            "10.90.0.48/28",
        ] {
            let record = claim(&pool(), &blocks, &member("a"), 100).unwrap();
            assert_eq!(record.block.to_string(), expected);
            blocks.insert(record.block, record);
        }
        let error = claim(&pool(), &blocks, &member("b"), 100)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("10.90.0.0/26") && error.contains("4 owned"),
            "{error}"
        );
    }

    #[test]
    fn a_block_of_a_removed_host_rests_before_it_is_given() {
        let owned = claim(&pool(), &BTreeMap::new(), &member("a"), 100).unwrap();
        let Change::Put(resting) = remove_member(&owned, &member("a"), 160) else {
            panic!()
        };
        let blocks = table([resting]);
        let given = |now| {
            claim(&pool(), &blocks, &member("b"), now)
                .unwrap()
                .block
                .to_string()
        };
        assert_eq!(given(159), "10.90.0.16/28");
        assert_eq!(given(160), "10.90.0.0/28");
        let again = Member {
            host: "a".parse().unwrap(),
            id: "a-2".to_owned(),
        };
        assert_eq!(release(&owned, &again), Change::Unchanged);
    }

    #[test]
    fn single_claims_outlive_a_change_of_owner() {
        let mut owned = claim(&pool(), &BTreeMap::new(), &member("a"), 100).unwrap();
        let claimed = |host: &str, state| AddressClaim {
            host: host.parse().unwrap(),
            state,
        };
        owned.claims.insert(
            "10.90.0.5".parse().unwrap(),
            claimed("b", ClaimState::Granted),
        );
        owned.claims.insert(
            "10.90.0.6".parse().unwrap(),
            claimed("c", ClaimState::Granted),
        );
        owned.claims.insert(
            "10.90.0.7".parse().unwrap(),
            claimed("c", ClaimState::Refused),
        );
        let Change::Put(free) = release(&owned, &member("a")) else {
            panic!()
        };
        assert_eq!(free.claims.len(), 2);
        let taken = claim(&pool(), &table([free]), &member("b"), 100).unwrap();
        assert_eq!(
            super::claimed(&taken).len(),
            1,
            "its own claim has become its own address"
        );
        assert_eq!(
            release(
                &claim(&pool(), &BTreeMap::new(), &member("a"), 1).unwrap(),
                &member("a")
            ),
            Change::Delete
        );
    }
}
