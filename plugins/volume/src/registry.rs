//! The volumes, snapshots and backups of this host in the cluster's catalogue, where every host can look them up.
//!
//! Nothing waits for it. Without a coordinator, or while its store does not answer, other hosts have what they were told last. Only changes are
//! told; when a connection begins, what the coordinator has is compared with what there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_control_api::catalogue::{
    CatalogueBackup, CatalogueEvent, CatalogueSnapshot, CatalogueVolume, ListedBackup,
    MOST_SNAPSHOTS, PATH, RecordCatalogue,
};
use drover_daemon::Backoff;
use drover_http::control::{self, StreamError};
use drover_http::{Client, Lines};
use drover_model::{VolumeId, VolumeName};
use drover_volumes::record::{
    LastBackup, SnapshotReason, SnapshotRecord, SnapshotState, VolumeRecord, VolumeState,
};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::work::{Work, is_anonymous};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// Changes that come together are told together: a project's snapshots, a schedule's.
const TOGETHER: Duration = Duration::from_secs(1);
/// How many volumes, and how many backups, are told in one call: with their snapshots they stay well below its limit of 1 MiB.
const AT_ONCE: usize = 50;
/// How many volumes of a host are told of, those first that come first by name.
const MOST_VOLUMES: usize = 2000;
/// How many backups of a host are listed; the oldest are dropped.
const MOST_BACKUPS: usize = 2000;

/// A volume's name and a repository: one backup is listed of each.
type Place = (VolumeName, String);

/// What the catalogue should have of this host.
#[derive(Debug, Default)]
struct Listing {
    volumes: BTreeMap<VolumeId, CatalogueVolume>,
    backups: BTreeMap<Place, CatalogueBackup>,
}

/// What it has.
#[derive(Debug, Clone, Default)]
struct Has {
    volumes: BTreeMap<VolumeId, CatalogueVolume>,
    backups: BTreeMap<Place, ListedBackup>,
}

