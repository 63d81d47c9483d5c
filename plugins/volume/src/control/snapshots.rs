//! What the command line asks of snapshots.

use drover_control_api::volume::{
    CompareSnapshot, DifferenceEntry, Differences, MountSnapshot, SnapshotEntry, SnapshotProject,
    SnapshotTable, Snapshots,
};
use drover_model::{SnapshotName, VolumeName};
use drover_storage::mounts;
use drover_storage::walk::Change;
use drover_volumes::SnapshotRecord;
use drover_volumes::record::{SnapshotReason, SnapshotState};

use super::Control;
use crate::NAME;
use crate::clock::{now, stamp};
use crate::error::{Error, Result};
use crate::work::blocking;

/// The label of Compose's volumes.
const PROJECT: &str = "com.docker.compose.project";

impl Control {
    pub(super) async fn snapshots(&self, asked: &Snapshots) -> Result<SnapshotTable> {
        let of = match &asked.volume {
            Some(name) => Some(self.work.catalogue.ready(name)?.id),
            None => None,
        };
        let all = self.work.catalogue.snapshots(of.as_ref());
        let ready: Vec<_> = all
            .into_iter()
            .filter(|it| it.state == SnapshotState::Ready && it.reason != SnapshotReason::Base)
            .collect();
        Ok(self.snapshot_table(&ready, Vec::new()).await)
    }

    async fn snapshot_table(
        &self,
        records: &[SnapshotRecord],
        complaints: Vec<String>,
    ) -> SnapshotTable {
        let mut snapshots = Vec::new();
        for record in records {
            if let Some(entry) = self.snapshot_entry(record).await {
                snapshots.push(entry);
            }
        }
        snapshots.sort_by(|one, other| {
            (&one.volume, one.taken_at, &one.name).cmp(&(
                &other.volume,
                other.taken_at,
                &other.name,
            ))
        });
        SnapshotTable {
            snapshots,
            complaints,
        }
    }

    /// `None` for one of a volume that is not there any more.
    async fn snapshot_entry(&self, record: &SnapshotRecord) -> Option<SnapshotEntry> {
        let volume = self.work.catalogue.volume(&record.volume)?;
        let at = self.work.snapshot_point(&volume.name, &record.name);
        let object = drover_storage::Object::Snapshot(drover_storage::SnapshotRef {
            volume: record.volume.clone(),
            snapshot: record.id.clone(),
        });
        let exclusive = match self.work.pools.of(volume.backend).await {
            Ok(backend) => blocking(move || backend.usage(&object)).await.ok(),
            Err(_) => None,
        };
        let reason = match record.reason {
            SnapshotReason::Asked => "asked",
            SnapshotReason::Scheduled => "scheduled",
            SnapshotReason::Working => "working",
            SnapshotReason::Base => "base",
        };
        let is_mounted = mounts::at(&at).is_ok_and(|mount| mount.is_some());
        Some(SnapshotEntry {
            volume: volume.name,
            name: record.name.clone(),
            id: record.id.clone(),
            taken_at: record.taken_at,
            reason: reason.to_owned(),
            exclusive: exclusive.and_then(|it| it.exclusive),
            group: record.group.clone(),
            application_consistent: record.application_consistent,
            mount_point: is_mounted.then_some(at),
        })
    }

    pub(super) async fn take(
        &self,
        volumes: &[VolumeName],
        name: &SnapshotName,
    ) -> Result<SnapshotTable> {
        let taken = self
            .work
            .snapshot(volumes, name, SnapshotReason::Asked)
            .await?;
        Ok(self
            .snapshot_table(&taken.snapshots, taken.complaints)
            .await)
    }

    pub(super) async fn snapshot_project(&self, asked: SnapshotProject) -> Result<SnapshotTable> {
        let labelled = self
            .work
            .engine
            .volumes_labelled(PROJECT, &asked.project)
            .await;
        let labelled = labelled.map_err(|error| {
            Error::Unavailable(format!(
                "the engine does not say what is in the project: {error}"
            ))
        })?;
        let ours = labelled.iter().filter(|it| it.driver == NAME);
        let mut volumes = Vec::new();
        for volume in ours {
            volumes.push(volume.name.parse()?);
        }
        if volumes.is_empty() {
            return Err(Error::Invalid(format!(
                "project `{}` has no volume with `driver: {NAME}` on this host",
                asked.project
            )));
        }
        let name = match asked.name {
            Some(name) => name,
            None => stamp(now()).parse()?,
        };
        self.take(&volumes, &name).await
    }

    pub(super) async fn mount_snapshot(&self, asked: MountSnapshot) -> Result<SnapshotEntry> {
        let record = self
            .work
            .mount_snapshot(&asked.volume, &asked.snapshot, asked.mounted)
            .await?;
        let gone = || Error::NoVolume(asked.volume.clone());
        self.snapshot_entry(&record).await.ok_or_else(gone)
    }

    pub(super) async fn compare(&self, asked: CompareSnapshot) -> Result<Differences> {
        let (differences, complete) = self
            .work
            .compare(&asked.volume, &asked.snapshot, asked.with.as_ref())
            .await?;
        let entries = differences.into_iter().map(|it| DifferenceEntry {
            change: match it.change {
                Change::Added => "added",
                Change::Removed => "removed",
                Change::Modified => "modified",
            }
            .to_owned(),
            path: it.path.to_string_lossy().into_owned(),
            size: it.size,
        });
        Ok(Differences {
            differences: entries.collect(),
            complete,
        })
    }
}
