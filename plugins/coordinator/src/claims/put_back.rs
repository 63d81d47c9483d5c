//! Puts this host's blocks back into the store where somebody has written another owner over them
//! ([`crate::mirror::Takeover`]).

use std::sync::Arc;
use std::time::Duration;

use drover_store::Transaction;
use tokio::sync::watch;
use tracing::{info, warn};

use super::registrar::{Registrar, Result};
use crate::context::Context;
use crate::mirror::{Snapshot, Takeover};

/// How long to rest after each time: whoever overwrites blocks may do so for ever.
const REST: Duration = Duration::from_secs(1);

/// Watches until the shutdown.
pub(super) async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let registrar = Registrar::of(&context);
    let mut cluster = context.cluster.clone();
    let has_mine = |snapshot: &Snapshot| registrar.taken(snapshot).next().is_some();
    let work = async {
        while let Ok(snapshot) = cluster.wait_for(has_mine).await.map(|it| it.clone()) {
            for takeover in registrar.taken(&snapshot) {
                let block = takeover.believed.block;
                if context.is_fenced() {
                    continue;
                }
                match registrar.put_back(takeover).await {
                    Ok(true) => info!(%block, "this host has put its block back into the store"),
                    Ok(false) => {}
                    Err(error) => warn!(%block, %error, "a block of this host cannot be put back"),
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
    /// The blocks of this host that somebody claims.
    fn taken<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Takeover> {
        let standing = snapshot.takeovers().standing.values();
        standing.filter(|takeover| takeover.owner == self.member)
    }

    /// Writes the record that is believed over a claim; `false` when that is not there any more.
    pub(super) async fn put_back(&self, takeover: &Takeover) -> Result<bool> {
        let (key, revision) = (&takeover.claim.key, takeover.claim.revision);
        let transaction = Transaction::new()
            .if_unchanged(key, revision)
            .put_record(key, &takeover.believed)?;
        Ok(self.store.commit(transaction).await?.is_committed())
    }
}
