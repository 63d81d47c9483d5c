//! Single addresses (an explicit `--ip`) in a block of another host, and addresses that no
//! container gets: the changes of the records, each to be written only if they are as they were read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_control_api::record::{AddressClaim, BlockRecord, ClaimState, PoolRecord, UnixSeconds};
use drover_model::{Block, HostName};

use crate::block::{Change, Member, empty, put_or_delete};
use crate::range;
use crate::shape::{AddressError, PoolShape, usable};

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No container can have it.
    #[error(transparent)]
    Unusable(#[from] AddressError),
    /// Another host has it.
    #[error(
        "address `{address}` is in use on host `{holder}`, or was given back there and rests; choose another, or wait"
    )]
    Held {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: HostName,
    },
    /// The asker's own block has it.
    #[error("address `{address}` lies in block `{block}` of this host itself; try again")]
    OwnBlock {
        /// The address.
        address: IpAddr,
        /// The block.
        block: Block,
    },
    /// The owner of the block is not there to agree.
    #[error(
        "address `{address}` lies in block `{block}` of host `{owner}`, which does not answer; choose another, start that host, or take it out with `drover host rm {owner}`"
    )]
    OwnerAway {
        /// The address.
        address: IpAddr,
        /// The block.
        block: Block,
        /// The owner.
        owner: HostName,
    },
    /// Its block rests.
    #[error(
        "address `{address}` lies in block `{block}`, which rests for {seconds} s more since a host was removed; wait, or choose another"
    )]
    Resting {
        /// The address.
        address: IpAddr,
        /// The block.
        block: Block,
        /// For how long.
        seconds: u64,
    },
    /// It is too late to keep it from containers.
    #[error(
        "address `{address}` cannot be reserved any more, since containers already get addresses of its block `{block}`; choose another"
    )]
    TooLate {
        /// The address.
        address: IpAddr,
        /// The block.
        block: Block,
    },
}

/// What a claim of a single address comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The address is the claimant's already.
    Held,
    /// It is the claimant's once this is written.
    Grant(BlockRecord),
    /// The owner of the block has to agree: write this, and wait.
    Ask(BlockRecord),
    /// The owner has been asked: wait.
    Wait,
}

/// Claims a single address for `claimant`. `owner_alive` says whether the owner of the block, if it has one,
/// is there to agree.
///
/// # Errors
/// When the claimant cannot have it.
pub fn claim(
    pool: &PoolRecord,
    record: Option<&BlockRecord>,
    address: IpAddr,
    asker: &Asker<'_>,
) -> Result<Step, ClaimError> {
    let block = PoolShape::from(pool).check_address(address)?;
    if pool.reserved.contains(&address) {
        return Err(AddressError::Reserved {
            address,
            pool: pool.pool,
        }
        .into());
    }
    let mut record = record.cloned().unwrap_or_else(|| empty(pool.pool, block));
    if asker.member.owns(&record) {
        return Err(ClaimError::OwnBlock { address, block });
    }
    if let Some(claim) = record.claims.get(&address) {
        let mine = claim.host == asker.member.host;
        match claim.state {
            ClaimState::Granted if mine => return Ok(Step::Held),
            ClaimState::Requested if mine => return Ok(Step::Wait),
            ClaimState::Granted | ClaimState::Requested => {
                return Err(ClaimError::Held {
                    address,
                    holder: claim.host.clone(),
                });
            }
            ClaimState::Refused => {}
        }
    }
    if record.quarantined_until > asker.now {
        let seconds = record.quarantined_until - asker.now;
        return Err(ClaimError::Resting {
            address,
            block,
            seconds,
        });
    }
    let state = match record.owner.clone() {
        None => ClaimState::Granted,
        Some(_) if asker.owner_alive => ClaimState::Requested,
        Some(owner) => {
            return Err(ClaimError::OwnerAway {
                address,
                block,
                owner,
            });
        }
    };
    let host = asker.member.host.clone();
    record.claims.insert(address, AddressClaim { host, state });
    Ok(if state == ClaimState::Granted {
        Step::Grant(record)
    } else {
        Step::Ask(record)
    })
}

/// Who claims, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The claimant.
    pub member: &'a Member,
    /// Whether the owner of the block is there to agree.
    pub owner_alive: bool,
    /// The time.
    pub now: UnixSeconds,
}

/// Gives a single address back, or withdraws a claim of it.
#[must_use]
pub fn release(record: &BlockRecord, address: IpAddr, host: &HostName) -> Change {
    if record
        .claims
        .get(&address)
        .is_none_or(|claim| claim.host != *host)
    {
        return Change::Unchanged;
    }
    let mut left = record.clone();
    left.claims.remove(&address);
    put_or_delete(left)
}

