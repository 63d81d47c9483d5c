//! The whole plugin behind its socket, with a coordinator whose store is a table in this test.
#![cfg(test)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/plugin.rs"]
mod plugin;

use std::time::{Duration, Instant};

use cluster::Cluster;
use drover_control_api::plugin::{ConfirmLeases, Leases, SetAside, TakeBack, WhoAreYou};
use plugin::{Plugin, error_of, mac};
use serde_json::json;

#[tokio::test]
async fn a_network_gets_a_pool_a_gateway_and_addresses_that_survive_a_restart() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("").await;
    assert_eq!(plugin.gateway(&pool, "").await, "10.64.0.1/16");
    assert_eq!(plugin.auxiliary(&pool, "10.64.0.3").await, "10.64.0.3/16");
    assert_eq!(plugin.address(&pool, "", 1).await.unwrap(), "10.64.0.2/24");
    assert_eq!(plugin.address(&pool, "", 2).await.unwrap(), "10.64.0.4/24");
    plugin.release(&pool, "10.64.0.2").await;
    plugin.release(&pool, "10.64.0.2").await;
    plugin.release(&pool, "10.64.0.1").await;
    plugin.release("unknown", "10.64.0.1").await;
    let plugin = plugin.restart(&cluster).await;
    assert_eq!(plugin.address(&pool, "", 3).await.unwrap(), "10.64.0.5/24");
    let table = plugin.own(&Leases {}).await;
    let leases: Vec<_> = table.pools[0]
        .leases
        .iter()
        .map(|lease| lease.address.to_string())
        .collect();
    assert_eq!(leases, ["10.64.0.4", "10.64.0.5"]);
    assert_eq!(
        table.pools[0].quarantined,
        ["10.64.0.2".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(cluster.blocks().len(), 1);
}

#[tokio::test]
async fn an_automatic_pool_that_came_back_unused_is_not_offered_again() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    // As an engine does it: it keeps what it does not like until it has what it likes.
    let first = plugin.pool("").await;
    let second = plugin.pool("").await;
    assert_ne!(first, second);
    plugin.gateway(&second, "").await;
    plugin.release_pool(&first).await;
    let third = plugin.pool("").await;
    assert!(third != first && third != second, "{third}");
}

#[tokio::test]
async fn bad_requests_are_refused_in_sentences_and_change_nothing() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("10.90.0.0/24").await;
    plugin.gateway(&pool, "10.90.0.1").await;
    plugin.address(&pool, "10.90.0.5", 1).await.unwrap();
    assert_eq!(
        plugin.address(&pool, "10.90.0.5", 1).await.unwrap(),
        "10.90.0.5/32"
    );
    for (address, reason) in [
        ("10.90.0.5", "02:00:00:00:00:01"),
        ("10.90.0.1", "router"),
        ("10.90.0.0", "network address"),
        ("10.91.0.5", "not in subnet `10.90.0.0/24`"),
    ] {
        let error = plugin.address(&pool, address, 2).await.unwrap_err();
        assert!(
            error.contains(reason) && error.contains("choose another")
                || error.contains("choose one"),
            "{error}"
        );
    }
    let before = plugin.own(&Leases {}).await;
    let refused = [
        (
            "RequestPool",
            json!({"AddressSpace": "drover", "Pool": "10.9.0.0/30", "SubPool": "", "Options": {}, "V6": false}),
            "too small",
        ),
        (
            "RequestPool",
            json!({"AddressSpace": "drover", "Pool": "10.9.1.1/16", "SubPool": "", "Options": {}, "V6": false}),
            "use 10.9.0.0/16",
        ),
        (
            "RequestPool",
            json!({"AddressSpace": "drover", "Pool": "10.9.0.0/16", "SubPool": "", "Options": {"color": "red"}, "V6": false}),
            "`color`",
        ),
        (
            "RequestAddress",
            json!({"PoolID": "10.9.0.0/16", "Address": "", "Options": null}),
            "unknown pool `10.9.0.0/16`",
        ),
        (
            "RequestAddress",
            json!({"PoolID": "rubbish", "Address": "", "Options": null}),
            "unknown pool `rubbish`",
        ),
    ];
    for (method, request, reason) in refused {
        let error = error_of(&plugin.call(method, &request).await);
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(plugin.own(&Leases {}).await, before);
}

