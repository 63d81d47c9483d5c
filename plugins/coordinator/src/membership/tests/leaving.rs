//! Out of a cluster: by leaving, by being removed, and as the last.

use std::collections::BTreeMap;

use drover_control_api::FailureKind;
use drover_control_api::record::{AddressClaim, BlockRecord, ClaimState, HostRecord};
use drover_model::Block;
use drover_store::{Store, Transaction};

use super::cluster::{Host, Running, put, removal_from, text};
use crate::context::StoreKind;
use crate::membership::home::ClusterFile;
use crate::membership::{removal, renewal};

fn block(number: u8, owner: Option<&str>, claimant: Option<&str>) -> BlockRecord {
    let claim = |host: &str| AddressClaim {
        host: host.parse().unwrap(),
        state: ClaimState::Granted,
    };
    let address = format!("10.64.{number}.9").parse().unwrap();
    BlockRecord {
        version: 1,
        pool: "10.64.0.0/16".parse().unwrap(),
        block: Block::new(format!("10.64.{number}.0/24").parse().unwrap()),
        owner: owner.map(|owner| owner.parse().unwrap()),
        owner_member: owner.map(|_| "m".to_owned()),
        quarantined_until: 0,
        claims: claimant
            .map(|host| BTreeMap::from([(address, claim(host))]))
            .unwrap_or_default(),
    }
}

async fn put_block(store: &Store, record: &BlockRecord) {
    let key = format!("blocks/{}/{}", record.pool.key(), record.block.key());
    let put = Transaction::new().put_record(key, record).unwrap();
    assert!(store.commit(put).await.unwrap().is_committed());
}

async fn blocks(store: &Store) -> Vec<BlockRecord> {
    let listing = store.list("blocks/").await.unwrap();
    listing
        .entries
        .iter()
        .map(|entry| entry.decode().unwrap())
        .collect()
}

async fn fill(store: &Store) {
    put_block(store, &block(1, Some("first"), Some("second"))).await;
    put_block(store, &block(2, Some("second"), Some("first"))).await;
    put_block(store, &block(3, Some("second-b"), None)).await;
    put_block(store, &block(4, None, Some("second"))).await;
    put(store, "alive/second", "{}").await;
    for key in ["keys/first", "keys/second", "keys/second-b"] {
        put(store, key, "{}").await;
    }
    for key in [
        "copies/a/second",
        "copies/a/first",
        "copies/a/second-b",
        "copies/b/second",
    ] {
        put(store, key, "{}").await;
    }
    put(store, "attachments/a/second", "{\"endpoints\":1}").await;
    put(store, "attachments/a/first", "{\"endpoints\":1}").await;
}

