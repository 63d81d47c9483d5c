//! Detaches volumes late: when the engine says that no container that uses them runs.
//!
//! An engine gives up a `Mount` after 120 s, and sends no `Unmount` for it. This process need not notice, as when it was stopped
//! meanwhile, so whatever was mounted is looked at once more when a container that it was mounted for would run.

use std::sync::Arc;
use std::time::Duration;

use drover_volumes::holds::{Users, Verdict};
use drover_volumes::record::VolumeRecord;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::clock::now;
use crate::work::Work;

/// How long after an `Unmount` the engine is asked first: the container is about to be gone.
const FIRST: Duration = Duration::from_secs(1);
/// How long between questions while something waits, at most.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs until the shutdown.
pub(crate) async fn run(work: Arc<Work>, mut shutdown: watch::Receiver<bool>) {
    let mut wait = FIRST;
    loop {
        let waits = !candidates(&work).is_empty();
        let confirms = is_any_unconfirmed(&work);
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = work.released.notified() => wait = FIRST,
            () = work.mounted.notified(), if !confirms => continue,
            // Nothing to ask about: nobody is asked.
            () = sleep(wait), if waits => {}
            () = sleep(LONGEST), if confirms => {}
        }
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = sleep(FIRST) => {}
        }
        if pass(&work).await {
            wait = FIRST;
        } else {
            wait = (wait * 2).min(LONGEST);
        }
    }
}

/// Whether a volume was mounted, and nobody has looked since then if a container runs with it.
fn is_any_unconfirmed(work: &Work) -> bool {
    let all = work.catalogue.volumes();
    let mut observed = all.iter().map(|it| work.catalogue.observed(&it.id));
    observed.any(|it| it.attached && it.unconfirmed)
}

/// What may have to be detached.
fn candidates(work: &Work) -> Vec<VolumeRecord> {
    let (all, now) = (work.catalogue.volumes().into_iter(), now());
    all.filter(|record| {
        let observed = work.catalogue.observed(&record.id);
        let (suspect, unconfirmed) = (observed.suspect, observed.unconfirmed);
        let is_doubtful = record.holds.is_doubtful(suspect, unconfirmed, now);
        record.is_ready() && observed.attached && is_doubtful
    })
    .collect()
}

/// Asks about each candidate; whether anything was detached.
async fn pass(work: &Work) -> bool {
    let mut detached = false;
    for record in candidates(work) {
        detached |= look(work, &record).await;
    }
    detached
}

async fn look(work: &Work, record: &VolumeRecord) -> bool {
    let before = record.holds.clone();
    let users = match timeout(Duration::from_secs(15), work.running_users(&record.name)).await {
        Ok(Ok(users)) if users.is_empty() => Users::None,
        Ok(Ok(_)) => Users::Some,
        Ok(Err(error)) => {
            debug!(%error, "the engine does not say who uses a volume");
            Users::Unknown
        }
        Err(_) => Users::Unknown,
    };
    if users == Users::Some && !record.holds.is_empty() {
        // It is held by the very container that runs.
        work.catalogue.observe(&record.id, |it| {
            it.suspect = false;
            it.unconfirmed = false;
        });
    }
    let _gate = work.gate(&record.name).await;
    let Some(record) = work.catalogue.volume(&record.id) else {
        return false;
    };
    // A mount that came since then is of a container that the answer does not know.
    let is_as_asked = record.holds == before && record.is_ready();
    if !is_as_asked || record.holds.verdict(users, now()) == Verdict::Wait {
        return false;
    }
    match work.detach(&record).await {
        Ok(()) => {
            info!(volume = %record.name, "detached: no container uses it");
            true
        }
        Err(error) => {
            warn!(volume = %record.name, error = error.sentence(), "could not be detached");
            false
        }
    }
}
