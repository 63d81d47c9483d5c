//! The catalogue of volumes, snapshots and backups: written by each host's `drover-vol` for its own, and read by all.
//!
//! This process decides nothing by it. Volumes go with their host; backups stay, since they are somewhere else.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use drover_control_api::catalogue::{
    BackupEntryRecord, Catalogue, CatalogueBackup, CatalogueEvent, CatalogueTable, ForgetBackups,
    ForgottenBackup, HostBackup, HostVolume, ListedBackup, MOST_FORGOTTEN, Presence,
    RecordCatalogue, VolumeEntryRecord,
};
use drover_control_api::{Empty, Failure, FailureKind};
use drover_http::Response;
use drover_model::{HostName, VolumeName};
use drover_store::{Entry, Outcome, Transaction};
use memchr::memmem::Finder;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::context::{Context, store_failure};
use crate::lines::{Gone, Pieces, SIGN_OF_LIFE};
use crate::mirror::Snapshot;

/// Where the records of volumes are: `volumes/<host>/<id>`.
const VOLUMES: &str = "volumes/";
/// Where those of backups are: `backups/<host>/<volume>/<repository>`.
const BACKUPS: &str = "backups/";
/// How many volumes are written in one transaction: each may have as many snapshots as are told.
const AT_ONCE: usize = 50;

/// Writes down what a host says of its own.
///
/// # Errors
/// When this host was removed from its cluster, or the store does not answer.
pub async fn record(context: &Context, told: RecordCatalogue) -> Result<Empty, Failure> {
    context.refuse_when_fenced()?;
    let host = context.host();
    for volumes in told.volumes.chunks(AT_ONCE) {
        let mut batch = Transaction::new();
        for volume in volumes {
            let (version, volume) = (1, volume.clone());
            let key = volume_key(host, volume.id.as_str());
            let put = batch.put_record(key, &VolumeEntryRecord { version, volume });
            batch = put.map_err(|error| store_failure(&error))?;
        }
        context.commit_own(batch).await?;
    }
    let mut batch = Transaction::new();
    for backup in told.backups {
        batch = context.with_room(batch).await?;
        let key = backup_key(host, &backup);
        let listed = ListedBackup {
            backup,
            forgotten: Vec::new(),
        };
        let put = batch.put_record(key, &backup_entry(listed));
        batch = put.map_err(|error| store_failure(&error))?;
    }
    let gone = told.gone.iter().map(|id| volume_key(host, id.as_str()));
    let dropped = told.dropped.iter().map(|backup| backup_key(host, backup));
    for key in gone.chain(dropped).collect::<Vec<_>>() {
        batch = context.with_room(batch).await?.delete(key);
    }
    context.commit_own(batch).await?;
    Ok(Empty {})
}

const fn backup_entry(listed: ListedBackup) -> BackupEntryRecord {
    BackupEntryRecord { version: 1, listed }
}

/// How many ids of forgotten backups are kept of a volume and repository, the last ones.
const MOST_IDS: usize = 32;

/// See [`ForgetBackups`].
///
/// # Errors
/// When there are too many at once, this host was removed from its cluster, or the store does not answer.
pub async fn forget(context: &Context, told: ForgetBackups) -> Result<Empty, Failure> {
    context.refuse_when_fenced()?;
    if told.backups.len() > MOST_FORGOTTEN {
        let message = format!("more than {MOST_FORGOTTEN} backups at once");
        return Err(Failure::new(FailureKind::InvalidInput, message));
    }
    for forgotten in told.backups {
        forget_one(context, &forgotten).await?;
    }
    Ok(Empty {})
}

async fn forget_one(context: &Context, told: &ForgottenBackup) -> Result<(), Failure> {
    let key = backup_key(&told.host, &told.backup);
    let found = context.store().get_record::<BackupEntryRecord>(&key).await;
    let Some((record, revision)) = found.map_err(|error| store_failure(&error))? else {
        return Ok(());
    };
    if record.listed.backup != told.backup || record.listed.is_gone() {
        return Ok(());
    }
    let is_member = {
        let cluster = context.cluster.borrow();
        presence(&cluster, context.host(), &told.host) != Presence::Removed
    };
    let batch = Transaction::new().if_unchanged(&key, revision);
    let batch = match corrected(record.listed, told.left.as_ref(), is_member) {
        Some(listed) => batch
            .put_record(&key, &backup_entry(listed))
            .map_err(|error| store_failure(&error))?,
        None => batch.delete(&key),
    };
    let outcome = context.store().commit(batch).await;
    match outcome.map_err(|error| store_failure(&error))? {
        Outcome::Committed { .. } => Ok(()),
        Outcome::Conflict => Err(Failure::new(
            FailureKind::Conflict,
            format!(
                "what is listed of the backups of `{}` by host `{}` has changed meanwhile: ask again",
                told.backup.volume, told.host
            ),
        )),
    }
}

