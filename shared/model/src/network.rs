//! What a user says of a network with `-o`, and what follows from it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::option::nearest;

/// How packets between hosts are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// ESP between every pair of hosts (RFC 4303). The default.
    Ipsec,
    /// Clear, because the user said so.
    Off,
}

/// How packets of an unencrypted network travel between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// ESP tunnel through an XFRM interface.
    Ipsec,
    /// No encapsulation: the hosts share a link.
    Direct,
    /// VXLAN (RFC 7348).
    Vxlan,
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ipsec => "ipsec",
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
        })
    }
}

/// The largest packet a link carries, 576 to 65,535 bytes (IPv6 needs 1,280).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mtu(u16);

impl Mtu {
    /// The MTU of Ethernet, 1500 bytes.
    pub const ETHERNET: Self = Self(1500);
    /// The smallest that is accepted, 576 bytes (RFC 791).
    pub const MIN: u16 = 576;

    /// Checks a number of bytes.
    #[must_use]
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes >= Self::MIN {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The largest packet that fits inside of an encapsulation, over an IPv4 or IPv6 underlay; never less than
    /// [`Mtu::MIN`].
    #[must_use]
    pub const fn inside(self, encapsulation: Encapsulation, underlay_is_v6: bool) -> Self {
        let outer = if underlay_is_v6 { 40 } else { 20 };
        let left = match encapsulation {
            Encapsulation::Direct => self.0,
            // UDP, VXLAN and Ethernet headers (RFC 7348).
            Encapsulation::Vxlan => self.0.saturating_sub(outer + 8 + 8 + 14),
            // UDP and ESP headers, initialization vector and tag (RFC 3948, RFC 4303, RFC 4106). What is
            // left is in blocks of four bytes, the last two of which are the trailer's.
            Encapsulation::Ipsec => {
                let blocks = self.0.saturating_sub(outer + 8 + 8 + 8 + 16) / 4;
                (blocks * 4).saturating_sub(2)
            }
        };
        Self(if left < Self::MIN { Self::MIN } else { left })
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why the options of `docker network create -o` were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("unknown network option `{name}`{}; the options are {}", hint(*.nearest), NetworkOptions::NAMES.join(", "))]
    Unknown {
        /// The option as it was given.
        name: String,
        /// The option that was perhaps meant.
        nearest: Option<&'static str>,
    },
    /// The option exists; the value does not.
    #[error("network option `{name}={value}` is not usable: {expected}")]
    Value {
        /// The option.
        name: &'static str,
        /// The value as it was given, cut to 80 characters.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!(", did you mean `{name}`"))
        .unwrap_or_default()
}

/// The options of a network, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// How packets between hosts are protected.
    pub encryption: Encryption,
    /// The MTU that the user asked for; `None` to let Drover choose by the path.
    pub mtu: Option<Mtu>,
}

impl NetworkOptions {
    /// `encryption`: `on` (the default) or `off`.
    pub const ENCRYPTION: &'static str = "encryption";
    /// Docker's own name for the MTU of a network.
    pub const MTU: &'static str = "com.docker.network.driver.mtu";
    /// Every option a user may give.
    pub const NAMES: [&'static str; 2] = [Self::ENCRYPTION, Self::MTU];

    /// Checks the pairs that Docker hands on in `com.docker.network.generic`.
    ///
    /// # Errors
    /// When an option is not known, or a value is not usable.
    pub fn parse(pairs: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut options = Self {
            encryption: Encryption::Ipsec,
            mtu: None,
        };
        for (name, value) in pairs {
            match name.as_str() {
                Self::ENCRYPTION => options.encryption = parse_encryption(value)?,
                Self::MTU => options.mtu = parse_mtu(value)?,
                other => {
                    return Err(OptionError::Unknown {
                        name: other.chars().take(80).collect(),
                        nearest: nearest(other, &Self::NAMES),
                    });
                }
            }
        }
        Ok(options)
    }
}

fn parse_encryption(value: &str) -> Result<Encryption, OptionError> {
    match value {
        "on" => Ok(Encryption::Ipsec),
        "off" => Ok(Encryption::Off),
        other => Err(OptionError::Value {
            name: NetworkOptions::ENCRYPTION,
            value: other.chars().take(80).collect(),
            expected: "it is `on` or `off`",
        }),
    }
}

fn parse_mtu(value: &str) -> Result<Option<Mtu>, OptionError> {
    // Docker and Compose write 0 for "not set".
    if value == "0" {
        return Ok(None);
    }
    value
        .parse()
        .ok()
        .and_then(Mtu::new)
        .map(Some)
        .ok_or_else(|| OptionError::Value {
            name: NetworkOptions::MTU,
            value: value.chars().take(80).collect(),
            expected: "it is a number of bytes from 576 to 65535",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<NetworkOptions, OptionError> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        NetworkOptions::parse(&pairs.collect())
    }

    #[test]
    fn a_network_is_encrypted_unless_somebody_says_otherwise() {
        let encryption = |pairs: &[_]| parse(pairs).unwrap().encryption;
        assert_eq!(encryption(&[]), Encryption::Ipsec);
        assert_eq!(encryption(&[("encryption", "on")]), Encryption::Ipsec);
        assert_eq!(encryption(&[("encryption", "off")]), Encryption::Off);
    }

    #[test]
    fn a_wrong_option_is_named_with_the_nearest_right_one() {
        let text = parse(&[("encrypton", "off")]).unwrap_err().to_string();
        assert!(
            text.contains("`encrypton`") && text.contains("did you mean `encryption`"),
            "{text}"
        );
        assert!(
            parse(&[("encryption", "sometimes")])
                .unwrap_err()
                .to_string()
                .contains("`on` or `off`")
        );
    }

    #[test]
    fn what_fits_inside_is_what_the_headers_leave() {
        let inside = |mtu, encapsulation| {
            [false, true].map(|six| Mtu::new(mtu).unwrap().inside(encapsulation, six).get())
        };
        assert_eq!(inside(1500, Encapsulation::Direct), [1500, 1500]);
        assert_eq!(inside(1500, Encapsulation::Vxlan), [1450, 1430]);
        assert_eq!(inside(1350, Encapsulation::Ipsec), [1286, 1266]);
        assert_eq!(inside(1500, Encapsulation::Ipsec), [1438, 1418]);
        assert_eq!(inside(9000, Encapsulation::Ipsec), [8938, 8918]);
        assert_eq!(inside(Mtu::MIN, Encapsulation::Ipsec), [Mtu::MIN; 2]);
    }

    #[test]
    fn an_encrypted_packet_of_the_largest_size_fits_and_a_larger_one_does_not() {
        // Encrypted is a whole number of blocks of four bytes: the packet, padding, and two bytes of trailer.
        let outside = |inner: u32, outer: u32| outer + 8 + 8 + 8 + (inner + 2).div_ceil(4) * 4 + 16;
        for mtu in 700..=u16::MAX {
            for (six, outer) in [(false, 20), (true, 40)] {
                let inner = Mtu::new(mtu).unwrap().inside(Encapsulation::Ipsec, six);
                let inner = u32::from(inner.get());
                let fits = |inner| outside(inner, outer) <= u32::from(mtu);
                assert!(fits(inner) && !fits(inner + 1), "{mtu} {six}");
            }
        }
    }

    #[test]
    fn the_mtu_is_checked_and_zero_means_unset() {
        let mtu = |value| parse(&[("encryption", "off"), (NetworkOptions::MTU, value)]);
        assert_eq!(mtu("1400").unwrap().mtu, Mtu::new(1400));
        assert_eq!(mtu("0").unwrap().mtu, None);
        assert!(mtu("100").is_err());
        assert!(mtu("70000").is_err());
    }
}
