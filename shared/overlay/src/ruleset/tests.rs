//! What the tables say for a small cluster; the text is kept in `tests/golden`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::desired::{Network, NetworkPool, Peer, RemoteBlock};
use drover_model::{Block, EndpointId, HostIndex, Mtu, NetworkId};

fn small() -> Desired {
    let network: NetworkId = "a".repeat(64).parse().unwrap();
    let endpoint: EndpointId = "b".repeat(64).parse().unwrap();
    let pool = "10.42.0.0/16".parse().unwrap();
    let index = |number: u16| HostIndex::try_from(number).unwrap();
    let peer = BlockHolder::Peer("two".parse().unwrap());
    Desired {
        host: Some(ThisHost {
            index: index(1),
            advertise: "192.0.2.1".parse().unwrap(),
            underlay: Some("eth0".to_owned()),
            vxlan_port: 4787,
            encrypts: false,
        }),
        networks: BTreeMap::from([(
            network.clone(),
            Network {
                pools: vec![NetworkPool {
                    pool,
                    gateway: "10.42.0.1".parse().ok(),
                }],
                encryption: Encryption::Off,
                mtu: Mtu::ETHERNET,
            },
        )]),
        endpoints: BTreeMap::from([(
            endpoint,
            Endpoint {
                network,
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
                ipsec: None,
            },
        )]),
        blocks: BTreeMap::from([
            (
                Block::new("10.42.2.0/24".parse().unwrap()),
                RemoteBlock {
                    pool,
                    owner: peer.clone(),
                    // Inside the peer's own block: it must not be an element of its own.
                    claims: BTreeMap::from([("10.42.2.9".parse().unwrap(), peer.clone())]),
                },
            ),
            (
                Block::new("10.42.1.0/24".parse().unwrap()),
                RemoteBlock {
                    pool,
                    owner: BlockHolder::Here,
                    claims: BTreeMap::from([("10.42.1.77".parse().unwrap(), peer)]),
                },
            ),
        ]),
    }
}

fn printed(tables: &BTreeMap<TableName, Table>) -> String {
    let mut text = String::new();
    for (name, table) in tables {
        text.push_str(&format!(
            "{} table {name} {{\n{}}}\n",
            name.place, table.body
        ));
        for (set, elements) in &table.sets {
            let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
            text.push_str(&format!("{set}: {}\n", elements.join(", ")));
        }
    }
    text
}

#[test]
fn the_tables_are_as_written_down() {
    let text = printed(&tables(&small()));
    assert_eq!(
        text,
        include_str!("../../tests/golden/tables.txt"),
        "\n{text}"
    );
}

#[test]
fn a_new_container_changes_elements_and_no_rules() {
    let with = tables(&small());
    let without = tables(&Desired {
        endpoints: BTreeMap::new(),
        ..small()
    });
    for (name, table) in &with {
        assert_eq!(table.digest, without.get(name).unwrap().digest, "{name}");
    }
}

#[test]
fn intervals_never_overlap() {
    let of = |texts: &[&str]| {
        intervals(texts.iter().map(|text| text.parse().unwrap()).collect())
            .into_iter()
            .map(|element| element.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(&["10.0.1.9/32", "10.0.0.0/16", "10.0.1.0/24"]),
        ["10.0.0.0/16"]
    );
    assert_eq!(
        of(&["10.0.1.9/32", "10.0.2.0/24"]),
        ["10.0.1.9", "10.0.2.0/24"]
    );
}