/// What is listed from now on; `None` for nothing. A host that was removed does not list anything again.
fn corrected(
    mut listed: ListedBackup,
    left: Option<&CatalogueBackup>,
    is_member: bool,
) -> Option<ListedBackup> {
    let gone = listed.backup.id.clone();
    match left {
        Some(left) => {
            listed.backup = CatalogueBackup {
                volume: listed.backup.volume,
                to: listed.backup.to,
                ..left.clone()
            };
        }
        None if is_member => {}
        None => return None,
    }
    listed.forgotten.push(gone);
    let excess = listed.forgotten.len().saturating_sub(MOST_IDS);
    listed.forgotten.drain(..excess);
    if !is_member {
        listed.forgotten.clear();
    }
    Some(listed)
}

fn volume_key(host: &HostName, id: &str) -> String {
    format!("{VOLUMES}{host}/{id}")
}

/// A URL may be longer than a key, and has what a key has not: its hash stands for it.
fn backup_key(host: &HostName, backup: &CatalogueBackup) -> String {
    let hash = Sha256::digest(backup.to.as_bytes());
    let start: String = hash.iter().take(8).map(|it| format!("{it:02x}")).collect();
    format!("{BACKUPS}{host}/{}/{start}", backup.volume)
}

/// Tells what is written down of this host, and then what changes.
#[must_use]
pub fn stream(context: &Context) -> Response {
    let (pieces, response) = Pieces::stream();
    let cluster = context.cluster.clone();
    let teller = Teller {
        host: context.host().clone(),
        told: None,
    };
    // It ends when nobody listens; the response ends with it, at a stop.
    drover_daemon::task::spawn("catalogue stream", async move {
        // Its only failure is that nobody listens any more.
        drop(follow(cluster, teller, pieces).await);
    });
    response
}

async fn follow(
    mut cluster: watch::Receiver<Snapshot>,
    mut teller: Teller,
    mut pieces: Pieces,
) -> Result<(), Gone> {
    loop {
        let snapshot = cluster.borrow_and_update().clone();
        if snapshot.is_complete() {
            for event in teller.news(&snapshot) {
                pieces.event(&event).await?;
            }
            pieces.flush().await?;
        }
        // Each arm is cancel-safe.
        tokio::select! {
            changed = cluster.changed() => changed.map_err(|_closed| Gone)?,
            () = pieces.closed() => return Err(Gone),
            () = tokio::time::sleep(SIGN_OF_LIFE) => pieces.sign_of_life().await?,
        }
    }
}

/// What a listener was told.
struct Teller {
    host: HostName,
    /// Each key with the revision that was told.
    told: Option<BTreeMap<String, u64>>,
}

impl Teller {
    /// What a listener does not know yet. Nothing is read but what has changed.
    fn news(&mut self, snapshot: &Snapshot) -> Vec<CatalogueEvent> {
        let prefixes = [VOLUMES, BACKUPS].map(|kind| format!("{kind}{}/", self.host));
        let entries = prefixes.iter().flat_map(|prefix| {
            let entries = snapshot.under(prefix);
            entries.map(|(_, entry)| (entry.key.clone(), entry.revision))
        });
        let now: BTreeMap<String, u64> = entries.collect();
        if self.told.as_ref() == Some(&now) {
            return Vec::new();
        }
        // A backup that is listed no longer is so rare that it has no event of its own.
        let known = self.told.take().and_then(|known| {
            let gone = known.keys().filter(|key| !now.contains_key(*key));
            let gone = gone.map(|key| self.gone(key));
            Some((gone.collect::<Option<Vec<_>>>()?, known))
        });
        let (mut events, known) =
            known.unwrap_or_else(|| (vec![CatalogueEvent::Reset], BTreeMap::new()));
        let changed = now
            .iter()
            .filter(|(key, revision)| known.get(*key) != Some(*revision));
        events.extend(changed.filter_map(|(key, _)| entry(snapshot, key)));
        events.push(CatalogueEvent::Synced);
        self.told = Some(now);
        events
    }

