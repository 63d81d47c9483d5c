//! Our objects as rtnetlink messages.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use drover_model::MacAddress;
use drover_overlay::{Link, Target, Vxlan, name};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use crate::namespace::Namespace;

/// The loopback device's index, in every namespace.
const LOOPBACK: u32 = 1;
/// The number of a route's MTU among its metrics (`linux/rtnetlink.h`).
const RTAX_MTU: u32 = 2;

/// What making a link needs beside the link itself.
pub(crate) struct Surroundings<'a> {
    /// The namespace of the engine and the host.
    pub(crate) root: &'a Namespace,
    /// The `drover` namespace.
    pub(crate) overlay: &'a Namespace,
    /// The index of the bridge of a port.
    pub(crate) bridge: Option<u32>,
}

/// The message that makes a link; `None` for what cannot be made.
pub(crate) fn create_link(
    name: &str,
    link: &Link,
    around: &Surroundings<'_>,
) -> Option<LinkMessage> {
    match link {
        Link::Bridge(bridge) => Some(
            LinkBridge::new(name)
                .mtu(bridge.mtu.get().into())
                .address(bridge.mac.octets().to_vec())
                .up()
                .build(),
        ),
        Link::Port(port) => {
            let sandbox = port.sandbox.as_ref()?;
            let other = LinkMessageBuilder::<LinkUnspec>::new()
                .name(sandbox.link.clone())
                .mtu(port.mtu.get().into())
                .address(sandbox.mac.octets().to_vec())
                .setns_by_fd(around.root.file().as_raw_fd())
                .build();
            let pair = LinkVeth::new(name, &sandbox.link)
                .mtu(port.mtu.get().into())
                .controller(around.bridge?)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(other)));
            Some(pair.up().build())
        }
        Link::Direct(direct) => {
            let other = LinkMessageBuilder::<LinkUnspec>::new()
                .name(name::DIRECT_ROOT.to_owned())
                .mtu(direct.mtu.get().into())
                .address(name::DIRECT_ROOT_MAC.octets().to_vec())
                .setns_by_fd(around.root.file().as_raw_fd())
                .build();
            let pair = LinkVeth::new(name, name::DIRECT_ROOT)
                .mtu(direct.mtu.get().into())
                .address(name::DIRECT_MAC.octets().to_vec())
                .set_info_data(InfoData::Veth(InfoVeth::Peer(other)));
            Some(pair.up().build())
        }
        Link::Vxlan(vxlan) => Some(create_vxlan(name, vxlan, around)),
        Link::Ipsec(_) | Link::Foreign => None,
    }
}

/// A VXLAN device is asked for in the root namespace, where its socket stays, and is born in `drover`.
fn create_vxlan(name: &str, vxlan: &Vxlan, around: &Surroundings<'_>) -> LinkMessage {
    let mut link = LinkVxlan::new(name, vxlan.vni)
        .port(vxlan.port)
        .learning(false);
    link = match vxlan.local {
        IpAddr::V4(local) => link.local(local),
        IpAddr::V6(local) => link.local6(local),
    };
    link = match vxlan.remote {
        IpAddr::V4(remote) => link.remote(remote),
        IpAddr::V6(remote) => link.remote6(remote),
    };
    link.mtu(vxlan.mtu.get().into())
        .address(vxlan.mac.octets().to_vec())
        .setns_by_fd(around.overlay.file().as_raw_fd())
        .build()
}

/// The message that sets a link's MTU, link address and bridge, and sets it up.
pub(crate) fn change_link(index: u32, link: &Link, bridge: Option<u32>) -> LinkMessage {
    let mut change = LinkUnspec::new_with_index(index).up();
    change = match link {
        Link::Bridge(wanted) => change
            .mtu(wanted.mtu.get().into())
            .address(wanted.mac.octets().to_vec()),
        Link::Port(wanted) => change.mtu(wanted.mtu.get().into()),
        Link::Vxlan(wanted) => change
            .mtu(wanted.mtu.get().into())
            .address(wanted.mac.octets().to_vec()),
        Link::Direct(wanted) => change.mtu(wanted.mtu.get().into()),
        Link::Ipsec(wanted) => change.mtu(wanted.mtu.get().into()),
        Link::Foreign => change,
    };
    match bridge {
        Some(bridge) => change.controller(bridge).build(),
        None => change.build(),
    }
}

/// A link by its name.
pub(crate) fn named_link(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// An address of a link.
pub(crate) fn address(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message
        .attributes
        .push(AddressAttribute::Local(address.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// A route. `index` is that of the target's device.
pub(crate) fn route(prefix: IpNet, target: &Target, index: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(name::ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let destination = RouteAddress::from(prefix.network());
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    match target {
        Target::Unreachable => {
            message.header.kind = RouteType::Unreachable;
            if prefix.addr().is_ipv6() {
                message.attributes.push(RouteAttribute::Oif(LOOPBACK));
            }
        }
        Target::Link(_) if prefix.addr().is_ipv4() => message.header.scope = RouteScope::Link,
        Target::Link(_) => {}
        Target::Path { mtu, .. } => {
            if prefix.addr().is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            // Kernels before 5.12 forward by it only when it is locked.
            message.attributes.push(RouteAttribute::Metrics(vec![
                RouteMetric::Lock(1 << RTAX_MTU),
                RouteMetric::Mtu(mtu.get().into()),
            ]));
        }
        Target::Via { gateway, .. } => {
            message.header.flags = RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::from(*gateway)));
        }
    }
    if let Some(index) = index {
        message.attributes.push(RouteAttribute::Oif(index));
    }
    message
}

/// A permanent neighbour.
pub(crate) fn neighbour(index: u32, address: IpAddr, mac: Option<MacAddress>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
    if let Some(mac) = mac {
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    }
    message
}

/// An address that a link answers for.
pub(crate) fn proxy(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = neighbour(index, address, None);
    message.header.flags = NeighbourFlags::Proxy;
    message
}
