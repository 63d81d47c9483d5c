//! Reading, writing, and who wins.

use drover_store::{Error, MAX_OPERATIONS, MAX_VALUE_BYTES, Outcome, Store, Transaction};
use serde::{Deserialize, Serialize};

use crate::text;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    name: String,
}

pub(crate) async fn a_record_comes_back_as_it_was_put(store: &Store) {
    let record = Record {
        version: 1,
        name: "größer".to_owned(),
    };
    let put = Transaction::new()
        .put_record("records/größer", &record)
        .unwrap();
    let Outcome::Committed { revision } = store.commit(put).await.unwrap() else {
        panic!("no condition, and yet a conflict");
    };
    let found = store.get_record::<Record>("records/größer").await.unwrap();
    assert_eq!(found, Some((record, revision)));
    assert_eq!(store.get("records/other").await.unwrap(), None);
    let wrong = store.get_record::<u32>("records/größer").await.unwrap_err();
    assert!(matches!(wrong, Error::Record { key, .. } if key == "records/größer"));
}

pub(crate) async fn of_many_at_once_one_creates_a_key(store: &Store) {
    for round in 0..5 {
        let key = format!("race/{round}");
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move {
                    let mine = Transaction::new()
                        .if_absent(&key)
                        .put(&key, racer.to_string());
                    store
                        .commit(mine)
                        .await
                        .unwrap()
                        .is_committed()
                        .then_some(racer)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for racer in racers {
            winners.extend(racer.await.unwrap());
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(text(store, &key).await.unwrap(), winners[0].to_string());
    }
}

pub(crate) async fn a_counter_loses_no_increment(store: &Store) {
    assert!(
        store
            .commit(Transaction::new().put("counter", "0"))
            .await
            .unwrap()
            .is_committed()
    );
    let adders: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut added = 0;
                while added < 10 {
                    let entry = store.get("counter").await.unwrap().unwrap();
                    let value: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let add = Transaction::new()
                        .if_unchanged("counter", entry.revision)
                        .put("counter", (value + 1).to_string());
                    added += u32::from(store.commit(add).await.unwrap().is_committed());
                }
            })
        })
        .collect();
    for adder in adders {
        adder.await.unwrap();
    }
    assert_eq!(text(store, "counter").await.unwrap(), "80");
}

pub(crate) async fn all_of_a_transaction_happens_or_nothing(store: &Store) {
    let both = Transaction::new().put("pair/a", "1").put("pair/b", "1");
    let Outcome::Committed { revision } = store.commit(both).await.unwrap() else {
        panic!()
    };
    for entry in store.list("pair/").await.unwrap().entries {
        assert_eq!(entry.revision, revision, "one transaction is one revision");
    }
    for refused in [
        Transaction::new()
            .if_unchanged("pair/a", revision)
            .if_absent("pair/b"),
        Transaction::new().if_present("pair/a").if_present("pair/c"),
        Transaction::new().if_unchanged("pair/a", revision - 1),
        Transaction::new().if_unchanged("pair/c", 0),
    ] {
        let refused = refused.put("pair/a", "2").delete("pair/b");
        assert_eq!(store.commit(refused).await.unwrap(), Outcome::Conflict);
    }
    assert_eq!(text(store, "pair/a").await.as_deref(), Some("1"));
    assert_eq!(text(store, "pair/b").await.as_deref(), Some("1"));
    let made = Transaction::new()
        .if_unchanged("pair/a", revision)
        .if_present("pair/b")
        .if_absent("pair/c")
        .put("pair/a", "2")
        .delete("pair/b")
        .put("pair/c", "2");
    assert!(store.commit(made).await.unwrap().is_committed());
    assert_eq!(text(store, "pair/a").await.as_deref(), Some("2"));
    assert_eq!(text(store, "pair/b").await, None);
    assert_eq!(text(store, "pair/c").await.as_deref(), Some("2"));
}

