//! The nftables tables: which container may send what, which networks may talk, and how direct
//! packets cross the root namespace.
//!
//! Rules are text that depends on nothing but a device name and a family; everything that comes and goes is an
//! element of a set or map, so that a new container changes elements and no rules.
//!
//! | table | where | what for |
//! |---|---|---|
//! | `bridge drover` | `drover` namespace | a port sends only from its own link and network addresses |
//! | `inet drover` | `drover` namespace | packets are routed within one network only, those of encrypted networks never in clear, and of peers from their own addresses alone; lanes |
//! | `netdev drover` | root namespace | direct packets from and to the underlay device |
//! | `inet drover` | root namespace | VXLAN only from known peers; nothing of encrypted networks in clear; ways of encrypted packets |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_model::{Encapsulation, Encryption, Family};
use ipnet::IpNet;

use crate::desired::{BlockHolder, Desired, Endpoint, ThisHost};
use crate::name;
use crate::state::{Element, Place, Set, Table, TableFamily, TableName};

mod encryption;
mod way;

/// What routers on the way answer with.
const ERRORS4: &str = "{ destination-unreachable, time-exceeded, parameter-problem }";
const ERRORS6: &str =
    "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }";

/// The tables that a desired state asks for, with all their elements.
#[must_use]
pub fn tables(desired: &Desired) -> BTreeMap<TableName, Table> {
    let mut tables = BTreeMap::new();
    let mut add = |place, family, table| tables.insert(TableName { place, family }, table);
    add(Place::Overlay, TableFamily::Bridge, senders(desired));
    add(Place::Overlay, TableFamily::Inet, isolation(desired));
    add(Place::Root, TableFamily::Inet, root_filter(desired));
    if let (Some(host), Some(underlay)) = (&desired.host, direct_underlay(desired)) {
        let table = direct(desired, host, underlay);
        add(Place::Root, TableFamily::Netdev, table);
    }
    tables
}

/// The underlay device, if any peer is reached directly.
pub(crate) fn direct_underlay(desired: &Desired) -> Option<&str> {
    let underlay = desired.host.as_ref()?.underlay.as_deref()?;
    let direct = desired.direct_peers().next().is_some();
    direct.then_some(underlay)
}

/// A chain: its name, its hook if it has one, and its rules.
#[derive(Clone)]
struct Chain<'a> {
    name: &'a str,
    hook: Option<String>,
    rules: Vec<String>,
}

