//! What volumes and snapshots there are: in memory for every answer, and in one file before anything is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_model::{SnapshotId, SnapshotName, VolumeId, VolumeName};
use drover_storage::{Object, SnapshotRef};
use drover_store::local::{Batch, Database, Table};
use drover_volumes::record::{SnapshotReason, SnapshotRecord, SnapshotState, VolumeState};
use drover_volumes::{SnapshotRecord as Snapshot, VolumeRecord};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::hooks::owed::Owed;

/// The key under which is kept that the records are all there are.
const COMPLETE: &str = "complete";
/// The key under which is kept that there were no volumes before the records.
const FIRST: &str = "first";

/// What is known of a volume and not kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Whether it is attached.
    pub(crate) attached: bool,
    /// How much is on it, bytes.
    pub(crate) used: Option<u64>,
    /// Whether its holds may be of an engine that is gone.
    pub(crate) suspect: bool,
    /// Whether nobody has looked since the last `Mount` if a container runs with it.
    pub(crate) unconfirmed: bool,
    /// What is not as it should be.
    pub(crate) complaint: Option<String>,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<VolumeId, VolumeRecord>,
    snapshots: BTreeMap<SnapshotId, SnapshotRecord>,
    observed: BTreeMap<VolumeId, Observed>,
    /// The volumes that the engine knows, or is about to.
    by_name: BTreeMap<VolumeName, VolumeId>,
}

/// The catalogue of a host.
pub(crate) struct Catalogue {
    database: Database,
    volumes: Table<VolumeRecord>,
    snapshots: Table<Snapshot>,
    facts: Table<bool>,
    known: watch::Sender<bool>,
    never_had_any: bool,
    changes: watch::Sender<()>,
    state: Mutex<State>,
    /// What containers are owed after snapshots.
    pub(crate) owed: Owed,
}

/// Whether a volume has its name to itself.
const fn has_name(state: VolumeState) -> bool {
    matches!(
        state,
        VolumeState::Creating | VolumeState::Ready | VolumeState::Retained
    )
}

