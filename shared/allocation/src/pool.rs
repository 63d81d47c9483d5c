//! Which pool a network gets: an automatic one that is in nobody's way, or the one that was named,
//! checked against other pools and against the routes of every host.

use std::collections::BTreeSet;

use drover_control_api::record::{HostRecord, PoolRecord};
use drover_model::{Family, HostName, Pool};
use ipnet::IpNet;

use crate::range;

/// What is there already.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// Every pool of the cluster.
    pub pools: &'a [PoolRecord],
    /// Every host, for the prefixes it has routes to.
    pub hosts: &'a [HostRecord],
}

/// Where automatic pools of one family come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomaticPools {
    /// The ranges, in order of preference.
    pub ranges: Vec<IpNet>,
    /// The prefix length of a pool.
    pub prefix: u8,
}

/// Why a pool was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolClaimError {
    /// It shares addresses with a pool.
    #[error(
        "subnet `{pool}` overlaps subnet `{other}` of another network; choose another --subnet, or leave it out to get a free one"
    )]
    OverlapsPool {
        /// The pool that was asked for.
        pool: Pool,
        /// The pool that is there.
        other: Pool,
    },
    /// It shares addresses with a prefix that a host has a route to.
    #[error(
        "subnet `{pool}` overlaps `{prefix}`, to which host `{host}` has a route; choose another --subnet, or leave it out to get a free one"
    )]
    OverlapsRoute {
        /// The pool that was asked for.
        pool: Pool,
        /// The prefix.
        prefix: IpNet,
        /// The host that has the route.
        host: HostName,
    },
    /// There is no range for the family.
    #[error(
        "there is no range for automatic {family} subnets; set `{setting}`, or name a --subnet"
    )]
    NoRange {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// What to set.
        setting: &'static str,
    },
    /// Every automatic pool is taken.
    #[error(
        "no free /{prefix} subnet is left in {ranges}: all of it is in use by networks or reached by routes of hosts; remove unused networks, widen `pools.default`, or name a --subnet"
    )]
    Exhausted {
        /// The prefix length that was looked for.
        prefix: u8,
        /// Where.
        ranges: String,
    },
    /// `--ip-range` lies outside of the subnet.
    #[error("ip-range `{sub_pool}` is not inside of subnet `{pool}`; choose one that is")]
    RangeOutside {
        /// The pool.
        pool: Pool,
        /// The range.
        sub_pool: IpNet,
    },
    /// `--ip-range` is too small for a block.
    #[error("ip-range `{sub_pool}` is too small: use a prefix length of {longest} or less")]
    RangeTooSmall {
        /// The range.
        sub_pool: IpNet,
        /// The longest prefix length.
        longest: u8,
    },
    /// The pool is there with another `--ip-range`.
    #[error(
        "subnet `{pool}` belongs to a network with {theirs}; use the same --ip-range, or choose another --subnet"
    )]
    RangeDiffers {
        /// The pool.
        pool: Pool,
        /// What the network has, in words.
        theirs: String,
    },
}