fn table(
    declarations: &[impl AsRef<str>],
    chains: &[Chain<'_>],
    sets: BTreeMap<String, Set>,
) -> Table {
    let mut body = String::new();
    for declaration in declarations {
        body.push_str(&format!("\t{}\n", declaration.as_ref()));
    }
    for chain in chains {
        body.push_str(&format!("\tchain {} {{\n", chain.name));
        for line in chain.hook.iter().chain(&chain.rules) {
            body.push_str(&format!("\t\t{line}\n"));
        }
        body.push_str("\t}\n");
    }
    let digest = format!("{:016x}", fnv(body.as_bytes()));
    let rules = chains.iter().map(|chain| chain.rules.len()).sum();
    Table {
        body,
        digest,
        rules,
        sets,
    }
}

/// FNV-1a: a digest that tells one of our rulesets from another; nobody gains by forging it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn lines(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

fn key(fields: &[&str]) -> Element {
    Element {
        key: fields.join(" . "),
        data: None,
    }
}

fn named<const N: usize>(sets: [(&str, Set); N]) -> BTreeMap<String, Set> {
    sets.into_iter()
        .map(|(name, set)| (name.to_owned(), set))
        .collect()
}

/// A prefix as nftables prints it: a bare address when it has full length.
fn written(prefix: IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

fn senders(desired: &Desired) -> Table {
    let rules = [
        // Nearly every packet is one of these, and is looked up once.
        "ether type ip iifname . ether saddr . ip saddr @senders4 accept",
        "iifname . ether saddr != @stations drop",
        "ether type arp iifname . arp saddr ether . arp saddr ip @senders4 accept",
        // Duplicate address detection (RFC 5227) asks with no sender address.
        "ether type arp iifname . arp saddr ether @stations arp saddr ip 0.0.0.0 arp operation request accept",
        "ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop",
        "ether type ip6 iifname . ether saddr . ip6 saddr @senders6 accept",
        // Duplicate address detection (RFC 4862) and the reports that go with it have no source.
        "ether type ip6 ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld2-listener-report } accept",
        "drop",
    ];
    let chains = [
        Chain {
            name: "from_port",
            hook: None,
            rules: lines(&rules),
        },
        Chain {
            name: "prerouting",
            hook: Some("type filter hook prerouting priority -300; policy accept;".to_owned()),
            rules: lines(&["iifname \"ep*\" jump from_port"]),
        },
    ];
    let declarations = [
        "set stations { type ifname . ether_addr; }",
        "set senders4 { type ifname . ether_addr . ipv4_addr; }",
        "set senders6 { type ifname . ether_addr . ipv6_addr; }",
    ];
    let (mut stations, mut senders4, mut senders6) = (Set::new(), Set::new(), Set::new());
    for (id, endpoint) in &desired.endpoints {
        if desired.networks.contains_key(&endpoint.network) {
            let port = id.port_link();
            stations.insert(key(&[&port, &endpoint.mac.to_string()]));
            add_senders(&port, endpoint, [&mut senders4, &mut senders6]);
        }
    }
    let sets = named([
        ("stations", stations),
        ("senders4", senders4),
        ("senders6", senders6),
    ]);
    table(&declarations, &chains, sets)
}

fn add_senders(port: &str, endpoint: &Endpoint, [senders4, senders6]: [&mut Set; 2]) {
    let mac = endpoint.mac.to_string();
    for address in &endpoint.addresses {
        let senders = if address.addr().is_ipv4() {
            &mut *senders4
        } else {
            &mut *senders6
        };
        senders.insert(key(&[port, &mac, &address.addr().to_string()]));
    }
    let link_local = name::link_local(endpoint.mac).to_string();
    senders6.insert(key(&[port, &mac, &link_local]));
}

fn isolation(desired: &Desired) -> Table {
    let from_peers = format!("iifname {{ \"dip*\", \"dvx*\", \"{}\" }}", name::DIRECT);
    let same_network = same_network(desired);
    let allow = |further: &str| {
        let rules = same_network.keys().map(|masks| masks.rule(further));
        rules.collect::<Vec<_>>()
    };
    let mut forward = vec!["tcp flags syn tcp option maxseg size set rt mtu".to_owned()];
    forward.extend(allow("accept"));
    // A router on the way answers from an address of any network it has.
    forward.push(format!("{from_peers} icmp type {ERRORS4} accept"));
    forward.push(format!("{from_peers} icmpv6 type {ERRORS6} accept"));
    let mut input = vec![
        "iifname \"lo\" accept".to_owned(),
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned(),
    ];
    // A network's routers answer its containers, and no other network's.
    input.extend(allow("meta l4proto { icmp, ipv6-icmp } accept"));
    // The hosts' own addresses, by which they probe each other.
    input.push(format!(
        "{from_peers} ip daddr 169.254.0.0/16 meta l4proto icmp accept"
    ));
    input.push(format!(
        "{from_peers} ip6 daddr fe80::/10 meta l4proto ipv6-icmp accept"
    ));
    let mut chains = vec![
        Chain {
            name: "forward",
            hook: Some("type filter hook forward priority 0; policy drop;".to_owned()),
            rules: forward,
        },
        Chain {
            name: "input",
            hook: Some("type filter hook input priority 0; policy drop;".to_owned()),
            rules: input,
        },
    ];
    let clear = format!("{{ \"dvx*\", \"{}\" }}", name::DIRECT);
    chains.extend(encryption::guards(
        &format!("iifname {clear}"),
        &format!("oifname {clear}"),
    ));
    chains.extend(encryption::sources(desired));
    chains.extend(encryption::lanes(desired));
    chains.extend(way::answers(desired));
    let named: Vec<_> = same_network.keys().map(Masks::declaration).collect();
    let mut declarations: Vec<_> = named.iter().map(String::as_str).collect();
    declarations.extend(encryption::DECLARATIONS);
    declarations.push(encryption::FOREIGN);
    let mut sets: BTreeMap<_, _> = same_network
        .into_iter()
        .map(|(masks, pairs)| (masks.set(), pairs))
        .collect();
    sets.extend(encryption::pools(desired));
    table(&declarations, &chains, sets)
}

/// The prefix lengths of two pools of one family. Pairs of networks of the same lengths are one set, which is looked
/// up with both addresses cut to them: a hash, where intervals would be searched for each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Masks {
    family: Family,
    from: u8,
    to: u8,
}

impl Masks {
    fn set(&self) -> String {
        let (_, digit) = self.written();
        format!("same{digit}_{}_{}", self.from, self.to)
    }

    fn declaration(&self) -> String {
        let (_, digit) = self.written();
        let set = self.set();
        format!("set {set} {{ type ipv{digit}_addr . ipv{digit}_addr; }}")
    }

    /// The rule for packets between two such pools of one network.
    fn rule(&self, further: &str) -> String {
        let (ip, _) = self.written();
        let mask = |length: u8| match self.family {
            Family::V4 => IpAddr::from(
                u32::MAX
                    .checked_shl(32 - u32::from(length))
                    .unwrap_or(0)
                    .to_be_bytes(),
            ),
            Family::V6 => IpAddr::from(
                u128::MAX
                    .checked_shl(128 - u32::from(length))
                    .unwrap_or(0)
                    .to_be_bytes(),
            ),
        };
        let (from, to, set) = (mask(self.from), mask(self.to), self.set());
        format!("{ip} saddr & {from} . {ip} daddr & {to} @{set} {further}")
    }

    const fn written(&self) -> (&'static str, u8) {
        match self.family {
            Family::V4 => ("ip", 4),
            Family::V6 => ("ip6", 6),
        }
    }
}

/// Which pools may talk with which.
fn same_network(desired: &Desired) -> BTreeMap<Masks, Set> {
    let mut same: BTreeMap<Masks, Set> = BTreeMap::new();
    for network in desired.networks.values() {
        for from in network.pools.iter().map(|it| it.pool) {
            let others = network.pools.iter().map(|it| it.pool);
            for to in others.filter(|to| to.family() == from.family()) {
                let masks = Masks {
                    family: from.family(),
                    from: from.prefix().prefix_len(),
                    to: to.prefix().prefix_len(),
                };
                let [one, other] = [from, to].map(|pool| pool.prefix().network().to_string());
                same.entry(masks).or_default().insert(key(&[&one, &other]));
            }
        }
    }
    same
}

fn root_filter(desired: &Desired) -> Table {
    let mut chains = encryption::root_guards(desired).to_vec();
    let mut declarations = encryption::DECLARATIONS.map(ToOwned::to_owned).to_vec();
    let mut sets = encryption::pools(desired);
    if let Some(ways) = way::rules(desired) {
        declarations.extend(ways.declarations);
        chains.extend(ways.chains);
        sets.extend(ways.sets);
    }
    if let Some(host) = &desired.host {
        let port = host.vxlan_port;
        chains.push(Chain {
            name: "input",
            hook: Some("type filter hook input priority -10; policy accept;".to_owned()),
            rules: vec![
                format!("udp dport {port} ip saddr != @peers4 drop"),
                format!("udp dport {port} ip6 saddr != @peers6 drop"),
            ],
        });
        declarations.extend([
            "set peers4 { type ipv4_addr; }".to_owned(),
            "set peers6 { type ipv6_addr; }".to_owned(),
        ]);
        let of = |family| {
            let addresses = desired.peers.values().map(|peer| peer.advertise);
            let wanted = addresses.filter(|address| Family::of(*address) == family);
            wanted
                .map(|address| key(&[&address.to_string()]))
                .collect::<Set>()
        };
        sets.extend(named([
            ("peers4", of(Family::V4)),
            ("peers6", of(Family::V6)),
        ]));
    }
    table(&declarations, &chains, sets)
}

fn direct(desired: &Desired, host: &ThisHost, underlay: &str) -> Table {
    let family = Family::of(host.advertise);
    let (ip, address_type) = match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    };
    let hook = |device: &str, policy: &str| {
        format!("type filter hook ingress device \"{device}\" priority -500; policy {policy};")
    };
    let chains = [
        Chain {
            name: "from_overlay",
            hook: Some(hook(name::DIRECT_ROOT, "drop")),
            rules: vec![format!(
                "fwd {ip} to ether daddr map @peers device \"{underlay}\""
            )],
        },
        Chain {
            name: "from_underlay",
            hook: Some(hook(underlay, "accept")),
            rules: vec![format!(
                "{ip} saddr @remote {ip} daddr @local fwd {ip} to {} device \"{}\"",
                name::direct_next_hop(family),
                name::DIRECT_ROOT,
            )],
        },
    ];
    let declarations = [
        format!("map peers {{ type ether_addr : {address_type}; }}"),
        format!("set remote {{ type {address_type}; flags interval; }}"),
        format!("set local {{ type {address_type}; flags interval; }}"),
    ];
    let sets = named([
        ("peers", direct_peers(desired)),
        ("remote", intervals(remote_prefixes(desired, family))),
        ("local", intervals(local_prefixes(desired, host, family))),
    ]);
    table(&declarations, &chains, sets)
}

