//! Properties of plans: they converge, from any state and from any part of a plan, and leave alone
//! what is not ours.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use drover_model::{
    Block, Encapsulation, Encryption, EndpointId, HostIndex, MacAddress, Mtu, NetworkId, Pool,
};
use drover_overlay::{
    BlockHolder, Bridge, Desired, Endpoint, Link, Network, NetworkPool, Peer, RemoteBlock, State,
    ThisHost, lower, plan, simulate,
};
use proptest::prelude::*;

fn pool(number: u8, six: bool) -> Pool {
    let text = if six {
        format!("fd00:{number:x}::/64")
    } else {
        format!("10.{number}.0.0/16")
    };
    text.parse().unwrap()
}

fn block(number: u8, part: u8, six: bool) -> Block {
    let text = if six {
        format!("fd00:{number:x}::{part:x}:0/112")
    } else {
        format!("10.{number}.{part}.0/24")
    };
    Block::new(text.parse().unwrap())
}

fn network_id(number: u8) -> NetworkId {
    format!("{:0>64}", format!("{number:02x}{}", "c".repeat(50)))
        .parse()
        .unwrap()
}

fn network(number: u8, six: bool, mtu: u16, encrypted: bool) -> Network {
    let of = |six| NetworkPool {
        pool: pool(number, six),
        gateway: None,
    };
    let mut pools = vec![of(false)];
    pools.extend(six.then(|| of(true)));
    let encryption = if encrypted {
        Encryption::Ipsec
    } else {
        Encryption::Off
    };
    Network {
        pools,
        encryption,
        mtu: Mtu::new(mtu).unwrap(),
    }
}

fn endpoint(number: u8, net: u8, part: u8, single: bool) -> (EndpointId, Endpoint) {
    let id = format!("{number:02x}{}", "e".repeat(62)).parse().unwrap();
    let length = if single { 32 } else { 24 };
    let addresses = BTreeSet::from([format!("10.{net}.{part}.{}/{length}", 2 + number % 200)
        .parse()
        .unwrap()]);
    let mac = MacAddress::new([2, 0, 0, 0, 0, number]);
    (
        id,
        Endpoint {
            network: network_id(net),
            mac,
            addresses,
            mtu: Mtu::ETHERNET,
        },
    )
}

fn holder(number: u8) -> BlockHolder {
    match number {
        0 => BlockHolder::Here,
        1 => BlockHolder::Nobody,
        other => BlockHolder::Peer(format!("host{other}").parse().unwrap()),
    }
}

fn peer(number: u8, encapsulation: u8) -> Peer {
    Peer {
        index: HostIndex::try_from(u16::from(number)).unwrap(),
        advertise: format!("192.0.2.{number}").parse().unwrap(),
        encapsulation: match encapsulation {
            0 => Encapsulation::Direct,
            1 => Encapsulation::Vxlan,
            _ => Encapsulation::Ipsec,
        },
        underlay_mtu: Mtu::ETHERNET,
        watched: encapsulation.is_multiple_of(2),
        standby: number.is_multiple_of(3),
        ipsec: None,
    }
}

prop_compose! {
    fn some_desired()(
        underlay in proptest::option::of(Just("eth0".to_owned())),
        known in any::<bool>(),
        networks in proptest::collection::btree_map(0_u8..4, (any::<bool>(), 1300_u16..1500, any::<bool>()), 0..4),
        endpoints in proptest::collection::btree_map(0_u8..20, (0_u8..4, 0_u8..6, any::<bool>()), 0..8),
        peers in proptest::collection::btree_map(2_u8..6, 0_u8..3, 0..4),
        blocks in proptest::collection::btree_map((0_u8..4, 0_u8..6, any::<bool>()), (0_u8..6, proptest::option::of((2_u8..250, 0_u8..6))), 0..12),
    ) -> Desired {
        let host = known.then(|| ThisHost {
            index: HostIndex::try_from(1).unwrap(),
            advertise: "192.0.2.1".parse().unwrap(),
            underlay,
            vxlan_port: 4787,
            encrypts: false,
        });
        let blocks = blocks.into_iter().map(|((net, part, six), (owner, claim))| {
            let text = |last: u8| if six {
                format!("fd00:{net:x}::{part:x}:{last:x}")
            } else {
                format!("10.{net}.{part}.{last}")
            };
            let claims = claim.map(|(last, by)| (text(last).parse().unwrap(), holder(by)));
            let held = RemoteBlock {
                pool: pool(net, six), owner: holder(owner), claims: claims.into_iter().collect(),
            };
            (block(net, part, six), held)
        });
        Desired {
            host,
            networks: networks.into_iter().map(|(number, (six, mtu, encrypted))| {
                (network_id(number), network(number, six, mtu, encrypted))
            }).collect(),
            endpoints: endpoints.into_iter().map(|(number, (net, part, single))| {
                endpoint(number, net, part, single)
            }).collect(),
            peers: peers.into_iter().map(|(number, encapsulation)| {
                (format!("host{number}").parse().unwrap(), peer(number, encapsulation))
            }).collect(),
            blocks: blocks.collect(),
        }
    }
}

