//! Carries what is in one store to another.

use drover_control_api::Failure;
use drover_store::{Entry, MAX_VALUE_BYTES, Store, Transaction};

use super::failure;

/// What is bound to leases of a store, and means nothing in another.
const LEASED: &str = "alive/";
/// Leaves room for keys beside the values.
const BATCH_BYTES: usize = MAX_VALUE_BYTES / 2;

/// Writes all entries to a store.
pub(super) async fn copy(entries: &[Entry], to: &Store) -> Result<(), Failure> {
    let mut batch = Transaction::new();
    let mut bytes = 0_usize;
    for entry in entries
        .iter()
        .filter(|entry| !entry.key.starts_with(LEASED))
    {
        let size = entry.value.len();
        if batch.room() == 0 || (bytes.saturating_add(size) > BATCH_BYTES && !batch.is_empty()) {
            commit(to, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        batch = batch.put(&entry.key, entry.value.clone());
    }
    commit(to, batch).await
}

/// Deletes everything but one key.
pub(super) async fn wipe(store: &Store, keep: &str) -> Result<(), Failure> {
    let listing = store
        .list("")
        .await
        .map_err(|error| failure::store(&error))?;
    let keys: Vec<_> = listing.entries.into_iter().map(|entry| entry.key).collect();
    delete(store, keys.into_iter().filter(|key| key != keep)).await
}

/// Deletes keys.
pub(super) async fn delete(
    store: &Store,
    keys: impl IntoIterator<Item = String>,
) -> Result<(), Failure> {
    let mut batch = Transaction::new();
    for key in keys {
        if batch.room() == 0 {
            commit(store, std::mem::take(&mut batch)).await?;
        }
        batch = batch.delete(key);
    }
    commit(store, batch).await
}

async fn commit(store: &Store, transaction: Transaction) -> Result<(), Failure> {
    // It has no condition, so there is no conflict.
    store
        .commit(transaction)
        .await
        .map(drop)
        .map_err(|error| failure::store(&error))
}
