//! What is in the kernel of ours, as the values of `drover-overlay`.
//!
//! Ours is: in the `drover` namespace, links with our names, and what hangs on them; routes with our
//! protocol number; in both namespaces, tables with our name; in the root namespace, the neighbour
//! of our pair. Nothing else is ever returned.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use drover_model::{MacAddress, Mtu};
use drover_overlay::{
    Bridge, Direct, Ipsec, Link, Place, Port, State, Target, Vxlan, name, sysctl_names,
};
use ipnet::IpNet;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, InfoXfrm, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};

use crate::error::Error;
use crate::kernel::Kernel;

impl Kernel {
    /// Everything of ours that the kernel has.
    ///
    /// # Errors
    /// When the kernel or `nft` does not answer.
    pub async fn observe(&self) -> Result<State, Error> {
        let overlay = self.links(Place::Overlay).await?;
        let root = self.links(Place::Root).await?;
        let names: BTreeMap<u32, String> = overlay
            .iter()
            .filter_map(|link| Some((link.header.index, name_of(link)?.to_owned())))
            .collect();
        let mut state = State {
            sysctls: self.sysctls().await?,
            ..State::default()
        };
        let ours = |name: &str| name::is_ours(name);
        for link in &overlay {
            if let Some(name) = name_of(link).filter(|name| ours(name)) {
                state
                    .links
                    .insert(name.to_owned(), read_link(name, link, &names, &root));
            }
        }
        self.observe_addresses(&names, &mut state).await?;
        self.observe_routes(&names, &mut state).await?;
        self.observe_neighbours(Place::Overlay, &names, &mut state)
            .await?;
        let outer = root
            .iter()
            .filter(|link| name_of(link) == Some(name::DIRECT_ROOT));
        let outer: BTreeMap<_, _> = outer
            .map(|link| (link.header.index, name::DIRECT_ROOT.to_owned()))
            .collect();
        if !outer.is_empty() {
            self.observe_neighbours(Place::Root, &outer, &mut state)
                .await?;
        }
        for place in [Place::Overlay, Place::Root] {
            state
                .tables
                .extend(self.nft.tables(self.namespace(place), place).await?);
        }
        self.observe_security(&mut state).await?;
        Ok(state)
    }

    async fn sysctls(&self) -> Result<BTreeMap<String, String>, Error> {
        let read = self.overlay_namespace.run(|| {
            let values = sysctl_names().filter_map(|name| {
                let value = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
                Some((name.to_owned(), value.trim().to_owned()))
            });
            values.collect()
        });
        read.await.map_err(|source| Error::Request {
            action: "read settings".to_owned(),
            source,
        })
    }

    async fn observe_addresses(
        &self,
        names: &BTreeMap<u32, String>,
        state: &mut State,
    ) -> Result<(), Error> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for found in self.overlay.dump(question, "addresses").await? {
            let RouteNetlinkMessage::NewAddress(message) = found else {
                continue;
            };
            let Some(device) = names.get(&message.header.index) else {
                continue;
            };
            let Some(address) = address_of(&message) else {
                continue;
            };
            let own = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
            let prefix = IpNet::new(address, message.header.prefix_len);
            if let (true, false, Ok(prefix)) = (name::is_ours(device), own, prefix) {
                state.addresses.insert((device.clone(), prefix));
            }
        }
        Ok(())
    }

    async fn observe_routes(
        &self,
        names: &BTreeMap<u32, String>,
        state: &mut State,
    ) -> Result<(), Error> {
        let question = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        for found in self.overlay.dump(question, "routes").await? {
            let RouteNetlinkMessage::NewRoute(message) = found else {
                continue;
            };
            if let Some((prefix, target)) = read_route(&message, names) {
                state.routes.insert(prefix, target);
            }
        }
        Ok(())
    }

    async fn observe_neighbours(
        &self,
        place: Place,
        names: &BTreeMap<u32, String>,
        state: &mut State,
    ) -> Result<(), Error> {
        let mut proxies = NeighbourMessage::default();
        proxies.header.flags = NeighbourFlags::Proxy;
        for question in [NeighbourMessage::default(), proxies] {
            let question = RouteNetlinkMessage::GetNeighbour(question);
            for found in self.netlink(place).dump(question, "neighbours").await? {
                let RouteNetlinkMessage::NewNeighbour(message) = found else {
                    continue;
                };
                let Some(device) = names.get(&message.header.ifindex) else {
                    continue;
                };
                if place == Place::Root || name::is_ours(device) {
                    read_neighbour(&message, place, device, state);
                }
            }
        }
        Ok(())
    }
}

/// A link's name.
pub(crate) fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

/// The address of an address message: `IFA_LOCAL`, or `IFA_ADDRESS` where there is none (IPv6).
pub(crate) fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
    local.or(address)
}

fn mtu_of(link: &LinkMessage) -> Option<Mtu> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Mtu::new(u16::try_from(*mtu).ok()?),
            _ => None,
        })
}

fn mac_of(link: &LinkMessage) -> Option<MacAddress> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(octets) => <[u8; 6]>::try_from(octets.as_slice()).ok(),
            _ => None,
        })
        .map(MacAddress::new)
}

fn infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes
        .iter()
        .flat_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.as_slice(),
            _ => &[],
        })
}

