//! What is kept of volumes and snapshots. A record is written before anything is done, so that a process that was
//! killed knows at its next start what it had begun.

use drover_control_api::record::UnixSeconds;
use drover_model::{BackendKind, ByteSize, SnapshotId, SnapshotName, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::holds::Holds;
use crate::options::{OnRemove, VolumeOptions};

/// Where a volume is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum VolumeState {
    /// It was asked for and is not there yet: what was begun is undone at the next start.
    Creating,
    /// It is there.
    Ready,
    /// It was removed, and can be restored until then.
    Trashed {
        /// When it was removed.
        at: UnixSeconds,
        /// When it goes.
        until: UnixSeconds,
    },
    /// It was removed with `on-remove=retain`: the next volume of its name is it.
    Retained,
    /// It goes: what is left of it is removed.
    Removing,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// What its backend calls it.
    pub id: VolumeId,
    /// What the engine calls it.
    pub name: VolumeName,
    /// Where it lies.
    pub backend: BackendKind,
    /// What it was made with.
    pub options: VolumeOptions,
    /// How much fits on it now; `None` for as much as the pool holds.
    pub size: Option<ByteSize>,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// Where it is in its life.
    pub state: VolumeState,
    /// Who holds it.
    #[serde(default)]
    pub holds: Holds,
    /// Whether its schedules rest.
    #[serde(default)]
    pub paused: bool,
    /// When its schedule of snapshots ran last.
    #[serde(default)]
    pub snapshotted_at: Option<UnixSeconds>,
    /// What became of its schedule of backups.
    #[serde(default)]
    pub backups: BackupHistory,
}

/// What became of the backups of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHistory {
    /// When the schedule ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<UnixSeconds>,
    /// The last that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastBackup>,
    /// Why the one after it was not made, one sentence; `None` when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What the next backup of a device counts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BackupBase>,
    /// What reading back on a schedule found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// A backup of a device whose snapshot is kept, so that the next one reads only what has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupBase {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The backup's id in its repository.
    pub backup: String,
    /// The URL of the repository.
    pub to: String,
}

/// What became of verifying backups on a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// When the schedule ran last.
    pub begun_at: UnixSeconds,
    /// When a backup was last found to be whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<UnixSeconds>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// It was restored to a scratch volume, and not only read.
    #[serde(default)]
    pub restored: bool,
    /// What is wrong with the one after it, one sentence; `None` when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// When the volume was as it was backed up.
    pub taken_at: UnixSeconds,
    /// The backup's id in its repository.
    pub id: String,
    /// The URL of the repository; empty where it was not noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// The size of all files together, bytes.
    #[serde(default)]
    pub size: u64,
}

impl VolumeRecord {
    /// Whether the engine is told of it.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, VolumeState::Ready)
    }

    /// The state that a removal at `now` leads to, with `window` seconds of trash.
    #[must_use]
    pub const fn removed(&self, now: UnixSeconds, window: u64) -> VolumeState {
        match self.options.on_remove {
            OnRemove::Retain => VolumeState::Retained,
            OnRemove::Trash if window > 0 => VolumeState::Trashed {
                at: now,
                until: now.saturating_add(window),
            },
            OnRemove::Trash | OnRemove::Delete => VolumeState::Removing,
        }
    }

    /// Whether it lies in the trash and its time is over.
    #[must_use]
    pub const fn is_expired(&self, now: UnixSeconds) -> bool {
        matches!(self.state, VolumeState::Trashed { until, .. } if until <= now)
    }
}

/// Why a snapshot is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotReason {
    /// Somebody asked for it: it stays until somebody removes it.
    Asked,
    /// The volume's schedule: it stays as long as the volume's `keep` says.
    Scheduled,
    /// A clone, a rollback or a backup needed it, and has it removed again.
    Working,
    /// The next backup counts from it ([`BackupBase`]); it is shown to nobody.
    Base,
}

/// Where a snapshot is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// It was asked for and may not be there: it is removed at the next start.
    Creating,
    /// It is there.
    Ready,
    /// It goes.
    Removing,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// What the backend calls it.
    pub id: SnapshotId,
    /// Its volume.
    pub volume: VolumeId,
    /// Its name, unique among those of the volume.
    pub name: SnapshotName,
    /// When it was taken.
    pub taken_at: UnixSeconds,
    /// Why it is there.
    pub reason: SnapshotReason,
    /// Where it is in its life.
    pub state: SnapshotState,
    /// Snapshots with one of these were taken at one instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether the programs that use the volume had been asked to write everything down: see `drover.snapshot.pre`.
    #[serde(default)]
    pub application_consistent: bool,
}
