//! Puts records of blocks back into the store where somebody has written another owner over them, or has deleted them
//! ([`crate::mirror::Takeover`]).
//!
//! A block's owner does so at once. What was deleted, any other host puts back as well, if the owner has not done so after a
//! while: it may be off, and its block would be claimed.

use std::sync::Arc;
use std::time::Duration;

use drover_control_api::record::UnixSeconds;
use drover_store::Transaction;
use tokio::sync::watch;
use tracing::{info, warn};

use super::registrar::{Registrar, Result, pool_key};
use crate::context::{Context, now};
use crate::mirror::{Found, Snapshot, Takeover};

/// How long to rest after each time: whoever overwrites blocks may do so for ever.
const REST: Duration = Duration::from_secs(1);
/// How long the owner of a block has to put back what was deleted, in seconds.
const OWNERS: u64 = 3;

/// Watches until the shutdown.
pub(super) async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let registrar = Registrar::of(&context);
    let mut cluster = context.cluster.clone();
    let stands = |snapshot: &Snapshot| !snapshot.takeovers().standing.is_empty();
    let work = async {
        while let Ok(snapshot) = cluster.wait_for(stands).await.map(|it| it.clone()) {
            for takeover in registrar.to_put_back(&snapshot, now()) {
                let block = takeover.believed.block;
                if context.is_fenced() {
                    continue;
                }
                match registrar.put_back(takeover).await {
                    Ok(true) => info!(%block, "the record of a block is put back into the store"),
                    Ok(false) => {}
                    Err(error) => warn!(%block, %error, "the record of a block cannot be put back"),
                }
            }
            tokio::time::sleep(REST).await;
        }
    };
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

impl Registrar {
    /// What this host is to put back.
    pub(super) fn to_put_back<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        now: UnixSeconds,
    ) -> impl Iterator<Item = &'a Takeover> {
        let standing = snapshot.takeovers().standing.values();
        standing.filter(move |it| {
            let left = it.found == Found::Nothing && now >= it.at.saturating_add(OWNERS);
            it.owner == self.member || left
        })
    }

    /// Writes the record that is believed where something else was found; `false` when that is not so any more.
    pub(super) async fn put_back(&self, takeover: &Takeover) -> Result<bool> {
        let key = &takeover.key;
        let transaction = match &takeover.found {
            Found::Claim { entry, .. } => Transaction::new().if_unchanged(key, entry.revision),
            Found::Nothing => Transaction::new()
                .if_absent(key)
                .if_present(pool_key(takeover.believed.pool)),
        };
        let transaction = transaction.put_record(key, &takeover.believed)?;
        Ok(self.store.commit(transaction).await?.is_committed())
    }
}