#[tokio::test]
async fn a_removed_host_is_fenced_and_gives_back_what_it_held() {
    let host = Host::new("first", 1);
    let store = host.open().await.store;
    fill(&store).await;
    put(&store, "hosts/second", "{}").await;
    let second = "second".parse().unwrap();
    let unreadable = removal_from(&store).remove(&second).await.unwrap_err();
    assert_eq!(
        unreadable.kind,
        FailureKind::Internal,
        "a record of a later version is not guessed at"
    );
    let record = HostRecord {
        version: 1,
        name: second.clone(),
        member: "m".to_owned(),
        index: 2.try_into().unwrap(),
        advertise: "192.0.2.2".parse().unwrap(),
        link: None,
        underlay_mtu: drover_model::Mtu::ETHERNET,
        prefixes: std::collections::BTreeSet::new(),
        addresses: std::collections::BTreeSet::new(),
        software: String::new(),
        joined_at: 0,
    };
    let put_record = Transaction::new()
        .put_record("hosts/second", &record)
        .unwrap();
    assert!(store.commit(put_record).await.unwrap().is_committed());

    let removed = removal_from(&store).remove(&second).await.unwrap();
    assert_eq!(removed.blocks, [block(2, None, None).block]);
    assert_eq!(
        removed.networks,
        ["a"],
        "by its id, since there is no record with a name"
    );
    let expected = [
        block(1, Some("first"), None),
        BlockRecord {
            quarantined_until: 1_000_060,
            ..block(2, None, Some("first"))
        },
        block(3, Some("second-b"), None),
        // Nobody owns it, so nobody else would let the address rest.
        BlockRecord {
            quarantined_until: 1_000_060,
            ..block(4, None, None)
        },
    ];
    assert_eq!(blocks(&store).await, expected);
    for gone in [
        "hosts/second",
        "alive/second",
        "keys/second",
        "copies/a/second",
        "copies/b/second",
    ] {
        assert_eq!(text(&store, gone).await, None, "{gone}");
    }
    for kept in [
        "copies/a/first",
        "copies/a/second-b",
        "attachments/a/first",
        "keys/first",
        "keys/second-b",
    ] {
        assert!(text(&store, kept).await.is_some(), "{kept}");
    }
    let again = removal_from(&store).remove(&second).await.unwrap_err();
    assert_eq!(again.kind, FailureKind::NotFound);
    // A removal that was cut off after its first step is gone on with.
    fill(&store).await;
    let rest = removal_from(&store).remove(&second).await.unwrap();
    assert_eq!(rest.blocks, removed.blocks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_leaves_and_can_join_again_as_another() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let there = second.open().await;
    put(&there.store, "attachments/a/second", "{\"endpoints\":1}").await;
    let refused = second.leave(&there.store, false).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert!(refused.message.contains("(a)"), "{refused}");
    assert_eq!(running.hosts().await, ["first", "second"]);
    let gone = Transaction::new().delete("attachments/a/second");
    assert!(there.store.commit(gone).await.unwrap().is_committed());

    second.leave(&there.store, false).await.unwrap();
    assert_eq!(running.hosts().await, ["first"]);
    assert!(second.cluster().is_none());
    assert!(!second.state_file("pki"));
    let alone = second.open().await;
    assert_eq!(alone.kind, StoreKind::Embedded);
    assert_ne!(alone.cluster, there.cluster);
    assert_ne!(alone.member, there.member);
    assert!(alone.store.list("hosts/").await.unwrap().entries.is_empty());
    drop(alone);

    second.join(&running.token().await).await.unwrap();
    assert_ne!(second.open().await.member, there.member);
    assert_eq!(running.hosts().await, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_host_gets_no_certificate_and_can_leave_by_itself() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let there = second.open().await;
    let name = "second".parse().unwrap();
    removal_from(&running.membership.store)
        .remove(&name)
        .await
        .unwrap();

    // Before it has noticed anything it can change nothing any more.
    let claim = Transaction::new().put("blocks/p/b", "{}");
    let refused = there.store.commit(claim).await.unwrap_err();
    assert!(
        matches!(refused, drover_store::Error::Fenced),
        "{refused:?}"
    );

    let file = second.cluster().unwrap();
    let due = second.home.certificate().unwrap().unwrap().renew_at();
    let refused = renewal::renew_if_due(&second.home, &file, &there.store, due)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(refused.message.contains("was removed"), "{refused}");
    // Its name is free for another, who is another member; the old one still gets nothing.
    let namesake = Host::new("second", 3);
    namesake.join(&running.token().await).await.unwrap();
    let refused = renewal::renew_if_due(&second.home, &file, &there.store, due)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    // Not even when it says that it is the namesake: member ids are no secret.
    let lie = ClusterFile {
        member: namesake.cluster().unwrap().member,
        ..file
    };
    let refused = renewal::renew_if_due(&second.home, &lie, &there.store, due)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(refused.message.contains("earlier membership"), "{refused}");

    second.leave(&there.store, true).await.unwrap();
    assert!(second.cluster().is_none());
    assert_eq!(
        running.hosts().await,
        ["first", "second"],
        "the namesake is still there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_host_takes_everything_along() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let store = &running.membership.store;
    let refused = running.host.leave(store, false).await.unwrap_err();
    assert!(
        refused.message.contains("`drover leave` on second first"),
        "{refused}"
    );
    let first = "first".parse().unwrap();
    let own = removal::refuse(&first, &first, running.host.cluster().as_ref()).unwrap_err();
    assert!(own.message.contains("drover leave"), "{own}");
    let other = second.cluster();
    let authority =
        removal::refuse(&first, &"second".parse().unwrap(), other.as_ref()).unwrap_err();
    assert!(authority.message.contains("cannot be"), "{authority}");

    second
        .leave(&second.open().await.store, false)
        .await
        .unwrap();
    put(store, "pools/kept", "x").await;
    put(store, "keys/first", "of the cluster").await;
    running.host.leave(store, false).await.unwrap();
    assert_eq!(running.host.etcd(), None, "etcd has ended");
    assert!(!running.host.state_file("etcd") && !running.host.state_file("pki"));
    let alone = running.host.open().await;
    assert_eq!(alone.kind, StoreKind::Embedded);
    assert_eq!(
        (alone.cluster, alone.member),
        (
            running.membership.cluster.clone(),
            running.membership.member.clone()
        )
    );
    assert_eq!(text(&alone.store, "pools/kept").await.as_deref(), Some("x"));
    assert!(text(&alone.store, "hosts/first").await.is_some());
    assert_eq!(text(&alone.store, "keys/first").await, None);
    assert!(
        alone
            .store
            .list("tokens/")
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_leave_that_is_cut_off_loses_nothing() {
    let running = Running::start("first").await;
    let mut moment = std::time::Duration::from_millis(1);
    let mut cuts = 0;
    let alone = loop {
        let membership = running.host.open().await;
        if membership.kind == StoreKind::Embedded {
            break membership;
        }
        put(&membership.store, &format!("cut/{cuts}"), "x").await;
        let leave = running.host.leave(&membership.store, false);
        if let Ok(left) = tokio::time::timeout(moment, leave).await {
            left.unwrap();
        }
        cuts += 1;
        moment = moment * 3 / 2;
    };
    assert!(cuts > 2, "{cuts}");
    assert_eq!(running.host.etcd(), None);
    assert_eq!(alone.store.list("cut/").await.unwrap().entries.len(), cuts);
}
