//! A backup is restored to a volume of its own, compared with what was backed up, and the volume removed again.
//!
//! The scratch volume is one that is being made, for good: nobody is shown it, and what a kill leaves of it goes at the next start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_backup_protocol::{
    Backup, Operation, Outcome, Repository, Restored, Selector, Source, Target,
};
use drover_model::{ByteSize, VolumeId};
use drover_storage::{Access, Backend, Object, Shape};
use drover_volumes::VolumeOptions;
use drover_volumes::holds::Holds;
use drover_volumes::record::{BackupHistory, SnapshotReason, VolumeRecord, VolumeState};
use tracing::warn;

use super::{Work, blocking, new_id, reference};
use crate::clock::now;
use crate::error::{Error, Result};
use crate::worker;

/// Volumes of which a backup is restored to a scratch volume, and that.
#[derive(Debug, Default)]
pub(super) struct Rehearsals(Mutex<BTreeMap<VolumeId, VolumeId>>);

/// Another is refused for the volume until this is dropped.
struct Turn<'a> {
    all: &'a Rehearsals,
    volume: &'a VolumeId,
}

impl Rehearsals {
    /// Where a backup of a volume is restored to.
    pub(super) fn scratch_of(&self, volume: &VolumeId) -> Option<VolumeId> {
        self.lock().get(volume).cloned()
    }

    fn turn<'a>(&'a self, volume: &'a VolumeId, scratch: &VolumeId) -> Result<Turn<'a>> {
        let mut all = self.lock();
        if all.contains_key(volume) {
            return Err(Error::Conflict(
                "a backup of the volume is being verified already".to_owned(),
            ));
        }
        all.insert(volume.clone(), scratch.clone());
        Ok(Turn { all: self, volume })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeId, VolumeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(self.volume);
    }
}

impl Work {
    /// Restores a backup of a volume beside it and compares. Fails when there is no room for that, or the backup is not what it should be.
    pub(crate) async fn rehearse(
        &self,
        record: &VolumeRecord,
        place: &Repository,
        backup: &Backup,
    ) -> Result<Restored> {
        let backend = self.pools.of(record.backend).await?;
        self.refuse_without_room(&backend, record, backup).await?;
        let id: VolumeId = new_id()?;
        let scratch = VolumeRecord {
            version: 1,
            name: format!("verify-{}", id.as_str()).parse()?,
            id,
            backend: backend.kind(),
            size: scratch_size(record, backup)?,
            created_at: now(),
            state: VolumeState::Creating,
            holds: Holds::default(),
            paused: true,
            snapshotted_at: None,
            backups: BackupHistory::default(),
            options: scratch_options(&record.options),
        };
        let _turn = self.rehearsals.turn(&record.id, &scratch.id)?;
        let _gate = self.gate(&scratch.name).await;
        self.catalogue.put(&scratch)?;
        let compared = self
            .restore_and_compare(&backend, record, &scratch, (place, backup))
            .await;
        if let Err(error) = self.purge(&scratch).await {
            warn!(volume = %record.name, scratch = %scratch.name, error = error.sentence(), "is removed at the next start");
        }
        compared
    }

