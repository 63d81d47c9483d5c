//! A small cluster, as the tests of this crate see it: two hosts, a clear network and an encrypted one.

use std::collections::{BTreeMap, BTreeSet};

use drover_ipsec::{Association, Direction, Epoch, KeyMaterial, Lane, Spi, Tag};
use drover_model::{Block, Encapsulation, Encryption, EndpointId, HostIndex, Mtu, NetworkId, Pool};
use zeroize::Zeroizing;

use crate::desired::{
    BlockHolder, Desired, Endpoint, IpsecPath, Network, NetworkPool, Peer, RemoteBlock, ThisHost,
    UdpPorts,
};

fn index(number: u16) -> HostIndex {
    HostIndex::try_from(number).unwrap()
}

fn digits(digit: &str) -> String {
    digit.repeat(64)
}

/// The epoch of two generations.
pub(crate) fn epoch(own: u64, peer: u64) -> Epoch {
    Epoch {
        own: Tag::of(own),
        peer: Tag::of(peer),
    }
}

/// The associations of an epoch of this host, 1, with the peer, 2.
pub(crate) fn associations(epoch: Epoch, lanes: u8) -> Vec<Association> {
    let mut associations = Vec::new();
    for direction in [Direction::Receive, Direction::Send] {
        for lane in Lane::first(lanes) {
            let spi = match direction {
                Direction::Receive => Spi::new(index(2), lane, epoch.peer, epoch.own),
                Direction::Send => Spi::new(index(1), lane, epoch.own, epoch.peer),
            };
            let mut key = Zeroizing::new([0; KeyMaterial::LENGTH]);
            key[..4].copy_from_slice(&spi.get().to_be_bytes());
            associations.push(Association {
                spi,
                direction,
                lane,
                epoch,
                key: Some(KeyMaterial::new(key)),
            });
        }
    }
    associations
}

fn network(pools: &[&str], encryption: Encryption, mtu: Mtu) -> Network {
    let pools = pools.iter().map(|pool| NetworkPool {
        pool: pool.parse().unwrap(),
        gateway: None,
    });
    Network {
        pools: pools.collect(),
        encryption,
        mtu,
    }
}

fn held(block: &str, pool: &str, owner: &BlockHolder, claim: Option<&str>) -> (Block, RemoteBlock) {
    let peer = BlockHolder::Peer("two".parse().unwrap());
    let held = RemoteBlock {
        pool: pool.parse::<Pool>().unwrap(),
        owner: owner.clone(),
        claims: claim
            .into_iter()
            .map(|address| (address.parse().unwrap(), peer.clone()))
            .collect(),
    };
    (Block::new(block.parse().unwrap()), held)
}

/// The cluster.
pub(crate) fn small() -> Desired {
    let [clear, encrypted]: [NetworkId; 2] = ["a", "c"].map(|it| digits(it).parse().unwrap());
    let endpoint: EndpointId = digits("b").parse().unwrap();
    let peer = BlockHolder::Peer("two".parse().unwrap());
    let inside = Mtu::ETHERNET.inside(Encapsulation::Ipsec, false);
    let path = IpsecPath {
        lanes: 2,
        udp: Some(UdpPorts {
            source: 4500,
            destination: 4600,
        }),
        associations: associations(epoch(1, 1), 2),
        send: Some(epoch(1, 1)),
        candidate: None,
        mtu: None,
        ways: BTreeMap::new(),
        trials: BTreeMap::new(),
    };
    Desired {
        host: Some(ThisHost {
            index: index(1),
            advertise: "192.0.2.1".parse().unwrap(),
            underlay: Some("eth0".to_owned()),
            vxlan_port: 4787,
            encrypts: true,
            checks_sources: true,
        }),
        networks: BTreeMap::from([
            (
                clear.clone(),
                network(&["10.42.0.0/16"], Encryption::Off, Mtu::ETHERNET),
            ),
            (
                encrypted,
                network(&["10.43.0.0/16", "fd00:43::/64"], Encryption::Ipsec, inside),
            ),
        ]),
        endpoints: BTreeMap::from([(
            endpoint,
            Endpoint {
                network: clear,
                mac: "02:42:0a:2a:01:05".parse().unwrap(),
                addresses: BTreeSet::from(["10.42.1.5/24".parse().unwrap()]),
                mtu: Mtu::ETHERNET,
            },
        )]),
        peers: BTreeMap::from([(
            "two".parse().unwrap(),
            Peer {
                index: index(2),
                advertise: "192.0.2.2".parse().unwrap(),
                encapsulation: Encapsulation::Direct,
                underlay_mtu: Mtu::ETHERNET,
                watched: true,
                standby: false,
                ipsec: Some(path),
            },
        )]),
        blocks: BTreeMap::from([
            // The claim is inside the peer's own block: it must not be an element of its own.
            held("10.42.2.0/24", "10.42.0.0/16", &peer, Some("10.42.2.9")),
            held(
                "10.42.1.0/24",
                "10.42.0.0/16",
                &BlockHolder::Here,
                Some("10.42.1.77"),
            ),
            held("10.43.2.0/24", "10.43.0.0/16", &peer, None),
            held("fd00:43::2:0/112", "fd00:43::/64", &peer, None),
            held(
                "10.43.1.0/24",
                "10.43.0.0/16",
                &BlockHolder::Here,
                Some("10.43.1.77"),
            ),
        ]),
    }
}