/// The owner's answer to the claim of `asker`.
#[must_use]
pub fn settle(
    record: &BlockRecord,
    address: IpAddr,
    asker: &HostName,
    owner: &Member,
    granted: bool,
) -> Change {
    let mut settled = record.clone();
    let asked = settled
        .claims
        .get_mut(&address)
        .filter(|_| owner.owns(record));
    let open =
        |claim: &&mut AddressClaim| claim.state == ClaimState::Requested && claim.host == *asker;
    let Some(claim) = asked.filter(open) else {
        return Change::Unchanged;
    };
    claim.state = if granted {
        ClaimState::Granted
    } else {
        ClaimState::Refused
    };
    Change::Put(settled)
}

/// Keeps an address of a pool from containers: the pool's record as it must be then, `None` when it is so
/// already. `record` is that of the address's block, and must be unchanged too when this is written.
///
/// # Errors
/// When the address is not in the pool, or containers may have it already.
pub fn reserve(
    pool: &PoolRecord,
    record: Option<&BlockRecord>,
    address: IpAddr,
) -> Result<Option<PoolRecord>, ClaimError> {
    let shape = PoolShape::from(pool);
    let block = shape.block_of(address)?;
    if pool.reserved.contains(&address) {
        return Ok(None);
    }
    match shape.check_address(address) {
        // A gateway may well be the router of its block: both are on bridges, never in a container.
        Err(AddressError::Structural { role: "router", .. }) => {}
        // The ends of a block are nobody's; only those of the pool cannot be used at all.
        Err(AddressError::Structural { role, .. }) if is_end_of_pool(&shape, address) => {
            return Err(AddressError::Structural {
                address,
                role,
                block,
            }
            .into());
        }
        Err(AddressError::Structural { .. }) => {}
        Err(other) => return Err(other.into()),
        Ok(_) => {
            if let Some(claim) = record.and_then(|record| record.claims.get(&address)) {
                return Err(ClaimError::Held {
                    address,
                    holder: claim.host.clone(),
                });
            }
            if record.is_some_and(|record| record.owner.is_some()) {
                return Err(ClaimError::TooLate { address, block });
            }
        }
    }
    let mut changed = pool.clone();
    changed.reserved.insert(address);
    Ok(Some(changed))
}

/// The claims of other hosts that the owner has not answered.
#[must_use]
pub fn requested(record: &BlockRecord) -> BTreeMap<IpAddr, HostName> {
    let asked = record
        .claims
        .iter()
        .filter(|(_, claim)| claim.state == ClaimState::Requested);
    asked
        .map(|(address, claim)| (*address, claim.host.clone()))
        .collect()
}

/// Addresses that the owners of a pool's blocks may be asked for by a host that finds no block free, most
/// likely ones first: from the end of each block, where its owner comes last.
#[must_use]
pub fn lendable(pool: &PoolRecord, blocks: &[BlockRecord], host: &HostName) -> Vec<IpAddr> {
    let others = blocks.iter().filter(|record| {
        record.pool == pool.pool && record.owner.as_ref().is_some_and(|owner| owner != host)
    });
    let mut rounds: Vec<(usize, IpAddr)> = Vec::new();
    for record in others {
        let (first, last) = usable(record.block);
        let free = (first..=last)
            .rev()
            .map(|number| range::address(pool.pool.family(), number))
            .filter(|address| {
                !pool.reserved.contains(address) && !record.claims.contains_key(address)
            });
        rounds.extend(free.take(LENDABLE_OF_BLOCK).enumerate());
    }
    rounds.sort_by_key(|(round, _)| *round);
    rounds.into_iter().map(|(_, address)| address).collect()
}

/// How many addresses of one block are asked for.
const LENDABLE_OF_BLOCK: usize = 4;

fn is_end_of_pool(shape: &PoolShape, address: IpAddr) -> bool {
    let prefix = shape.pool.prefix();
    address == prefix.network() || (address.is_ipv4() && address == prefix.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::block_prefix;

    #[test]
    fn what_may_be_lent_comes_from_the_ends_of_foreign_blocks_in_turn() {
        let pool = PoolRecord {
            version: 1,
            pool: "10.90.0.0/27".parse().unwrap(),
            sub_pool: None,
            block_prefix: block_prefix("10.90.0.0/27".parse().unwrap(), None),
            reserved: ["10.90.0.14".parse().unwrap()].into(),
            claimed_by: "a".parse().unwrap(),
            claimed_at: 0,
            network: None,
        };
        let block = |prefix: &str, owner: &str| {
            let mut record = empty(pool.pool, Block::new(prefix.parse().unwrap()));
            record.owner = Some(owner.parse().unwrap());
            record
        };
        let blocks = [block("10.90.0.0/28", "a"), block("10.90.0.16/28", "b")];
        let texts = |host: &str| {
            let lendable = lendable(&pool, &blocks, &host.parse().unwrap());
            lendable.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts("c")[..3], ["10.90.0.13", "10.90.0.30", "10.90.0.12"]);
        assert_eq!(
            texts("a"),
            ["10.90.0.30", "10.90.0.29", "10.90.0.28", "10.90.0.27"]
        );
    }
}