/// The lowest automatic pool that overlaps no pool and no host's prefixes, and was not refused.
///
/// # Errors
/// When there is none.
pub fn choose(
    family: Family,
    automatic: &AutomaticPools,
    taken: Taken<'_>,
    refused: &BTreeSet<Pool>,
) -> Result<Pool, PoolClaimError> {
    let ranges: Vec<IpNet> = automatic
        .ranges
        .iter()
        .copied()
        .filter(|range| family_of(*range) == family)
        .collect();
    if ranges.is_empty() {
        let (family, setting) = match family {
            Family::V4 => ("IPv4", "pools.default"),
            Family::V6 => ("IPv6", "pools.default_v6"),
        };
        return Err(PoolClaimError::NoRange { family, setting });
    }
    let obstacles = obstacles(family, taken, refused);
    ranges
        .iter()
        .find_map(|range| first_free(*range, automatic.prefix, &obstacles))
        .ok_or_else(|| PoolClaimError::Exhausted {
            prefix: automatic.prefix,
            ranges: ranges
                .iter()
                .map(|range| format!("`{range}`"))
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// Checks a pool that a user named, which is not there yet.
///
/// # Errors
/// When it overlaps a pool or a host's prefix; the error names it.
pub fn check_explicit(pool: Pool, taken: Taken<'_>) -> Result<(), PoolClaimError> {
    if let Some(other) = taken
        .pools
        .iter()
        .find(|other| pool.overlaps(other.pool.prefix()))
    {
        return Err(PoolClaimError::OverlapsPool {
            pool,
            other: other.pool,
        });
    }
    for host in taken.hosts {
        let route = host
            .prefixes
            .iter()
            .find(|prefix| is_route(**prefix) && pool.overlaps(**prefix));
        if let Some(prefix) = route {
            let host = host.name.clone();
            return Err(PoolClaimError::OverlapsRoute {
                pool,
                prefix: *prefix,
                host,
            });
        }
    }
    Ok(())
}

/// Checks an `--ip-range` of a pool; the answer has its host bits cleared, and is `None` where it is all
/// of the pool.
///
/// # Errors
/// When it is not inside of the pool, or holds no block.
pub fn check_sub_pool(pool: Pool, sub_pool: IpNet) -> Result<Option<IpNet>, PoolClaimError> {
    let longest = longest_block(pool.family());
    if !pool.prefix().contains(&sub_pool) {
        return Err(PoolClaimError::RangeOutside { pool, sub_pool });
    }
    if sub_pool.prefix_len() > longest {
        return Err(PoolClaimError::RangeTooSmall { sub_pool, longest });
    }
    let sub_pool = sub_pool.trunc();
    Ok((sub_pool != pool.prefix()).then_some(sub_pool))
}

/// Checks that a claim of a pool that is there means the same pool.
///
/// # Errors
/// When its `--ip-range` differs.
pub fn check_same_range(
    record: &PoolRecord,
    sub_pool: Option<IpNet>,
) -> Result<(), PoolClaimError> {
    if record.sub_pool == sub_pool {
        return Ok(());
    }
    let theirs = match record.sub_pool {
        Some(range) => format!("ip-range `{range}`"),
        None => "no ip-range".to_owned(),
    };
    Err(PoolClaimError::RangeDiffers {
        pool: record.pool,
        theirs,
    })
}

/// The prefix length of the blocks that `range` (a pool or its `--ip-range`) is cut into.
///
/// Half of the address bits number the blocks and half the addresses of a block, but a block has at least
/// 4 address bits, and at most 8 (IPv4) or 16 (IPv6).
#[must_use]
pub fn block_prefix(range: IpNet, wanted: Option<u8>) -> u8 {
    let family = family_of(range);
    if let Some(wanted) = wanted {
        return wanted.min(longest_block(family)).max(range.prefix_len());
    }
    let bits = family.bits().saturating_sub(range.prefix_len());
    let most = match family {
        Family::V4 => 8,
        Family::V6 => 16,
    };
    let of_block = bits.div_ceil(2).clamp(4, most).min(bits);
    family.bits().saturating_sub(of_block)
}

/// The range of automatic IPv6 pools of a cluster: `fd` and 40 bits of its id (RFC 4193).
#[must_use]
pub fn ipv6_range(cluster: &str) -> Option<IpNet> {
    let digits = cluster.get(..10)?;
    let id = u128::from(u64::from_str_radix(digits, 16).ok()?);
    let start = (0xfd_u128 << 120) | (id << 80);
    IpNet::new(range::address(Family::V6, start), 48).ok()
}

fn longest_block(family: Family) -> u8 {
    match family {
        Family::V4 => 29,
        Family::V6 => 124,
    }
}

fn family_of(prefix: IpNet) -> Family {
    Family::of(prefix.addr())
}

/// A default route leads everywhere and is in the way of nothing.
fn is_route(prefix: IpNet) -> bool {
    prefix.prefix_len() > 0
}

/// What an automatic pool must keep clear of, as numbers, sorted.
fn obstacles(family: Family, taken: Taken<'_>, refused: &BTreeSet<Pool>) -> Vec<(u128, u128)> {
    let pools = taken.pools.iter().map(|record| record.pool.prefix());
    let routes = taken
        .hosts
        .iter()
        .flat_map(|host| host.prefixes.iter().copied());
    let refused = refused.iter().map(|pool| pool.prefix());
    let mut obstacles: Vec<_> = pools
        .chain(routes)
        .chain(refused)
        .filter(|prefix| family_of(*prefix) == family && is_route(*prefix))
        .map(range::bounds)
        .collect();
    obstacles.sort_unstable();
    obstacles
}

/// The first pool of the range that meets no obstacle. Every obstacle is passed once.
fn first_free(range: IpNet, prefix: u8, obstacles: &[(u128, u128)]) -> Option<Pool> {
    let family = family_of(range);
    if prefix < range.prefix_len() {
        return None;
    }
    let bits = u32::from(family.bits().checked_sub(prefix)?);
    let size = 1_u128.checked_shl(bits)?;
    let (mut start, end) = range::bounds(range);
    let mut obstacles = obstacles.iter().peekable();
    loop {
        let last = start.checked_add(size - 1).filter(|last| *last <= end)?;
        // Sorted by first number: one that ends before this pool also ends before every later pool.
        while obstacles
            .next_if(|(_, obstacle_last)| *obstacle_last < start)
            .is_some()
        {}
        match obstacles.peek() {
            Some((first, obstacle_last)) if *first <= last => {
                start = (obstacle_last >> bits).checked_add(1)?.checked_mul(size)?;
            }
            _ => match Pool::new(IpNet::new(range::address(family, start), prefix).ok()?) {
                Ok(pool) => return Some(pool),
                // A configured range that reaches into addresses that are not for hosts.
                Err(_) => start = start.checked_add(size)?,
            },
        }
    }
}

#[cfg(test)]
mod tests;
