//! Properties of plans: they converge, from any state and from any part of a plan, and leave alone
//! what is not ours.
#![cfg(test)]

#[path = "prop_plan/encryption.rs"]
mod encryption;

use std::collections::{BTreeMap, BTreeSet};

use drover_model::{
    Block, Encapsulation, Encryption, EndpointId, HostIndex, MacAddress, Mtu, NetworkId, Pool,
};
use drover_overlay::{
    BlockHolder, Bridge, Desired, Endpoint, Link, Network, NetworkPool, Peer, RemoteBlock, State,
    Step, ThisHost, lower, plan,
};
use encryption::{Path, World, path, sending, some_path};
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

fn peer(number: u8, encapsulation: u8, moved: bool, encrypted: Option<&Path>) -> Peer {
    let index = HostIndex::try_from(u16::from(number)).unwrap();
    let address = if moved { 100 + number } else { number };
    Peer {
        index,
        advertise: format!("192.0.2.{address}").parse().unwrap(),
        encapsulation: match encapsulation {
            0 => Encapsulation::Direct,
            1 => Encapsulation::Vxlan,
            _ => Encapsulation::Ipsec,
        },
        underlay_mtu: Mtu::ETHERNET,
        watched: encapsulation.is_multiple_of(2),
        standby: number.is_multiple_of(3),
        ipsec: encrypted.map(|it| path(it, index)),
    }
}

prop_compose! {
    fn some_desired()(
        underlay in proptest::option::of(Just("eth0".to_owned())),
        known in any::<bool>(),
        networks in proptest::collection::btree_map(0_u8..4, (any::<bool>(), 1300_u16..1500, any::<bool>()), 0..4),
        endpoints in proptest::collection::btree_map(0_u8..20, (0_u8..4, 0_u8..6, any::<bool>()), 0..8),
        encrypts in proptest::bool::weighted(0.8),
        peers in proptest::collection::btree_map(2_u8..6,
            (0_u8..3, proptest::bool::weighted(0.1), proptest::option::weighted(0.8, some_path())), 0..4),
        blocks in proptest::collection::btree_map((0_u8..4, 0_u8..6, any::<bool>()), (0_u8..6, proptest::option::of((2_u8..250, 0_u8..6))), 0..12),
    ) -> Desired {
        let host = known.then(|| ThisHost {
            index: HostIndex::try_from(1).unwrap(),
            advertise: "192.0.2.1".parse().unwrap(),
            underlay,
            vxlan_port: 4787,
            encrypts,
            checks_sources: encrypts,
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
            peers: peers.into_iter().map(|(number, (encapsulation, moved, encrypted))| {
                let peer = peer(number, encapsulation, moved, encrypted.as_ref());
                (format!("host{number}").parse().unwrap(), peer)
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

fn carry_out(desired: &State, mut world: World, steps: usize) -> World {
    let plan = plan(&world.without_used_keys(desired), &world.state);
    plan.steps
        .iter()
        .take(steps)
        .for_each(|step| world.take(step));
    world
}

/// A world that some state was planned for.
fn began(before: &Desired) -> World {
    carry_out(&lower(before), World::new(foreign()), usize::MAX)
}

proptest! {
    #[test]
    fn a_plan_converges_from_any_earlier_state(before in some_desired(), after in some_desired()) {
        let began = began(&before);
        let desired = lower(&after);
        let world = carry_out(&desired, began.clone(), usize::MAX);
        let again = plan(&world.without_used_keys(&desired), &world.state);
        prop_assert!(again.is_empty(), "a second plan:\n{}", again);
        let state = world.state;
        prop_assert!(state.links.contains_key("br-lan"));
        prop_assert_eq!(&state.addresses, &desired.addresses);
        prop_assert_eq!(&state.routes, &desired.routes);
        prop_assert_eq!(&state.neighbours, &desired.neighbours);
        prop_assert_eq!(&state.tables, &desired.tables);
        prop_assert_eq!(&state.policies, &desired.policies);
        prop_assert_eq!(state.links.len(), desired.links.len() + 1);
        for (id, seen) in &state.associations {
            prop_assert!(seen.is_as(desired.associations.get(id).unwrap()), "{} {}", id, seen);
        }
        for (id, wanted) in &desired.associations {
            let was = began.made.contains(&(wanted.if_id, id.spi));
            prop_assert!(was || state.associations.contains_key(id), "{} {}", id, wanted);
        }
    }

    #[test]
    fn any_part_of_a_plan_leads_to_the_same_end(
        before in some_desired(), after in some_desired(), steps in 0_usize..120
    ) {
        let began = began(&before);
        let desired = lower(&after);
        let whole = carry_out(&desired, began.clone(), usize::MAX);
        let part = carry_out(&desired, began, steps);
        prop_assert_eq!(carry_out(&desired, part, usize::MAX), whole);
    }

    #[test]
    fn what_was_sent_by_before_and_after_is_sent_by_all_the_time(
        before in some_desired(), after in some_desired()
    ) {
        let began = began(&before);
        let desired = lower(&after);
        let after = carry_out(&desired, began.clone(), usize::MAX);
        let both = &sending(&began.state) & &sending(&after.state);
        let mut world = began;
        for step in &plan(&world.without_used_keys(&desired), &world.state).steps {
            world.take(step);
            let now = sending(&world.state);
            prop_assert!(both.is_subset(&now), "after: {}", step);
        }
    }

    #[test]
    fn a_key_is_used_once_whatever_is_desired_done_and_lost(
        turns in proptest::collection::vec((some_desired(), 0_usize..120, any::<u64>()), 1..6)
    ) {
        let mut world = World::new(foreign());
        for (desired, steps, lost) in turns {
            // `World::take` looks.
            world = carry_out(&lower(&desired), world, steps);
            let mut number = 0_u32;
            world.state.associations.retain(|_, _| {
                number += 1;
                lost >> (number % 64) & 3 != 0
            });
        }
    }

    #[test]
    fn what_is_there_is_not_made_though_its_key_is_given(
        before in some_desired(), after in some_desired()
    ) {
        let state = began(&before).state;
        let there: BTreeSet<_> = state.associations.iter().map(|(id, it)| (it.if_id, id.spi)).collect();
        for step in &plan(&lower(&after), &state).steps {
            if let Step::AddAssociation { id, association } = step {
                prop_assert!(!there.contains(&(association.if_id, id.spi)), "{}", step);
            }
        }
    }

    #[test]
    fn no_step_needs_what_a_later_one_makes(before in some_desired(), after in some_desired()) {
        let mut world = began(&before);
        let desired = lower(&after);
        for step in &plan(&world.without_used_keys(&desired), &world.state).steps {
            let device = match step {
                Step::AddAddress { device, .. } | Step::AddProxy { device, .. } => Some(device.as_str()),
                Step::SetNeighbour { device, .. } if device != "dvr-root" => Some(device.as_str()),
                Step::SetRoute { target, .. } => target.device(),
                Step::CreateLink { link: Link::Port(port), .. } => Some(port.bridge.as_str()),
                _ => None,
            };
            prop_assert!(device.is_none_or(|device| world.state.links.contains_key(device)), "{}", step);
            world.take(step);
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
            let device = target.device().unwrap_or_default();
            prop_assert!(!(encrypted && device.starts_with("dv")), "{} {}", prefix, target);
            let probe = prefix.addr().to_string().starts_with("169.254.");
            prop_assert!(encrypted || probe || !device.starts_with("dip"), "{} {}", prefix, target);
        }
    }
}
