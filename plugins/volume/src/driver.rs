//! What the engine asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_model::VolumeName;
use drover_plugin_host::{DriverError, VolumeDriver};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::volume::{
    Create, GetAnswer, ListAnswer, Mount, MountAnswer, Named, Volume,
};
use drover_volumes::record::{BackupHistory, Verification, VolumeRecord};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::clock::rfc3339;
use crate::error::Error;
use crate::work::Work;

type Result<T> = std::result::Result<T, DriverError>;

/// The driver.
pub(crate) struct Driver {
    work: Arc<Work>,
}

impl Driver {
    pub(crate) const fn new(work: Arc<Work>) -> Self {
        Self { work }
    }

    fn volume(&self, record: &VolumeRecord, snapshots: Option<&(u64, u64)>) -> Volume {
        let observed = self.work.catalogue.observed(&record.id);
        let mount_point = if observed.attached {
            let at = self.work.mount_point(&record.name);
            at.display().to_string()
        } else {
            String::new()
        };
        let (count, last) = snapshots.copied().unwrap_or_default();
        let mut status = BTreeMap::from([
            ("backend".to_owned(), json!(record.backend)),
            (
                "size".to_owned(),
                text(record.size, "as much as the pool holds"),
            ),
            (
                "used".to_owned(),
                observed
                    .used
                    .map_or_else(|| json!("not counted yet"), |it| json!(it)),
            ),
            ("snapshots".to_owned(), json!(count)),
            ("lastBackup".to_owned(), last_backup(&record.backups)),
            ("health".to_owned(), json!(self.work.health(record))),
        ]);
        if count > 0 {
            status.insert("lastSnapshot".to_owned(), json!(rfc3339(last)));
        }
        if let Some(schedule) = &record.options.snapshot_schedule {
            let paused = if record.paused { " (paused)" } else { "" };
            let schedule = json!(format!("{schedule}{paused}"));
            status.insert("snapshotSchedule".to_owned(), schedule);
        }
        if let Some(schedule) = &record.options.backup_schedule {
            status.insert("backupSchedule".to_owned(), json!(schedule.to_string()));
        }
        if let Some(failure) = &record.backups.failure {
            status.insert("backupFailure".to_owned(), json!(failure));
        }
        if let Some(found) = &record.backups.verification {
            status.insert("verification".to_owned(), verification(found));
        }
        Volume {
            name: record.name.to_string(),
            mount_point,
            created_at: rfc3339(record.created_at),
            status,
        }
    }
}

fn text<T: ToString>(value: Option<T>, otherwise: &str) -> Value {
    json!(value.map_or_else(|| otherwise.to_owned(), |value| value.to_string()))
}

fn last_backup(backups: &BackupHistory) -> Value {
    match &backups.last {
        None => json!("never"),
        Some(last) => json!({
            "takenAt": rfc3339(last.taken_at),
            "id": last.id,
            "to": last.to,
            "size": last.size,
        }),
    }
}

fn verification(found: &Verification) -> Value {
    match (&found.failure, found.verified_at) {
        (Some(failure), _) => json!({"failure": failure, "begunAt": rfc3339(found.begun_at)}),
        (None, Some(at)) => {
            json!({"verifiedAt": rfc3339(at), "id": found.id, "restored": found.restored})
        }
        (None, None) => json!({"begunAt": rfc3339(found.begun_at)}),
    }
}

fn name(text: &str) -> std::result::Result<VolumeName, Error> {
    Ok(text.parse()?)
}

impl VolumeDriver for Driver {
    fn activated(&self) {
        // A new engine: it knows nothing of the mounts of the one before it.
        self.work.catalogue.suspect_all();
        self.work.released.notify_one();
    }

    async fn create(&self, request: Create) -> Result<Empty> {
        let volume = name(&request.name)?;
        let work = self.work.clone();
        // A restore goes on when the engine does not wait any longer; whoever asks again waits for it.
        let made = tokio::spawn(async move { work.create(&volume, &request.options).await }).await;
        made.map_err(|error| Error::Internal(format!("it ended in a bug: {error}")))??;
        Ok(Empty {})
    }

    async fn get(&self, request: Named) -> Result<GetAnswer> {
        let volume = name(&request.name)?;
        let record = self.work.catalogue.ready(&volume)?;
        let counts = self.work.catalogue.snapshot_counts();
        Ok(GetAnswer {
            volume: self.volume(&record, counts.get(&record.id)),
        })
    }

    async fn list(&self) -> Result<ListAnswer> {
        let counts = self.work.catalogue.snapshot_counts();
        let all = self.work.catalogue.volumes();
        let ready = all.iter().filter(|record| record.is_ready());
        Ok(ListAnswer {
            volumes: ready
                .map(|record| self.volume(record, counts.get(&record.id)))
                .collect(),
        })
    }

    async fn mount(&self, request: Mount) -> Result<MountAnswer> {
        let volume = name(&request.name)?;
        let at = self.work.mount(&volume, &request.id).await?;
        Ok(MountAnswer {
            mount_point: at.display().to_string(),
        })
    }

    async fn unmount(&self, request: Mount) -> Result<Empty> {
        let volume = name(&request.name)?;
        self.work.unmount(&volume, &request.id).await?;
        Ok(Empty {})
    }

    async fn path(&self, request: Named) -> Result<MountAnswer> {
        let volume = name(&request.name)?;
        let record = self.work.catalogue.ready(&volume)?;
        let attached = self.work.catalogue.observed(&record.id).attached;
        let at = attached.then(|| self.work.mount_point(&volume));
        Ok(MountAnswer {
            mount_point: at.map(|at| at.display().to_string()).unwrap_or_default(),
        })
    }

    async fn remove(&self, request: Named) -> Result<Empty> {
        // One with a name that no volume can have was never made.
        let Ok(volume) = name(&request.name) else {
            return Ok(Empty {});
        };
        self.work.remove(&volume).await?;
        Ok(Empty {})
    }

    async fn overdue(&self, request: Mount) {
        info!(
            volume = request.name,
            "a mount came too late for the engine, and is undone"
        );
        if let Err(error) = self.unmount(request).await {
            warn!(%error, "a late mount could not be undone");
        }
    }
}
