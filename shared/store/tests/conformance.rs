//! One suite for every implementation of the store: what holds for one must hold for all.
//!
//! It runs on the embedded store, on the machine's etcd, and on every etcd that `DROVER_TEST_ETCD`
//! lists (paths of binaries, separated by colons). Without any etcd it fails: a suite that was not
//! run proves nothing.
#![cfg(test)]

#[path = "conformance/backend.rs"]
mod backend;
#[path = "conformance/leases.rs"]
mod leases;
#[path = "conformance/restarts.rs"]
mod restarts;
#[path = "conformance/transactions.rs"]
mod transactions;
#[path = "conformance/watches.rs"]
mod watches;

use std::time::Duration;

use drover_store::{Change, Store, Watch};

/// How long anything may take that is to happen at once.
const SOON: Duration = Duration::from_secs(10);

/// The next change, which must come soon.
async fn next(watch: &mut Watch) -> Change {
    tokio::time::timeout(SOON, watch.next())
        .await
        .expect("no change came")
        .expect("the watch ended")
}

/// A key to its value as text; `None` when it is not there.
async fn text(store: &Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value).unwrap())
}

/// One test function a case and implementation.
macro_rules! conformance {
    ($($module:ident::$case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let backend = crate::backend::Embedded::start();
                crate::$module::$case(&backend.store).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                for binary in crate::backend::etcd_binaries() {
                    let backend = crate::backend::Etcd::start(&binary).await;
                    eprintln!("{} on {}", stringify!($case), backend.version());
                    let store = backend.store().await;
                    crate::$module::$case(&store).await;
                }
            })*
        }
    };
}

conformance![
    transactions::a_record_comes_back_as_it_was_put,
    transactions::of_many_at_once_one_creates_a_key,
    transactions::a_counter_loses_no_increment,
    transactions::all_of_a_transaction_happens_or_nothing,
    transactions::a_listing_is_one_prefix_in_order,
    transactions::a_long_listing_is_whole,
    transactions::big_values_are_kept_and_too_big_ones_refused,
    transactions::more_than_the_limit_is_refused,
    transactions::a_key_changed_twice_is_refused,
    transactions::what_is_no_key_is_refused,
    transactions::deleting_nothing_changes_nothing,
    transactions::a_frozen_store_changes_no_more,
    transactions::who_is_fenced_changes_no_more,
    watches::every_change_comes_once_in_order,
    watches::a_watch_sees_only_its_prefix,
    watches::a_watch_from_the_past_replays,
    watches::a_watch_goes_on_after_a_cut,
    watches::a_forgotten_past_is_told,
    watches::listing_then_watching_misses_nothing,
    leases::a_lease_that_is_not_kept_takes_its_keys,
    leases::a_lease_that_is_kept_stays,
    leases::a_revoked_lease_takes_its_keys_at_once,
    leases::a_lease_that_is_gone_fences_its_holder,
    leases::a_key_put_again_without_the_lease_outlives_it,
];
