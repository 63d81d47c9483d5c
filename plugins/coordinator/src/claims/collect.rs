//! Removes pools that nothing has: their network was never created, and nobody said so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::record::{HostRecord, PoolRecord};
use drover_model::Pool;
use tokio::sync::watch;
use tracing::{debug, info};

use super::Registrar;
use super::registrar::Result;
use crate::context::{Context, now};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(30);
/// A pool that is younger may belong to a network that is being created.
const YOUNG: u64 = 120;

/// Looks now and then until the shutdown.
pub(super) async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        if context.is_fenced() {
            continue;
        }
        // Without the engine nobody knows which networks this host has.
        let networks = match context.engine.networks().await {
            Ok(networks) => networks,
            Err(error) => {
                debug!(%error, "pools are not looked through while the engine does not answer");
                continue;
            }
        };
        let subnets = networks
            .iter()
            .flat_map(|network| network.ipam.config.iter());
        let in_use = subnets
            .filter_map(|config| config.subnet.parse().ok())
            .collect();
        match Registrar::of(&context).collect(&in_use).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => info!(?removed, "removed pools that no network has"),
            Err(error) => debug!(%error, "pools could not be looked through"),
        }
    }
}

impl Registrar {
    /// Removes the pools that this host, or one that is not there any more, claimed for a network that
    /// does not exist. `in_use` are the subnets of this host's engine.
    pub(super) async fn collect(&self, in_use: &BTreeSet<Pool>) -> Result<Vec<Pool>> {
        let mut removed = Vec::new();
        let hosts: Vec<HostRecord> = self.list("hosts/").await?;
        for entry in self.store.list("pools/").await?.entries {
            let record: PoolRecord = entry.decode()?;
            let own = record.claimed_by == self.member.host;
            let orphaned = !hosts.iter().any(|host| host.name == record.claimed_by);
            let young = record.claimed_at.saturating_add(YOUNG) > now();
            if young || in_use.contains(&record.pool) || !(own || orphaned) {
                continue;
            }
            if self.network_of(&record).await?.is_some() || self.has_copies(&record).await? {
                continue;
            }
            if self.remove_pool(&record, entry.revision).await? {
                removed.push(record.pool);
            }
        }
        Ok(removed)
    }

    async fn has_copies(&self, record: &PoolRecord) -> Result<bool> {
        let Some(id) = &record.network else {
            return Ok(false);
        };
        Ok(!self
            .store
            .list(&format!("copies/{id}/"))
            .await?
            .entries
            .is_empty())
    }
}