    /// A pool that a rehearsal fills is one that volumes cannot write to.
    async fn refuse_without_room(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        backup: &Backup,
    ) -> Result<()> {
        let (asked, object) = (backend.clone(), Object::Volume(record.id.clone()));
        let figures = blocking(move || Ok((asked.pool()?, asked.usage(&object)?.used)));
        let (pool, used) = figures.await?;
        // Of a device no more is written than is not zeros.
        let needed = match used {
            Some(used) if backup.block => used.min(backup.size),
            _ => backup.size,
        };
        let kept = pool.capacity / 100 * u64::from(self.pools.reserve());
        let room = pool.capacity.saturating_sub(pool.used + kept);
        if needed <= room {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "there is no room to restore the backup beside its volume: it needs {} M, and {} has {} M besides what is kept for the \
             volumes that there are",
            needed >> 20,
            pool.place,
            room >> 20
        )))
    }

    async fn restore_and_compare(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        scratch: &VolumeRecord,
        (place, backup): (&Repository, &Backup),
    ) -> Result<Restored> {
        let shape = Shape {
            size: scratch.size,
            file_system: scratch.options.file_system,
            mkfs_options: scratch.options.mkfs_options.clone(),
        };
        let (making, id) = (backend.clone(), scratch.id.clone());
        blocking(move || making.create(&id, &shape)).await?;
        let this = exactly(backup);
        let device = self.device_to_restore(backend, scratch, place, &this);
        let Some(device) = device.await? else {
            self.restore_files(backend, scratch, place, &this).await?;
            let at = self.restore_point(&scratch.id);
            let source = Source::Tree { path: at.clone() };
            self.attach_scratch(backend, &scratch.id, &at).await?;
            let compared = self.compare_with(&scratch.id, place, &this, source).await;
            let detached = self.detach_scratch(backend, &scratch.id, at).await;
            return compared.and_then(|compared| detached.map(|()| compared));
        };
        let target = Target::Block {
            path: device.clone(),
            blank: true,
        };
        self.write_back(scratch, place, &this, target).await?;
        // Before it is mounted, which may change it.
        let source = block(device, backup);
        let compared = self.compare_with(&scratch.id, place, &this, source).await?;
        self.compare_with_snapshot(backend, record, (place, backup))
            .await?;
        let at = self.restore_point(&scratch.id);
        self.attach_scratch(backend, &scratch.id, &at).await?;
        self.detach_scratch(backend, &scratch.id, at).await?;
        Ok(compared)
    }

    async fn attach_scratch(
        &self,
        backend: &Arc<dyn Backend>,
        scratch: &VolumeId,
        at: &std::path::Path,
    ) -> Result<()> {
        let (backend, object) = (backend.clone(), Object::Volume(scratch.clone()));
        let at = at.to_path_buf();
        blocking(move || backend.attach(&object, &at, Access::ReadOnly)).await
    }

    async fn detach_scratch(
        &self,
        backend: &Arc<dyn Backend>,
        scratch: &VolumeId,
        at: PathBuf,
    ) -> Result<()> {
        let (backend, object) = (backend.clone(), Object::Volume(scratch.clone()));
        blocking(move || backend.detach(&object, &at)).await
    }

    /// Compares a source with what a backup lists; `of` is whose work it is.
    async fn compare_with(
        &self,
        of: &VolumeId,
        place: &Repository,
        this: &Selector,
        with: Source,
    ) -> Result<Restored> {
        let operation = Operation::Compare {
            backup: this.clone(),
            with,
        };
        match self.ask_worker(of, place, operation).await? {
            Outcome::Verified(compared) => Ok(compared),
            _ => Err(worker::foreign()),
        }
    }

    /// Compares what the backup was made of, when that is kept for the next backup.
    async fn compare_with_snapshot(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        (place, backup): (&Repository, &Backup),
    ) -> Result<()> {
        let base = self.catalogue.volume(&record.id);
        let base = base.and_then(|record| record.backups.base);
        let Some(base) = base.filter(|base| base.backup == backup.id) else {
            return Ok(());
        };
        let all = self.catalogue.snapshots(Some(&record.id)).into_iter();
        let mut kept = all.filter(|it| it.reason == SnapshotReason::Base);
        let Some(snapshot) = kept.find(|it| it.id == base.snapshot) else {
            return Ok(());
        };
        let (asked, object) = (backend.clone(), Object::Snapshot(reference(&snapshot)));
        let Some(device) = blocking(move || asked.device(&object)).await? else {
            return Ok(());
        };
        let source = block(device, backup);
        let compared = self
            .compare_with(&record.id, place, &exactly(backup), source)
            .await;
        match compared {
            // A backup is being made, or the volume goes: the copy is the same as the backup all the same.
            Err(Error::Conflict(_)) => Ok(()),
            compared => {
                self.put_to_rest(record, &snapshot).await;
                compared.map(drop)
            }
        }
    }
}

fn block(path: PathBuf, backup: &Backup) -> Source {
    Source::Block {
        path,
        size: backup.size,
        changed: None,
    }
}

/// The selector of a backup that is known.
fn exactly(backup: &Backup) -> Selector {
    Selector {
        volume: backup.volume.clone(),
        when: Some(backup.id.clone()),
        host: None,
    }
}

/// How large the scratch volume is: as the volume, which may have grown or shrunk since.
fn scratch_size(record: &VolumeRecord, backup: &Backup) -> Result<Option<ByteSize>> {
    let Some(size) = record.size else {
        return Ok(None);
    };
    let least = ByteSize::new(backup.size).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Some(size.max(least)))
}

/// The options of the scratch volume: those that shape it.
fn scratch_options(options: &VolumeOptions) -> VolumeOptions {
    VolumeOptions {
        file_system: options.file_system,
        mkfs_options: options.mkfs_options.clone(),
        ..VolumeOptions::default()
    }
}