/// An empty namespace with something in it that is not ours.
fn foreign() -> State {
    let bridge = Bridge {
        mtu: Mtu::ETHERNET,
        mac: MacAddress::new([2, 9, 9, 9, 9, 9]),
    };
    let sysctls = [
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
    ];
    State {
        links: BTreeMap::from([("br-lan".to_owned(), Link::Bridge(bridge))]),
        sysctls: sysctls
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..State::default()
    }
}

fn carry_out(desired: &State, mut state: State, steps: usize) -> State {
    for step in plan(desired, &state).steps.iter().take(steps) {
        simulate(&mut state, step);
    }
    state
}

proptest! {
    #[test]
    fn a_plan_converges_from_any_earlier_state(before in some_desired(), after in some_desired()) {
        let state = carry_out(&lower(&before), foreign(), usize::MAX);
        let desired = lower(&after);
        let state = carry_out(&desired, state, usize::MAX);
        let again = plan(&desired, &state);
        prop_assert!(again.is_empty(), "a second plan:\n{}", again);
        prop_assert!(state.links.contains_key("br-lan"));
        prop_assert_eq!(&state.addresses, &desired.addresses);
        prop_assert_eq!(&state.routes, &desired.routes);
        prop_assert_eq!(&state.neighbours, &desired.neighbours);
        prop_assert_eq!(&state.tables, &desired.tables);
        prop_assert_eq!(state.links.len(), desired.links.len() + 1);
    }

    #[test]
    fn any_part_of_a_plan_leads_to_the_same_end(
        before in some_desired(), after in some_desired(), steps in 0_usize..60
    ) {
        let state = carry_out(&lower(&before), foreign(), usize::MAX);
        let desired = lower(&after);
        let whole = carry_out(&desired, state.clone(), usize::MAX);
        let part = carry_out(&desired, state, steps);
        prop_assert_eq!(carry_out(&desired, part, usize::MAX), whole);
    }

    #[test]
    fn no_step_needs_what_a_later_one_makes(before in some_desired(), after in some_desired()) {
        let mut state = carry_out(&lower(&before), foreign(), usize::MAX);
        let desired = lower(&after);
        for step in &plan(&desired, &state).steps {
            use drover_overlay::Step;
            let device = match step {
                Step::AddAddress { device, .. } | Step::AddProxy { device, .. } => Some(device.as_str()),
                Step::SetNeighbour { device, .. } if device != "dvr-root" => Some(device.as_str()),
                Step::SetRoute { target, .. } => target.device(),
                Step::CreateLink { link: Link::Port(port), .. } => Some(port.bridge.as_str()),
                _ => None,
            };
            prop_assert!(device.is_none_or(|device| state.links.contains_key(device)), "{}", step);
            simulate(&mut state, step);
        }
    }

    #[test]
    fn an_encrypted_network_never_leaves_in_clear(desired in some_desired()) {
        let state = lower(&desired);
        for (prefix, target) in &state.routes {
            let encrypted = desired.networks.values().any(|network| {
                network.encryption == Encryption::Ipsec
                    && network.pools.iter().any(|pool| pool.pool.contains(prefix.addr()))
            });
            let leaves = target.device().is_some_and(|device| device.starts_with("dv"));
            prop_assert!(!(encrypted && leaves), "{} {}", prefix, target);
        }
    }
}
