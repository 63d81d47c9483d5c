//! A step: one thing to do to the kernel, when it comes, and how a person reads it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use drover_ipsec::Direction;
use drover_model::MacAddress;
use ipnet::IpNet;

use crate::name;
use crate::state::{
    AssociationId, Element, Link, Place, PolicyDirection, PolicyKey, PolicyTemplate,
    SecurityAssociation, Set, Table, TableFamily, TableName, Target,
};

/// One thing to do. What it carries is all that is needed to do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Set a value under `/proc/sys` of the `drover` namespace.
    SetSysctl {
        /// The path below `/proc/sys`.
        name: String,
        /// The value.
        value: String,
    },
    /// Remove a route.
    DeleteRoute {
        /// Its destination.
        prefix: IpNet,
        /// Where it leads.
        target: Target,
    },
    /// Remove a neighbour.
    DeleteNeighbour {
        /// The namespace.
        place: Place,
        /// The link.
        device: String,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// Stop answering for an address.
    DeleteProxy {
        /// The bridge.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// Remove an address.
    DeleteAddress {
        /// The link.
        device: String,
        /// The address.
        address: IpNet,
    },
    /// Remove a table.
    DeleteTable {
        /// Which.
        table: TableName,
    },
    /// Remove a link, with all that hangs on it.
    DeleteLink {
        /// Its name.
        name: String,
        /// Whether one of the same name is made next.
        replaced: bool,
    },
    /// Write a table whole, in place of the one that is there, in one transaction.
    WriteTable {
        /// Which.
        name: TableName,
        /// What is in it.
        table: Table,
    },
    /// Make a link and set it up.
    CreateLink {
        /// Its name.
        name: String,
        /// What it is.
        link: Link,
    },
    /// Change a link in place.
    ChangeLink {
        /// Its name.
        name: String,
        /// What it becomes.
        link: Link,
    },
    /// Add an address.
    AddAddress {
        /// The link.
        device: String,
        /// The address.
        address: IpNet,
    },
    /// Add or replace a permanent neighbour.
    SetNeighbour {
        /// The namespace.
        place: Place,
        /// The link.
        device: String,
        /// The neighbour's address.
        address: IpAddr,
        /// Its link address.
        mac: MacAddress,
    },
    /// Answer neighbour solicitations for an address.
    AddProxy {
        /// The bridge.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// Add or replace a route.
    SetRoute {
        /// Its destination.
        prefix: IpNet,
        /// Where it leads.
        target: Target,
    },
    /// Change elements of the sets of one namespace's tables, in one transaction.
    ChangeElements {
        /// The namespace.
        place: Place,
        /// What changes.
        changes: Vec<ElementChange>,
    },
    /// Make an association that has never been.
    AddAssociation {
        /// Which.
        id: AssociationId,
        /// What it is; it has a key.
        association: SecurityAssociation,
    },
    /// Remove an association.
    DeleteAssociation {
        /// Which.
        id: AssociationId,
    },
    /// Add a policy, or change it in place.
    SetPolicy {
        /// Which.
        key: PolicyKey,
        /// What it asks for.
        template: PolicyTemplate,
    },
    /// Remove a policy.
    DeletePolicy {
        /// Which.
        key: PolicyKey,
    },
}

/// What changes in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementChange {
    /// The table.
    pub table: TableName,
    /// The set.
    pub set: String,
    /// Elements that go.
    pub delete: Set,
    /// Elements that come.
    pub add: Set,
}

impl Step {
    /// When it comes: steps of one phase do not depend on each other, and on those of earlier ones
    /// alone.
    #[must_use]
    pub fn phase(&self) -> u8 {
        match self {
            Self::SetSysctl { .. } => 0,
            // Rules are there before the ports they watch; but a table at a device's ingress needs
            // the device, and goes before it, when no packet takes that way any more.
            Self::DeleteTable { table } if table.family == TableFamily::Netdev => 18,
            Self::DeleteTable { .. } => 1,
            Self::WriteTable { name, .. } if name.family != TableFamily::Netdev => 1,
            Self::DeleteProxy { .. } | Self::DeleteNeighbour { .. } => 2,
            // An epoch is received before it is sent by, it is there before a policy names it, and
            // is named by none when it goes.
            Self::SetPolicy { key, .. } if key.direction == PolicyDirection::In => 3,
            Self::AddAssociation { id, association } => match association.direction(id.spi) {
                Direction::Receive => 4,
                Direction::Send => 5,
            },
            Self::SetPolicy { .. } => 6,
            // A device that packets travelled by until now goes when they take another.
            Self::DeleteLink {
                name,
                replaced: false,
            } if !is_bridge_or_port(name) => 19,
            Self::DeleteLink { .. } => 7,
            Self::CreateLink {
                link: Link::Port(_),
                ..
            } => 9,
            Self::CreateLink { .. } => 8,
            // An IPv6 link has an address once: one with another prefix length goes first.
            Self::DeleteAddress { address, .. } if address.addr().is_ipv6() => 10,
            Self::ChangeLink { .. } => 10,
            Self::AddAddress { .. } => 11,
            Self::SetNeighbour { .. } | Self::AddProxy { .. } => 12,
            Self::SetRoute { .. } => 13,
            Self::WriteTable { .. } => 14,
            Self::ChangeElements { .. } => 15,
            // A route or address that moves to another prefix length goes when the new one stands.
            Self::DeleteRoute { .. } => 16,
            Self::DeleteAddress { .. } => 17,
            Self::DeletePolicy { .. } => 20,
            Self::DeleteAssociation { .. } => 21,
        }
    }
}

fn is_bridge_or_port(name: &str) -> bool {
    name.starts_with("br-") || name.starts_with("ep")
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSysctl { name, value } => write!(formatter, "set {name} to {value}"),
            Self::DeleteRoute { prefix, .. } => write!(formatter, "delete route {prefix}"),
            Self::DeleteNeighbour {
                place,
                device,
                address,
            } => {
                write!(
                    formatter,
                    "delete neighbour {address} of {device} ({place})"
                )
            }
            Self::DeleteProxy { device, address } => {
                write!(formatter, "stop answering for {address} on {device}")
            }
            Self::DeleteAddress { device, address } => {
                write!(formatter, "delete address {address} of {device}")
            }
            Self::DeleteTable { table } => {
                write!(formatter, "delete table {table} ({})", table.place)
            }
            Self::DeleteLink { name, .. } => write!(formatter, "delete link {name}"),
            Self::WriteTable { name, .. } => {
                write!(formatter, "write table {name} ({})", name.place)
            }
            Self::CreateLink { name, link } => write!(formatter, "create link {name}: {link}"),
            Self::ChangeLink { name, link } => write!(formatter, "change link {name}: {link}"),
            Self::AddAddress { device, address } => {
                write!(formatter, "add address {address} to {device}")
            }
            Self::SetNeighbour {
                place,
                device,
                address,
                mac,
            } => {
                write!(
                    formatter,
                    "set neighbour {address} of {device} to {mac} ({place})"
                )
            }
            Self::AddProxy { device, address } => {
                write!(formatter, "answer for {address} on {device}")
            }
            Self::SetRoute { prefix, target } => write!(formatter, "set route {prefix} {target}"),
            Self::ChangeElements { place, changes } => {
                write!(formatter, "change elements ({place})")?;
                changes
                    .iter()
                    .try_for_each(|change| write!(formatter, "{change}"))
            }
            Self::AddAssociation { id, association } => {
                write!(formatter, "add association {id} {association}")
            }
            Self::DeleteAssociation { id } => write!(formatter, "delete association {id}"),
            Self::SetPolicy { key, template } => {
                write!(formatter, "set policy {key} {template}")
            }
            Self::DeletePolicy { key } => write!(formatter, "delete policy {key}"),
        }
    }
}