/// What the catalogue has.
#[derive(Debug, Default)]
struct Heard {
    /// `None` before it was heard.
    listing: Mutex<Option<Has>>,
    news: Notify,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Option<Has>> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the catalogue of the cluster the same as this host's, until the shutdown.
pub(crate) async fn run(work: Arc<Work>, mut shutdown: watch::Receiver<bool>) {
    let heard = Heard::default();
    // Each arm is cancel-safe.
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = listen(&work.coordinator, &heard) => {}
        () = tell(&work, &heard) => {}
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
}

async fn listen(coordinator: &Client, heard: &Heard) {
    let mut backoff = backoff();
    loop {
        if let Ok(lines) = coordinator.lines(PATH).await
            && let Err(error) = hear(lines, heard, &mut backoff).await
        {
            debug!("the catalogue was cut: {:#}", anyhow::Error::from(error));
        }
        *heard.lock() = None;
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn hear(mut lines: Lines, heard: &Heard, backoff: &mut Backoff) -> Result<(), StreamError> {
    let mut listing = Has::default();
    while let Some(event) = control::next_event(&mut lines).await? {
        match event {
            CatalogueEvent::Reset => listing = Has::default(),
            CatalogueEvent::Volume(volume) => {
                listing.volumes.insert(volume.id.clone(), volume);
            }
            CatalogueEvent::VolumeGone { id } => {
                listing.volumes.remove(&id);
            }
            CatalogueEvent::Backup(listed) => {
                listing.backups.insert(place(&listed.backup), listed);
            }
            CatalogueEvent::Synced => {
                backoff.reset();
                *heard.lock() = Some(listing.clone());
                heard.news.notify_one();
            }
        }
    }
    Ok(())
}

async fn tell(work: &Work, heard: &Heard) {
    let mut changes = work.catalogue.changes();
    let mut backoff = backoff();
    let mut too_many = false;
    loop {
        changes.mark_unchanged();
        let told = heard
            .lock()
            .as_ref()
            .filter(|_| work.catalogue.is_known())
            .and_then(|has| {
                take_note(work, has);
                differences(&wanted(work, &mut too_many), has)
            });
        let delay = match told {
            // Once told, it comes back by the stream.
            Some(told) => match control::call(&work.coordinator, &told, CALL).await {
                Ok(_) => {
                    backoff.reset();
                    TOGETHER
                }
                Err(error) => {
                    debug!(%error, "what there is waits to be written into the catalogue");
                    backoff.next_delay()
                }
            },
            None => {
                // Each arm is cancel-safe.
                tokio::select! {
                    _ = changes.changed() => {}
                    () = heard.news.notified() => {}
                }
                TOGETHER
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// A backup that was forgotten, by whatever host, is no volume's last one.
fn take_note(work: &Work, has: &Has) {
    for record in work.catalogue.volumes() {
        let Some(instead) = forgotten(&record, has) else {
            continue;
        };
        let noted = work.catalogue.change(&record.id, |it| {
            if it.backups.last == record.backups.last {
                it.backups.last = instead;
            }
        });
        match noted {
            Ok(_) => info!(volume = %record.name, "its last backup was forgotten"),
            Err(error) => {
                warn!(volume = %record.name, error = error.sentence(), "that its last backup was forgotten cannot be noted");
            }
        }
    }
}

/// What is the last backup of a volume instead of one that was forgotten: `Some` when it was.
fn forgotten(record: &VolumeRecord, has: &Has) -> Option<Option<LastBackup>> {
    let last = record.backups.last.as_ref()?;
    let place = (record.name.clone(), without_secret(&last.to));
    let listed = has.backups.get(&place)?;
    let is_forgotten = listed.forgotten.contains(&last.id);
    is_forgotten.then(|| {
        (!listed.is_gone()).then(|| LastBackup {
            taken_at: listed.backup.taken_at,
            id: listed.backup.id.clone(),
            to: last.to.clone(),
            size: listed.backup.size,
        })
    })
}

fn place(backup: &CatalogueBackup) -> Place {
    (backup.volume.clone(), backup.to.clone())
}

/// What the catalogue should have of this host.
fn wanted(work: &Work, too_many: &mut bool) -> Listing {
    let mut snapshots = BTreeMap::<VolumeId, Vec<SnapshotRecord>>::new();
    for snapshot in work.catalogue.snapshots(None) {
        if is_told(&snapshot) {
            snapshots
                .entry(snapshot.volume.clone())
                .or_default()
                .push(snapshot);
        }
    }
    let mut listing = Listing::default();
    let all = work.catalogue.volumes().into_iter();
    for record in all.filter(|record| !is_anonymous(&record.name)) {
        let Some(state) = state(&record) else {
            continue;
        };
        if listing.volumes.len() == MOST_VOLUMES {
            if !std::mem::replace(too_many, true) {
                warn!(
                    "there are more than {MOST_VOLUMES} volumes: other hosts are not told of the rest"
                );
            }
            continue;
        }
        if let Some(backup) = backup(&record, work.host()) {
            listing.backups.insert(place(&backup), backup);
        }
        let own = snapshots.remove(&record.id).unwrap_or_default();
        listing
            .volumes
            .insert(record.id.clone(), volume(&record, state, own));
    }
    listing
}

/// Those that are there for a backup or a clone are gone before anybody could look.
fn is_told(snapshot: &SnapshotRecord) -> bool {
    let lasts = matches!(
        snapshot.reason,
        SnapshotReason::Asked | SnapshotReason::Scheduled
    );
    lasts && snapshot.state == SnapshotState::Ready
}

const fn state(record: &VolumeRecord) -> Option<&'static str> {
    match record.state {
        VolumeState::Ready => Some("ready"),
        VolumeState::Trashed { .. } => Some("trashed"),
        VolumeState::Retained => Some("retained"),
        VolumeState::Creating | VolumeState::Removing => None,
    }
}

fn volume(record: &VolumeRecord, state: &str, snapshots: Vec<SnapshotRecord>) -> CatalogueVolume {
    let older = snapshots.len().saturating_sub(MOST_SNAPSHOTS);
    let latest = snapshots.into_iter().skip(older);
    CatalogueVolume {
        id: record.id.clone(),
        name: record.name.clone(),
        backend: record.backend,
        state: state.to_owned(),
        size: record.size,
        created_at: record.created_at,
        snapshots: latest
            .map(|it| CatalogueSnapshot {
                name: it.name,
                taken_at: it.taken_at,
                reason: reason(it.reason).to_owned(),
                application_consistent: it.application_consistent,
            })
            .collect(),
        older_snapshots: older as u64,
    }
}

const fn reason(reason: SnapshotReason) -> &'static str {
    match reason {
        SnapshotReason::Scheduled => "scheduled",
        _ => "asked",
    }
}

fn backup(record: &VolumeRecord, host: &str) -> Option<CatalogueBackup> {
    let last = record
        .backups
        .last
        .as_ref()
        .filter(|last| !last.to.is_empty())?;
    Some(CatalogueBackup {
        volume: record.name.clone(),
        to: without_secret(&last.to),
        id: last.id.clone(),
        by: host.to_owned(),
        taken_at: last.taken_at,
        size: last.size,
    })
}

/// A URL without what stands in it besides the place. A backup is refused to one with a secret in it; every host sees this one.
fn without_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, String::new()),
    };
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

/// What the catalogue has to be told, at most so much at once.
fn differences(wanted: &Listing, has: &Has) -> Option<RecordCatalogue> {
    let volumes = wanted.volumes.iter();
    let volumes = volumes.filter(|(id, volume)| has.volumes.get(*id) != Some(*volume));
    let gone = has
        .volumes
        .keys()
        .filter(|id| !wanted.volumes.contains_key(*id));
    let backups = wanted.backups.iter().filter(|(place, backup)| {
        let listed = has.backups.get(*place);
        listed.is_none_or(|listed| gives_way(listed, backup))
    });
    let told = RecordCatalogue {
        volumes: volumes.map(|(_, it)| it.clone()).take(AT_ONCE).collect(),
        gone: gone.take(AT_ONCE).cloned().collect(),
        backups: backups.map(|(_, it)| it.clone()).take(AT_ONCE).collect(),
        dropped: dropped(wanted, has),
    };
    (told != RecordCatalogue::default()).then_some(told)
}

/// What is listed may be a later backup, of an earlier volume of that name; and one that was forgotten is not listed again.
fn gives_way(listed: &ListedBackup, to: &CatalogueBackup) -> bool {
    let is_later = listed.is_gone() || listed.backup.taken_at <= to.taken_at;
    is_later && listed.backup != *to && !listed.forgotten.contains(&to.id)
}

/// Those that are gone, and the oldest of those that are too many; none of a volume that is there.
fn dropped(wanted: &Listing, has: &Has) -> Vec<CatalogueBackup> {
    let others = has.backups.iter();
    let others = others.filter(|(place, _)| !wanted.backups.contains_key(*place));
    let (gone, others): (Vec<_>, Vec<_>) = others
        .map(|(_, listed)| listed)
        .partition(|listed| listed.is_gone());
    let mut others: Vec<&CatalogueBackup> = others.iter().map(|listed| &listed.backup).collect();
    others.sort_by_key(|backup| std::cmp::Reverse(backup.taken_at));
    let room = MOST_BACKUPS.saturating_sub(wanted.backups.len());
    let excess = others.into_iter().skip(room);
    let gone = gone.iter().map(|listed| &listed.backup);
    gone.chain(excess).take(AT_ONCE).cloned().collect()
}

#[cfg(test)]
mod tests;
