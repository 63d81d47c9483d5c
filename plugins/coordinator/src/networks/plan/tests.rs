use std::collections::BTreeMap;

use drover_control_api::record::{NetworkRecord, NetworkState, Subnet};
use drover_model::{Encryption, HostName, Pool};

use super::*;

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn logical(number: u8) -> LogicalNetworkId {
    format!("{number:016x}").parse().unwrap()
}

fn docker(number: u8) -> NetworkId {
    format!("{number:064x}").parse().unwrap()
}

fn pool(number: u8) -> Pool {
    format!("10.{number}.0.0/16").parse().unwrap()
}

fn subnet(number: u8) -> Subnet {
    Subnet {
        pool: pool(number),
        sub_pool: None,
        gateway: None,
        auxiliary: BTreeMap::new(),
    }
}

/// Network `number`, called `app`, with a copy on the other host `b`.
fn network(number: u8, state: NetworkState) -> Network {
    Network {
        record: NetworkRecord {
            version: 1,
            id: logical(number),
            name: "app".to_owned(),
            subnets: vec![subnet(number)],
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            internal: false,
            attachable: false,
            ipv6: false,
            encryption: Encryption::Off,
            created_by: host("b"),
            created_at: 1,
            state,
        },
        copies: [(host("b"), docker(99))].into(),
        attachments: BTreeMap::new(),
        endpoints: Some(0),
        settled: true,
        gone_for_certain: true,
        refused: None,
    }
}

/// This engine's network `app` with the subnet of network `number`.
fn local(number: u8) -> LocalNetwork {
    LocalNetwork {
        name: "app".to_owned(),
        subnets: vec![subnet(number)],
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        internal: false,
        attachable: false,
        ipv6: false,
        in_use: false,
        made_for: None,
        left: false,
    }
}

/// Host `a` sees these networks of the cluster, and these of its engine.
fn view(networks: Vec<Network>, local: Vec<(NetworkId, LocalNetwork)>) -> View {
    let named = networks.iter().filter(|network| !network.is_removing());
    View {
        host: host("a"),
        alive: [host("a"), host("b")].into(),
        names: named
            .map(|n| (n.record.name.clone(), n.record.id.clone()))
            .collect(),
        pools: networks
            .iter()
            .map(|n| (n.record.subnets[0].pool, Some(n.record.id.clone())))
            .collect(),
        networks: networks
            .into_iter()
            .map(|n| (n.record.id.clone(), n))
            .collect(),
        local: local.into_iter().collect(),
        foreign: BTreeSet::new(),
        intended: BTreeSet::new(),
        engine_is_new: false,
    }
}

fn requested() -> NetworkState {
    NetworkState::RemovalRequested {
        by: host("b"),
        at: 1,
    }
}

#[test]
fn a_network_without_a_copy_here_is_created() {
    let plan = plan(&view(vec![network(1, NetworkState::Active)], vec![]));
    assert_eq!(
        plan.steps,
        [Step::Create {
            network: logical(1)
        }]
    );
}

#[test]
fn a_copy_that_was_removed_is_a_request_only_when_it_is_gone_for_certain() {
    let mut missing = network(1, NetworkState::Active);
    missing.copies.insert(host("a"), docker(1));
    missing.gone_for_certain = false;
    let waits = plan(&view(vec![missing.clone()], vec![]));
    assert!(waits.steps.is_empty() && waits.look_again);
    missing.gone_for_certain = true;
    let asks = plan(&view(vec![missing.clone()], vec![]));
    assert_eq!(
        asks.steps,
        [Step::RequestRemoval {
            network: logical(1)
        }]
    );
    let mut new_engine = view(vec![missing], vec![]);
    new_engine.engine_is_new = true;
    assert_eq!(
        plan(&new_engine).steps,
        [Step::Forget {
            network: logical(1)
        }]
    );
}

#[test]
fn an_unwanted_network_is_put_back_while_it_is_in_use_and_goes_when_it_is_not() {
    let mut unwanted = network(1, requested());
    unwanted.attachments.insert(host("b"), 1);
    let kept = plan(&view(vec![unwanted.clone()], vec![]));
    assert_eq!(
        kept.steps,
        [Step::Create {
            network: logical(1)
        }]
    );
    unwanted.attachments.clear();
    let goes = plan(&view(vec![unwanted], vec![]));
    assert_eq!(
        goes.steps,
        [Step::BeginRemoval {
            network: logical(1)
        }]
    );
}

