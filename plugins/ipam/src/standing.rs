//! Who this host is in its cluster, and whether it may give out anything: what the fabric stream says.
//!
//! A host that starts waits a moment for the coordinator, so that it does not give what it has lost
//! while it was off. With no coordinator there it goes on with what it has. A host that was removed
//! gives nothing; one that has joined again gives nothing before it has compared with its new cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drover_allocation::block::Member;
use drover_control_api::coordinator::{Pools, ReleaseAddress, ReleaseBlock};
use drover_control_api::fabric::{FabricEvent, PATH};
use drover_control_api::record::BlockRecord;
use drover_daemon::Backoff;
use drover_http::ClientError;
use drover_model::{Block, HostName, Pool};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::driver::Ipam;
use crate::error::Error;
use crate::ledger::View;

/// How long a start waits for the coordinator.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a request waits for a comparison.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long nothing must change before what changed is looked at, and how long that is waited for.
const GATHER: Duration = Duration::from_millis(200);
const GATHER_MOST: Duration = Duration::from_secs(1);

/// This host's standing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// This host, once the coordinator has said.
    pub(crate) member: Option<Member>,
    /// Whether it was removed from its cluster.
    pub(crate) fenced: bool,
    /// Whether the coordinator answers.
    pub(crate) reachable: bool,
    /// Whether the start is over: compared, or no coordinator there to compare with.
    pub(crate) settled: bool,
    /// Whether it became another member, and what it has is not compared yet.
    pub(crate) unproven: bool,
}

/// What the stream has said since its `Reset`.
#[derive(Debug, Default)]
struct Follower {
    host: Option<HostName>,
    fenced: bool,
    member: Option<Member>,
    synced: bool,
    dirty: BTreeSet<Pool>,
    /// Blocks that changed, and may say what is known here already; `None` when one is gone.
    changed: BTreeMap<Block, Option<BlockRecord>>,
    /// Since when something is dirty.
    since: Option<Instant>,
}

impl Follower {
    fn has_news(&self) -> bool {
        !self.dirty.is_empty() || !self.changed.is_empty()
    }
}

