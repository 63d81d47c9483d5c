//! The start: pools are opened, what a kill left half done is finished or undone, and what is attached is read from the
//! kernel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drover_daemon::Backoff;
use drover_model::BackendKind;
use drover_storage::mounts;
use drover_volumes::record::{SnapshotReason, SnapshotState, VolumeState};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::pools::Making;
use crate::work::Work;

/// Opens the pools, again and again until all are there, and brings everything in order.
pub(crate) async fn run(work: Arc<Work>, mut shutdown: watch::Receiver<bool>) {
    let began = crate::clock::now();
    note_attached(&work);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut told = String::new();
    loop {
        open(&work).await;
        let trouble = match work.pools.chosen() {
            Some(Ok(_)) => missing(&work),
            Some(Err(sentence)) => Some(sentence),
            // A place is made with the first volume.
            None => missing(&work),
        };
        let Some(trouble) = trouble else { break };
        if trouble != told {
            error!("volumes are not usable: {trouble}");
            told = trouble;
        }
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = sleep(backoff.next_delay()) => {}
        }
    }
    settle(&work, began).await;
    work.released.notify_one();
}

async fn open(work: &Arc<Work>) {
    let former = former(work);
    let opening = work.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let former: Vec<_> = former.into_iter().collect();
        opening.pools.open(&former, Making::Later);
    });
    if let Err(error) = opened.await {
        error!(%error, "opening the pools ended in a bug");
    }
}

/// The kinds of backend that volumes lie on.
fn former(work: &Work) -> BTreeSet<BackendKind> {
    work.catalogue
        .volumes()
        .iter()
        .map(|it| it.backend)
        .collect()
}

/// A pool that volumes lie on and that is not open.
fn missing(work: &Work) -> Option<String> {
    let open: BTreeSet<BackendKind> = work
        .pools
        .all()
        .iter()
        .map(|it| it.backend.kind())
        .collect();
    let missing = former(work).into_iter().find(|kind| !open.contains(kind));
    missing.map(|kind| format!("the pool `{kind}`, which volumes lie on, is not there"))
}

/// Reads from the kernel which volumes are attached. One that is not is held by nobody: the machine was restarted.
pub(crate) fn note_attached(work: &Work) {
    let attached: BTreeSet<_> = match mounts::below(work.mount_folder()) {
        Ok(all) => all
            .into_iter()
            .filter_map(|it| it.at.file_name().map(std::ffi::OsStr::to_owned))
            .collect(),
        Err(error) => {
            warn!(%error, "which volumes are attached cannot be read");
            return;
        }
    };
    for record in work.catalogue.volumes() {
        let is_attached =
            record.is_ready() && attached.contains(std::ffi::OsStr::new(record.name.as_str()));
        work.catalogue
            .observe(&record.id, |it| it.attached = is_attached);
        if !is_attached
            && !record.holds.is_empty()
            && let Err(error) = work.catalogue.change(&record.id, |it| it.holds.clear())
        {
            warn!(volume = %record.name, error = error.sentence(), "its holds stay");
        }
    }
}

/// Finishes or undoes what was begun.
async fn settle(work: &Work, began: u64) {
    for record in work.catalogue.volumes() {
        if matches!(record.state, VolumeState::Creating | VolumeState::Removing) {
            let _gate = work.gate(&record.name).await;
            let now = work.catalogue.volume(&record.id);
            if now.is_none_or(|now| now.state != record.state) {
                // It was being made by this process, and is.
                continue;
            }
            // What was being created when the process began was not answered: the engine asks again.
            match work.purge(&record).await {
                Ok(()) => info!(volume = %record.name, "what a kill left of it is removed"),
                Err(error) => {
                    warn!(volume = %record.name, error = error.sentence(), "is removed later")
                }
            }
        }
    }
    for snapshot in work.catalogue.snapshots(None) {
        // Nobody waits any more for what an earlier process needed a snapshot for.
        let left = snapshot.reason == SnapshotReason::Working && snapshot.taken_at < began;
        if (snapshot.state != SnapshotState::Ready || left)
            && let Err(error) = work.purge_snapshot(&snapshot).await
        {
            warn!(snapshot = %snapshot.name, error = error.sentence(), "is removed later");
        }
    }
    for pool in work.pools.all() {
        let backend = pool.backend;
        if let Err(error) = crate::work::blocking(move || backend.tidy()).await {
            warn!(error = error.sentence(), "a pool could not be tidied");
        }
    }
}
