//! Addresses: pools, the blocks they are cut into, link addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// How many bits an address has: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// Why a prefix is not usable as a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not a prefix at all.
    #[error("subnet `{0}` is not an address and prefix length, such as 10.42.0.0/16")]
    Syntax(String),
    /// The address has bits set below the prefix length.
    #[error("subnet `{given}` has host bits set; use {network}")]
    HostBits {
        /// The prefix that was given.
        given: IpNet,
        /// The same with the host bits cleared.
        network: IpNet,
    },
    /// Fewer addresses than a network needs.
    #[error("subnet `{given}` is too small: use a prefix length of {longest} or less")]
    TooSmall {
        /// The prefix that was given.
        given: IpNet,
        /// The longest prefix length that is allowed.
        longest: u8,
    },
    /// A range containers cannot have: loopback, link-local, multicast, unspecified.
    #[error(
        "subnet `{0}` lies in a range that is not for hosts (loopback, link-local, multicast or reserved)"
    )]
    Reserved(IpNet),
}

/// The subnet of a network: an IPv4 prefix up to /29 or an IPv6 prefix up to /124, host bits clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Pool(IpNet);

impl Pool {
    /// Checks a prefix.
    ///
    /// # Errors
    /// When it has host bits, is too small, or lies in a range that is not for hosts.
    pub fn new(prefix: IpNet) -> Result<Self, PoolError> {
        if prefix.addr() != prefix.network() {
            return Err(PoolError::HostBits {
                given: prefix,
                network: prefix.trunc(),
            });
        }
        let longest = if prefix.addr().is_ipv4() { 29 } else { 124 };
        if prefix.prefix_len() > longest {
            return Err(PoolError::TooSmall {
                given: prefix,
                longest,
            });
        }
        if is_reserved(prefix) {
            return Err(PoolError::Reserved(prefix));
        }
        Ok(Self(prefix))
    }

    /// The prefix.
    #[must_use]
    pub const fn prefix(self) -> IpNet {
        self.0
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.0.addr())
    }

    /// Whether `address` lies in the pool.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether the pool shares an address with `other`.
    #[must_use]
    pub fn overlaps(self, other: IpNet) -> bool {
        self.0.contains(&other.network()) || other.contains(&self.0.network())
    }

    /// The pool as one path segment: `10.42.0.0_16`.
    #[must_use]
    pub fn key(self) -> String {
        self.0.to_string().replace('/', "_")
    }
}

fn is_reserved(prefix: IpNet) -> bool {
    const NOT_FOR_HOSTS: [&str; 9] = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
        "0.0.0.0/32",
    ];
    NOT_FOR_HOSTS
        .iter()
        .filter_map(|text| text.parse::<IpNet>().ok())
        .any(|range| range.contains(&prefix.network()) || prefix.contains(&range.network()))
}

impl FromStr for Pool {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let syntax = |_| PoolError::Syntax(text.chars().take(80).collect());
        Self::new(text.parse::<IpNet>().map_err(syntax)?)
    }
}

impl TryFrom<IpNet> for Pool {
    type Error = PoolError;

    fn try_from(prefix: IpNet) -> Result<Self, PoolError> {
        Self::new(prefix)
    }
}

impl From<Pool> for IpNet {
    fn from(pool: Pool) -> Self {
        pool.0
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A part of a pool that one host allocates from, and that the other hosts route to it as one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Block(IpNet);

impl Block {
    /// The block with this prefix; host bits are cleared.
    #[must_use]
    pub fn new(prefix: IpNet) -> Self {
        Self(prefix.trunc())
    }

    /// The prefix.
    #[must_use]
    pub const fn prefix(self) -> IpNet {
        self.0
    }

    /// Whether `address` lies in the block.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// The block's first usable address: its router, on the bridge of the host that owns the block.
    #[must_use]
    pub fn router(self) -> IpAddr {
        match self.0 {
            IpNet::V4(prefix) => IpAddr::V4((u32::from(prefix.network()).saturating_add(1)).into()),
            IpNet::V6(prefix) => {
                IpAddr::V6((u128::from(prefix.network()).saturating_add(1)).into())
            }
        }
    }

    /// The block as one path segment: `10.42.1.0_24`.
    #[must_use]
    pub fn key(self) -> String {
        self.0.to_string().replace('/', "_")
    }
}

impl fmt::Display for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A 48-bit link address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address with these octets.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, first on the wire first.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a link address such as 02:42:0a:2a:01:05");
        let mut octets = [0_u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_syntax| wrong())?;
        }
        if parts.next().is_some() || octets.first().is_some_and(|first| first & 1 == 1) {
            return Err(wrong());
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_says_what_is_wrong_with_a_prefix() {
        let refused = |text: &str| text.parse::<Pool>().unwrap_err().to_string();
        assert!(refused("10.42.0.1/16").contains("use 10.42.0.0/16"));
        assert!(refused("10.42.0.0/30").contains("/29") || refused("10.42.0.0/30").contains("29"));
        assert!(refused("127.0.0.0/16").contains("not for hosts"));
        assert!(refused("0.0.0.0/0").contains("not for hosts"));
        assert!(refused("fe80::/64").contains("not for hosts"));
        assert!(refused("ten").contains("such as"));
        assert!("fd00:1::/64".parse::<Pool>().is_ok());
    }

    #[test]
    fn overlap_is_either_way_round() {
        let pool: Pool = "10.42.0.0/16".parse().unwrap();
        assert!(pool.overlaps("10.0.0.0/8".parse().unwrap()));
        assert!(pool.overlaps("10.42.7.0/24".parse().unwrap()));
        assert!(!pool.overlaps("10.43.0.0/16".parse().unwrap()));
    }

    #[test]
    fn the_router_is_the_first_usable_address() {
        let block = Block::new("10.42.1.9/24".parse().unwrap());
        assert_eq!(block.router().to_string(), "10.42.1.1");
        assert_eq!(
            Block::new("fd00::/112".parse().unwrap())
                .router()
                .to_string(),
            "fd00::1"
        );
    }

    #[test]
    fn link_addresses_round_trip_and_multicast_is_refused() {
        let address: MacAddress = "02:42:0a:2a:01:05".parse().unwrap();
        assert_eq!(address.to_string(), "02:42:0a:2a:01:05");
        for bad in [
            "01:00:5e:00:00:01",
            "02:42",
            "02:42:0a:2a:01:05:06",
            "2:42:0a:2a:01:05:0",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
