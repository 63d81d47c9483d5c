//! What each implementation does when it, or what it stands on, ends and begins again.

use std::time::{Duration, Instant};

use drover_store::{EmbeddedOptions, Error, EtcdConfig, Store, Transaction, WatchError};

use crate::backend::{Etcd, etcd_binaries};
use crate::{SOON, next, text};

async fn put(store: &Store, key: &str, value: &str) {
    let put = Transaction::new().put(key, value);
    assert!(store.commit(put).await.unwrap().is_committed());
}

#[tokio::test]
async fn the_embedded_store_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let (position, lease) = {
        let store = Store::open_embedded(&path).unwrap();
        put(&store, "a", "1").await;
        let mut watch = store.watch("", 1).await.unwrap();
        assert_eq!(next(&mut watch).await.key, "a");
        let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
        let leased = Transaction::new().put_leased("leased", "1", lease);
        assert!(store.commit(leased).await.unwrap().is_committed());
        let refused = Store::open_embedded(&path).unwrap_err();
        assert!(
            matches!(refused, Error::InUse { .. }),
            "two at once: {refused}"
        );
        (watch.position(), lease)
    };
    let store = Store::open_embedded(&path).unwrap();
    assert_eq!(text(&store, "a").await.as_deref(), Some("1"));
    let mut watch = store.watch("", position).await.unwrap();
    let change = next(&mut watch).await;
    assert_eq!((change.key.as_str(), change.revision), ("leased", position));
    // The lease begins anew, and ends by itself when nobody keeps it.
    store.keep_alive(lease).await.unwrap();
    let change = next(&mut watch).await;
    assert_eq!((change.key.as_str(), change.value), ("leased", None));
    // No lease is ever given twice, or an old holder would keep a new one's alive.
    assert_ne!(store.grant_lease(SOON).await.unwrap(), lease);
}

#[tokio::test]
async fn the_embedded_log_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open_embedded_with(&path, EmbeddedOptions { history: 10 }).unwrap();
    let mut behind = store.watch("", 2).await.unwrap();
    for number in 0..15 {
        put(&store, "key", &number.to_string()).await;
    }
    assert!(matches!(behind.next().await, Err(WatchError::Compacted)));
    let last = store.list("").await.unwrap().revision;
    let mut oldest = store.watch("", last - 9).await.unwrap();
    assert_eq!(next(&mut oldest).await.value.unwrap(), b"5");
    let mut older = store.watch("", last - 10).await.unwrap();
    assert!(matches!(older.next().await, Err(WatchError::Compacted)));
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_that_ends_is_told_and_one_that_is_back_is_used() {
    for binary in etcd_binaries() {
        let mut etcd = Etcd::start(&binary).await;
        let store = etcd.store().await;
        put(&store, "a", "1").await;
        let mut watch = store.watch("", 1).await.unwrap();
        assert_eq!(next(&mut watch).await.key, "a");
        etcd.kill();
        let ended = tokio::time::timeout(SOON, watch.next())
            .await
            .expect("the cut is not seen");
        assert!(matches!(ended, Err(WatchError::Cut(_))), "{ended:?}");
        let begin = Instant::now();
        let error = store.get("a").await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(error.to_string().contains("http://127.0.0.1:"), "{error}");
        let write = store
            .commit(Transaction::new().put("b", "1"))
            .await
            .unwrap_err();
        assert!(write.is_unavailable(), "{write:?}");
        assert!(begin.elapsed() < 2 * SOON);
        etcd.start_again().await;
        let end = Instant::now() + SOON;
        while let Err(error) = store.get("a").await {
            assert!(Instant::now() < end, "still away: {error:?}");
        }
        let mut watch = store.watch("", watch.position()).await.unwrap();
        put(&store, "c", "1").await;
        assert_eq!(next(&mut watch).await.key, "c");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_keep_in_etcd_is_not_ours() {
    for binary in etcd_binaries() {
        let etcd = Etcd::start(&binary).await;
        let (store, mut raw) = (etcd.store().await, etcd.raw().await);
        for key in [
            &b"/drover"[..],
            b"/other/key",
            b"/drover/\xff\xfe",
            b"/drover/with\0null",
        ] {
            raw.put(key, "x", None).await.unwrap();
        }
        put(&store, "mine", "1").await;
        let listing = store.list("").await.unwrap();
        assert_eq!(listing.entries.len(), 1, "{:?}", listing.entries);
        let mut watch = store.watch("", 1).await.unwrap();
        assert_eq!(next(&mut watch).await.key, "mine");
        let raw = raw.get("/drover/mine", None).await.unwrap();
        assert_eq!(raw.kvs()[0].value(), b"1");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_told_at_once() {
    let config = |endpoint: &str| EtcdConfig {
        endpoints: vec![endpoint.to_owned()],
        prefix: "/drover/".to_owned(),
        ..Default::default()
    };
    let none = Store::connect_etcd(EtcdConfig::default())
        .await
        .unwrap_err();
    assert!(none.to_string().contains("no endpoint"), "{none}");
    let naked = Store::connect_etcd(config("https://127.0.0.1:1"))
        .await
        .unwrap_err();
    assert!(naked.to_string().contains("authority"), "{naked}");
    let odd = Store::connect_etcd(config("http://not a host"))
        .await
        .unwrap_err();
    assert!(matches!(odd, Error::Config { .. }), "{odd:?}");
    let closed = Store::connect_etcd(config("http://127.0.0.1:1"))
        .await
        .unwrap();
    assert!(closed.get("key").await.unwrap_err().is_unavailable());
}
