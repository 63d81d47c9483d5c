//! What a pool is cut into, and which of its addresses no container can have.

use std::net::IpAddr;

use drover_control_api::record::PoolRecord;
use drover_model::{Block, Family, Pool};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::range;

/// A pool, the part of it that addresses are chosen from, and the size of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolShape {
    /// The subnet.
    pub pool: Pool,
    /// The part that addresses are chosen from, if not all of it.
    pub sub_pool: Option<IpNet>,
    /// The prefix length of a block.
    pub block_prefix: u8,
}

/// Why no container can have an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It lies elsewhere.
    #[error("address `{address}` is not in subnet `{pool}`; choose one that is")]
    OutsidePool {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: Pool,
    },
    /// The first or last address of a block or pool, or the first that can be used.
    #[error(
        "address `{address}` is the {role} of block `{block}`, which no container can have; choose another"
    )]
    Structural {
        /// The address.
        address: IpAddr,
        /// What it is for.
        role: &'static str,
        /// The block.
        block: Block,
    },
    /// The gateway of the network, or an `--aux-address`.
    #[error(
        "address `{address}` is reserved in subnet `{pool}` (the gateway or an --aux-address); choose another"
    )]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: Pool,
    },
}

impl PoolShape {
    /// The block that an address of the pool lies in.
    ///
    /// # Errors
    /// When the address is not in the pool.
    pub fn block_of(&self, address: IpAddr) -> Result<Block, AddressError> {
        let outside = || AddressError::OutsidePool {
            address,
            pool: self.pool,
        };
        if !self.pool.contains(address) {
            return Err(outside());
        }
        // The length was checked when the pool was made; a record that is wrong reads as "outside".
        let Ok(prefix) = IpNet::new(address, self.block_prefix) else {
            return Err(outside());
        };
        Ok(Block::new(prefix))
    }

    /// The block of an address that a container could have.
    ///
    /// # Errors
    /// When the address is not in the pool, or has a role in its block.
    pub fn check_address(&self, address: IpAddr) -> Result<Block, AddressError> {
        let block = self.block_of(address)?;
        match role(block, address) {
            Some(role) => Err(AddressError::Structural {
                address,
                role,
                block,
            }),
            None => Ok(block),
        }
    }

    /// The first address of the pool: its gateway where nobody chose another.
    #[must_use]
    pub fn default_gateway(&self) -> IpAddr {
        Block::new(self.pool.prefix()).router()
    }

    /// The part of the pool that is cut into blocks.
    #[must_use]
    pub fn range(&self) -> IpNet {
        self.sub_pool.unwrap_or_else(|| self.pool.prefix())
    }

    /// Every block, lowest first.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let (first, last) = range::bounds(self.range());
        let family = self.pool.family();
        let bits = family.bits().saturating_sub(self.block_prefix);
        let step = 1_u128.checked_shl(u32::from(bits)).unwrap_or(0);
        let prefix_length = self.block_prefix;
        let start = (step > 0).then_some(first);
        std::iter::successors(start, move |start| {
            start.checked_add(step).filter(|next| *next <= last)
        })
        .filter_map(move |start| IpNet::new(range::address(family, start), prefix_length).ok())
        .map(Block::new)
    }
}

impl From<&PoolRecord> for PoolShape {
    fn from(record: &PoolRecord) -> Self {
        Self {
            pool: record.pool,
            sub_pool: record.sub_pool,
            block_prefix: record.block_prefix,
        }
    }
}

/// The addresses of a block that containers can have, as numbers: first and last.
pub(crate) fn usable(block: Block) -> (u128, u128) {
    let (first, last) = range::bounds(block.prefix());
    // IPv6 has no broadcast address.
    let end = if is_v4(block) {
        last.saturating_sub(1)
    } else {
        last
    };
    (first.saturating_add(2), end)
}

fn role(block: Block, address: IpAddr) -> Option<&'static str> {
    let (first, last) = range::bounds(block.prefix());
    let number = range::number(address);
    if number == first {
        Some("network address")
    } else if address == block.router() {
        Some("router")
    } else if number == last && is_v4(block) {
        Some("broadcast address")
    } else {
        None
    }
}

fn is_v4(block: Block) -> bool {
    Family::of(block.prefix().addr()) == Family::V4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(pool: &str, sub_pool: Option<&str>, block_prefix: u8) -> PoolShape {
        let sub_pool = sub_pool.map(|text| text.parse().unwrap());
        PoolShape {
            pool: pool.parse().unwrap(),
            sub_pool,
            block_prefix,
        }
    }

    #[test]
    fn a_pool_is_cut_into_blocks_within_its_range() {
        let texts = |shape: PoolShape| {
            shape
                .blocks()
                .map(|block| block.to_string())
                .collect::<Vec<_>>()
        };
        let whole = texts(shape("10.90.0.0/24", None, 28));
        assert_eq!(whole.len(), 16);
        assert_eq!(whole.last().unwrap(), "10.90.0.240/28");
        let part = texts(shape("10.90.0.0/24", Some("10.90.0.64/26"), 28));
        assert_eq!(
            part,
            [
                "10.90.0.64/28",
                "10.90.0.80/28",
                "10.90.0.96/28",
                "10.90.0.112/28"
            ]
        );
        assert_eq!(
            shape("fd00::/64", None, 112)
                .blocks()
                .nth(1)
                .unwrap()
                .to_string(),
            "fd00::1:0/112"
        );
        assert_eq!(texts(shape("192.0.2.0/29", None, 29)), ["192.0.2.0/29"]);
    }

    #[test]
    fn an_address_with_a_role_is_refused_and_named() {
        let shape = shape("10.90.0.0/16", None, 24);
        let refused = |text: &str| {
            shape
                .check_address(text.parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert!(refused("10.90.3.0").contains("network address of block `10.90.3.0/24`"));
        assert!(refused("10.90.3.1").contains("router"));
        assert!(refused("10.90.3.255").contains("broadcast"));
        assert!(refused("10.91.0.4").contains("not in subnet `10.90.0.0/16`"));
        assert!(refused("fd00::4").contains("not in subnet"));
        assert_eq!(
            shape
                .check_address("10.90.3.2".parse().unwrap())
                .unwrap()
                .to_string(),
            "10.90.3.0/24"
        );
    }
}