#[test]
fn the_last_endpoint_of_an_unwanted_network_is_not_taken_for_gone_at_once() {
    let mut unwanted = network(1, requested());
    unwanted.copies.insert(host("a"), docker(1));
    unwanted.attachments.insert(host("a"), 1);
    unwanted.settled = false;
    let restarting = plan(&view(vec![unwanted.clone()], vec![(docker(1), local(1))]));
    assert!(restarting.steps.is_empty() && restarting.look_again);
    unwanted.settled = true;
    let gone = plan(&view(vec![unwanted], vec![(docker(1), local(1))]));
    assert_eq!(
        gone.steps,
        [Step::Attach {
            network: logical(1),
            endpoints: 0
        }]
    );
}

#[test]
fn a_network_that_goes_is_removed_unless_somebody_has_attached() {
    let mut going = network(1, NetworkState::Removing);
    going.copies.insert(host("a"), docker(1));
    let removed = plan(&view(vec![going.clone()], vec![(docker(1), local(1))]));
    assert_eq!(
        removed.steps,
        [Step::Remove {
            network: logical(1),
            local: docker(1)
        }]
    );
    going.endpoints = Some(1);
    let kept = plan(&view(vec![going], vec![(docker(1), local(1))]));
    assert!(kept.steps.contains(&Step::Keep {
        network: logical(1)
    }));
}

#[test]
fn the_last_one_out_deletes_it_and_hosts_that_are_away_keep_only_the_pool() {
    let mut going = network(1, NetworkState::Removing);
    let mut seen = view(vec![going.clone()], vec![]);
    seen.names.insert("app".to_owned(), logical(1));
    assert!(plan(&seen).steps.is_empty());
    seen.alive.remove(&host("b"));
    assert_eq!(
        plan(&seen).steps,
        [Step::ReleaseName {
            network: logical(1)
        }]
    );
    going.copies.clear();
    let alone = plan(&view(vec![going], vec![]));
    assert_eq!(
        alone.steps,
        [Step::Delete {
            network: logical(1)
        }]
    );
}

#[test]
fn a_second_network_of_a_name_gives_way_if_nobody_uses_it() {
    let mut other = local(2);
    let mut seen = view(
        vec![network(1, NetworkState::Active)],
        vec![(docker(2), other.clone())],
    );
    seen.pools.insert(pool(2), None);
    let unused = plan(&seen);
    assert!(matches!(&unused.steps[..], [Step::Discard { local, .. }] if *local == docker(2)));
    other.in_use = true;
    seen.local.insert(docker(2), other);
    let used = plan(&seen);
    assert!(used.steps.is_empty());
    assert!(
        used.conflicts[0].contains("docker network rm app"),
        "{:?}",
        used.conflicts
    );
}

#[test]
fn a_network_of_a_subnet_that_nobody_gave_out_is_left_alone() {
    let stranger = plan(&view(vec![], vec![(docker(1), local(1))]));
    assert!(stranger.steps.is_empty());
    assert!(
        stranger.conflicts[0].contains("was not given out"),
        "{:?}",
        stranger.conflicts
    );
}

#[test]
fn a_network_of_a_cluster_that_was_left_is_removed() {
    let mut left = local(1);
    left.left = true;
    let plan = plan(&view(vec![], vec![(docker(1), left)]));
    assert!(matches!(&plan.steps[..], [Step::Discard { local, .. }] if *local == docker(1)));
}

#[test]
fn a_copy_that_was_being_made_is_forgotten_when_it_is_not_there() {
    let mut seen = view(vec![], vec![]);
    seen.intended.insert("app".to_owned());
    assert_eq!(
        plan(&seen).steps,
        [Step::ForgetIntent {
            name: "app".to_owned()
        }]
    );
    let mut made = local(1);
    made.made_for = Some(logical(1));
    seen.local.insert(docker(1), made);
    assert!(matches!(&plan(&seen).steps[..], [Step::Discard { .. }]));
}

#[test]
fn another_drivers_network_of_the_name_is_a_conflict_with_a_remedy() {
    let mut seen = view(vec![network(1, NetworkState::Active)], vec![]);
    seen.foreign.insert("app".to_owned());
    let plan = plan(&seen);
    assert!(plan.steps.is_empty());
    assert!(
        plan.conflicts[0].contains("docker network rm app"),
        "{:?}",
        plan.conflicts
    );
}

#[test]
fn what_the_engine_refused_is_told_and_not_tried_at_once() {
    let mut refused = network(1, NetworkState::Active);
    refused.refused = Some("pool overlaps".to_owned());
    let plan = plan(&view(vec![refused], vec![]));
    assert!(plan.steps.is_empty() && plan.look_again);
    assert!(
        plan.conflicts[0].contains("pool overlaps"),
        "{:?}",
        plan.conflicts
    );
}
