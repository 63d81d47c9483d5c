//! New volumes, and volumes that come back.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use drover_model::{ByteSize, VolumeName};
use drover_storage::{Access, Backend, Object, Shape};
use drover_volumes::VolumeOptions;
use drover_volumes::holds::Holds;
use drover_volumes::options::OnRemove;
use drover_volumes::record::{BackupHistory, VolumeRecord, VolumeState};
use tracing::{info, warn};

use super::elsewhere::Wanted;
use super::{Work, blocking, new_id, reference};
use crate::clock::now;
use crate::error::{Error, Result};

impl Work {
    /// Creates a volume; one that is there already is no fault.
    pub(crate) async fn create(
        &self,
        name: &VolumeName,
        given: &BTreeMap<String, String>,
    ) -> Result<()> {
        let mut options = VolumeOptions::parse(&self.with_settings(given))?;
        if is_anonymous(name) && !given.contains_key("on-remove") {
            // Nobody could name it to have it back.
            options.on_remove = OnRemove::Delete;
        }
        let _gate = self.gate(name).await;
        match self.catalogue.named(name) {
            Some(record) if record.is_ready() => return Ok(()),
            Some(record) if record.state == VolumeState::Retained => {
                let changed = self
                    .catalogue
                    .change(&record.id, |it| it.state = VolumeState::Ready)?;
                if let Some(record) = changed {
                    self.renew_note(&record).await;
                }
                info!(volume = %name, "a volume that was retained is there again");
                return Ok(());
            }
            // What an earlier attempt left is removed first.
            Some(record) => self.purge(&record).await?,
            None => {}
        }
        let wanted = self.wanted_backup(&mut options).await?;
        let made = self.make(name, options, wanted.as_ref()).await;
        let record = made.map_err(|error| match &wanted {
            Some(wanted) => wanted.explain(error),
            None => error,
        })?;
        info!(volume = %name, backend = %record.backend, "created");
        Ok(())
    }

    async fn make(
        &self,
        name: &VolumeName,
        options: VolumeOptions,
        wanted: Option<&Wanted>,
    ) -> Result<VolumeRecord> {
        let source = self.source(&options)?;
        let backend = match &source {
            Some((record, _)) => self.pools.of(record.backend).await?,
            None => self.pools.for_new().await?,
        };
        check(&backend, &options)?;
        self.refuse_when_full(&backend, &format!("volume `{name}`"))
            .await?;
        let inherited = match &source {
            Some((record, _)) => record.size,
            None => self.size_of_backup(&backend, &options, wanted).await?,
        };
        let size = options.size.or(inherited);
        self.refuse_larger_than_pool(&backend, size).await?;
        let mut record = VolumeRecord {
            version: 1,
            id: new_id()?,
            name: name.clone(),
            backend: backend.kind(),
            size,
            created_at: now(),
            state: VolumeState::Creating,
            holds: Holds::default(),
            paused: false,
            snapshotted_at: None,
            backups: BackupHistory::default(),
            options,
        };
        self.catalogue.put(&record)?;
        let made = self
            .make_on(&backend, &record, source.map(|(_, object)| object), wanted)
            .await;
        record.state = VolumeState::Ready;
        // Before the engine hears of it: what is there is known again, whatever happens to the records.
        let noted = match made {
            Ok(()) => self.note(&record).await,
            failed => failed,
        };
        if let Err(error) = noted {
            if let Err(again) = self.purge(&record).await {
                warn!(volume = %name, error = again.sentence(), "what was begun is removed later");
            }
            return Err(error);
        }
        self.catalogue.put(&record)?;
        Ok(record)
    }

    /// What a new volume is a clone of.
    fn source(&self, options: &VolumeOptions) -> Result<Option<(VolumeRecord, Object)>> {
        let Some(from) = &options.from else {
            return Ok(None);
        };
        let record = self.catalogue.ready(&from.volume)?;
        let object = match &from.snapshot {
            None => Object::Volume(record.id.clone()),
            Some(name) => Object::Snapshot(reference(&self.catalogue.snapshot(&record, name)?)),
        };
        Ok(Some((record, object)))
    }

    async fn refuse_larger_than_pool(
        &self,
        backend: &Arc<dyn Backend>,
        size: Option<ByteSize>,
    ) -> Result<()> {
        let Some(size) = size else { return Ok(()) };
        let asked = backend.clone();
        let pool = blocking(move || asked.pool()).await?;
        if size.bytes() > pool.capacity {
            return Err(Error::Invalid(format!(
                "a size of {size} is more than {} holds ({} M)",
                pool.place,
                pool.capacity >> 20
            )));
        }
        Ok(())
    }

