//! Whatever happens to containers and hosts, in whatever order: what is known is what is there.

use std::collections::BTreeMap;

use drover_control_api::registry::{ContainerRecord, ContainerState, Health, RegistryEvent};
use drover_names::Directory;
use proptest::prelude::*;

use crate::world::{With, container, directory, host, told};

const HOSTS: [&str; 3] = ["a", "b", "c"];

fn health() -> impl Strategy<Value = Option<Health>> {
    prop_oneof![
        Just(None),
        Just(Some(Health::Starting)),
        Just(Some(Health::Healthy)),
        Just(Some(Health::Unhealthy)),
    ]
}

fn record() -> impl Strategy<Value = ContainerRecord> {
    let names = prop_oneof![Just("web"), Just("db"), Just("x"), Just("000000000003")];
    (
        0..6_u32,
        0..3_usize,
        names.clone(),
        names,
        health(),
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(number, host, name, alias, health, [service, running, other])| {
                let mut record = container(number, name, HOSTS[host]).alias(alias);
                record.health = health;
                if service {
                    record = record.service("p", "web");
                }
                if !running {
                    record = record.state(ContainerState::Exited);
                }
                if other {
                    record = record.on("other");
                }
                record
            },
        )
}

fn event() -> impl Strategy<Value = RegistryEvent> {
    prop_oneof![
        6 => record().prop_map(|record| RegistryEvent::Container(Box::new(record))),
        2 => record().prop_map(|record| RegistryEvent::ContainerGone { host: record.host, id: record.id }),
        1 => (0..3_usize, any::<bool>()).prop_map(|(name, alive)| host(HOSTS[name], alive)),
        1 => (0..3_usize).prop_map(|name| RegistryEvent::HostGone { name: HOSTS[name].parse().unwrap() }),
    ]
}

/// What there is, without an index.
#[derive(Default)]
struct Plain {
    hosts: BTreeMap<String, bool>,
    records: BTreeMap<(String, String), ContainerRecord>,
}

impl Plain {
    fn take(&mut self, event: RegistryEvent) {
        match event {
            RegistryEvent::Host { name, alive, .. } => {
                self.hosts.insert(name.to_string(), alive);
            }
            RegistryEvent::HostGone { name } => {
                self.hosts.remove(name.as_str());
                self.records.retain(|(host, _), _| host != name.as_str());
            }
            RegistryEvent::Container(record) => {
                let key = (record.host.to_string(), record.id.clone());
                self.records.insert(key, *record);
            }
            RegistryEvent::ContainerGone { host, id } => {
                self.records.remove(&(host.to_string(), id));
            }
            other => panic!("{other:?}"),
        }
    }

    fn directory(&self) -> Directory {
        let mut directory = Directory::default();
        directory.apply(RegistryEvent::Reset {
            this_host: "a".parse().unwrap(),
        });
        for (name, alive) in &self.hosts {
            directory.apply(host(name, *alive));
        }
        for record in self.records.values() {
            directory.apply(RegistryEvent::Container(Box::new(record.clone())));
        }
        directory.apply(RegistryEvent::Synced);
        directory
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Events one by one lead to what all records at once lead to.
    #[test]
    fn the_way_does_not_matter(events in prop::collection::vec(event(), 0..40)) {
        let mut known = directory([]);
        let mut plain = Plain::default();
        for name in HOSTS {
            plain.take(host(name, true));
        }
        for event in events {
            known.apply(event.clone());
            plain.take(event);
        }
        let anew = plain.directory();
        prop_assert_eq!(known.table(None), anew.table(None));
        prop_assert_eq!(known.size(), anew.size());
        for name in ["web", "db", "x", "000000000003", "web.app", "web.other"] {
            prop_assert_eq!(told(&known, name), told(&anew, name));
        }
    }

    /// While a container that is called `db` runs, nobody is told of anybody who merely has the alias.
    #[test]
    fn a_name_cannot_be_taken(records in prop::collection::vec(record(), 0..12)) {
        let owner = container(77, "db", "b");
        let mut records = records;
        // Those of one service share, whatever they are called.
        records.iter_mut().for_each(|it| it.service = None);
        let known = directory(records.iter().cloned().chain([owner]));
        let addresses = told(&known, "db").unwrap();
        prop_assert!(addresses.contains(&"10.64.0.77".to_owned()));
        let mut last = BTreeMap::new();
        for record in records {
            last.insert((record.host.clone(), record.id.clone()), record);
        }
        for address in addresses.iter().filter(|it| *it != "10.64.0.77") {
            let called = last.values().filter(|it| it.name == "db");
            let mut theirs = called.flat_map(|it| it.attachments.values());
            prop_assert!(theirs.any(|it| it.addresses.iter().any(|it| it.to_string() == *address)));
        }
    }
}
