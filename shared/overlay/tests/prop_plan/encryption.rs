//! Encrypted paths at random, and what is remembered of keys.

use std::collections::BTreeSet;

use drover_ipsec::{Association, Direction, Epoch, KeyMaterial, Lane, Spi, Tag};
use drover_model::HostIndex;
use drover_overlay::{IpsecPath, PolicyKey, State, Step, UdpPorts, simulate};
use proptest::prelude::*;
use zeroize::Zeroizing;

/// What an encrypted path is made of: epochs by the numbers of their generations, some of which lack a lane, and
/// which of them are sent by and tried.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    lanes: u8,
    udp: bool,
    epochs: BTreeSet<(u8, u8)>,
    lacking: BTreeSet<(u8, u8)>,
    send: Option<(u8, u8)>,
    candidate: Option<(u8, u8)>,
    mtu: Option<u16>,
}

prop_compose! {
    pub(crate) fn some_path()(
        lanes in 1_u8..4,
        udp in proptest::bool::weighted(0.8),
        epochs in proptest::collection::btree_set((0_u8..3, 0_u8..2), 0..5),
        lacking in proptest::collection::btree_set((0_u8..3, 0_u8..2), 0..2),
        send in proptest::option::weighted(0.8, (0_u8..3, 0_u8..2)),
        candidate in proptest::option::of((0_u8..3, 0_u8..2)),
        mtu in proptest::option::of(576_u16..1438),
    ) -> Path {
        Path { lanes, udp, epochs, lacking, send, candidate, mtu }
    }
}

fn epoch((own, peer): (u8, u8)) -> Epoch {
    Epoch {
        own: Tag::of(own.into()),
        peer: Tag::of(peer.into()),
    }
}

/// A peer that was found elsewhere.
fn detours(path: &Path) -> std::collections::BTreeMap<Lane, drover_overlay::Way> {
    let elsewhere = drover_overlay::Way {
        local: std::net::IpAddr::from([192, 0, 2, 1]),
        remote: std::net::IpAddr::from([198, 51, 100, 2]),
        port: 31000,
    };
    let moved = Lane::first(path.lanes).filter(|lane| lane.get() % 2 == 1);
    moved.map(|lane| (lane, elsewhere)).collect()
}

/// The path from host 1 to a peer.
pub(crate) fn path(path: &Path, peer: HostIndex) -> IpsecPath {
    let own = HostIndex::try_from(1).unwrap();
    let mut associations = Vec::new();
    for number in &path.epochs {
        let epoch = epoch(*number);
        let lanes = path.lanes - u8::from(path.lacking.contains(number));
        for lane in Lane::first(lanes) {
            for direction in [Direction::Receive, Direction::Send] {
                let spi = match direction {
                    Direction::Receive => Spi::new(peer, lane, epoch.peer, epoch.own),
                    Direction::Send => Spi::new(own, lane, epoch.own, epoch.peer),
                };
                let key = Zeroizing::new([peer.get().to_be_bytes()[1]; KeyMaterial::LENGTH]);
                associations.push(Association {
                    spi,
                    direction,
                    lane,
                    epoch,
                    key: Some(KeyMaterial::new(key)),
                });
            }
        }
    }
    IpsecPath {
        lanes: path.lanes,
        udp: path.udp.then_some(UdpPorts {
            source: 4500,
            destination: 4600,
        }),
        associations,
        send: path.send.map(epoch),
        candidate: path.candidate.map(epoch),
        mtu: path.mtu.and_then(drover_model::Mtu::new),
        ways: detours(path),
        trials: std::collections::BTreeMap::new(),
    }
}

/// A kernel, and what the exchange remembers: the associations that were made, by interface and index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) made: BTreeSet<(u32, Spi)>,
}

impl World {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            made: BTreeSet::new(),
        }
    }

    /// Takes a step.
    pub(crate) fn take(&mut self, step: &Step) {
        if let Step::AddAssociation { id, association } = step {
            assert!(association.key.is_some(), "made without a key: {step}");
            let first = self.made.insert((association.if_id, id.spi));
            assert!(first, "made twice: {step}");
        }
        simulate(&mut self.state, step);
    }

    /// What is desired, with the keys that are still to be used.
    pub(crate) fn without_used_keys(&self, desired: &State) -> State {
        let mut desired = desired.clone();
        for (id, association) in &mut desired.associations {
            if self.made.contains(&(association.if_id, id.spi)) {
                association.key = None;
            }
        }
        desired
    }
}

/// The policies that name an association that is there.
pub(crate) fn sending(state: &State) -> BTreeSet<PolicyKey> {
    let named = state.policies.iter().filter(|(_, template)| {
        template.spi.is_some_and(|spi| {
            let id = drover_overlay::AssociationId {
                spi,
                destination: template.remote,
            };
            state.associations.contains_key(&id)
        })
    });
    named.map(|(key, _)| *key).collect()
}