impl fmt::Display for ElementChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |elements: &BTreeSet<Element>| {
            elements
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        write!(formatter, "; {} {}:", self.table.family, self.set)?;
        if !self.delete.is_empty() {
            write!(formatter, " -{{{}}}", list(&self.delete))?;
        }
        if !self.add.is_empty() {
            write!(formatter, " +{{{}}}", list(&self.add))?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => formatter.write_str("unreachable"),
            Self::Link(device) => write!(formatter, "dev {device}"),
            Self::Via { gateway, device } => write!(formatter, "via {gateway} dev {device}"),
            Self::Path { device, mtu } => write!(formatter, "dev {device} mtu {mtu}"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(bridge) => write!(formatter, "bridge mtu {} {}", bridge.mtu, bridge.mac),
            Self::Port(port) => {
                write!(formatter, "port of {} mtu {}", port.bridge, port.mtu)?;
                let sandbox = port.sandbox.iter();
                sandbox
                    .into_iter()
                    .try_for_each(|end| write!(formatter, ", other end {} {}", end.link, end.mac))
            }
            Self::Vxlan(vxlan) => write!(
                formatter,
                "vxlan {} from {} to {} port {} mtu {}",
                vxlan.vni, vxlan.local, vxlan.remote, vxlan.port, vxlan.mtu
            ),
            Self::Direct(direct) => {
                write!(
                    formatter,
                    "pair with {} mtu {}",
                    name::DIRECT_ROOT,
                    direct.mtu
                )
            }
            Self::Ipsec(ipsec) => {
                write!(formatter, "xfrm {:#x} mtu {}", ipsec.if_id, ipsec.mtu)
            }
            Self::Foreign => formatter.write_str("unknown"),
        }
    }
}