    fn gone(&self, key: &str) -> Option<CatalogueEvent> {
        let id = key
            .strip_prefix(&volume_key(&self.host, ""))?
            .parse()
            .ok()?;
        Some(CatalogueEvent::VolumeGone { id })
    }
}

fn entry(snapshot: &Snapshot, key: &str) -> Option<CatalogueEvent> {
    if key.starts_with(BACKUPS) {
        let record: BackupEntryRecord = snapshot.record(key)?;
        return Some(CatalogueEvent::Backup(record.listed));
    }
    let record: VolumeEntryRecord = snapshot.record(key)?;
    Some(CatalogueEvent::Volume(record.volume))
}

/// See [`Catalogue`].
#[must_use]
pub fn table(context: &Context, asked: &Catalogue) -> CatalogueTable {
    let snapshot = context.cluster.borrow().clone();
    rows(&snapshot, context.host(), asked)
}

fn rows(snapshot: &Snapshot, own: &HostName, asked: &Catalogue) -> CatalogueTable {
    let wanted = asked.volume.as_ref();
    let is_wanted = |name: &VolumeName| wanted.is_none_or(|wanted| wanted == name);
    let keys = candidates(snapshot, VOLUMES, wanted);
    let volumes = of_hosts(snapshot, own, keys, |host, presence, it| {
        let VolumeEntryRecord { volume, .. } = it;
        let row = HostVolume {
            host,
            presence,
            volume,
        };
        is_wanted(&row.volume.name).then_some(row)
    });
    let keys = candidates(snapshot, BACKUPS, wanted);
    let backups = of_hosts(snapshot, own, keys, |host, presence, it| {
        let BackupEntryRecord { listed, .. } = it;
        let is_there = !listed.is_gone() && is_wanted(&listed.backup.volume);
        is_there.then_some(HostBackup {
            host,
            presence,
            backup: listed.backup,
        })
    });
    CatalogueTable {
        volumes: in_order(volumes),
        backups: in_order(backups),
        problem: snapshot.problem.clone(),
        problem_since: snapshot.problem_since,
    }
}

/// The records under a prefix that may be of a volume, of all volumes without one: of each the host, and the entry. A record is
/// kilobytes of snapshots, and there are thousands, so only these are decoded.
fn candidates<'a>(
    snapshot: &'a Snapshot,
    prefix: &'a str,
    wanted: Option<&VolumeName>,
) -> impl Iterator<Item = (&'a str, &'a Entry)> {
    // A volume's name has nothing that JSON would write in another way.
    let word = wanted.map(|name| format!("\"{name}\""));
    let word = word.map(|word| Finder::new(word.as_bytes()).into_owned());
    snapshot.under(prefix).filter_map(move |(rest, entry)| {
        let has_word = |word: &Finder<'_>| word.find(&entry.value).is_some();
        let is_candidate = word.as_ref().is_none_or(has_word);
        is_candidate.then_some((rest.split('/').next()?, entry.as_ref()))
    })
}

/// A row of each of these records, unless it is `None`.
fn of_hosts<'a, R: DeserializeOwned, T>(
    snapshot: &Snapshot,
    own: &HostName,
    entries: impl Iterator<Item = (&'a str, &'a Entry)>,
    row: impl Fn(HostName, Presence, R) -> Option<T>,
) -> Vec<T> {
    let rows = entries.filter_map(|(host, entry)| {
        let host: HostName = host.parse().ok()?;
        let record = snapshot.record(&entry.key)?;
        let presence = presence(snapshot, own, &host);
        row(host, presence, record)
    });
    rows.collect()
}

/// A row of a table: by the volume's name, then by host, then by repository.
trait Row {
    fn order(&self) -> (&VolumeName, &HostName, &str);
}

impl Row for HostVolume {
    fn order(&self) -> (&VolumeName, &HostName, &str) {
        (&self.volume.name, &self.host, "")
    }
}

impl Row for HostBackup {
    fn order(&self) -> (&VolumeName, &HostName, &str) {
        (&self.backup.volume, &self.host, &self.backup.to)
    }
}

fn in_order<T: Row>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort_by(|one, other| one.order().cmp(&other.order()));
    rows
}

fn presence(snapshot: &Snapshot, own: &HostName, host: &HostName) -> Presence {
    if host == own || snapshot.entry(&format!("alive/{host}")).is_some() {
        Presence::Present
    } else if snapshot.entry(&format!("hosts/{host}")).is_some() {
        Presence::Away
    } else {
        Presence::Removed
    }
}
