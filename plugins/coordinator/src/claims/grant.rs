//! Answers the claims of other hosts on addresses of this host's blocks: `drover-ipam` sets the
//! address aside, durably, and then the claim is granted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_allocation::block::claimed;
use drover_allocation::claim;
use drover_control_api::plugin::{SetAside, TakeBack};
use drover_control_api::record::BlockRecord;
use drover_http::control::call;
use drover_model::{HostName, Pool};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Registrar;
use crate::context::Context;
use crate::mirror::Snapshot;

/// How long `drover-ipam` may take: it answers from memory and one write to disk.
const LIMIT: Duration = Duration::from_secs(1);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_millis(300);

/// What is known of the blocks of this host.
#[derive(Debug, Default)]
struct Granter {
    /// The records as they were last looked at, by key.
    seen: BTreeMap<String, (u64, BlockRecord)>,
    /// Addresses that others held or asked for.
    kept: BTreeSet<(Pool, IpAddr, HostName)>,
}

/// Answers claims until the shutdown.
pub(super) async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let mut cluster = context.cluster.clone();
    let mut granter = Granter::default();
    loop {
        let snapshot = cluster.borrow_and_update().clone();
        let failed = !granter.look(&context, &snapshot).await;
        let again = async {
            if failed {
                tokio::time::sleep(RETRY).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = cluster.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = again => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
    }
}

impl Granter {
    /// Looks at what changed; `false` when something is to be tried again.
    async fn look(&mut self, context: &Context, snapshot: &Snapshot) -> bool {
        self.update(context, snapshot);
        let registrar = Registrar::of(context);
        let mut done = true;
        let mut kept = BTreeSet::new();
        for (_, record) in self.seen.values() {
            kept.extend(
                claimed(record)
                    .into_iter()
                    .map(|(address, holder)| (record.pool, address, holder)),
            );
            for (address, asker) in claim::requested(record) {
                let answered = answer(context, &registrar, record, (address, &asker)).await;
                debug!(%address, %asker, answered, "another host claims an address of a block of this host");
                done &= answered;
            }
        }
        let gone: Vec<_> = self.kept.difference(&kept).cloned().collect();
        for (pool, address, holder) in gone {
            if !take_back(context, pool, address, &holder).await {
                done = false;
                kept.insert((pool, address, holder));
            }
        }
        self.kept = kept;
        done
    }

    /// Reads again the blocks whose records changed.
    fn update(&mut self, context: &Context, snapshot: &Snapshot) {
        let member = Registrar::of(context).member;
        let mut seen = BTreeMap::new();
        for (key, entry) in snapshot.under("blocks/") {
            let known = self
                .seen
                .remove(key)
                .filter(|(revision, _)| *revision == entry.revision);
            let record = known.or_else(|| Some((entry.revision, entry.decode().ok()?)));
            if let Some((revision, record)) = record
                && member.owns(&record)
            {
                seen.insert(key.to_owned(), (revision, record));
            }
        }
        self.seen = seen;
    }
}

async fn answer(
    context: &Context,
    registrar: &Registrar,
    record: &BlockRecord,
    (address, asker): (IpAddr, &HostName),
) -> bool {
    let request = SetAside {
        pool: record.pool,
        address,
        holder: asker.clone(),
    };
    let granted = match call(&context.ipam, &request, LIMIT).await {
        Ok(answer) => answer.granted,
        Err(error) => {
            warn!(%address, %error, "drover-ipam does not say whether an address is free for another host");
            return false;
        }
    };
    match registrar.settle(record, address, asker, granted).await {
        Ok(()) => {
            info!(%address, granted, "answered a claim of another host");
            true
        }
        Err(error) => {
            warn!(%address, %error, "the answer to a claim was not written");
            false
        }
    }
}

async fn take_back(context: &Context, pool: Pool, address: IpAddr, holder: &HostName) -> bool {
    let holder = holder.clone();
    let request = TakeBack {
        pool,
        address,
        holder,
    };
    let taken = call(&context.ipam, &request, LIMIT).await;
    if let Err(error) = &taken {
        debug!(%address, %error, "drover-ipam does not take an address back yet");
    }
    taken.is_ok()
}
