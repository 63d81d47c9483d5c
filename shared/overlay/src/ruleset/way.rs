//! Packets to a peer that is not where it says, or that tries another way: after they were encrypted, addresses and
//! port of the outer packet are changed, and the kernel looks for a route again. Associations know nothing of it, so none is ever made
//! anew because somebody has moved.
//!
//! The lane is told by the port that packets leave from, which stays what it is.

use std::collections::BTreeMap;

use drover_ipsec::Lane;

use super::{Chain, named};
use crate::desired::{Desired, IpsecPath, UdpPorts};
use crate::name;
use crate::state::{Element, Set};
use crate::way::Way;

/// The maps of ways that are taken, and of those that are tried.
const MAPS: [&str; 2] = ["way", "trial"];

/// What the table of the root namespace has for it, and nothing while no peer takes UDP.
pub(super) struct Rules {
    pub(super) declarations: Vec<String>,
    pub(super) chains: Vec<Chain<'static>>,
    pub(super) sets: BTreeMap<String, Set>,
}

pub(super) fn rules(desired: &Desired) -> Option<Rules> {
    let six = desired.host.as_ref()?.advertise.is_ipv6();
    let mut paths = desired
        .peers
        .values()
        .filter_map(|peer| desired.ipsec(peer)?.udp);
    let first = paths.next()?.source;
    let last = first.saturating_add(u16::from(Lane::MAX) - 1);
    let (ip, family) = if six {
        ("ip6", "ipv6_addr")
    } else {
        ("ip", "ipv4_addr")
    };
    let declarations = MAPS.iter().flat_map(|map| {
        [("port", "inet_service"), ("from", family), ("to", family)].map(|(part, data)| {
            format!("map {map}_{part} {{ type {family} . inet_service : {data}; }}")
        })
    });
    // Whoever writes a port mends the checksum, also that of ESP in UDP over IPv4, which is 0 for none (RFC 3948, section 2.1): it
    // would be a wrong one then, and a NAT that looks at it drops the packet.
    let checksum = if six { "" } else { " udp checksum set 0" };
    let change = |map: &'static str| {
        let key = format!("{ip} daddr . udp sport map @{map}");
        Chain {
            name: map,
            hook: None,
            rules: vec![
                format!("udp dport set {key}_port{checksum}"),
                format!("{ip} saddr set {key}_from"),
                // The last, as it is part of the key.
                format!("{ip} daddr set {key}_to"),
            ],
        }
    };
    let choose = Chain {
        name: "ways",
        // Before connections are tracked.
        hook: Some("type route hook output priority -310; policy accept;".to_owned()),
        rules: vec![
            format!(
                "udp sport {first}-{last} meta priority {} goto trial",
                name::TRIAL_PRIORITY_TEXT
            ),
            format!("udp sport {first}-{last} goto way"),
        ],
    };
    Some(Rules {
        declarations: declarations.collect(),
        chains: vec![change("way"), change("trial"), choose],
        sets: sets(desired),
    })
}

/// What has no trial is tried by the way that is taken.
fn sets(desired: &Desired) -> BTreeMap<String, Set> {
    let [mut port, mut from, mut to] = [Set::new(), Set::new(), Set::new()];
    let [mut trial_port, mut trial_from, mut trial_to] = [Set::new(), Set::new(), Set::new()];
    let add = |sets: [&mut Set; 3], key: &str, way: &Way| {
        let data = [
            way.port.to_string(),
            way.local.to_string(),
            way.remote.to_string(),
        ];
        for (set, data) in sets.into_iter().zip(data) {
            set.insert(Element {
                key: key.to_owned(),
                data: Some(data),
            });
        }
    };
    for peer in desired.peers.values() {
        let Some((path, udp)) = desired.ipsec(peer).and_then(|path| Some((path, path.udp?))) else {
            continue;
        };
        for lane in Lane::first(path.lanes) {
            let key = format!("{} . {}", peer.advertise, source(udp, lane));
            let taken = path.ways.get(&lane);
            if let Some(way) = taken {
                add([&mut port, &mut from, &mut to], &key, way);
            }
            if let Some(way) = path.trials.get(&lane).or(taken) {
                add([&mut trial_port, &mut trial_from, &mut trial_to], &key, way);
            }
        }
    }
    named([
        ("way_port", port),
        ("way_from", from),
        ("way_to", to),
        ("trial_port", trial_port),
        ("trial_from", trial_from),
        ("trial_to", trial_to),
    ])
}

fn source(udp: UdpPorts, lane: Lane) -> u16 {
    udp.source.saturating_add(lane.get().into())
}

/// What this host answers to a trial goes by the way that it tries itself: where both try another way since the present
/// one is broken, each one's answer would be lost else. None while no peer takes UDP.
pub(super) fn answers(desired: &Desired) -> Option<Chain<'static>> {
    let mut paths = desired.peers.values().filter_map(|it| desired.ipsec(it));
    paths.any(takes_udp).then(|| Chain {
        name: "answers",
        hook: Some("type filter hook output priority 0; policy accept;".to_owned()),
        rules: vec![format!(
            "oifname \"dip*\" icmp type echo-reply ip dscp {:#x} meta priority set {}",
            name::TRIAL_SERVICE >> 2,
            name::TRIAL_PRIORITY_TEXT,
        )],
    })
}

const fn takes_udp(path: &IpsecPath) -> bool {
    path.udp.is_some()
}