    async fn make_on(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        source: Option<Object>,
        wanted: Option<&Wanted>,
    ) -> Result<()> {
        let shape = Shape {
            size: record.size,
            file_system: record.options.file_system,
            mkfs_options: record.options.mkfs_options.clone(),
        };
        let (making, id) = (backend.clone(), record.id.clone());
        blocking(move || match &source {
            None => making.create(&id, &shape),
            Some(source) => making.clone_object(&id, source, &shape),
        })
        .await?;
        if let Some(wanted) = wanted {
            self.restore_backup(backend, record, &wanted.selector)
                .await?;
        }
        // Where it is looked for when a kill comes: the place of its name may be another's by then.
        let at = self.restore_point(&record.id);
        let (backend, record) = (backend.clone(), record.clone());
        blocking(move || give_root(&*backend, &record, &at)).await
    }

    /// Sets how much fits on a volume.
    pub(crate) async fn resize(&self, name: &VolumeName, size: ByteSize) -> Result<VolumeRecord> {
        let _gate = self.gate(name).await;
        let record = self.catalogue.ready(name)?;
        let backend = self.pools.of(record.backend).await?;
        self.refuse_larger_than_pool(&backend, Some(size)).await?;
        let id = record.id.clone();
        blocking(move || backend.resize(&id, size)).await?;
        let changed = self
            .catalogue
            .change(&record.id, |it| it.size = Some(size))?;
        info!(volume = %name, %size, "resized");
        let record = changed.ok_or_else(|| Error::NoVolume(name.clone()))?;
        self.renew_note(&record).await;
        Ok(record)
    }
}

/// Whether the engine has made a name for it.
pub(crate) fn is_anonymous(name: &VolumeName) -> bool {
    let text = name.as_str();
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses options that a backend cannot keep.
fn check(backend: &Arc<dyn Backend>, options: &VolumeOptions) -> Result<()> {
    let (abilities, kind) = (backend.abilities(), backend.kind());
    if let (Some(_), Some(sentence)) = (options.size, &abilities.no_size_limit) {
        return Err(Error::Invalid(sentence.clone()));
    }
    let makes = options.file_system.is_some() || !options.mkfs_options.is_empty();
    if makes && abilities.file_systems.is_empty() {
        return Err(Error::Invalid(format!(
            "`fs` and `mkfs-opts` are for volumes with a file system of their own, which those on `{kind}` have not: leave \
             them out"
        )));
    }
    let schedules = [
        ("snapshot-schedule", options.snapshot_schedule.is_some()),
        ("backup-schedule", options.backup_schedule.is_some()),
    ];
    let asked = schedules.into_iter().find(|(_, given)| *given);
    if let (Some((option, _)), false) = (asked, abilities.snapshots) {
        return Err(Error::Invalid(format!(
            "`{option}`: volumes on `{kind}` have no snapshots"
        )));
    }
    // Told now, and not when a backup is due or needed.
    readable(
        "backup-password-file",
        options.backup_password_file.as_deref(),
    )?;
    readable(
        "backup-options-file",
        options.backup_options_file.as_deref(),
    )
}

fn readable(option: &str, file: Option<&str>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let unreadable = |error| Error::Invalid(format!("`{option}={file}` cannot be read: {error}"));
    std::fs::File::open(file).map(drop).map_err(unreadable)
}

/// Gives the root directory of a volume to its owner, if the options name one.
fn give_root(
    backend: &dyn Backend,
    record: &VolumeRecord,
    at: &Path,
) -> drover_storage::Result<()> {
    let (owner, mode) = (record.options.owner, record.options.mode);
    if owner.is_none() && mode.is_none() {
        return Ok(());
    }
    let object = Object::Volume(record.id.clone());
    backend.attach(&object, at, Access::ReadWrite)?;
    let given = owner.map_or(Ok(()), |owner| {
        std::os::unix::fs::chown(at, Some(owner.user), Some(owner.group))
    });
    let given = given.and_then(|()| {
        mode.map_or(Ok(()), |mode| {
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode.bits()))
        })
    });
    let detached = backend.detach(&object, at);
    given.map_err(drover_storage::Error::system(
        "give the root directory of",
        at,
    ))?;
    detached
}