#[tokio::test]
async fn addresses_of_blocks_that_are_here_are_given_without_a_coordinator() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("").await;
    plugin.address(&pool, "", 1).await.unwrap();
    cluster.stop().await;
    let began = Instant::now();
    plugin.address(&pool, "", 2).await.unwrap();
    plugin.release(&pool, "10.64.0.2").await;
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    let request =
        json!({"AddressSpace": "drover", "Pool": "", "SubPool": "", "Options": {}, "V6": false});
    let error = error_of(&plugin.call("RequestPool", &request).await);
    assert!(
        error.contains("coordinator of this host does not answer"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    // A start without a coordinator goes on with what is here, too.
    let plugin = plugin.restart(&cluster).await;
    plugin.address(&pool, "", 3).await.unwrap();
    plugin
        .until("a complaint", async || {
            !plugin.own(&WhoAreYou {}).await.complaints.is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_host_that_was_removed_gives_nothing() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("").await;
    plugin.address(&pool, "", 1).await.unwrap();
    cluster.fence(true);
    plugin
        .until("the fence", async || {
            plugin.address(&pool, "", 2).await.is_err()
        })
        .await;
    let error = plugin.address(&pool, "", 2).await.unwrap_err();
    assert!(
        error.contains("removed from its cluster") && error.contains("drover leave"),
        "{error}"
    );
    // It joins again, as another member, and its block is another host's by then.
    cluster.give_away_block("10.64.0.0/24", "other");
    cluster.become_member("again");
    cluster.fence(false);
    plugin
        .until("an address", async || {
            plugin.address(&pool, "", 3).await.is_ok()
        })
        .await;
    let given = plugin.address(&pool, "", 4).await.unwrap();
    assert!(given.starts_with("10.64.1."), "{given}");
}

#[tokio::test]
async fn the_next_block_is_claimed_before_the_last_address_is_gone() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("10.90.0.0/24").await;
    plugin.gateway(&pool, "").await;
    for number in 0..12 {
        plugin.address(&pool, "", number).await.unwrap();
    }
    plugin
        .until("a second block", async || cluster.blocks().len() == 2)
        .await;
    cluster.stop().await;
    for number in 12..26 {
        plugin.address(&pool, "", number).await.unwrap();
    }
}

#[tokio::test]
async fn a_claim_for_one_pool_keeps_no_other_waiting() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let quick = plugin.pool("").await;
    plugin.address(&quick, "", 1).await.unwrap();
    let slow = plugin.pool("").await;
    cluster.delay_blocks(Duration::from_secs(2));
    let began = Instant::now();
    let (waited, at_once) = tokio::join!(plugin.address(&slow, "", 2), async {
        plugin
            .until("the claim", async || cluster.is_delaying())
            .await;
        plugin.address(&quick, "", 3).await.unwrap();
        began.elapsed()
    });
    waited.unwrap();
    assert!(at_once < Duration::from_secs(1), "{at_once:?}");
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn many_containers_at_once_share_one_claim_and_get_an_address_each() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("").await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (plugin, pool) = (plugin.clone(), pool.clone());
        requests.spawn(async move { plugin.address(&pool, "", number).await.unwrap() });
    }
    let given: std::collections::BTreeSet<_> = requests.join_all().await.into_iter().collect();
    assert_eq!(given.len(), 40);
    assert_eq!(cluster.blocks().len(), 1);
}

#[tokio::test]
async fn with_no_block_left_single_addresses_are_borrowed_and_the_end_is_said() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("10.90.0.0/28").await;
    cluster.give_away_block("10.90.0.0/28", "other");
    assert_eq!(plugin.address(&pool, "", 1).await.unwrap(), "10.90.0.14/32");
    plugin.address(&pool, "10.90.0.14", 2).await.unwrap_err();
    cluster.refuse_singles();
    let error = plugin.address(&pool, "", 2).await.unwrap_err();
    assert!(
        error.contains("every block of subnet `10.90.0.0/28` is in use"),
        "{error}"
    );
}

#[tokio::test]
async fn what_other_hosts_and_the_engine_say_is_kept() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let text = plugin.pool("").await;
    let first = plugin.address(&text, "", 1).await.unwrap();
    assert_eq!(first, "10.64.0.2/24");
    let pool = text.parse().unwrap();
    let holder: drover_model::HostName = "other".parse().unwrap();
    let aside = |last: u8| SetAside {
        pool,
        address: [10, 64, 0, last].into(),
        holder: holder.clone(),
    };
    assert!(!plugin.own(&aside(2)).await.granted, "a container has it");
    assert!(plugin.own(&aside(3)).await.granted);
    let plugin = plugin.restart_without_sync(&cluster).await;
    assert_eq!(plugin.address(&text, "", 2).await.unwrap(), "10.64.0.4/24");
    let error = plugin.address(&text, "10.64.0.3", 2).await.unwrap_err();
    assert!(error.contains("another host"), "{error}");
    plugin
        .own(&TakeBack {
            pool,
            address: [10, 64, 0, 3].into(),
            holder: holder.clone(),
        })
        .await;
    let in_use = [[10, 64, 0, 4].into(), [10, 64, 0, 9].into()].into();
    let leaked = plugin
        .own(&ConfirmLeases {
            in_use,
            before: u64::MAX,
        })
        .await;
    assert_eq!(leaked.released, [std::net::IpAddr::from([10, 64, 0, 2])]);
    let table = plugin.own(&Leases {}).await;
    assert_eq!(
        table.pools[0].leases.len(),
        2,
        "one was in use and not known"
    );
}

#[tokio::test]
async fn a_state_that_was_lost_is_taken_from_the_cluster_and_the_engine() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    let pool = plugin.pool("").await;
    plugin.gateway(&pool, "").await;
    plugin.address(&pool, "", 1).await.unwrap();
    let plugin = plugin.restart_without_state(&cluster).await;
    let given = plugin.address(&pool, "", 2).await.unwrap();
    assert_eq!(
        given, "10.64.1.2/24",
        "nobody knows yet what is in use of the first block"
    );
    let in_use = [[10, 64, 0, 2].into(), [10, 64, 1, 2].into()].into();
    plugin.own(&ConfirmLeases { in_use, before: 0 }).await;
    let table = plugin.own(&Leases {}).await;
    let leases: Vec<_> = table.pools[0]
        .leases
        .iter()
        .map(|lease| lease.address.to_string())
        .collect();
    assert_eq!(leases, ["10.64.0.2", "10.64.1.2"], "the engine has told");
    assert_eq!(cluster.blocks().len(), 2);
}

#[tokio::test]
async fn a_new_engine_is_told_to_the_coordinator() {
    let cluster = Cluster::start().await;
    let plugin = Plugin::start(&cluster).await;
    plugin.activate().await;
    plugin
        .until("the news", async || cluster.engine_starts() > 0)
        .await;
    let identity = plugin.own(&WhoAreYou {}).await;
    assert_eq!(identity.process, "drover-ipam");
    assert!(mac(1).starts_with("02:"));
}
