//! The start: pools are opened, what a kill left half done is finished or undone, and what is attached is read from the
//! kernel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drover_daemon::Backoff;
use drover_model::{BackendKind, SnapshotId};
use drover_storage::{Object, mounts};
use drover_volumes::record::{SnapshotReason, SnapshotRecord, SnapshotState, VolumeState};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::error::Result;
use crate::pools::Making;
use crate::work::Work;

/// Opens the pools, again and again until all are there, and brings everything in order.
pub(crate) async fn run(work: Arc<Work>, mut shutdown: watch::Receiver<bool>) {
    // No pool is open yet: what there is was begun by an earlier process.
    let earlier = of_backups(&work);
    note_attached(&work);
    release_looks(&work);
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
        let trouble = match trouble {
            None => known(&work).await.err().map(|error| error.sentence()),
            some => some,
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
    settle(&work, &earlier).await;
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

/// Sees to it that all volumes are known that there are; all pools are open.
async fn known(work: &Work) -> Result<()> {
    let before = work.catalogue.objects();
    work.adopt().await?;
    let attached = attached(work);
    for record in work.catalogue.volumes() {
        let is_new = !before.contains(&Object::Volume(record.id.clone()));
        if is_new && record.is_ready() && attached.contains(record.name.as_str()) {
            work.catalogue.observe(&record.id, |it| it.attached = true);
        }
    }
    work.catalogue.set_known();
    Ok(())
}

/// The kinds of backend that volumes lie on, or may lie on.
fn former(work: &Work) -> BTreeSet<BackendKind> {
    let volumes = work.catalogue.volumes();
    let mut former: BTreeSet<_> = volumes.iter().map(|it| it.backend).collect();
    if !work.catalogue.is_known() {
        former.extend(work.pools.evident());
    }
    former
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
    missing.map(|kind| work.pools.not_open(kind).sentence())
}

/// The names of the volumes that are attached, as the kernel has it.
fn attached(work: &Work) -> BTreeSet<String> {
    let below = mounts::below(work.mount_folder());
    let below =
        below.inspect_err(|error| warn!(%error, "which volumes are attached cannot be read"));
    let names = below.unwrap_or_default().into_iter();
    let names = names.filter_map(|it| Some(it.at.file_name()?.to_str()?.to_owned()));
    names.collect()
}

/// Notes which volumes are attached. One that is not is held by nobody: the machine was restarted.
fn note_attached(work: &Work) {
    let attached = attached(work);
    for record in work.catalogue.volumes() {
        let is_attached = record.is_ready() && attached.contains(record.name.as_str());
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

/// Unmounts what was mounted for a look when a kill came: it would keep its volume from being removed.
fn release_looks(work: &Work) {
    let left = mounts::below(&work.look_folder()).unwrap_or_default();
    for mount in left {
        if let Err(error) = mounts::release(&mount.at) {
            warn!(%error, "what was mounted for a look stays");
        }
    }
}

/// The snapshots that backups are made of, and that go with them.
fn of_backups(work: &Work) -> BTreeSet<SnapshotId> {
    let all = work.catalogue.snapshots(None).into_iter();
    let working = all.filter(|it| it.reason == SnapshotReason::Working);
    working.map(|it| it.id).collect()
}

/// Finishes or undoes what was begun; `earlier` are snapshots that backups of a process before this one needed.
async fn settle(work: &Work, earlier: &BTreeSet<SnapshotId>) {
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
        settle_snapshot(work, &snapshot, earlier).await;
    }
    for pool in work.pools.all() {
        if let Err(error) = work.renew_notes(pool.backend).await {
            warn!(
                error = error.sentence(),
                "notes beside volumes could not be written"
            );
        }
    }
}

async fn settle_snapshot(work: &Work, snapshot: &SnapshotRecord, earlier: &BTreeSet<SnapshotId>) {
    if !is_left(work, snapshot, earlier) {
        return;
    }
    // One that is being taken at this moment is complete when its turn ends.
    let volume = work.catalogue.volume(&snapshot.volume);
    let _gate = match &volume {
        Some(volume) => Some(work.gate(&volume.name).await),
        None => None,
    };
    let now = work.catalogue.snapshots(Some(&snapshot.volume));
    let Some(now) = now.iter().find(|it| it.id == snapshot.id) else {
        return;
    };
    if is_left(work, now, earlier)
        && let Err(error) = work.purge_snapshot(now).await
    {
        warn!(snapshot = %snapshot.name, error = error.sentence(), "is removed later");
    }
}

/// Whether a snapshot was left by an earlier process: half made or half removed, or needed by nobody any more.
fn is_left(work: &Work, snapshot: &SnapshotRecord, earlier: &BTreeSet<SnapshotId>) -> bool {
    let needless = match snapshot.reason {
        SnapshotReason::Working => earlier.contains(&snapshot.id),
        SnapshotReason::Base => !work.is_base(snapshot),
        SnapshotReason::Asked | SnapshotReason::Scheduled => false,
    };
    needless || snapshot.state != SnapshotState::Ready
}