fn direct_peers(desired: &Desired) -> Set {
    let peers = desired.direct_peers().map(|peer| Element {
        key: name::direct_mac(peer.index).to_string(),
        data: Some(peer.advertise.to_string()),
    });
    peers.collect()
}

fn clear_pools(desired: &Desired, family: Family) -> impl Iterator<Item = drover_model::Pool> {
    let clear = desired
        .networks
        .values()
        .filter(|net| net.encryption == Encryption::Off);
    clear
        .flat_map(|net| &net.pools)
        .map(|pool| pool.pool)
        .filter(move |pool| pool.family() == family)
}

fn remote_prefixes(desired: &Desired, family: Family) -> Vec<IpNet> {
    let is_direct = |holder: &BlockHolder| match holder {
        BlockHolder::Peer(name) => desired
            .peers
            .get(name)
            .is_some_and(|peer| desired.encapsulation(peer, family) == Encapsulation::Direct),
        BlockHolder::Here | BlockHolder::Nobody => false,
    };
    let pools: BTreeSet<_> = clear_pools(desired, family).collect();
    let watched = desired.direct_peers().filter(|peer| peer.watched);
    let mut prefixes: Vec<_> = watched
        .map(|peer| IpNet::from(name::probe(peer.index, family)))
        .collect();
    for (block, held) in desired
        .blocks
        .iter()
        .filter(|(_, held)| pools.contains(&held.pool))
    {
        if is_direct(&held.owner) {
            prefixes.push(block.prefix());
        }
        let claims = held.claims.iter().filter(|(_, holder)| is_direct(holder));
        prefixes.extend(claims.map(|(address, _)| IpNet::from(*address)));
    }
    prefixes
}

