//! Containers come to a new network only once the cluster has it.
//!
//! Two hosts can create networks of one name at the same moment, and only one of these becomes the cluster's. The other is
//! replaced, which an engine does only while no container is on it: so the first address waits for who has won. `docker compose
//! up` on several hosts at once gets there within a tenth of a second.

use std::time::Duration;

use drover_control_api::record::PoolRecord;
use drover_model::Pool;
use tokio::sync::watch;

use super::failure::ClaimFailure;
use super::registrar::{Result, pool_key};
use crate::mirror::Snapshot;
use crate::networks::State;

/// How long the first address waits at most.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Waits until the network of a pool is the cluster's, or for [`PATIENCE`] in vain.
///
/// # Errors
/// When the network is about to be replaced, with what it gives way to.
pub(super) async fn wait(
    cluster: watch::Receiver<Snapshot>,
    looks: watch::Receiver<State>,
    pool: Pool,
) -> Result<()> {
    tokio::time::timeout(PATIENCE, decision(cluster, looks, pool))
        .await
        .unwrap_or(Ok(()))
}

async fn decision(
    mut cluster: watch::Receiver<Snapshot>,
    mut looks: watch::Receiver<State>,
    pool: Pool,
) -> Result<()> {
    loop {
        if is_accepted(&cluster.borrow_and_update(), pool) {
            return Ok(());
        }
        if let Some(decided) = look_says(&looks.borrow_and_update(), pool) {
            return decided;
        }
        let changed = tokio::select! {
            changed = cluster.changed() => changed,
            changed = looks.changed() => changed,
        };
        if changed.is_err() {
            return Ok(());
        }
    }
}

fn look_says(look: &State, pool: Pool) -> Option<Result<()>> {
    if let Some(reason) = look.discarded.get(&pool).cloned() {
        return Some(Err(ClaimFailure::Discarded { pool, reason }));
    }
    // Nothing is decided while the engine cannot be asked.
    look.engine_problem.is_some().then_some(Ok(()))
}

fn is_accepted(snapshot: &Snapshot, pool: Pool) -> bool {
    snapshot
        .record::<PoolRecord>(&pool_key(pool))
        .is_some_and(|record| record.network.is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use drover_store::Entry;

    use super::*;

    fn pool() -> Pool {
        "10.64.0.0/16".parse().unwrap()
    }

    /// The cluster's records once the pool was given out, and its network is known or not.
    fn given_out(network_is_known: bool) -> Snapshot {
        let record = PoolRecord {
            version: 1,
            pool: pool(),
            sub_pool: None,
            block_prefix: 24,
            reserved: BTreeSet::new(),
            claimed_by: "a".parse().unwrap(),
            claimed_at: 1,
            network: network_is_known.then(|| "00000000000000ab".parse().unwrap()),
        };
        Snapshot::of(vec![Entry {
            key: pool_key(pool()),
            value: serde_json::to_vec(&record).unwrap(),
            revision: 1,
        }])
    }

    /// What a claim waits for, with the ends by which it is told.
    async fn waiting() -> (
        watch::Sender<Snapshot>,
        watch::Sender<State>,
        tokio::task::JoinHandle<Result<()>>,
    ) {
        let (tell, cluster) = watch::channel(given_out(false));
        let (look, looks) = watch::channel(State::default());
        let waiting = tokio::spawn(decision(cluster, looks, pool()));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        (tell, look, waiting)
    }

    fn discarding() -> State {
        State {
            discarded: [(pool(), "another was first".to_owned())].into(),
            ..State::default()
        }
    }

    #[tokio::test]
    async fn a_network_that_is_known_waits_for_nothing() {
        let (_cluster, cluster) = watch::channel(given_out(true));
        let (_looks, looks) = watch::channel(State::default());
        decision(cluster, looks, pool()).await.unwrap();
    }

    #[tokio::test]
    async fn a_new_network_waits_until_it_is_known() {
        let (tell, _look, waiting) = waiting().await;
        tell.send_replace(given_out(true));
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_network_that_gives_way_gets_no_address() {
        let (_tell, look, waiting) = waiting().await;
        look.send_replace(discarding());
        let refused = waiting.await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("another was first"), "{refused}");
    }

    #[tokio::test]
    async fn while_the_engine_does_not_answer_containers_start() {
        let (_cluster, cluster) = watch::channel(given_out(false));
        let (_looks, looks) = watch::channel(State {
            engine_problem: Some("no answer".to_owned()),
            ..State::default()
        });
        decision(cluster, looks, pool()).await.unwrap();
    }

    #[tokio::test]
    async fn without_an_answer_containers_start_after_a_while() {
        let (_cluster, cluster) = watch::channel(Snapshot::default());
        let (_looks, looks) = watch::channel(State::default());
        wait(cluster, looks, pool()).await.unwrap();
    }
}
