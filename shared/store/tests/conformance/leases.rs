//! What is bound to a lease, and who may still write.

use std::time::{Duration, Instant};

use drover_store::{Error, Store, Transaction};

use crate::{next, text};

/// The shortest that etcd grants with its default election time-out.
const TTL: Duration = Duration::from_secs(2);

pub(crate) async fn a_lease_that_is_not_kept_takes_its_keys(store: &Store) {
    let lease = store.grant_lease(TTL).await.unwrap();
    let put = Transaction::new()
        .put_leased("alive/a", "1", lease)
        .put_leased("alive/b", "1", lease)
        .put("stays", "1");
    assert!(store.commit(put).await.unwrap().is_committed());
    let start = store.list("").await.unwrap().revision + 1;
    let mut watch = store.watch("alive/", start).await.unwrap();
    let mut gone = Vec::new();
    for _ in 0..2 {
        let change = next(&mut watch).await;
        assert_eq!(change.value, None);
        gone.push(change.key);
    }
    gone.sort();
    assert_eq!(gone, ["alive/a", "alive/b"]);
    assert!(store.list("alive/").await.unwrap().entries.is_empty());
    assert_eq!(text(store, "stays").await.as_deref(), Some("1"));
}

pub(crate) async fn a_lease_that_is_kept_stays(store: &Store) {
    let lease = store.grant_lease(TTL).await.unwrap();
    let put = Transaction::new().put_leased("kept", "1", lease);
    assert!(store.commit(put).await.unwrap().is_committed());
    let end = Instant::now() + 3 * TTL;
    while Instant::now() < end {
        store.keep_alive(lease).await.unwrap();
        assert!(text(store, "kept").await.is_some());
        tokio::time::sleep(TTL / 8).await;
    }
}

pub(crate) async fn a_revoked_lease_takes_its_keys_at_once(store: &Store) {
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let put = Transaction::new().put_leased("revoked", "1", lease);
    assert!(store.commit(put).await.unwrap().is_committed());
    store.revoke(lease).await.unwrap();
    assert_eq!(text(store, "revoked").await, None);
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(Error::LeaseGone)
    ));
    store.revoke(lease).await.unwrap();
}

pub(crate) async fn a_lease_that_is_gone_fences_its_holder(store: &Store) {
    let lease = store.grant_lease(TTL).await.unwrap();
    let claim = Transaction::new().put_leased("owner", "first", lease);
    assert!(store.commit(claim).await.unwrap().is_committed());
    let start = store.list("").await.unwrap().revision + 1;
    let mut watch = store.watch("owner", start).await.unwrap();
    assert_eq!(next(&mut watch).await.value, None);
    // The first holder wakes up: neither its lease nor anything bound to it can be used again.
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(Error::LeaseGone)
    ));
    let late = Transaction::new()
        .put("side effect", "1")
        .put_leased("owner", "first", lease);
    assert!(matches!(store.commit(late).await, Err(Error::LeaseGone)));
    assert_eq!(text(store, "owner").await, None);
    assert_eq!(text(store, "side effect").await, None);
    // A write that depends on still being the owner fails as well.
    let late = Transaction::new()
        .if_present("owner")
        .put("side effect", "1");
    assert!(!store.commit(late).await.unwrap().is_committed());
}

pub(crate) async fn a_key_put_again_without_the_lease_outlives_it(store: &Store) {
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let put = Transaction::new()
        .put_leased("k/kept", "1", lease)
        .put_leased("k/lost", "1", lease);
    assert!(store.commit(put).await.unwrap().is_committed());
    let again = Transaction::new().put("k/kept", "2");
    assert!(store.commit(again).await.unwrap().is_committed());
    store.revoke(lease).await.unwrap();
    assert_eq!(text(store, "k/kept").await.as_deref(), Some("2"));
    assert_eq!(text(store, "k/lost").await, None);
}