fn local_prefixes(desired: &Desired, host: &ThisHost, family: Family) -> Vec<IpNet> {
    let pools: BTreeSet<_> = clear_pools(desired, family).collect();
    let own = desired.own_blocks();
    let blocks = pools.iter().filter_map(|pool| own.get(pool)).flatten();
    let mut prefixes: Vec<_> = blocks.map(|block| block.prefix()).collect();
    let addresses = desired
        .endpoints
        .values()
        .flat_map(|endpoint| &endpoint.addresses);
    let ours = addresses.map(|address| address.addr());
    let ours = ours.filter(|address| pools.iter().any(|pool| pool.contains(*address)));
    prefixes.extend(ours.map(|address: IpAddr| IpNet::from(address)));
    if desired.direct_peers().any(|peer| peer.watched) {
        prefixes.push(IpNet::from(name::probe(host.index, family)));
    }
    prefixes
}

/// Interval elements must not overlap: what another prefix contains is left out.
fn intervals(mut prefixes: Vec<IpNet>) -> Set {
    prefixes.sort_by_key(|prefix| prefix.prefix_len());
    let mut kept: BTreeSet<IpNet> = BTreeSet::new();
    for prefix in prefixes {
        let mut wider = Some(prefix);
        let mut contained = false;
        while let Some(net) = wider {
            contained = contained || kept.contains(&net);
            wider = net.supernet();
        }
        if !contained {
            kept.insert(prefix);
        }
    }
    kept.into_iter()
        .map(|prefix| key(&[&written(prefix)]))
        .collect()
}

#[cfg(test)]
mod tests;
