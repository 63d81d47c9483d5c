//! From the words of the cluster to kernel objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_model::{Block, Encapsulation, Encryption, Family, Mtu, NetworkId, Pool};
use ipnet::IpNet;

use crate::desired::{BlockHolder, Desired, Network, Peer, ThisHost, is_single};
use crate::name;
use crate::ruleset::{direct_underlay, tables};
use crate::state::{Bridge, Direct, Link, Place, Port, Sandbox, State, Target, Vxlan};

mod security;

/// Settings of the `drover` namespace. They are in place before there is a link, so that links are
/// born with the values of `default`.
const SYSCTLS: [(&str, &str); 21] = [
    ("net/ipv4/ip_forward", "1"),
    // Each link says for itself, as `drover-kernel` makes it: where a peer's packets come in, their
    // source must be routed back there. On bridges and the direct path rules have looked at it already.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/all/proxy_arp", "1"),
    ("net/ipv4/conf/default/proxy_arp", "1"),
    ("net/ipv4/neigh/default/proxy_delay", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/proxy_ndp", "1"),
    ("net/ipv6/conf/default/proxy_ndp", "1"),
    ("net/ipv6/neigh/default/proxy_delay", "0"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
];

/// The names of the settings that are ours, below `/proc/sys`.
pub fn sysctl_names() -> impl Iterator<Item = &'static str> {
    SYSCTLS.iter().map(|(name, _)| *name)
}

/// This host's blocks of each pool.
type OwnBlocks = BTreeMap<Pool, BTreeSet<Block>>;

/// The kernel objects that a desired state asks for.
#[must_use]
pub fn lower(desired: &Desired) -> State {
    let mut state = State {
        sysctls: SYSCTLS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        tables: tables(desired),
        ..State::default()
    };
    if let Some(host) = &desired.host {
        lower_peers(desired, host, &mut state);
    }
    let own = desired.own_blocks();
    for (id, network) in &desired.networks {
        lower_network(&own, id, network, &mut state);
    }
    lower_blocks(desired, &own, &mut state);
    lower_endpoints(desired, &mut state);
    state
}

fn lower_peers(desired: &Desired, host: &ThisHost, state: &mut State) {
    let pools = desired.networks.values().flat_map(|network| &network.pools);
    let families: BTreeSet<_> = pools.map(|pool| pool.pool.family()).collect();
    let underlay_is_v6 = host.advertise.is_ipv6();
    let same_family = |peer: &&Peer| peer.advertise.is_ipv6() == underlay_is_v6;
    for peer in desired.peers.values().filter(same_family) {
        let needs_vxlan = peer.standby
            || peer.encapsulation == Encapsulation::Vxlan
            || families
                .iter()
                .any(|family| desired.encapsulation(peer, *family) == Encapsulation::Vxlan);
        if !needs_vxlan {
            continue;
        }
        let device = name::vxlan(peer.index);
        for family in [Family::V4, Family::V6] {
            let hop = name::next_hop(peer.index, family);
            let neighbour = (Place::Overlay, device.clone(), hop);
            state
                .neighbours
                .insert(neighbour, name::vxlan_mac(peer.index));
        }
        let link = Link::Vxlan(Vxlan {
            vni: host.index.pair_vni(peer.index),
            local: host.advertise,
            remote: peer.advertise,
            port: host.vxlan_port,
            mtu: peer
                .underlay_mtu
                .inside(Encapsulation::Vxlan, underlay_is_v6),
            mac: name::vxlan_mac(host.index),
        });
        state.links.insert(device, link);
    }
    for peer in desired.peers.values() {
        if let Some(path) = desired.ipsec(peer) {
            security::lower_ipsec(host, peer, path, state);
        }
    }
    if direct_underlay(desired).is_some() {
        lower_direct(desired, host, state);
    }
}

fn lower_direct(desired: &Desired, host: &ThisHost, state: &mut State) {
    let family = Family::of(host.advertise);
    let peers: Vec<_> = desired.direct_peers().collect();
    for peer in &peers {
        let hop = name::next_hop(peer.index, family);
        let neighbour = (Place::Overlay, name::DIRECT.to_owned(), hop);
        state
            .neighbours
            .insert(neighbour, name::direct_mac(peer.index));
        if peer.watched {
            let target = match family {
                Family::V4 => Target::Link(name::DIRECT.to_owned()),
                Family::V6 => Target::Via {
                    gateway: hop,
                    device: name::DIRECT.to_owned(),
                },
            };
            let probe = name::probe(peer.index, family);
            state.routes.insert(IpNet::from(probe), target);
        }
    }
    if peers.iter().any(|peer| peer.watched) {
        let own = IpNet::from(name::probe(host.index, family));
        state.addresses.insert((name::DIRECT.to_owned(), own));
    }
    let inward = (
        Place::Root,
        name::DIRECT_ROOT.to_owned(),
        name::direct_next_hop(family),
    );
    state.neighbours.insert(inward, name::DIRECT_MAC);
    let mtu = peers
        .iter()
        .map(|peer| peer.underlay_mtu)
        .min()
        .unwrap_or(Mtu::ETHERNET);
    state
        .links
        .insert(name::DIRECT.to_owned(), Link::Direct(Direct { mtu }));
}

fn lower_network(own: &OwnBlocks, id: &NetworkId, network: &Network, state: &mut State) {
    let bridge = name::bridge(id);
    let link = Bridge {
        mtu: network.mtu,
        mac: name::bridge_mac(id),
    };
    state.links.insert(bridge.clone(), Link::Bridge(link));
    for subnet in &network.pools {
        state
            .routes
            .insert(subnet.pool.prefix(), Target::Unreachable);
        // Addresses have full length, and what is on the link is said by a route: the gateway may be
        // the router of a block too, and an IPv6 link has an address with one prefix length only.
        for block in own.get(&subnet.pool).into_iter().flatten() {
            state
                .addresses
                .insert((bridge.clone(), IpNet::from(block.router())));
            state
                .routes
                .insert(block.prefix(), Target::Link(bridge.clone()));
        }
        if let Some(gateway) = subnet.gateway {
            state
                .addresses
                .insert((bridge.clone(), IpNet::from(gateway)));
        }
    }
}

/// Which network has a pool.
fn networks_by_pool(desired: &Desired) -> BTreeMap<Pool, (&NetworkId, &Network)> {
    let networks = desired.networks.iter();
    networks
        .flat_map(|(id, network)| {
            network
                .pools
                .iter()
                .map(move |pool| (pool.pool, (id, network)))
        })
        .collect()
}

fn lower_blocks(desired: &Desired, own: &OwnBlocks, state: &mut State) {
    let networks = networks_by_pool(desired);
    for (block, held) in &desired.blocks {
        let Some((id, network)) = networks.get(&held.pool) else {
            continue;
        };
        let route = |holder: &BlockHolder, family| match holder {
            BlockHolder::Peer(name) => desired
                .peers
                .get(name)
                .and_then(|peer| toward(desired, peer, network, family)),
            BlockHolder::Here | BlockHolder::Nobody => None,
        };
        let own = own.get(&held.pool).is_some_and(|own| own.contains(block));
        if let (false, Some(target)) = (own, route(&held.owner, held.pool.family())) {
            state.routes.insert(block.prefix(), target);
        }
        for (address, holder) in &held.claims {
            let Some(target) = route(holder, held.pool.family()) else {
                continue;
            };
            state.routes.insert(IpNet::from(*address), target);
            // The containers here think that it is on their link. For IPv4 the bridge answers for
            // whatever it has a route to (`proxy_arp`); for IPv6 it must be told each address.
            if own && address.is_ipv6() {
                state.proxies.insert((name::bridge(id), *address));
            }
        }
    }
}

/// The way to a peer for the packets of a network; `None` when there is none, and then the route of
/// the pool says "unreachable".
fn toward(desired: &Desired, peer: &Peer, network: &Network, family: Family) -> Option<Target> {
    let host = desired.host.as_ref()?;
    if network.encryption == Encryption::Ipsec {
        let device = name::ipsec(peer.index);
        return desired.ipsec(peer).map(|path| match path.mtu {
            Some(mtu) => Target::Path { device, mtu },
            None => Target::Link(device),
        });
    }
    if peer.advertise.is_ipv6() != host.advertise.is_ipv6() {
        return None;
    }
    let gateway = name::next_hop(peer.index, family);
    match desired.encapsulation(peer, family) {
        Encapsulation::Direct => Some(Target::Via {
            gateway,
            device: name::DIRECT.to_owned(),
        }),
        Encapsulation::Vxlan => Some(Target::Via {
            gateway,
            device: name::vxlan(peer.index),
        }),
        Encapsulation::Ipsec => None,
    }
}

fn lower_endpoints(desired: &Desired, state: &mut State) {
    for (id, endpoint) in &desired.endpoints {
        if !desired.networks.contains_key(&endpoint.network) {
            continue;
        }
        let bridge = name::bridge(&endpoint.network);
        let singles = endpoint
            .addresses
            .iter()
            .filter(|address| is_single(**address));
        for single in singles {
            let address: IpAddr = single.addr();
            state
                .routes
                .insert(IpNet::from(address), Target::Link(bridge.clone()));
            state.proxies.remove(&(bridge.clone(), address));
        }
        // The bridge need not ask for what is known, and is never told otherwise.
        for address in &endpoint.addresses {
            let neighbour = (Place::Overlay, bridge.clone(), address.addr());
            state.neighbours.insert(neighbour, endpoint.mac);
        }
        let sandbox = Sandbox {
            link: id.sandbox_link(),
            mac: endpoint.mac,
        };
        let port = Port {
            bridge,
            mtu: endpoint.mtu,
            sandbox: Some(sandbox),
        };
        state.links.insert(id.port_link(), Link::Port(port));
    }
}
