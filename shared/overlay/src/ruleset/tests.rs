//! What the tables say for a small cluster; the text is kept in `tests/golden`.

use std::collections::BTreeMap;

use super::*;
use crate::example::small;

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
fn a_host_without_a_cluster_or_without_encryption_lets_nothing_of_encrypted_networks_through() {
    let alone = Desired {
        host: None,
        peers: BTreeMap::new(),
        ..small()
    };
    let mut helpless = small();
    helpless.host.as_mut().unwrap().encrypts = false;
    for desired in [alone, helpless] {
        let tables = tables(&desired);
        let root = TableName {
            place: Place::Root,
            family: TableFamily::Inet,
        };
        let root = tables.get(&root).unwrap();
        let asked = |verdict: &str| format!("policy accept;\n\t\t{verdict}\n");
        assert!(root.body.contains(&asked("jump clear_in")), "{}", root.body);
        assert!(
            root.body.contains(&asked("jump clear_out")),
            "{}",
            root.body
        );
        assert_eq!(root.sets["encrypted4"].len(), 1);
        assert!(!printed(&tables).contains("jhash"));
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

#[test]
fn a_peer_that_is_elsewhere_changes_elements_and_no_rules() {
    let root = TableName {
        place: Place::Root,
        family: TableFamily::Inet,
    };
    let before = tables(&small());
    let mut desired = small();
    let way = |last: u8, port| crate::way::Way {
        local: "192.0.2.1".parse().unwrap(),
        remote: IpAddr::from([198, 51, 100, last]),
        port,
    };
    let [first, second] = [0, 1].map(|lane| drover_ipsec::Lane::new(lane).unwrap());
    for peer in desired.peers.values_mut() {
        let path = peer.ipsec.as_mut().unwrap();
        path.ways.insert(first, way(2, 31000));
        path.trials.insert(first, way(3, 4600));
        path.ways.insert(second, way(2, 31001));
    }
    let after = tables(&desired);
    assert_eq!(before[&root].digest, after[&root].digest);
    let elements = |set: &str| {
        let elements = after[&root].sets[set].iter();
        elements.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        elements("way_port"),
        ["192.0.2.2 . 4500 : 31000", "192.0.2.2 . 4501 : 31001"]
    );
    assert_eq!(
        elements("trial_to"),
        [
            "192.0.2.2 . 4500 : 198.51.100.3",
            "192.0.2.2 . 4501 : 198.51.100.2"
        ],
        "what is not tried goes as ever"
    );
    assert!(before[&root].sets["way_from"].is_empty());
}