impl Catalogue {
    /// `is_new`: the state directory has no trace of volumes.
    pub(crate) fn open(database: &Database, is_new: bool) -> Result<Self> {
        let volumes: Table<VolumeRecord> = Table::open(database, "volumes")?;
        let snapshots: Table<Snapshot> = Table::open(database, "snapshots")?;
        let facts: Table<bool> = Table::open(database, "facts")?;
        let mut state = State::default();
        for (_, record) in volumes.list()? {
            if has_name(record.state) {
                state.by_name.insert(record.name.clone(), record.id.clone());
            }
            let suspect = true;
            let observed = Observed {
                suspect,
                ..Observed::default()
            };
            state.observed.insert(record.id.clone(), observed);
            state.volumes.insert(record.id.clone(), record);
        }
        for (_, record) in snapshots.list()? {
            state.snapshots.insert(record.id.clone(), record);
        }
        // Earlier versions noted nothing of it, and made the file before the first volume.
        let known = facts.get(COMPLETE)?.unwrap_or(!state.volumes.is_empty());
        if is_new {
            facts.put(FIRST, &true)?;
        }
        let never_had_any = !known && facts.get(FIRST)?.unwrap_or(false);
        Ok(Self {
            database: database.clone(),
            volumes,
            snapshots,
            facts,
            known: watch::Sender::new(known),
            never_had_any,
            changes: watch::Sender::new(()),
            state: Mutex::new(state),
            owed: Owed::open(database)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the records are all there are. They are not while the file is new, and volumes may lie on backends.
    pub(crate) fn is_known(&self) -> bool {
        *self.known.borrow()
    }

    /// The same, for waiting.
    pub(crate) fn known(&self) -> watch::Receiver<bool> {
        self.known.subscribe()
    }

    /// Whether this host had no volumes when this process began: what is not in the records may then only be what another host left
    /// at the place of volumes.
    pub(crate) const fn never_had_any(&self) -> bool {
        self.never_had_any
    }

    /// Tells that something was written down.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// What there is a record of.
    pub(crate) fn objects(&self) -> BTreeSet<Object> {
        let state = self.lock();
        let volumes = state.volumes.keys().cloned().map(Object::Volume);
        let snapshots = state.snapshots.values().map(|it| {
            Object::Snapshot(SnapshotRef {
                volume: it.volume.clone(),
                snapshot: it.id.clone(),
            })
        });
        volumes.chain(snapshots).collect()
    }

    /// The names that volumes bear.
    pub(crate) fn names(&self) -> BTreeSet<VolumeName> {
        self.lock().by_name.keys().cloned().collect()
    }

    /// The records are all there are from now on.
    pub(crate) fn set_known(&self) {
        self.known.send_replace(true);
    }

    /// Writes down what was found on backends, all of it or nothing: with it the records are all there are.
    pub(crate) fn adopt(&self, volumes: &[VolumeRecord], snapshots: &[Snapshot]) -> Result<()> {
        let mut batch = Batch::new().put(&self.facts, COMPLETE, &true)?;
        for record in volumes {
            batch = batch.put(&self.volumes, record.id.as_str(), record)?;
        }
        for record in snapshots {
            batch = batch.put(&self.snapshots, record.id.as_str(), record)?;
        }
        self.database.commit(batch)?;
        let mut state = self.lock();
        for record in volumes {
            if has_name(record.state) {
                state.by_name.insert(record.name.clone(), record.id.clone());
            }
            state.volumes.insert(record.id.clone(), record.clone());
        }
        for record in snapshots {
            state.snapshots.insert(record.id.clone(), record.clone());
        }
        self.changes.send_replace(());
        Ok(())
    }

    /// The volume that bears a name, whatever its state.
    pub(crate) fn named(&self, name: &VolumeName) -> Option<VolumeRecord> {
        let state = self.lock();
        let id = state.by_name.get(name)?;
        state.volumes.get(id).cloned()
    }

    /// The volume that the engine knows by a name.
    pub(crate) fn ready(&self, name: &VolumeName) -> Result<VolumeRecord> {
        let found = self.named(name).filter(VolumeRecord::is_ready);
        found.ok_or_else(|| Error::NoVolume(name.clone()))
    }

    pub(crate) fn volume(&self, id: &VolumeId) -> Option<VolumeRecord> {
        self.lock().volumes.get(id).cloned()
    }

    /// Every volume, by name.
    pub(crate) fn volumes(&self) -> Vec<VolumeRecord> {
        let mut all: Vec<VolumeRecord> = self.lock().volumes.values().cloned().collect();
        all.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        all
    }

    pub(crate) fn observed(&self, id: &VolumeId) -> Observed {
        self.lock().observed.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn observe(&self, id: &VolumeId, change: impl FnOnce(&mut Observed)) {
        change(self.lock().observed.entry(id.clone()).or_default());
    }

    /// The holds of every volume may be of an engine that is gone.
    pub(crate) fn suspect_all(&self) {
        for observed in self.lock().observed.values_mut() {
            observed.suspect = true;
        }
    }

    /// Writes a volume down: on the disk first.
    pub(crate) fn put(&self, record: &VolumeRecord) -> Result<()> {
        self.volumes.put(record.id.as_str(), record)?;
        let mut state = self.lock();
        if has_name(record.state) {
            state.by_name.insert(record.name.clone(), record.id.clone());
        } else if state.by_name.get(&record.name) == Some(&record.id) {
            state.by_name.remove(&record.name);
        }
        state.volumes.insert(record.id.clone(), record.clone());
        self.changes.send_replace(());
        Ok(())
    }

    /// Changes a volume, on the disk first. `None` when it is not there.
    pub(crate) fn change(
        &self,
        id: &VolumeId,
        change: impl FnOnce(&mut VolumeRecord),
    ) -> Result<Option<VolumeRecord>> {
        let Some(mut record) = self.volume(id) else {
            return Ok(None);
        };
        change(&mut record);
        self.put(&record)?;
        Ok(Some(record))
    }

    pub(crate) fn forget(&self, id: &VolumeId) -> Result<()> {
        self.volumes.delete(id.as_str())?;
        let mut state = self.lock();
        if let Some(record) = state.volumes.remove(id)
            && state.by_name.get(&record.name) == Some(id)
        {
            state.by_name.remove(&record.name);
        }
        state.observed.remove(id);
        self.changes.send_replace(());
        Ok(())
    }

    /// The snapshots of a volume, by time; of all of them without one.
    pub(crate) fn snapshots(&self, of: Option<&VolumeId>) -> Vec<Snapshot> {
        let state = self.lock();
        let matching = state
            .snapshots
            .values()
            .filter(|it| of.is_none_or(|volume| it.volume == *volume));
        let mut all: Vec<Snapshot> = matching.cloned().collect();
        all.sort_by(|one, other| {
            (&one.volume, one.taken_at, &one.name).cmp(&(
                &other.volume,
                other.taken_at,
                &other.name,
            ))
        });
        all
    }

    /// How many snapshots each volume has that are there, and when the latest was taken.
    pub(crate) fn snapshot_counts(&self) -> BTreeMap<VolumeId, (u64, u64)> {
        let mut counts = BTreeMap::<VolumeId, (u64, u64)>::new();
        for it in self.lock().snapshots.values() {
            if it.state == SnapshotState::Ready && it.reason != SnapshotReason::Base {
                let count = counts.entry(it.volume.clone()).or_default();
                *count = (count.0 + 1, count.1.max(it.taken_at));
            }
        }
        counts
    }

    /// A snapshot that is there.
    pub(crate) fn snapshot(&self, of: &VolumeRecord, name: &SnapshotName) -> Result<Snapshot> {
        let all = self.snapshots(Some(&of.id));
        let found = all
            .into_iter()
            .find(|it| it.name == *name && it.state == SnapshotState::Ready);
        found.ok_or_else(|| Error::NoSnapshot(of.name.clone(), name.clone()))
    }

    /// Writes snapshots down, all of them or none: on the disk first.
    pub(crate) fn put_snapshots(&self, records: &[Snapshot]) -> Result<()> {
        let mut batch = Batch::new();
        for record in records {
            batch = batch.put(&self.snapshots, record.id.as_str(), record)?;
        }
        self.database.commit(batch)?;
        let mut state = self.lock();
        for record in records {
            state.snapshots.insert(record.id.clone(), record.clone());
        }
        self.changes.send_replace(());
        Ok(())
    }

    pub(crate) fn forget_snapshots(&self, ids: &[SnapshotId]) -> Result<()> {
        let mut batch = Batch::new();
        for id in ids {
            batch = batch.delete(&self.snapshots, id.as_str());
        }
        self.database.commit(batch)?;
        let mut state = self.lock();
        for id in ids {
            state.snapshots.remove(id);
        }
        self.changes.send_replace(());
        Ok(())
    }
}
