//! Snapshots: taken, of several volumes at one instant, mounted, compared, rolled back, removed.

use std::path::{Path, PathBuf};

use drover_model::{SnapshotName, VolumeName};
use drover_storage::walk::{Difference, compare};
use drover_storage::{Access, Object};
use drover_volumes::SnapshotRecord;
use drover_volumes::record::{SnapshotReason, SnapshotState, VolumeRecord};
use tracing::{info, warn};

use super::{Work, blocking, new_id, reference};
use crate::clock::now;
use crate::error::{Error, Result};
use crate::hooks::{self, Consistency};

/// How many differences are told at most.
const MOST: usize = 10_000;

/// Snapshots that were taken together.
pub(crate) struct Taken {
    pub(crate) snapshots: Vec<SnapshotRecord>,
    pub(crate) complaints: Vec<String>,
}

impl Work {
    /// Takes a snapshot of each of these volumes, all at one instant.
    pub(crate) async fn snapshot(
        &self,
        names: &[VolumeName],
        name: &SnapshotName,
        reason: SnapshotReason,
    ) -> Result<Taken> {
        let mut names = names.to_vec();
        // In one order for everybody, so that no two wait for each other.
        names.sort();
        names.dedup();
        let mut gates = Vec::new();
        for name in &names {
            gates.push(self.gate(name).await);
        }
        let volumes = self.snapshottable(&names, name)?;
        let Some(first) = volumes.first() else {
            return Err(Error::Invalid("no volume was named".to_owned()));
        };
        let backend = self.pools.of(first.backend).await?;
        if !backend.abilities().snapshots {
            return Err(Error::Invalid(format!(
                "volumes on `{}` have no snapshots",
                first.backend
            )));
        }
        self.refuse_when_full(&backend, "the snapshot").await?;
        let mut records = Vec::new();
        let group = (volumes.len() > 1)
            .then(crate::clock::random_id)
            .transpose();
        let group = group.map_err(|error| Error::Internal(error.to_string()))?;
        for volume in &volumes {
            records.push(SnapshotRecord {
                version: 1,
                id: new_id()?,
                volume: volume.id.clone(),
                name: name.clone(),
                taken_at: now(),
                reason,
                state: SnapshotState::Creating,
                group: group.clone(),
                application_consistent: false,
            });
        }
        self.catalogue.put_snapshots(&records)?;
        let wanted: Vec<_> = records.iter().map(reference).collect();
        let taker = backend.clone();
        let taking = async move { blocking(move || taker.snapshot(&wanted)).await };
        let (outcome, consistency) =
            hooks::around(&self.engine, &self.catalogue.owed, &names, taking).await;
        let Consistency { asked, complaints } = consistency;
        if let Err(error) = outcome {
            self.forget_unfinished(&records).await;
            return Err(error);
        }
        for record in &mut records {
            record.state = SnapshotState::Ready;
            record.application_consistent = asked && complaints.is_empty();
        }
        self.note_snapshots(backend, &records).await?;
        self.catalogue.put_snapshots(&records)?;
        info!(snapshot = %name, volumes = names.len(), "taken");
        Ok(Taken {
            snapshots: records,
            complaints,
        })
    }

    fn snapshottable(
        &self,
        names: &[VolumeName],
        snapshot: &SnapshotName,
    ) -> Result<Vec<VolumeRecord>> {
        let mut volumes: Vec<VolumeRecord> = Vec::new();
        for name in names {
            let volume = self.catalogue.ready(name)?;
            if self.catalogue.snapshot(&volume, snapshot).is_ok() {
                return Err(Error::Conflict(format!(
                    "volume `{name}` has a snapshot `{snapshot}` already"
                )));
            }
            if let Some(first) = volumes.first()
                && first.backend != volume.backend
            {
                return Err(Error::Conflict(format!(
                    "`{}` lies on `{}` and `{name}` on `{}`: no instant is common to both",
                    first.name, first.backend, volume.backend
                )));
            }
            volumes.push(volume);
        }
        Ok(volumes)
    }

    async fn forget_unfinished(&self, records: &[SnapshotRecord]) {
        for record in records {
            if let Err(error) = self.purge_snapshot(record).await {
                warn!(error = error.sentence(), "what was begun is removed later");
            }
        }
    }

