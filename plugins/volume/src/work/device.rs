//! Backups of volumes that are devices: what has changed since the last one is read, and nothing else.
//!
//! The snapshot of the last backup to where a volume's options say is kept ([`BackupBase`]); the backend tells in which
//! ranges a later one differs from it.

use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drover_backup_protocol::{ByteRange, Created, Repository, Selector, Source};
use drover_model::{ByteSize, VolumeId};
use drover_storage::{Backend, Object, program};
use drover_volumes::VolumeOptions;
use drover_volumes::record::{BackupBase, SnapshotReason, SnapshotRecord, VolumeRecord};
use tracing::warn;

use super::backup::repository;
use super::elsewhere::Wanted;
use super::{Work, blocking, new_id, reference};
use crate::error::{Error, Result};

/// How long it may take to have a device forget what is on it.
const DISCARD: Duration = Duration::from_secs(300);

impl Work {
    /// The device of a snapshot, what of it may have changed, and the backup that this is counted from; `None` where there are files
    /// to be saved.
    pub(super) async fn device_to_save(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        snapshot: &SnapshotRecord,
        to: &str,
    ) -> Result<Option<(Source, Option<String>)>> {
        let base = self.base(&record.id, to);
        let since = base.as_ref().map(|(kept, _)| reference(kept));
        let taken = reference(snapshot);
        let asked = backend.clone();
        let found = blocking(move || {
            let Some(path) = asked.device(&Object::Snapshot(taken.clone()))? else {
                return Ok(None);
            };
            let changed = asked.changes(since.as_ref(), &taken)?;
            Ok(Some((size_of(&path)?, path, changed)))
        });
        let Some((size, path, changed)) = found.await? else {
            return Ok(None);
        };
        let range = |range: std::ops::Range<u64>| ByteRange {
            offset: range.start,
            length: range.end.min(size).saturating_sub(range.start),
        };
        let changed = changed.map(|all| all.into_iter().map(range).collect());
        let source = Source::Block {
            path,
            size,
            changed,
        };
        Ok(Some((source, base.map(|(_, backup)| backup))))
    }

    /// What a backup to a repository can count from.
    fn base(&self, volume: &VolumeId, to: &str) -> Option<(SnapshotRecord, String)> {
        let base = self.catalogue.volume(volume)?.backups.base?;
        let all = self.catalogue.snapshots(Some(volume)).into_iter();
        let kept = all.into_iter().find(|it| it.id == base.snapshot)?;
        (base.to == to && kept.reason == SnapshotReason::Base).then_some((kept, base.backup))
    }

    /// Whether the next backup counts from a snapshot.
    pub(crate) fn is_base(&self, snapshot: &SnapshotRecord) -> bool {
        let volume = self.catalogue.volume(&snapshot.volume);
        let base = volume.and_then(|volume| volume.backups.base);
        base.is_some_and(|base| base.snapshot == snapshot.id)
    }

    /// Keeps the snapshot of a backup, if the next one counts from it, and removes the one before it; the volume's gate is held.
    pub(super) async fn keep_base(
        &self,
        record: &VolumeRecord,
        snapshot: &SnapshotRecord,
        made: &Created,
        to: &str,
    ) -> bool {
        if !made.backup.block || record.options.backup_to.as_deref() != Some(to) {
            return false;
        }
        let mut kept = snapshot.clone();
        kept.reason = SnapshotReason::Base;
        let base = BackupBase {
            snapshot: snapshot.id.clone(),
            backup: made.backup.id.clone(),
            to: to.to_owned(),
        };
        let noted = self.catalogue.put_snapshots(&[kept]).and_then(|()| {
            self.catalogue
                .change(&record.id, |it| it.backups.base = Some(base))
        });
        if let Err(error) = noted {
            warn!(volume = %record.name, error = error.sentence(), "the next backup reads everything");
            return false;
        }
        for other in self.catalogue.snapshots(Some(&record.id)) {
            if other.reason == SnapshotReason::Base
                && other.id != snapshot.id
                && let Err(error) = self.purge_snapshot(&other).await
            {
                warn!(volume = %record.name, error = error.sentence(), "what an earlier backup kept is removed later");
            }
        }
        self.put_to_rest(record, snapshot).await;
        true
    }

    /// A snapshot that is only kept has no device.
    pub(super) async fn put_to_rest(&self, record: &VolumeRecord, snapshot: &SnapshotRecord) {
        let at = self.snapshot_point(&record.name, &snapshot.name);
        let object = Object::Snapshot(reference(snapshot));
        let Ok(backend) = self.pools.of(record.backend).await else {
            return;
        };
        if let Err(error) = blocking(move || backend.detach(&object, &at)).await {
            warn!(volume = %record.name, error = error.sentence(), "its snapshot stays active");
        }
    }

    /// How large a volume must be that a backup of a device is restored to; `None` where nothing says so.
    pub(super) async fn size_of_backup(
        &self,
        backend: &Arc<dyn Backend>,
        options: &VolumeOptions,
        wanted: Option<&Wanted>,
    ) -> Result<Option<ByteSize>> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        if !backend.abilities().needs_size {
            return Ok(None);
        }
        let place = repository(options)?;
        let id = new_id()?;
        let found = self.find_backup(&id, &place, &wanted.selector).await?;
        if !found.block {
            return Ok(None);
        }
        let least =
            ByteSize::new(found.size).map_err(|error| Error::Internal(error.to_string()))?;
        match options.size {
            Some(size) if size < least => Err(Error::Invalid(format!(
                "a size of {size} is less than that of the volume that was backed up: give at least {least}"
            ))),
            _ => Ok(Some(least)),
        }
    }

    /// The device that a backup of a device is written to, with nothing on it any more; `None` where files are restored.
    pub(super) async fn device_to_restore(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        place: &Repository,
        wanted: &Selector,
    ) -> Result<Option<PathBuf>> {
        let found = self.find_backup(&record.id, place, wanted).await?;
        if !found.block {
            return Ok(None);
        }
        let (asked, object) = (backend.clone(), Object::Volume(record.id.clone()));
        let Some(device) = blocking(move || asked.device(&object)).await? else {
            return Err(Error::Invalid(format!(
                "the backup of `{}` is the image of a device, and volumes on `{}` are none: restore it with `drover backup restore \
                 --image`, or where volumes are on `thin`",
                found.volume, record.backend
            )));
        };
        let path = device.clone();
        blocking(move || {
            let words = ["-f".as_ref(), path.as_os_str()];
            program::run("blkdiscard", words, DISCARD).map(drop)
        })
        .await?;
        Ok(Some(device))
    }

    /// Has the file system that was restored fill its device, which may be larger.
    pub(super) async fn fill_device(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
    ) -> Result<()> {
        let Some(size) = record.size else {
            return Ok(());
        };
        let (backend, id) = (backend.clone(), record.id.clone());
        blocking(move || backend.resize(&id, size)).await
    }
}

/// A device's size is where it ends.
fn size_of(path: &std::path::Path) -> drover_storage::Result<u64> {
    let end = std::fs::File::open(path).and_then(|mut device| device.seek(SeekFrom::End(0)));
    end.map_err(drover_storage::Error::system("read the size of", path))
}