pub(crate) async fn a_listing_is_one_prefix_in_order(store: &Store) {
    let keys = [
        "hosts/c",
        "hosts/a",
        "hosts/b",
        "hostsx",
        "host",
        "hosts/a/deep",
        "networks/1",
    ];
    for key in keys {
        let put = Transaction::new().put(key, key);
        assert!(store.commit(put).await.unwrap().is_committed());
    }
    let listing = store.list("hosts/").await.unwrap();
    let found: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert_eq!(found, ["hosts/a", "hosts/a/deep", "hosts/b", "hosts/c"]);
    assert_eq!(store.list("").await.unwrap().entries.len(), keys.len());
    assert!(store.list("nothing/").await.unwrap().entries.is_empty());
    assert!(
        listing.revision
            >= listing
                .entries
                .iter()
                .map(|entry| entry.revision)
                .max()
                .unwrap()
    );
}

pub(crate) async fn a_long_listing_is_whole(store: &Store) {
    for part in 0..11 {
        let mut transaction = Transaction::new();
        for number in 0..100 {
            transaction = transaction.put(format!("many/{part:02}/{number:02}"), "x");
        }
        assert!(store.commit(transaction).await.unwrap().is_committed());
    }
    let listing = store.list("many/").await.unwrap();
    assert_eq!(listing.entries.len(), 1100);
    assert!(
        listing
            .entries
            .is_sorted_by(|one, other| one.key < other.key)
    );
}

pub(crate) async fn big_values_are_kept_and_too_big_ones_refused(store: &Store) {
    let value: Vec<u8> = (0..MAX_VALUE_BYTES - 100)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    for key in ["big/1", "big/2", "big/3", "big/4", "big/5", "big/6"] {
        let put = Transaction::new().put(key, value.clone());
        assert!(store.commit(put).await.unwrap().is_committed());
    }
    let listing = store.list("big/").await.unwrap();
    assert_eq!(listing.entries.len(), 6);
    assert!(listing.entries.iter().all(|entry| entry.value == value));
    let mut watch = store
        .watch("big/", listing.entries[0].revision)
        .await
        .unwrap();
    for _ in 0..6 {
        assert_eq!(crate::next(&mut watch).await.value.as_ref(), Some(&value));
    }
    let put = Transaction::new().put("big/7", vec![0; MAX_VALUE_BYTES + 1]);
    assert!(matches!(
        store.commit(put).await,
        Err(Error::TooLarge { .. })
    ));
}

pub(crate) async fn more_than_the_limit_is_refused(store: &Store) {
    let of = |count: usize| {
        let numbers = 0..count;
        numbers.fold(Transaction::new(), |sum, number| {
            sum.put(format!("limit/{number}"), "x")
        })
    };
    assert!(
        store
            .commit(of(MAX_OPERATIONS))
            .await
            .unwrap()
            .is_committed()
    );
    assert_eq!(of(MAX_OPERATIONS).room(), 0);
    let refused = store.commit(of(MAX_OPERATIONS + 1)).await.unwrap_err();
    assert!(refused.to_string().contains("129"), "{refused}");
    let mut conditions = Transaction::new().put("limit/one", "x");
    for number in 0..=MAX_OPERATIONS {
        conditions = conditions.if_present(format!("limit/{number}"));
    }
    assert!(matches!(
        store.commit(conditions).await,
        Err(Error::TooLarge { .. })
    ));
}

pub(crate) async fn a_key_changed_twice_is_refused(store: &Store) {
    for twice in [
        Transaction::new().put("twice", "1").put("twice", "2"),
        Transaction::new().put("twice", "1").delete("twice"),
    ] {
        assert!(
            matches!(store.commit(twice).await, Err(Error::Repeated { key }) if key == "twice")
        );
    }
    assert_eq!(text(store, "twice").await, None);
}

