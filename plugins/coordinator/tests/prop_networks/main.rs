//! Any interleaving of what people and hosts do ends with the same networks on every host.
//!
//! Hosts are modelled: an engine is a list of networks, and everything else is the real thing, the
//! store, the planner and the execution of its steps. Hosts plan from snapshots that may be old.
#![cfg(test)]

mod world;

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use world::World;

/// How many hosts there are.
pub(crate) const HOSTS: usize = 3;

/// What happens in the world.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// `docker network create NAME`, perhaps with `--subnet`.
    Create {
        host: usize,
        name: usize,
        subnet: Option<u8>,
    },
    /// `docker network rm NAME`.
    Remove {
        host: usize,
        name: usize,
    },
    /// A container starts on the network, or stops.
    Attach {
        host: usize,
        name: usize,
    },
    Detach {
        host: usize,
        name: usize,
    },
    /// A host looks, at a snapshot that is so many rounds old, and does at most so many steps.
    Look {
        host: usize,
        age: usize,
        steps: usize,
    },
    /// A host looks, and before it acts somebody creates a network there.
    LookTooEarly {
        host: usize,
        name: usize,
    },
    /// A host's process ends between the engine's answer and the note of it.
    CrashInCreate {
        host: usize,
    },
    /// A host goes away, or comes back.
    Away {
        host: usize,
        away: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..HOSTS;
    let name = 0..2_usize;
    let subnet = prop_oneof![3 => Just(None), 1 => (200_u8..202).prop_map(Some)];
    prop_oneof![
        3 => (host.clone(), name.clone(), subnet)
            .prop_map(|(host, name, subnet)| Event::Create { host, name, subnet }),
        3 => (host.clone(), name.clone()).prop_map(|(host, name)| Event::Remove { host, name }),
        2 => (host.clone(), name.clone()).prop_map(|(host, name)| Event::Attach { host, name }),
        2 => (host.clone(), name.clone()).prop_map(|(host, name)| Event::Detach { host, name }),
        2 => (host.clone(), name).prop_map(|(host, name)| Event::LookTooEarly { host, name }),
        10 => (host.clone(), 0..3_usize, 1..9_usize)
            .prop_map(|(host, age, steps)| Event::Look { host, age, steps }),
        1 => host.clone().prop_map(|host| Event::CrashInCreate { host }),
        1 => (host, any::<bool>()).prop_map(|(host, away)| Event::Away { host, away }),
    ]
}

fn run(events: &[Event]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        for event in events {
            world.happen(event).await;
        }
        let plans = world.settle().await;
        world.check(&plans);
    });
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 128,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Default::default()
    })]

    #[test]
    fn the_hosts_agree_in_the_end(events in proptest::collection::vec(event(), 0..40)) {
        run(&events);
    }
}

#[tokio::test]
async fn one_host_creates_and_every_host_has_it_until_it_is_removed_everywhere() {
    let look = |host| Event::Look {
        host,
        age: 0,
        steps: 9,
    };
    let mut world = World::new().await;
    for event in [
        Event::Create {
            host: 0,
            name: 0,
            subnet: None,
        },
        look(0),
        look(1),
        look(2),
    ] {
        world.happen(&event).await;
    }
    assert!(
        world
            .hosts
            .iter()
            .all(|host| host.engine.named("net0").is_some())
    );
    // A container on host 1 keeps it; host 0 gets its copy back.
    world.happen(&Event::Attach { host: 1, name: 0 }).await;
    world.happen(&look(1)).await;
    world.happen(&Event::Remove { host: 0, name: 0 }).await;
    assert!(world.hosts[0].engine.named("net0").is_none());
    world.happen(&look(0)).await;
    world.happen(&look(0)).await;
    assert!(world.hosts[0].engine.named("net0").is_some());
    // The last container leaves, and nobody has attached since.
    world.happen(&Event::Detach { host: 1, name: 0 }).await;
    let plans = world.settle().await;
    world.check(&plans);
    assert!(
        world
            .hosts
            .iter()
            .all(|host| host.engine.named("net0").is_none())
    );
}

#[tokio::test]
async fn a_name_that_two_hosts_use_at_once_ends_as_one_network() {
    let mut world = World::new().await;
    world
        .happen(&Event::Create {
            host: 0,
            name: 0,
            subnet: None,
        })
        .await;
    world
        .happen(&Event::Create {
            host: 1,
            name: 0,
            subnet: None,
        })
        .await;
    let plans = world.settle().await;
    world.check(&plans);
    let pools: BTreeSet<_> = (0..HOSTS).map(|host| world.pools_in_engine(host)).collect();
    assert_eq!(pools.len(), 1, "{pools:?}");
    assert!(plans.iter().all(|plan| plan.conflicts.is_empty()));
}

/// A host is about to make its copy when somebody creates a network of the name there, as `docker compose up` on two
/// hosts at once does. The engine refuses the copy; nothing is to be remembered of it once that network is gone.
#[tokio::test]
async fn a_copy_that_was_refused_is_made_once_the_reason_is_gone() {
    let mut world = World::new().await;
    let create = Event::Create {
        host: 0,
        name: 0,
        subnet: None,
    };
    world.happen(&create).await;
    world.look(0, 0, usize::MAX).await;
    world
        .happen(&Event::LookTooEarly { host: 1, name: 0 })
        .await;
    let plans = world.settle().await;
    world.check(&plans);
    let pools: BTreeSet<_> = (0..HOSTS).map(|host| world.pools_in_engine(host)).collect();
    assert_eq!(pools.len(), 1, "{pools:?}");
    assert!(plans.iter().all(|plan| plan.conflicts.is_empty()));
}

#[tokio::test]
async fn both_stay_and_a_person_is_told_when_both_are_in_use() {
    let mut world = World::new().await;
    for host in [0, 1] {
        world
            .happen(&Event::Create {
                host,
                name: 0,
                subnet: None,
            })
            .await;
        world.happen(&Event::Attach { host, name: 0 }).await;
    }
    let plans = world.settle().await;
    world.check(&plans);
    let told: Vec<_> = plans.iter().flat_map(|plan| &plan.conflicts).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("docker network rm net0"), "{told:?}");
    // The person does it, and the networks become one.
    let loser = plans
        .iter()
        .position(|plan| !plan.conflicts.is_empty())
        .unwrap();
    world
        .happen(&Event::Detach {
            host: loser,
            name: 0,
        })
        .await;
    let plans = world.settle().await;
    world.check(&plans);
    assert!(
        plans.iter().all(|plan| plan.conflicts.is_empty()),
        "{plans:?}"
    );
}
