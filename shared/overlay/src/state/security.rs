//! IPsec as the kernel has it: the interface of a peer, associations and policies. Associations and policies are in
//! the root namespace, where the underlay is, and are tied to an interface by its number.

use std::fmt;
use std::net::IpAddr;

use drover_ipsec::{Direction, KeyMaterial, Spi};
use drover_model::{Family, Mtu};

use crate::name;

/// The XFRM interface of a peer. It is asked for in the root namespace, where its associations and policies are
/// looked up, and then is in the `drover` namespace. It drops what no policy and association encrypts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipsec {
    /// Its number, [`name::interface_id`].
    pub if_id: u32,
    /// Its MTU.
    pub mtu: Mtu,
}

/// What the kernel finds an association by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssociationId {
    /// Its index.
    pub spi: Spi,
    /// Where its packets go.
    pub destination: IpAddr,
}

/// An association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityAssociation {
    /// The number of its interface, which is its `reqid` too.
    pub if_id: u32,
    /// Where its packets come from.
    pub source: IpAddr,
    /// The UDP ports that packets are sent from and to. A receiving association has none: packets reach it as
    /// bare ESP, whatever they travelled in.
    pub udp: Option<(u16, u16)>,
    /// Its key; never observed, and `None` for one that is only ever kept.
    pub key: Option<KeyMaterial>,
}

impl SecurityAssociation {
    /// Which way it carries packets, with this index.
    #[must_use]
    pub fn direction(&self, spi: Spi) -> Direction {
        if spi.sender().is_some() && spi.sender() == name::interface_peer(self.if_id) {
            Direction::Receive
        } else {
            Direction::Send
        }
    }

    /// Whether an observed association is as desired, so far as can be seen.
    #[must_use]
    pub fn is_as(&self, desired: &Self) -> bool {
        let seen = |association: &Self| (association.if_id, association.source, association.udp);
        seen(self) == seen(desired)
    }
}

/// Which packets a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyDirection {
    /// Those that came by an association.
    In,
    /// Those that are to leave.
    Out,
}

/// What tells a policy from every other. Its selector is any packet of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The number of its interface.
    pub if_id: u32,
    /// Which packets.
    pub direction: PolicyDirection,
    /// Their family.
    pub family: Family,
    /// Their mark, of [`name::MARK_MASK`]; `None` for any.
    pub mark: Option<u32>,
}

/// What a policy asks for: ESP in tunnel mode, without exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyTemplate {
    /// This host.
    pub local: IpAddr,
    /// The peer.
    pub remote: IpAddr,
    /// The association by which packets leave; `None` for any of the interface's, by which they came.
    pub spi: Option<Spi>,
}

impl fmt::Display for AssociationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.spi, self.destination)
    }
}

impl fmt::Display for SecurityAssociation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "from {} xfrm {:#x}", self.source, self.if_id)?;
        let mut ports = self.udp.iter();
        ports.try_for_each(|(source, destination)| {
            write!(formatter, " udp {source} to {destination}")
        })
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            PolicyDirection::In => "in",
            PolicyDirection::Out => "out",
        };
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(formatter, "{direction} {family} xfrm {:#x}", self.if_id)?;
        let mut marks = self.mark.iter();
        marks.try_for_each(|mark| write!(formatter, " mark {mark}"))
    }
}

impl fmt::Display for PolicyTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "between {} and {}", self.local, self.remote)?;
        let mut indexes = self.spi.iter();
        indexes.try_for_each(|spi| write!(formatter, " by {spi}"))
    }
}
