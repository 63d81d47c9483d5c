//! Reads this host's links, addresses and routes from the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};

use super::facts::{Address, Link, Observed, Route};

/// The kernel did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// A dump failed.
    #[error("cannot list the {what} of this host")]
    Dump {
        /// Links, addresses or routes.
        what: &'static str,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
}

/// What the kernel says of the namespace this process is in.
///
/// # Errors
/// When it does not answer.
pub async fn observe() -> Result<Observed, ObserveError> {
    let (connection, handle, _) = new_connection().map_err(ObserveError::Socket)?;
    let connection = drover_daemon::task::spawn("netlink", connection);
    let observed = dump(&handle).await;
    connection.abort();
    observed
}

async fn dump(handle: &Handle) -> Result<Observed, ObserveError> {
    let failed = |what| move |source| ObserveError::Dump { what, source };
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("links"))?;
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("addresses"))?;
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut routes: Vec<RouteMessage> = handle
        .route()
        .get(v4)
        .execute()
        .try_collect()
        .await
        .map_err(failed("routes"))?;
    // A kernel without IPv6 has no such routes, and that is no fault.
    if let Ok(more) = handle
        .route()
        .get(v6)
        .execute()
        .try_collect::<Vec<_>>()
        .await
    {
        routes.extend(more);
    }
    let links = links
        .iter()
        .filter_map(link)
        .collect::<std::collections::BTreeMap<_, _>>();
    let addresses = addresses.iter().filter_map(address);
    Ok(Observed {
        addresses: addresses
            .filter(|found| links.contains_key(&found.link))
            .collect(),
        links,
        routes: routes.iter().filter_map(route).collect(),
    })
}

/// A link that is not the loopback.
fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    if message.header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let (mut name, mut mtu) = (None, 1500);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    Some((message.header.index, Link { name: name?, mtu }))
}

fn address(message: &AddressMessage) -> Option<Address> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end.
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            _ => {}
        }
    }
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address {
        link: message.header.index,
        address,
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut link, mut source, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => destination = ip(found),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::PrefSource(found) => source = ip(found),
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let unspecified: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let prefix = header.destination_prefix_length;
    let destination = IpNet::new(destination.unwrap_or(unspecified), prefix).ok()?;
    Some(Route {
        destination,
        link,
        source,
        metric,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_kernel_answers_and_the_loopback_is_left_out() {
        let observed = super::observe().await.unwrap();
        assert!(observed.links.values().all(|link| link.name != "lo"));
        assert!(
            observed
                .addresses
                .iter()
                .all(|found| !found.address.addr().is_loopback())
        );
    }
}
