//! What keeps encrypted networks from travelling in clear, whatever routes say, and what spreads their flows over
//! lanes.

use std::collections::BTreeMap;

use drover_model::{Encryption, Family};

use super::{Chain, ERRORS4, ERRORS6, intervals, lines, named};
use crate::desired::Desired;
use crate::name;
use crate::state::Set;

/// The counter of [`sources`].
pub(super) const FOREIGN: &str = "counter foreign { }";

/// The sets and counters of [`guards`].
pub(super) const DECLARATIONS: [&str; 4] = [
    "set encrypted4 { type ipv4_addr; flags interval; }",
    "set encrypted6 { type ipv6_addr; flags interval; }",
    "counter clear_in { }",
    "counter clear_out { }",
];

/// The pools of encrypted networks.
pub(super) fn pools(desired: &Desired) -> BTreeMap<String, Set> {
    let of = |family| {
        let encrypted = desired
            .networks
            .values()
            .filter(|network| network.encryption == Encryption::Ipsec);
        let pools = encrypted.flat_map(|network| &network.pools);
        let pools = pools.filter(|pool| pool.pool.family() == family);
        intervals(pools.map(|pool| pool.pool.prefix()).collect())
    };
    named([
        ("encrypted4", of(Family::V4)),
        ("encrypted6", of(Family::V6)),
    ])
}

/// The chains that drop and count packets from and to encrypted pools that arrive or leave in clear, before
/// anybody else could change their addresses.
pub(super) fn guards(arrives: &str, leaves: &str) -> [Chain<'static>; 4] {
    let drops = |name: &'static str| {
        let ends = [
            "ip saddr @encrypted4",
            "ip daddr @encrypted4",
            "ip6 saddr @encrypted6",
            "ip6 daddr @encrypted6",
        ];
        let rules = ends.map(|end| format!("{end} counter name {name} drop"));
        Chain {
            name,
            hook: None,
            rules: rules.to_vec(),
        }
    };
    let asks = |name: &'static str, hook: &str, clear: &str, verdict: &str| Chain {
        name,
        hook: Some(format!(
            "type filter hook {hook} priority -350; policy accept;"
        )),
        rules: vec![format!("{clear} {verdict}").trim().to_owned()],
    };
    [
        drops("clear_in"),
        asks("arriving", "prerouting", arrives, "jump clear_in"),
        drops("clear_out"),
        asks("leaving", "postrouting", leaves, "jump clear_out"),
    ]
}

/// The chains that drop and count what a peer sends, by its encrypted path or by VXLAN, from an address that is not of a
/// block of its own: one whose route leads elsewhere, as the kernel's own filter has it (RFC 3704, strict), which neither
/// counts where anybody looks nor knows IPv6. Errors come from routers on the way, and link-local addresses are the peer's.
/// The direct path is one device for all peers, and has rules of its own.
pub(super) fn sources(desired: &Desired) -> Vec<Chain<'static>> {
    let host = desired.host.as_ref();
    if host.is_none_or(|host| !host.checks_sources) {
        return Vec::new();
    }
    vec![
        Chain {
            name: "from_peer",
            hook: None,
            rules: vec![
                format!("icmp type {ERRORS4} return"),
                format!("icmpv6 type {ERRORS6} return"),
                "ip6 saddr fe80::/10 return".to_owned(),
                "fib saddr . iif oif missing counter name foreign drop".to_owned(),
            ],
        },
        Chain {
            name: "sources",
            hook: Some("type filter hook prerouting priority -340; policy accept;".to_owned()),
            rules: lines(&["iifname { \"dip*\", \"dvx*\" } jump from_peer"]),
        },
    ]
}

/// [`guards`] for the root namespace. An encrypted network has no packet there but what an XFRM interface is about to
/// encrypt; what it has decrypted is in the `drover` namespace at once. The kernel of a host that does
/// not encrypt may not know the question.
pub(super) fn root_guards(desired: &Desired) -> [Chain<'static>; 4] {
    if desired.host.as_ref().is_some_and(|host| host.encrypts) {
        guards("meta ipsec missing", "rt ipsec missing")
    } else {
        guards("", "")
    }
}

/// The chains that mark each forwarded packet for a peer with the number of its flow, modulo the smallest mark that
/// has another meaning; policies give every mark a lane. Packets of one flow stay in order, so what
/// has no ports, and every fragment, has mark 0. The seed is written down, so that flows stay where they are
/// when the table is written anew. What this host sends itself has the mark of its socket.
///
/// There are none while nobody has two lanes.
pub(super) fn lanes(desired: &Desired) -> Vec<Chain<'static>> {
    let mut paths = desired
        .peers
        .values()
        .filter_map(|peer| desired.ipsec(peer));
    if !paths.any(|path| path.lanes > 1) {
        return Vec::new();
    }
    let spread = |whole: &str, ip: &str| {
        format!(
            "{whole} meta l4proto {{ tcp, udp }} meta mark set jhash {ip} saddr . {ip} daddr . th sport . th dport mod {} seed 0x64726f76",
            name::CANDIDATE_MARK,
        )
    };
    let mut rules = lines(&["meta mark set 0"]);
    rules.push(spread("ip frag-off & 0x3fff == 0", "ip"));
    rules.push(spread("exthdr frag missing", "ip6"));
    vec![
        Chain {
            name: "lane",
            hook: None,
            rules,
        },
        Chain {
            name: "lanes",
            hook: Some("type filter hook forward priority 10; policy accept;".to_owned()),
            rules: lines(&["oifname \"dip*\" jump lane"]),
        },
    ]
}