pub(crate) async fn what_is_no_key_is_refused(store: &Store) {
    for key in ["", "a\0b", "line\nbreak", &"k".repeat(1025)] {
        let refused = |result: Result<(), Error>| matches!(result, Err(Error::Key { .. }));
        let put = Transaction::new().put(key, "x");
        assert!(refused(store.commit(put).await.map(drop)), "put {key:?}");
        let condition = Transaction::new().if_absent(key).put("fine", "x");
        assert!(
            refused(store.commit(condition).await.map(drop)),
            "condition {key:?}"
        );
        assert!(refused(store.get(key).await.map(drop)), "get {key:?}");
    }
    assert_eq!(text(store, "fine").await, None);
    let name = Transaction::new().put("names/my net ö", "x");
    assert!(store.commit(name).await.unwrap().is_committed());
}

pub(crate) async fn deleting_nothing_changes_nothing(store: &Store) {
    assert!(
        store
            .commit(Transaction::new().put("there", "x"))
            .await
            .unwrap()
            .is_committed()
    );
    let before = store.list("").await.unwrap().revision;
    let nothing = store
        .commit(Transaction::new().delete("not there"))
        .await
        .unwrap();
    assert!(nothing.is_committed());
    assert_eq!(store.list("").await.unwrap().revision, before);
    assert!(
        store
            .commit(Transaction::new())
            .await
            .unwrap()
            .is_committed()
    );
    assert_eq!(store.list("").await.unwrap().revision, before);
}

pub(crate) async fn a_frozen_store_changes_no_more(store: &Store) {
    let adders: Vec<_> = (0..8)
        .map(|adder| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut made = 0;
                loop {
                    let add = Transaction::new().put(format!("f/{adder}/{made}"), "x");
                    match store.commit(add).await {
                        Ok(outcome) => made += u32::from(outcome.is_committed()),
                        Err(Error::Moving) => return made,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    while store.list("f/").await.unwrap().entries.len() < 50 {
        tokio::task::yield_now().await;
    }
    let listing = store.freeze().await.unwrap();
    let mut made = 0;
    for adder in adders {
        made += adder.await.unwrap();
    }
    let found = listing
        .entries
        .iter()
        .filter(|entry| entry.key.starts_with("f/"))
        .count();
    assert_eq!(
        u32::try_from(found).unwrap(),
        made,
        "what was said to be made is in the listing"
    );
    assert_eq!(store.list("").await.unwrap(), listing);
    let refused = store
        .commit(Transaction::new().put("late", "x"))
        .await
        .unwrap_err();
    assert!(refused.is_unavailable(), "{refused:?}");
    store.thaw().await;
    assert!(
        store
            .commit(Transaction::new().put("late", "x"))
            .await
            .unwrap()
            .is_committed()
    );
}

pub(crate) async fn who_is_fenced_changes_no_more(store: &Store) {
    let mine = store.fenced_by("members/mine");
    let write = |value: &str| Transaction::new().put("block", value);
    assert!(matches!(
        mine.commit(write("early")).await,
        Err(Error::Fenced)
    ));
    assert!(
        store
            .commit(Transaction::new().put("members/mine", ""))
            .await
            .unwrap()
            .is_committed()
    );
    assert!(mine.commit(write("mine")).await.unwrap().is_committed());
    let conflict = mine
        .commit(write("again").if_absent("block"))
        .await
        .unwrap();
    assert_eq!(
        conflict,
        Outcome::Conflict,
        "a conflict of its own is not the fence"
    );
    // Leaving: the last that a member does is its own.
    let last = Transaction::new().delete("members/mine").put("left", "x");
    assert!(mine.commit(last).await.unwrap().is_committed());
    assert!(matches!(
        mine.commit(write("late")).await,
        Err(Error::Fenced)
    ));
    assert!(matches!(
        mine.clone().commit(write("late").if_present("block")).await,
        Err(Error::Fenced)
    ));
    assert_eq!(text(store, "block").await.as_deref(), Some("mine"));
    assert!(
        mine.unfenced()
            .commit(write("other"))
            .await
            .unwrap()
            .is_committed()
    );
}
