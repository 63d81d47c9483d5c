//! The volumes, snapshots and backups of this host in the cluster's catalogue, where every host can look them up.
//!
//! Nothing waits for it. Without a coordinator, or while its store does not answer, other hosts have what they were told last. Only changes are
//! told; when a connection begins, what the coordinator has is compared with what there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_control_api::catalogue::{
    CatalogueBackup, CatalogueEvent, CatalogueSnapshot, CatalogueVolume, MOST_SNAPSHOTS, PATH,
    RecordCatalogue,
};
use drover_daemon::Backoff;
use drover_http::control::{self, StreamError};
use drover_http::{Client, Lines};
use drover_model::{VolumeId, VolumeName};
use drover_volumes::record::{
    SnapshotReason, SnapshotRecord, SnapshotState, VolumeRecord, VolumeState,
};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

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

/// What the catalogue has of this host, or should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Listing {
    volumes: BTreeMap<VolumeId, CatalogueVolume>,
    backups: BTreeMap<Place, CatalogueBackup>,
}

/// What the catalogue has.
#[derive(Debug, Default)]
struct Heard {
    /// `None` before it was heard.
    listing: Mutex<Option<Listing>>,
    news: Notify,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Option<Listing>> {
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
    let mut listing = Listing::default();
    while let Some(event) = control::next_event(&mut lines).await? {
        match event {
            CatalogueEvent::Reset => listing = Listing::default(),
            CatalogueEvent::Volume(volume) => {
                listing.volumes.insert(volume.id.clone(), volume);
            }
            CatalogueEvent::VolumeGone { id } => {
                listing.volumes.remove(&id);
            }
            CatalogueEvent::Backup(backup) => {
                listing.backups.insert(place(&backup), backup);
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
            .and_then(|has| differences(&wanted(work, &mut too_many), has));
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
fn differences(wanted: &Listing, has: &Listing) -> Option<RecordCatalogue> {
    let volumes = wanted.volumes.iter();
    let volumes = volumes.filter(|(id, volume)| has.volumes.get(*id) != Some(*volume));
    let gone = has
        .volumes
        .keys()
        .filter(|id| !wanted.volumes.contains_key(*id));
    // What is listed may be a later backup, of an earlier volume of that name.
    let backups = wanted.backups.iter().filter(|(place, backup)| {
        has.backups
            .get(*place)
            .is_none_or(|listed| listed != *backup && listed.taken_at <= backup.taken_at)
    });
    let told = RecordCatalogue {
        volumes: volumes.map(|(_, it)| it.clone()).take(AT_ONCE).collect(),
        gone: gone.take(AT_ONCE).cloned().collect(),
        backups: backups.map(|(_, it)| it.clone()).take(AT_ONCE).collect(),
        dropped: dropped(wanted, has),
    };
    (told != RecordCatalogue::default()).then_some(told)
}

/// The oldest of those that are too many; none of a volume that is there.
fn dropped(wanted: &Listing, has: &Listing) -> Vec<CatalogueBackup> {
    let others = has.backups.iter();
    let others = others.filter(|(place, _)| !wanted.backups.contains_key(*place));
    let mut others: Vec<&CatalogueBackup> = others.map(|(_, backup)| backup).collect();
    others.sort_by_key(|backup| std::cmp::Reverse(backup.taken_at));
    let room = MOST_BACKUPS.saturating_sub(wanted.backups.len());
    others
        .into_iter()
        .skip(room)
        .take(AT_ONCE)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
