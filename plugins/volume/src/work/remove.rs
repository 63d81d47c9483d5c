//! Removal, the trash, and the way back.

use drover_model::VolumeName;
use drover_storage::Object;
use drover_volumes::record::{VolumeRecord, VolumeState};
use tracing::info;

use super::{Work, blocking, reference};
use crate::clock::now;
use crate::error::{Error, Result};

impl Work {
    /// Removes a volume as its options say. The engine has made sure that no container refers to it.
    pub(crate) async fn remove(&self, name: &VolumeName) -> Result<()> {
        let _gate = self.gate(name).await;
        let Some(record) = self.catalogue.named(name) else {
            return Ok(());
        };
        if record.state == VolumeState::Retained {
            return Ok(());
        }
        self.detach(&record).await?;
        let state = record.removed(now(), self.trash_window);
        if state == VolumeState::Removing {
            self.purge(&record).await?;
        } else {
            self.release_snapshots(&record).await?;
            if let Some(record) = self.catalogue.change(&record.id, |it| it.state = state)? {
                self.renew_note(&record).await;
            }
        }
        info!(volume = %name, ?state, "removed");
        Ok(())
    }

    /// Unmounts the snapshots of a volume that are mounted for a look: one that somebody looks at is told, before anything is removed.
    async fn release_snapshots(&self, record: &VolumeRecord) -> Result<()> {
        let snapshots = self.catalogue.snapshots(Some(&record.id)).into_iter();
        let places = snapshots.map(|it| {
            let at = self.snapshot_point(&record.name, &it.name);
            (Object::Snapshot(reference(&it)), at)
        });
        let places: Vec<_> = places.collect();
        let backend = self.pools.of(record.backend).await?;
        blocking(move || {
            let mut places = places.iter();
            places.try_for_each(|(object, at)| backend.detach(object, at))
        })
        .await
    }

    /// Removes all that there is of a volume, its snapshots too, and forgets it. What is in use is told, and nothing is removed then.
    pub(crate) async fn purge(&self, record: &VolumeRecord) -> Result<()> {
        self.stop_worker(&record.id).await;
        self.release_snapshots(record).await?;
        self.catalogue
            .change(&record.id, |it| it.state = VolumeState::Removing)?;
        let backend = self.pools.of(record.backend).await?;
        let restoring = self.restore_point(&record.id);
        let snapshots = self.catalogue.snapshots(Some(&record.id));
        let objects = snapshots.iter().map(reference).map(Object::Snapshot);
        let objects: Vec<_> = objects.collect();
        // A volume in the trash has no place of its own: another of its name may be attached there.
        let place = self.catalogue.observed(&record.id).attached;
        let volume = Object::Volume(record.id.clone());
        let at = place.then(|| self.mount_point(&record.name));
        blocking(move || {
            let mut objects = objects.iter();
            objects.try_for_each(|object| backend.remove(object))?;
            backend.detach(&volume, &restoring)?;
            if let Some(at) = at {
                backend.detach(&volume, &at)?;
            }
            backend.remove(&volume)
        })
        .await?;
        let ids: Vec<_> = snapshots.into_iter().map(|it| it.id).collect();
        self.catalogue.forget_snapshots(&ids)?;
        self.catalogue.forget(&record.id)?;
        self.removed.notify_one();
        Ok(())
    }

    /// Brings the latest volume of a name back from the trash.
    pub(crate) async fn restore(
        &self,
        name: &VolumeName,
        new_name: Option<&VolumeName>,
    ) -> Result<VolumeRecord> {
        let new_name = new_name.unwrap_or(name);
        let _gate = self.gate(new_name).await;
        if self.catalogue.named(new_name).is_some() {
            return Err(Error::Conflict(format!(
                "there is a volume `{new_name}`: restore it under another name, with `--as NAME`"
            )));
        }
        let trashed = self.catalogue.volumes().into_iter().filter_map(|record| {
            let VolumeState::Trashed { at, .. } = record.state else {
                return None;
            };
            (record.name == *name).then_some((at, record))
        });
        let Some((_, record)) = trashed.max_by_key(|(at, _)| *at) else {
            return Err(Error::NoVolume(name.clone()));
        };
        let mut restored = record;
        restored.name = new_name.clone();
        restored.state = VolumeState::Ready;
        restored.holds.clear();
        self.catalogue.put(&restored)?;
        self.renew_note(&restored).await;
        info!(volume = %name, %new_name, "restored from the trash");
        Ok(restored)
    }
}
