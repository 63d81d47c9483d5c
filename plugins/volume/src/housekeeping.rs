//! What is done from time to time: schedules, retention, the trash, figures, announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drover_model::BackendKind;
use drover_storage::{Object, walk};
use drover_volumes::capacity::Level;
use drover_volumes::record::{SnapshotReason, SnapshotState, VolumeRecord, VolumeState};
use drover_volumes::retention;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::clock::{now, stamp};
use crate::error::Result;
use crate::pools::{figures, filling};
use crate::work::{Work, blocking};

/// How often schedules and the trash are looked at.
const OFTEN: Duration = Duration::from_secs(10);
/// Every how many of these what is on volumes is counted.
const COUNTING: u32 = 6;
/// Every how many of these volumes of plain directories are walked over.
const WALKING: u32 = 60;
/// Every how many of these a removal that failed half way is gone on with.
const RETRYING: u32 = 30;

/// Runs until the shutdown.
pub(crate) async fn run(work: Arc<Work>, mut shutdown: watch::Receiver<bool>) {
    let mut levels = BTreeMap::new();
    let mut round = 0_u32;
    let mut known = work.catalogue.known();
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => return,
        // Before, there is nothing that could be due. With the sender gone the process ends.
        _ = known.wait_for(|known| *known) => {}
    }
    loop {
        schedules(&work).await;
        backups(&work);
        verifications(&work);
        trash(&work, round.is_multiple_of(RETRYING)).await;
        announce(&work, &mut levels).await;
        if round.is_multiple_of(COUNTING) {
            count(&work, round.is_multiple_of(WALKING)).await;
        }
        round = round.wrapping_add(1);
        let removed = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = work.removed.notified() => true,
            () = sleep(OFTEN) => false,
        };
        if removed {
            reclaim(&work).await;
        }
    }
}

/// Takes the snapshots that are due, and removes those that are not kept any more.
async fn schedules(work: &Work) {
    for record in work.catalogue.volumes() {
        let Some(schedule) = record.options.snapshot_schedule else {
            continue;
        };
        if !record.is_ready() || record.paused {
            continue;
        }
        let (now, jitter) = (now(), schedule.jitter(record.id.as_str()));
        let last = record.snapshotted_at.unwrap_or(record.created_at);
        if schedule.is_due(jitter, last, now)
            && let Err(error) = run_schedule(work, &record, now).await
        {
            warn!(volume = %record.name, error = error.sentence(), "the snapshot that is due was not taken");
        }
    }
}

/// Begins the backups that are due: each goes on by itself.
fn backups(work: &Arc<Work>) {
    for record in work.catalogue.volumes() {
        let Some(schedule) = record.options.backup_schedule else {
            continue;
        };
        if !record.is_ready() || record.paused {
            continue;
        }
        let (now, jitter) = (now(), schedule.jitter(record.id.as_str()));
        let last = record.backups.begun_at.unwrap_or(record.created_at);
        if schedule.is_due(jitter, last, now) && !work.has_worker(&record.id) {
            tokio::spawn(work.clone().back_up_on_schedule(record, now));
        }
    }
}

/// Begins to read back the backups that are due for it.
fn verifications(work: &Arc<Work>) {
    for record in work.catalogue.volumes() {
        let (Some(schedule), Some(_)) = (&record.options.verify_schedule, &record.backups.last)
        else {
            continue;
        };
        if !record.is_ready() || record.paused {
            continue;
        }
        let (now, jitter) = (now(), schedule.jitter(record.id.as_str()));
        let last = record.backups.verification.as_ref();
        let last = last.map_or(record.created_at, |it| it.begun_at);
        if schedule.is_due(jitter, last, now) && !work.has_worker(&record.id) {
            tokio::spawn(work.clone().verify_on_schedule(record, now));
        }
    }
}

async fn run_schedule(work: &Work, record: &VolumeRecord, now: u64) -> Result<()> {
    // Noted first: one that fails is due again at the next moment, not every few seconds.
    work.catalogue
        .change(&record.id, |it| it.snapshotted_at = Some(now))?;
    let name = format!("auto-{}", stamp(now)).parse()?;
    let names = std::slice::from_ref(&record.name);
    work.snapshot(names, &name, SnapshotReason::Scheduled)
        .await?;
    thin_out(work, record).await
}

