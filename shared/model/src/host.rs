//! A host of the cluster: its name and its small number.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::{checked_text, shown};

/// Why a text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host name `{0}` is not usable: use 1 to 63 of a-z, 0-9 and `-`, starting and ending with a letter or digit"
)]
pub struct HostNameError(String);

checked_text!(
    /// The name of a host in the cluster: one DNS label (RFC 1123), lower case.
    HostName, HostNameError, check_name
);

impl HostName {
    /// The name a machine gets from its kernel host name: the first label, in lower case.
    ///
    /// # Errors
    /// When that label is not a DNS label.
    pub fn from_machine(name: &str) -> Result<Self, HostNameError> {
        let label = name.split('.').next().unwrap_or_default();
        label.to_ascii_lowercase().parse()
    }
}

fn check_name(text: &str) -> Result<(), HostNameError> {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let usable = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if usable {
        Ok(())
    } else {
        Err(HostNameError(shown(text)))
    }
}

/// The small number of a host, 1 to 4095, unique among the hosts of a cluster at one time.
///
/// Device names, link addresses and the VXLAN network identifier of a pair of hosts follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct HostIndex(u16);

impl HostIndex {
    /// The largest index: two of them make a 24-bit VXLAN network identifier (RFC 7348).
    pub const MAX: u16 = 4095;

    /// The index as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The VXLAN network identifier (24 bits) of the pair of `self` and `other`, the same from both sides.
    #[must_use]
    pub fn pair_vni(self, other: Self) -> u32 {
        let (low, high) = if self <= other {
            (self, other)
        } else {
            (other, self)
        };
        (u32::from(low.0) << 12) | u32::from(high.0)
    }
}

impl TryFrom<u16> for HostIndex {
    type Error = &'static str;

    fn try_from(index: u16) -> Result<Self, Self::Error> {
        if (1..=Self::MAX).contains(&index) {
            Ok(Self(index))
        } else {
            Err("a host index is a number from 1 to 4095")
        }
    }
}

impl From<HostIndex> for u16 {
    fn from(index: HostIndex) -> Self {
        index.0
    }
}

impl fmt::Display for HostIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_dns_labels() {
        assert_eq!(
            HostName::from_machine("Web-1.example.org")
                .unwrap()
                .as_str(),
            "web-1"
        );
        for bad in ["", "-a", "a-", "a_b", "ä", &"a".repeat(64), "a/b"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_has_one_vni_from_both_sides_and_no_other_pair_has_it() {
        let index = |number: u16| HostIndex::try_from(number).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for a in 1..40 {
            for b in (a + 1)..40 {
                assert_eq!(index(a).pair_vni(index(b)), index(b).pair_vni(index(a)));
                assert!(seen.insert(index(a).pair_vni(index(b))));
            }
        }
        assert!(index(HostIndex::MAX).pair_vni(index(HostIndex::MAX - 1)) < 1 << 24);
    }
}
