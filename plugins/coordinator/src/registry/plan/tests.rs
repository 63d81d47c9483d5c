//! Table and property tests of the plan.

use drover_control_api::registry::ContainerState;
use drover_engine::{ContainerEndpoint, ContainerState as EngineState};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::super::observe::Place;
use super::*;

const COPY: &str = "9a98742c67fdc73b9bea863a7c1ea9dc0221c26f819b5c58b6d9e1d82c1b32a6";

fn owner() -> Owner {
    let place = Place {
        id: "0123456789abcdef".parse().unwrap(),
        name: "app".to_owned(),
    };
    Owner {
        host: "one".parse().unwrap(),
        member: "m".to_owned(),
        networks: [(COPY.to_owned(), place)].into(),
    }
}

fn container(
    id: &str,
    status: &str,
    network: (&str, &str),
    alias: Option<&str>,
) -> ContainerDetail {
    let endpoint = ContainerEndpoint {
        network_id: network.1.to_owned(),
        ip_address: if status == "running" { "10.64.1.2" } else { "" }.to_owned(),
        aliases: alias.into_iter().map(str::to_owned).collect(),
        ..ContainerEndpoint::default()
    };
    let mut container = ContainerDetail {
        id: id.to_owned(),
        name: format!("/name-of-{id}"),
        state: EngineState {
            status: status.to_owned(),
            ..EngineState::default()
        },
        ..ContainerDetail::default()
    };
    container
        .network_settings
        .networks
        .insert(network.0.to_owned(), endpoint);
    container
}

fn apply(changes: Vec<Change>, stored: &mut Stored) {
    for change in changes {
        match change {
            Change::Put(record) => drop(stored.insert(record.id.clone(), Some(*record))),
            Change::Delete { id } => drop(stored.remove(&id)),
        }
    }
}

#[test]
fn a_container_of_ours_is_put_and_one_of_others_is_not() {
    let ours = container("a", "running", ("app", COPY), Some("web"));
    let other = container("b", "running", ("bridge", "b1"), None);
    // An engine that has not started it yet knows the network by its name alone.
    let made = container("c", "created", ("app", ""), None);
    let observed = [("a", Some(&ours)), ("b", Some(&other)), ("c", Some(&made))];
    let changes = plan(&owner(), &observed.into(), &Stored::new());
    let [Change::Put(a), Change::Put(c)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (a.name.as_str(), a.state),
        ("name-of-a", ContainerState::Running)
    );
    let attachment = a.attachments.values().next().unwrap();
    assert!(attachment.aliases.contains("web"));
    assert_eq!(attachment.addresses.len(), 1);
    assert_eq!((c.id.as_str(), c.state), ("c", ContainerState::Created));
}

#[test]
fn what_is_gone_or_has_left_our_networks_is_deleted_and_what_was_not_seen_stays() {
    let ours = container("a", "running", ("app", COPY), None);
    let record = owner().record(&ours);
    let stored: Stored = ["a", "b", "c", "unseen"]
        .map(|id| (id.to_owned(), record.clone()))
        .into();
    let left = container("b", "running", ("bridge", "b1"), None);
    let observed = [("a", Some(&ours)), ("b", Some(&left)), ("c", None)];
    let changes = plan(&owner(), &observed.into(), &stored);
    let ids: Vec<_> = changes.iter().map(Change::id).collect();
    assert_eq!(ids, ["b", "c"]);
}

#[test]
fn a_record_that_cannot_be_read_is_written_anew() {
    let ours = container("a", "running", ("app", COPY), None);
    let stored: Stored = [("a".to_owned(), None)].into();
    let changes = plan(&owner(), &[("a", Some(&ours))].into(), &stored);
    assert!(matches!(&changes[..], [Change::Put(_)]), "{changes:?}");
}

fn world() -> impl Strategy<Value = BTreeMap<String, Option<ContainerDetail>>> {
    let network = prop_oneof![
        Just(("app", COPY)),
        Just(("app", "")),
        Just(("bridge", "b1"))
    ];
    let status = prop_oneof![Just("running"), Just("exited"), Just("created"), Just("?")];
    let seen = (any::<bool>(), status, network, any::<bool>());
    proptest::collection::btree_map(0..8_u8, seen, 0..8).prop_map(|world| {
        let world = world
            .into_iter()
            .map(|(id, (there, status, network, alias))| {
                let id = format!("c{id}");
                let alias = alias.then_some("web");
                let container = there.then(|| container(&id, status, network, alias));
                (id, container)
            });
        world.collect()
    })
}

proptest! {
    /// From any store to any world: after the plan was carried out the second plan is empty, and nothing that was
    /// not looked at has changed.
    #[test]
    fn a_second_plan_is_empty(before in world(), after in world(), broken in 0..8_u8) {
        let owner = owner();
        let mut stored = Stored::new();
        let observed = before.iter().map(|(id, seen)| (id.as_str(), seen.as_ref())).collect();
        apply(plan(&owner, &observed, &stored), &mut stored);
        if let Some(record) = stored.get_mut(&format!("c{broken}")) {
            *record = None;
        }
        let untouched: Stored = stored.clone().into_iter().filter(|(id, _)| !after.contains_key(id)).collect();
        let observed = after.iter().map(|(id, seen)| (id.as_str(), seen.as_ref())).collect();
        apply(plan(&owner, &observed, &stored), &mut stored);
        assert_eq!(plan(&owner, &observed, &stored), []);
        for (id, record) in untouched {
            assert_eq!(stored.get(&id), Some(&record));
        }
        for (id, record) in stored.iter().filter(|(id, _)| after.contains_key(*id)) {
            let seen = after[id].as_ref().and_then(|seen| owner.record(seen));
            assert_eq!(record, &seen);
        }
    }
}