async fn thin_out(work: &Work, record: &VolumeRecord) -> Result<()> {
    let keep = record.options.keep.unwrap_or(retention::DEFAULT);
    let all = work.catalogue.snapshots(Some(&record.id));
    let scheduled = all
        .into_iter()
        .filter(|it| it.reason == SnapshotReason::Scheduled && it.state == SnapshotState::Ready);
    let scheduled: Vec<_> = scheduled.collect();
    let taken: BTreeSet<u64> = scheduled.iter().map(|it| it.taken_at).collect();
    let expired = keep.expired(&taken);
    for snapshot in scheduled.iter().filter(|it| expired.contains(&it.taken_at)) {
        let _gate = work.gate(&record.name).await;
        work.purge_snapshot(snapshot).await?;
        info!(volume = %record.name, snapshot = %snapshot.name, "is not kept any longer");
    }
    Ok(())
}

/// Removes what has lain in the trash for long enough; with `retries` what could not be removed before as well.
async fn trash(work: &Work, retries: bool) {
    for record in work.catalogue.volumes() {
        let is_left = retries && record.state == VolumeState::Removing;
        if !record.is_expired(now()) && !is_left {
            continue;
        }
        // One of its name may be restored from a backup at length: this one goes afterwards.
        let Some(_gate) = work.try_gate(&record.name) else {
            continue;
        };
        // Meanwhile it may have been restored, or gone.
        let now = work.catalogue.volume(&record.id);
        if now.is_none_or(|now| now.state != record.state) {
            continue;
        }
        match work.purge(&record).await {
            Ok(()) if is_left => info!(volume = %record.name, "what was left of it is removed"),
            Ok(()) => info!(volume = %record.name, "its time in the trash is over"),
            Err(error) => {
                warn!(volume = %record.name, error = error.sentence(), "is removed later");
            }
        }
    }
}

/// Says so when a pool has become fuller, once for each level; and keeps what is to be said of it in answers.
async fn announce(work: &Work, levels: &mut BTreeMap<BackendKind, Level>) {
    for pool in work.pools.all() {
        let (backend, kind) = (pool.backend.clone(), pool.backend.kind());
        let state = match blocking(move || backend.pool()).await {
            Ok(state) => state,
            Err(error) => {
                work.pools.set_notice(kind, Some(error.sentence()));
                continue;
            }
        };
        let reserve = work.pools.reserve();
        let complaint = state.complaints.first().cloned();
        let notice = complaint.or_else(|| filling(&state, reserve));
        work.pools.set_notice(kind, notice);
        let figures = figures(&state);
        let level = figures.level(reserve);
        let before = levels.insert(kind, level).unwrap_or(Level::Fine);
        if level > before {
            let percent = figures.percent();
            let follows = match level {
                Level::Reserve => "new volumes and snapshots are refused",
                _ => "make room, or enlarge it",
            };
            warn!(pool = state.place, percent, "is filling up: {follows}");
        }
    }
}

/// Counts what is on volumes.
async fn count(work: &Work, walks: bool) {
    for record in work.catalogue.volumes() {
        if !record.is_ready() {
            continue;
        }
        let Ok(backend) = work.pools.of(record.backend).await else {
            continue;
        };
        let object = Object::Volume(record.id.clone());
        let known = work.catalogue.observed(&record.id);
        let at = (walks && known.attached).then(|| work.mount_point(&record.name));
        let counted = blocking(move || {
            let usage = backend.usage(&object)?;
            match (usage.used, at) {
                (None, Some(at)) => walk::size(&at).map(Some),
                (used, _) => Ok(used),
            }
        });
        match counted.await {
            Ok(used) => work.catalogue.observe(&record.id, |it| {
                it.used = used.or(it.used);
                it.complaint = None;
            }),
            Err(error) => work.catalogue.observe(&record.id, |it| {
                it.complaint = Some(error.sentence());
            }),
        }
    }
}

async fn reclaim(work: &Work) {
    for pool in work.pools.all() {
        let backend = pool.backend;
        if let Err(error) = blocking(move || backend.reclaim()).await {
            warn!(
                error = error.sentence(),
                "the space of what was removed is freed later"
            );
        }
    }
}
