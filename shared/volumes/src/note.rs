//! What is kept of volumes and snapshots beside themselves, on their backend: enough to know them again when the records of
//! the process are lost.

use drover_control_api::record::UnixSeconds;
use drover_model::{BackendKind, ByteSize, SnapshotId, SnapshotName, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::holds::Holds;
use crate::options::VolumeOptions;
use crate::record::{
    BackupHistory, SnapshotReason, SnapshotRecord, SnapshotState, VolumeRecord, VolumeState,
};

/// The note beside a volume. What changes with every container and every backup is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeNote {
    /// Version of this form: 1.
    pub version: u32,
    /// What the engine calls it.
    pub name: VolumeName,
    /// What it was made with.
    pub options: VolumeOptions,
    /// How much fits on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// Where it is in its life.
    pub state: VolumeState,
    /// Whether its schedules rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

impl VolumeNote {
    /// The note of a volume.
    #[must_use]
    pub fn of(record: &VolumeRecord) -> Self {
        Self {
            version: 1,
            name: record.name.clone(),
            options: record.options.clone(),
            size: record.size,
            created_at: record.created_at,
            state: record.state,
            paused: record.paused,
        }
    }

    /// The record of the volume that it lies beside.
    #[must_use]
    pub fn record(self, id: VolumeId, backend: BackendKind) -> VolumeRecord {
        VolumeRecord {
            version: 1,
            id,
            name: self.name,
            backend,
            options: self.options,
            size: self.size,
            created_at: self.created_at,
            state: self.state,
            holds: Holds::default(),
            paused: self.paused,
            snapshotted_at: None,
            backups: BackupHistory::default(),
        }
    }
}

/// The note beside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNote {
    /// Version of this form: 1.
    pub version: u32,
    /// Its name.
    pub name: SnapshotName,
    /// When it was taken.
    pub taken_at: UnixSeconds,
    /// Why it is there.
    pub reason: SnapshotReason,
    /// What it was taken together with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether programs had written everything down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub application_consistent: bool,
}

impl SnapshotNote {
    /// The note of a snapshot.
    #[must_use]
    pub fn of(record: &SnapshotRecord) -> Self {
        Self {
            version: 1,
            name: record.name.clone(),
            taken_at: record.taken_at,
            reason: record.reason,
            group: record.group.clone(),
            application_consistent: record.application_consistent,
        }
    }

    /// The record of the snapshot that it lies beside.
    #[must_use]
    pub fn record(self, volume: VolumeId, id: SnapshotId) -> SnapshotRecord {
        SnapshotRecord {
            version: 1,
            id,
            volume,
            name: self.name,
            taken_at: self.taken_at,
            reason: self.reason,
            state: SnapshotState::Ready,
            group: self.group,
            application_consistent: self.application_consistent,
        }
    }
}