fn kind_of(link: &LinkMessage) -> Option<&InfoKind> {
    infos(link).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn read_link(
    name: &str,
    link: &LinkMessage,
    names: &BTreeMap<u32, String>,
    root: &[LinkMessage],
) -> Link {
    let read = match kind_of(link) {
        Some(InfoKind::Bridge) if name.starts_with("br-") => read_bridge(link),
        Some(InfoKind::Veth) if name.starts_with("ep") => read_port(link, names),
        Some(InfoKind::Veth) if name == name::DIRECT => read_direct(link, root),
        Some(InfoKind::Vxlan) if name.starts_with("dvx") => read_vxlan(link),
        Some(InfoKind::Xfrm) if name.starts_with("dip") => read_ipsec(link),
        _ => None,
    };
    read.unwrap_or(Link::Foreign)
}

fn read_bridge(link: &LinkMessage) -> Option<Link> {
    // One that is down is one that must be put in order: it is shown with a link address that it
    // is never to have.
    let up = link.header.flags.contains(LinkFlags::Up);
    let mac = if up {
        mac_of(link)?
    } else {
        MacAddress::new([0; 6])
    };
    Some(Link::Bridge(Bridge {
        mtu: mtu_of(link)?,
        mac,
    }))
}

fn read_port(link: &LinkMessage, names: &BTreeMap<u32, String>) -> Option<Link> {
    let bridge = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => names.get(index).cloned(),
            _ => None,
        });
    // A port that is down is one that must be put in order, as one on no bridge.
    let up = link.header.flags.contains(LinkFlags::Up);
    let bridge = bridge.filter(|_| up).unwrap_or_default();
    Some(Link::Port(Port {
        bridge,
        mtu: mtu_of(link)?,
        sandbox: None,
    }))
}

fn read_direct(link: &LinkMessage, root: &[LinkMessage]) -> Option<Link> {
    let outer = root
        .iter()
        .find(|link| name_of(link) == Some(name::DIRECT_ROOT))?;
    let up = |link: &LinkMessage| link.header.flags.contains(LinkFlags::Up);
    let whole = mac_of(link)? == name::DIRECT_MAC
        && mac_of(outer)? == name::DIRECT_ROOT_MAC
        && mtu_of(link) == mtu_of(outer)
        && up(link)
        && up(outer);
    whole.then_some(Link::Direct(Direct { mtu: mtu_of(link)? }))
}

fn read_vxlan(link: &LinkMessage) -> Option<Link> {
    let data = infos(link).find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut vni, mut local, mut remote, mut port) = (None, None, None, None);
    for info in data {
        match info {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Group(address) => remote = Some(IpAddr::V4(*address)),
            InfoVxlan::Group6(address) => remote = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = Some(*number),
            _ => {}
        }
    }
    let up = link.header.flags.contains(LinkFlags::Up);
    let (vni, local, remote, port) = (vni?, local?, remote?, port?);
    let (mtu, mac) = (mtu_of(link)?, mac_of(link)?);
    up.then_some(Link::Vxlan(Vxlan {
        vni,
        local,
        remote,
        port,
        mtu,
        mac,
    }))
}

fn read_ipsec(link: &LinkMessage) -> Option<Link> {
    let if_id = interface_number(link)?;
    let mtu = mtu_of(link)?;
    let up = link.header.flags.contains(LinkFlags::Up);
    up.then_some(Link::Ipsec(Ipsec { if_id, mtu }))
}

/// The number of an XFRM interface.
fn interface_number(link: &LinkMessage) -> Option<u32> {
    let data = infos(link).find_map(|info| match info {
        LinkInfo::Data(InfoData::Xfrm(data)) => Some(data),
        _ => None,
    })?;
    data.iter().find_map(|info| match info {
        InfoXfrm::IfId(number) => Some(*number),
        _ => None,
    })
}

/// Whether a link in the root namespace is the XFRM interface of a peer, made and not moved. Its name alone does not
/// say so: there, anybody may have a link of that name.
pub(crate) fn is_unmoved_ipsec(link: &LinkMessage) -> bool {
    let peer = interface_number(link).and_then(name::interface_peer);
    peer.is_some_and(|peer| name_of(link) == Some(name::ipsec(peer).as_str()))
}

fn read_route(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<(IpNet, Target)> {
    let ours = message.header.protocol == RouteProtocol::from(name::ROUTE_PROTOCOL)
        && message.header.table == RouteHeader::RT_TABLE_MAIN;
    if !ours {
        return None;
    }
    let (mut destination, mut gateway, mut device, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => device = names.get(index).cloned(),
            RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(route_mtu),
            _ => {}
        }
    }
    let prefix = IpNet::new(destination?, message.header.destination_prefix_length).ok()?;
    let target = match (message.header.kind, gateway, device, mtu) {
        (RouteType::Unreachable, _, _, _) => Target::Unreachable,
        (_, Some(gateway), Some(device), _) => Target::Via { gateway, device },
        (_, None, Some(device), Some(mtu)) => Target::Path { device, mtu },
        (_, None, Some(device), None) => Target::Link(device),
        _ => return None,
    };
    Some((prefix, target))
}

fn route_mtu(metric: &RouteMetric) -> Option<Mtu> {
    match metric {
        RouteMetric::Mtu(bytes) => Mtu::new(u16::try_from(*bytes).ok()?),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn read_neighbour(message: &NeighbourMessage, place: Place, device: &str, state: &mut State) {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        });
    let Some(address) = address else { return };
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        state.proxies.insert((device.to_owned(), address));
        return;
    }
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => {
                <[u8; 6]>::try_from(octets.as_slice()).ok()
            }
            _ => None,
        });
    if let (NeighbourState::Permanent, Some(mac)) = (message.header.state, mac) {
        let key = (place, device.to_owned(), address);
        state.neighbours.insert(key, MacAddress::new(mac));
    }
}