/// Follows the fabric until the shutdown.
pub(crate) async fn watch(ipam: Arc<Ipam>, mut shutdown: watch::Receiver<bool>) {
    let follow = async {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            match ipam.follow(&mut backoff).await {
                Ok(()) => debug!("the fabric stream ended"),
                Err(error) => debug!(%error, "the fabric stream is cut"),
            }
            ipam.standing.send_modify(|standing| {
                standing.reachable = false;
                standing.settled = true;
            });
            tokio::time::sleep(backoff.next_delay()).await;
        }
    };
    let settle = async {
        tokio::time::sleep(SETTLE).await;
        ipam.standing
            .send_modify(|standing| standing.settled = true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow => {}
        () = settle => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

impl Ipam {
    /// Waits until it is clear whether this host may give out anything.
    pub(crate) async fn may_give(&self) -> Result<(), Error> {
        let mut standing = self.standing.subscribe();
        let clear = standing
            .wait_for(|standing| standing.fenced || (standing.settled && !standing.unproven));
        let clear = tokio::time::timeout(PATIENCE, clear).await;
        match clear {
            Ok(Ok(standing)) if standing.fenced => Err(Error::Fenced),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unproven),
        }
    }

    async fn follow(&self, backoff: &mut Backoff) -> Result<(), ClientError> {
        let mut lines = self.coordinator.client().lines(PATH).await?;
        let mut follower = Follower::default();
        loop {
            let line = if follower.synced && follower.has_news() {
                // Cancel-safe: a line that is not complete stays in the buffer.
                match tokio::time::timeout(GATHER, lines.next()).await {
                    Ok(line) => line?,
                    Err(_) => {
                        self.look(&mut follower).await;
                        continue;
                    }
                }
            } else {
                lines.next().await?
            };
            let Some(line) = line else { return Ok(()) };
            if line.is_empty() {
                continue;
            }
            match serde_json::from_str(&line) {
                Ok(event) => self.hear(&mut follower, event),
                Err(error) => warn!(%error, "a line of the fabric stream is not understood"),
            }
            if follower.synced {
                backoff.reset();
            }
            if !follower.has_news() {
                follower.since = None;
            } else if follower.since.get_or_insert_with(Instant::now).elapsed() > GATHER_MOST
                && follower.synced
            {
                self.look(&mut follower).await;
            }
        }
    }

    fn hear(&self, follower: &mut Follower, event: FabricEvent) {
        match event {
            FabricEvent::Reset {
                this_host, fenced, ..
            } => {
                *follower = Follower {
                    host: Some(this_host),
                    fenced,
                    ..Follower::default()
                };
                if fenced {
                    self.standing.send_modify(|standing| standing.fenced = true);
                }
            }
            FabricEvent::Host(record) if Some(&record.name) == follower.host.as_ref() => {
                let member = Member {
                    host: record.name,
                    id: record.member,
                };
                self.standing.send_modify(|standing| {
                    let known = standing.member.as_ref();
                    standing.unproven |= known.is_some_and(|known| *known != member);
                });
                if follower
                    .member
                    .as_ref()
                    .is_some_and(|known| *known != member)
                {
                    follower.dirty.extend(self.ledger.pools());
                }
                follower.member = Some(member);
            }
            // All of them are compared with after `Synced`.
            FabricEvent::Block(record) if follower.synced => {
                follower.changed.insert(record.block, Some(record));
            }
            FabricEvent::BlockGone { block } => {
                follower.changed.insert(block, None);
            }
            FabricEvent::Synced => {
                follower.synced = true;
                follower.dirty.extend(self.ledger.pools());
                if follower.dirty.is_empty() {
                    self.proven(follower);
                }
            }
            FabricEvent::Block(_)
            | FabricEvent::Host(_)
            | FabricEvent::HostGone { .. }
            | FabricEvent::Key(_)
            | FabricEvent::KeyGone { .. } => {}
        }
    }

    /// Compares what changed, and what has to be compared before anything is given out.
    async fn look(&self, follower: &mut Follower) {
        if follower.fenced {
            return self.proven(follower);
        }
        self.standing
            .send_modify(|standing| standing.member.clone_from(&follower.member));
        follower.since = None;
        self.look_at_blocks(follower);
        let dirty = std::mem::take(&mut follower.dirty);
        let known: Vec<Pool> = dirty
            .iter()
            .copied()
            .filter(|pool| self.ledger.has_pool(*pool))
            .collect();
        match self.agree(&known).await {
            Ok(()) => self.proven(follower),
            Err(error) => {
                debug!(%error, "what this host has is not compared yet");
                follower.dirty = dirty;
            }
        }
    }

    /// Which of the blocks that changed say something new: this host's own claims come back to it, too.
    fn look_at_blocks(&self, follower: &mut Follower) {
        for (block, record) in std::mem::take(&mut follower.changed) {
            let known = match (&record, &follower.member) {
                (Some(record), Some(member)) => self.ledger.agrees_with(record, member),
                (Some(_), None) => true,
                (None, _) => self.ledger.agrees_without(block),
            };
            if !known {
                let pools = self.ledger.pools().into_iter();
                follower
                    .dirty
                    .extend(pools.filter(|pool| pool.overlaps(block.prefix())));
            }
        }
    }

    fn proven(&self, follower: &mut Follower) {
        follower.dirty.clear();
        self.standing.send_if_modified(|standing| {
            let proven = Standing {
                member: follower.member.clone(),
                fenced: follower.fenced,
                reachable: true,
                settled: true,
                unproven: false,
            };
            let news = *standing != proven;
            if news {
                info!(
                    fenced = proven.fenced,
                    "this host's part is what its cluster says"
                );
            }
            *standing = proven;
            news
        });
    }

    /// Compares pools with the store, and tells it what it has to know.
    pub(crate) async fn agree(&self, pools: &[Pool]) -> Result<(), Error> {
        let mut pools = pools.to_vec();
        pools.sort_unstable();
        let gates: Vec<_> = pools
            .iter()
            .filter_map(|pool| self.ledger.gate(*pool))
            .collect();
        let mut asking = Vec::new();
        for gate in &gates {
            asking.push(gate.lock().await);
        }
        self.agree_asking(&pools).await
    }

    /// The same, with the gates held by the caller.
    pub(crate) async fn agree_asking(&self, pools: &[Pool]) -> Result<(), Error> {
        // Without a word of the coordinator yet there is nothing to compare with.
        let Some(member) = self.standing.borrow().member.clone() else {
            return Ok(());
        };
        if pools.is_empty() {
            return Ok(());
        }
        let marks: Vec<_> = pools.iter().map(|pool| self.ledger.mark(*pool)).collect();
        let table = self.coordinator.call(&Pools {}).await?;
        for (pool, mark) in pools.iter().zip(marks) {
            let view = View {
                table: &table,
                member: &member,
                mark,
            };
            let agreement = self.ledger.agree(*pool, &view)?;
            for address in agreement.release_addresses {
                let request = ReleaseAddress {
                    pool: *pool,
                    address,
                };
                self.coordinator.call(&request).await?;
                self.ledger.finish_release(*pool, address)?;
            }
            for block in agreement.release_blocks {
                self.coordinator
                    .call(&ReleaseBlock { pool: *pool, block })
                    .await?;
                self.ledger.finish_leave(*pool, block)?;
            }
        }
        Ok(())
    }
}
