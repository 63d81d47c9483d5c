//! Kernel objects as values: what the kernel has, or should have, of ours. Only fields that we set
//! are here, in the form in which the kernel shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use drover_model::{MacAddress, Mtu};
use ipnet::IpNet;

mod security;

pub use security::{
    AssociationId, Ipsec, PolicyDirection, PolicyKey, PolicyTemplate, SecurityAssociation,
};

/// All objects of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Links in the `drover` namespace, by name.
    pub links: BTreeMap<String, Link>,
    /// Addresses of those links: device and address with prefix length.
    pub addresses: BTreeSet<(String, IpNet)>,
    /// Routes in the `drover` namespace.
    pub routes: BTreeMap<IpNet, Target>,
    /// Permanent neighbours of our links.
    pub neighbours: BTreeMap<(Place, String, IpAddr), MacAddress>,
    /// Addresses that a bridge answers neighbour solicitations for (IPv6).
    pub proxies: BTreeSet<(String, IpAddr)>,
    /// Settings under `/proc/sys` of the `drover` namespace.
    pub sysctls: BTreeMap<String, String>,
    /// nftables tables.
    pub tables: BTreeMap<TableName, Table>,
    /// IPsec associations in the root namespace.
    pub associations: BTreeMap<AssociationId, SecurityAssociation>,
    /// IPsec policies in the root namespace.
    pub policies: BTreeMap<PolicyKey, PolicyTemplate>,
}

/// A network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The `drover` namespace.
    Overlay,
    /// The namespace of the engine and of the host.
    Root,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Overlay => "overlay",
            Self::Root => "root",
        })
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The bridge of a network.
    Bridge(Bridge),
    /// The bridge port of an endpoint.
    Port(Port),
    /// The VXLAN device of a peer.
    Vxlan(Vxlan),
    /// The pair to the root namespace.
    Direct(Direct),
    /// The XFRM interface of a peer.
    Ipsec(Ipsec),
    /// A link with one of our names that is of another kind, or lacks a part: to be made anew.
    Foreign,
}

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its MTU.
    pub mtu: Mtu,
    /// Its link address.
    pub mac: MacAddress,
}

/// The bridge port of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The bridge.
    pub bridge: String,
    /// Its MTU.
    pub mtu: Mtu,
    /// The other end, as it is made; not observed, since the engine takes it away.
    pub sandbox: Option<Sandbox>,
}

/// The container's end of an endpoint's pair, as it is made in the engine's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its name until the engine takes it.
    pub link: String,
    /// Its link address.
    pub mac: MacAddress,
}

/// The VXLAN device of a peer. Its socket is in the root namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// The VXLAN network identifier.
    pub vni: u32,
    /// This host's underlay address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// Its MTU.
    pub mtu: Mtu,
    /// Its link address.
    pub mac: MacAddress,
}

/// The pair to the root namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// Its MTU, at both ends.
    pub mtu: Mtu,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere, with an ICMP error.
    Unreachable,
    /// Onto a link.
    Link(String),
    /// To a next hop that is on a link by decree.
    Via {
        /// The next hop.
        gateway: IpAddr,
        /// The link.
        device: String,
    },
    /// Onto a link whose other end gets no packets larger than this, though the link takes them.
    Path {
        /// The link.
        device: String,
        /// The largest packet, of either family.
        mtu: Mtu,
    },
}

impl Target {
    /// The link it uses.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Unreachable => None,
            Self::Link(device) | Self::Via { device, .. } | Self::Path { device, .. } => {
                Some(device)
            }
        }
    }
}

/// The family of an nftables table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4 and IPv6 packets at the layer-3 hooks.
    Inet,
    /// Frames on a bridge.
    Bridge,
    /// Frames at a device's ingress.
    Netdev,
}

impl fmt::Display for TableFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

/// Which of our tables: all have the same name, [`crate::name::TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The namespace it is in.
    pub place: Place,
    /// Its family.
    pub family: TableFamily,
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.family, crate::name::TABLE)
    }
}

/// A table: rules that do not change, and sets whose elements do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The declarations of the sets and the chains, as nftables text; not observed.
    pub body: String,
    /// A digest of the body. An empty chain of the table carries it in its name, so that it is
    /// read back from the kernel without reading rules.
    pub digest: String,
    /// How many rules the chains have.
    pub rules: usize,
    /// The elements of each set.
    pub sets: BTreeMap<String, Set>,
}

/// The elements of a set.
pub type Set = BTreeSet<Element>;

/// An element of a set or map, in nftables' own writing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The key: fields joined by ` . `.
    pub key: String,
    /// What a map maps it to.
    pub data: Option<String>,
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.data {
            None => formatter.write_str(&self.key),
            Some(data) => write!(formatter, "{} : {data}", self.key),
        }
    }
}

impl Link {
    /// Whether an observed link is as desired, so far as can be seen.
    #[must_use]
    pub fn is_as(&self, desired: &Self) -> bool {
        match (self, desired) {
            (Self::Port(seen), Self::Port(wanted)) => {
                seen.bridge == wanted.bridge && seen.mtu == wanted.mtu
            }
            (seen, wanted) => seen == wanted,
        }
    }

    /// Whether it can become `desired` without being made anew.
    #[must_use]
    pub fn can_become(&self, desired: &Self) -> bool {
        match (self, desired) {
            (Self::Vxlan(seen), Self::Vxlan(wanted)) => {
                let outer = |link: &Vxlan| (link.vni, link.local, link.remote, link.port);
                outer(seen) == outer(wanted)
            }
            (Self::Ipsec(seen), Self::Ipsec(wanted)) => seen.if_id == wanted.if_id,
            (Self::Bridge(_), Self::Bridge(_))
            | (Self::Port(_), Self::Port(_))
            | (Self::Direct(_), Self::Direct(_)) => true,
            _ => false,
        }
    }
}
