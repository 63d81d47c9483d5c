//! Changes as they come, from any revision, each once.

use drover_store::{Change, Outcome, Store, Transaction, WatchError};

use crate::{SOON, next};

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    match store
        .commit(Transaction::new().put(key, value))
        .await
        .unwrap()
    {
        Outcome::Committed { revision } => revision,
        Outcome::Conflict => panic!("no condition, and yet a conflict"),
    }
}

fn change(revision: u64, key: &str, value: Option<&str>) -> Change {
    Change {
        revision,
        key: key.to_owned(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

pub(crate) async fn every_change_comes_once_in_order(store: &Store) {
    let start = store.list("w/").await.unwrap().revision + 1;
    let mut watch = store.watch("w/", start).await.unwrap();
    let writer = store.clone();
    let writer = tokio::spawn(async move {
        let mut revisions = Vec::new();
        for number in 0..200 {
            revisions.push(put(&writer, &format!("w/{}", number % 7), &number.to_string()).await);
        }
        revisions
    });
    let mut seen = Vec::new();
    for number in 0..200 {
        let change = next(&mut watch).await;
        assert_eq!(change.key, format!("w/{}", number % 7));
        assert_eq!(change.value, Some(number.to_string().into_bytes()));
        seen.push(change.revision);
    }
    assert_eq!(seen, writer.await.unwrap());
}

pub(crate) async fn a_watch_sees_only_its_prefix(store: &Store) {
    let start = put(store, "before", "x").await + 1;
    let mut watch = store.watch("in/", start).await.unwrap();
    put(store, "out/1", "x").await;
    let both = Transaction::new()
        .put("in/1", "1")
        .put("inside", "x")
        .put("in/2", "2");
    let Outcome::Committed { revision } = store.commit(both).await.unwrap() else {
        panic!()
    };
    put(store, "out/2", "x").await;
    let gone = Transaction::new().delete("in/1").delete("in/none");
    let Outcome::Committed { revision: later } = store.commit(gone).await.unwrap() else {
        panic!()
    };
    assert_eq!(next(&mut watch).await, change(revision, "in/1", Some("1")));
    assert_eq!(next(&mut watch).await, change(revision, "in/2", Some("2")));
    assert_eq!(next(&mut watch).await, change(later, "in/1", None));
}

pub(crate) async fn a_watch_from_the_past_replays(store: &Store) {
    let first = put(store, "p/a", "1").await;
    let second = put(store, "p/a", "2").await;
    let third = put(store, "p/b", "3").await;
    let mut all = store.watch("p/", first).await.unwrap();
    assert_eq!(next(&mut all).await, change(first, "p/a", Some("1")));
    assert_eq!(next(&mut all).await, change(second, "p/a", Some("2")));
    assert_eq!(next(&mut all).await, change(third, "p/b", Some("3")));
    let mut late = store.watch("p/", third).await.unwrap();
    assert_eq!(next(&mut late).await, change(third, "p/b", Some("3")));
    // From a revision that is yet to come: only what comes then.
    let mut future = store.watch("p/", third + 2).await.unwrap();
    put(store, "p/c", "skipped").await;
    let fifth = put(store, "p/c", "5").await;
    assert_eq!(next(&mut future).await, change(fifth, "p/c", Some("5")));
}

pub(crate) async fn a_watch_goes_on_after_a_cut(store: &Store) {
    let first = put(store, "cut/a", "1").await;
    let mut watch = store.watch("cut/", first).await.unwrap();
    assert_eq!(next(&mut watch).await.revision, first);
    let second = put(store, "cut/b", "2").await;
    assert_eq!(next(&mut watch).await.revision, second);
    let position = watch.position();
    drop(watch);
    // Happens while nobody watches.
    let gone = Transaction::new().delete("cut/a");
    assert!(store.commit(gone).await.unwrap().is_committed());
    let fourth = put(store, "cut/b", "4").await;
    let mut watch = store.watch("cut/", position).await.unwrap();
    let deleted = next(&mut watch).await;
    assert_eq!((deleted.key.as_str(), deleted.value), ("cut/a", None));
    assert_eq!(next(&mut watch).await, change(fourth, "cut/b", Some("4")));
}

pub(crate) async fn a_forgotten_past_is_told(store: &Store) {
    let first = put(store, "old/a", "1").await;
    for number in 0..20 {
        put(store, "old/a", &number.to_string()).await;
    }
    let last = store.list("old/").await.unwrap().revision;
    store.compact(last).await.unwrap();
    // Twice is no fault.
    store.compact(last - 3).await.unwrap();
    let mut watch = store.watch("old/", first).await.unwrap();
    let ended = tokio::time::timeout(SOON, watch.next())
        .await
        .expect("nothing came");
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    // The present is there, and a watch from it works.
    let listing = store.list("old/").await.unwrap();
    assert_eq!(listing.entries[0].value, b"19");
    let mut watch = store.watch("old/", listing.revision + 1).await.unwrap();
    let new = put(store, "old/b", "new").await;
    assert_eq!(next(&mut watch).await, change(new, "old/b", Some("new")));
}

pub(crate) async fn listing_then_watching_misses_nothing(store: &Store) {
    let writer = store.clone();
    let writer = tokio::spawn(async move {
        for number in 0..300 {
            put(&writer, &format!("gap/{number:03}"), "x").await;
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    let mut rounds = 0;
    while seen.len() < 300 {
        let listing = store.list("gap/").await.unwrap();
        seen.extend(listing.entries.into_iter().map(|entry| entry.key));
        let mut watch = store.watch("gap/", listing.revision + 1).await.unwrap();
        // Some of the changes by the watch, then list again, in the middle of the writing.
        for _ in 0..40 {
            if seen.len() == 300 {
                break;
            }
            let change = next(&mut watch).await;
            assert!(
                seen.insert(change.key.clone()),
                "{} came by the listing already",
                change.key
            );
        }
        rounds += 1;
    }
    writer.await.unwrap();
    assert!(rounds > 0);
}
