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
