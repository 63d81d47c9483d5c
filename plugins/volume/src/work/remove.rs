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
        let changed = self.catalogue.change(&record.id, |it| it.state = state)?;
        info!(volume = %name, ?state, "removed");
        match (state, changed) {
            (VolumeState::Removing, Some(record)) => self.purge(&record).await?,
            (_, Some(record)) => self.renew_note(&record).await,
            (_, None) => {}
        }
        Ok(())
    }

    /// Removes all that there is of a volume, its snapshots too, and forgets it.
    pub(crate) async fn purge(&self, record: &VolumeRecord) -> Result<()> {
        self.catalogue
            .change(&record.id, |it| it.state = VolumeState::Removing)?;
        self.stop_worker(&record.id).await;
        let backend = self.pools.of(record.backend).await?;
        let restoring = self.restore_point(&record.id);
        let snapshots = self.catalogue.snapshots(Some(&record.id));
        let mut places = Vec::new();
        for snapshot in &snapshots {
            let at = self.snapshot_point(&record.name, &snapshot.name);
            places.push((Object::Snapshot(reference(snapshot)), at));
        }
        // A volume in the trash has no place of its own: another of its name may be attached there.
        let place = self.catalogue.observed(&record.id).attached;
        let volume = Object::Volume(record.id.clone());
        let at = place.then(|| self.mount_point(&record.name));
        blocking(move || {
            for (object, at) in &places {
                backend.detach(object, at)?;
                backend.remove(object)?;
            }
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