    /// Removes a snapshot and forgets it.
    pub(crate) async fn purge_snapshot(&self, record: &SnapshotRecord) -> Result<()> {
        let Some(volume) = self.catalogue.volume(&record.volume) else {
            return self
                .catalogue
                .forget_snapshots(std::slice::from_ref(&record.id));
        };
        let at = self.snapshot_point(&volume.name, &record.name);
        let object = Object::Snapshot(reference(record));
        let backend = self.pools.of(volume.backend).await?;
        // One that somebody looks at stays as it is.
        let (detacher, detached) = (backend.clone(), object.clone());
        blocking(move || detacher.detach(&detached, &at)).await?;
        let mut going = record.clone();
        going.state = SnapshotState::Removing;
        self.catalogue.put_snapshots(&[going])?;
        blocking(move || backend.remove(&object)).await?;
        self.catalogue
            .forget_snapshots(std::slice::from_ref(&record.id))?;
        self.removed.notify_one();
        Ok(())
    }

    pub(crate) async fn remove_snapshot(
        &self,
        volume: &VolumeName,
        name: &SnapshotName,
    ) -> Result<()> {
        let _gate = self.gate(volume).await;
        let record = self.catalogue.ready(volume)?;
        let snapshot = self.catalogue.snapshot(&record, name)?;
        self.purge_snapshot(&snapshot).await?;
        info!(%volume, snapshot = %name, "removed");
        Ok(())
    }

    /// Mounts a snapshot for looking at it, or unmounts it.
    pub(crate) async fn mount_snapshot(
        &self,
        volume: &VolumeName,
        name: &SnapshotName,
        mounted: bool,
    ) -> Result<SnapshotRecord> {
        let _gate = self.gate(volume).await;
        let record = self.catalogue.ready(volume)?;
        let snapshot = self.catalogue.snapshot(&record, name)?;
        let backend = self.pools.of(record.backend).await?;
        let at = self.snapshot_point(volume, name);
        let object = Object::Snapshot(reference(&snapshot));
        blocking(move || {
            if mounted {
                backend.attach(&object, &at, Access::ReadOnly)
            } else {
                backend.detach(&object, &at)
            }
        })
        .await?;
        Ok(snapshot)
    }

    /// Puts what a snapshot kept in the place of what is on its volume.
    pub(crate) async fn roll_back(
        &self,
        volume: &VolumeName,
        name: &SnapshotName,
    ) -> Result<VolumeRecord> {
        let _gate = self.gate(volume).await;
        let record = self.catalogue.ready(volume)?;
        let snapshot = self.catalogue.snapshot(&record, name)?;
        let users = self.running_users(volume).await.map_err(|error| {
            Error::Unavailable(format!(
                "whether a container uses `{volume}` cannot be asked: {error}"
            ))
        })?;
        if let Some(user) = users.first() {
            return Err(Error::Conflict(format!(
                "container `{user}` uses volume `{volume}`: stop it first"
            )));
        }
        if record.holds.is_starting(now()) {
            return Err(Error::Conflict(format!(
                "a container is about to use volume `{volume}`: stop it, or try again in a while"
            )));
        }
        self.detach(&record).await?;
        let backend = self.pools.of(record.backend).await?;
        let wanted = reference(&snapshot);
        blocking(move || backend.rollback(&wanted)).await?;
        self.renew_note(&record).await;
        info!(%volume, snapshot = %name, "rolled back");
        Ok(record)
    }

    /// What differs between a snapshot and a later one, or the volume.
    pub(crate) async fn compare(
        &self,
        volume: &VolumeName,
        earlier: &SnapshotName,
        later: Option<&SnapshotName>,
    ) -> Result<(Vec<Difference>, bool)> {
        let _gate = self.gate(volume).await;
        let record = self.catalogue.ready(volume)?;
        let before = Object::Snapshot(reference(&self.catalogue.snapshot(&record, earlier)?));
        let after = match later {
            Some(name) => Object::Snapshot(reference(&self.catalogue.snapshot(&record, name)?)),
            None => Object::Volume(record.id.clone()),
        };
        let backend = self.pools.of(record.backend).await?;
        let places = [self.look_place("before"), self.look_place("after")];
        blocking(move || {
            let look = |object: &Object, at: &Path| backend.attach(object, at, Access::ReadOnly);
            let [one, other] = &places;
            let compared = look(&before, one)
                .and_then(|()| look(&after, other))
                .and_then(|()| compare(one, other, MOST));
            backend.detach(&before, one)?;
            backend.detach(&after, other)?;
            compared
        })
        .await
    }

    /// Where things are looked at for a moment.
    pub(crate) fn look_folder(&self) -> PathBuf {
        self.mount_folder().with_file_name("looks")
    }

    /// A place to look at something, of its own for each look.
    fn look_place(&self, which: &str) -> PathBuf {
        let number = crate::clock::random_id().unwrap_or_default();
        self.look_folder().join(format!("{number}-{which}"))
    }
}
