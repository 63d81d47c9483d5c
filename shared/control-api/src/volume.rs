//! What the volume plugin, `drover-vol`, answers to the command line and the coordinator on its own socket.

use std::collections::BTreeMap;
use std::path::PathBuf;

use drover_backup_protocol::{Created, Progress, Repository, Restored, Selector};
use drover_model::{BackendKind, ByteSize, SnapshotId, SnapshotName, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::record::UnixSeconds;
use crate::{Empty, method};

/// How the volumes of this host are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {}
method!(VolumeStatus, "/Drover.VolumeStatus", VolumeReport);

/// How the volumes of a host are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Where new volumes are made; `None` while that is being found out, or the place is yet to be made.
    pub pool: Option<PoolReport>,
    /// Whether a loop file is made with the first volume.
    #[serde(default)]
    pub planned: bool,
    /// Other pools, which earlier volumes lie in.
    pub former_pools: Vec<PoolReport>,
    /// How many volumes there are, without those in the trash.
    pub volumes: u64,
    /// How many of them are attached.
    pub attached: u64,
    /// How many snapshots there are.
    pub snapshots: u64,
    /// How many volumes lie in the trash.
    pub trashed: u64,
    /// What is not as it should be, a sentence each.
    pub complaints: Vec<String>,
}

/// A place for volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Its kind.
    pub backend: BackendKind,
    /// Where it is.
    pub place: String,
    /// Why it is this one, a sentence.
    pub reason: String,
    /// What it holds, bytes.
    pub capacity: u64,
    /// What is used of that, bytes.
    pub used: u64,
    /// The same, percent.
    pub used_percent: u64,
    /// From how many percent on nothing new is begun.
    pub refused_from_percent: u64,
    /// Whether it takes snapshots.
    pub snapshots: bool,
    /// Whether it limits sizes.
    pub size_limits: bool,
}

/// The volumes of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    /// Only of this name.
    #[serde(default)]
    pub name: Option<VolumeName>,
    /// Those in the trash too, and those that were removed and retained.
    #[serde(default)]
    pub removed: bool,
}
method!(Volumes, "/Drover.Volumes", VolumeTable);

/// The volumes of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeTable {
    /// By name.
    pub volumes: Vec<VolumeEntry>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEntry {
    /// Its name.
    pub name: VolumeName,
    /// Its id.
    pub id: VolumeId,
    /// Where it lies.
    pub backend: BackendKind,
    /// `creating`, `ready`, `trashed`, `retained` or `removing`.
    pub state: String,
    /// How much fits on it; `None` for as much as the pool holds.
    pub size: Option<ByteSize>,
    /// How much is on it, bytes; `None` where nobody has counted yet.
    pub used: Option<u64>,
    /// When it was created.
    pub created_at: UnixSeconds,
    /// Where it is attached; `None` when it is not.
    pub mount_point: Option<PathBuf>,
    /// How many mounts of containers hold it.
    pub holds: u64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// When the latest was taken.
    pub last_snapshot: Option<UnixSeconds>,
    /// When its schedule takes the next; `None` without one, or while it rests.
    pub next_snapshot: Option<UnixSeconds>,
    /// When it was backed up last.
    pub last_backup: Option<UnixSeconds>,
    /// Whether its schedules rest.
    pub paused: bool,
    /// Until when it can be restored from the trash.
    pub restorable_until: Option<UnixSeconds>,
    /// The options it was created with.
    pub options: BTreeMap<String, String>,
    /// `ok`, or what is not as it should be.
    pub health: String,
}

/// Change how much fits on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeVolume {
    /// Which.
    pub volume: VolumeName,
    /// How much.
    pub size: ByteSize,
}
method!(ResizeVolume, "/Drover.ResizeVolume", VolumeEntry);

/// Bring a volume back from the trash, the latest of its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTrash {
    /// Its name.
    pub volume: VolumeName,
    /// The name it gets; `None` for its own.
    #[serde(default)]
    pub new_name: Option<VolumeName>,
}
method!(RestoreTrash, "/Drover.RestoreTrash", VolumeEntry);

/// Have the schedules of a volume rest, or run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseVolume {
    /// Which.
    pub volume: VolumeName,
    /// Whether they rest.
    pub paused: bool,
}
method!(PauseVolume, "/Drover.PauseVolume", VolumeEntry);

/// Back a volume up as it is at this moment, from a snapshot that is removed again. It goes on when whoever asked has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackUpVolume {
    /// Which.
    pub volume: VolumeName,
    /// Where to.
    pub repository: Repository,
    /// What the user wants to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Makes the repository when there is none.
    #[serde(default)]
    pub init: bool,
}
method!(BackUpVolume, "/Drover.BackUpVolume", Created);

/// Restore a backup of a volume to a scratch volume beside it, compare, and remove that again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyBackup {
    /// Of which volume, which is there.
    pub volume: VolumeName,
    /// Which backup.
    pub backup: Selector,
    /// Where it is.
    pub repository: Repository,
}
method!(VerifyBackup, "/Drover.VerifyBackup", Restored);

/// Tell how far the backup of a volume is that is being made or verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProgress {
    /// Of which volume.
    pub volume: VolumeName,
}
method!(BackupProgress, "/Drover.BackupProgress", HowFar);

/// Answer to [`BackupProgress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HowFar {
    /// `None` while there is nothing to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// Take a snapshot of each of these volumes, all at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSnapshot {
    /// Which, at least one.
    pub volumes: Vec<VolumeName>,
    /// How the snapshots are called.
    pub name: SnapshotName,
}
method!(CreateSnapshot, "/Drover.CreateSnapshot", SnapshotTable);

/// Take a snapshot of every volume of a Compose project, all at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotProject {
    /// The project.
    pub project: String,
    /// How the snapshots are called; `None` for the time.
    #[serde(default)]
    pub name: Option<SnapshotName>,
}
method!(SnapshotProject, "/Drover.SnapshotProject", SnapshotTable);

/// The snapshots of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// Only of this volume.
    #[serde(default)]
    pub volume: Option<VolumeName>,
}
method!(Snapshots, "/Drover.Snapshots", SnapshotTable);

/// Snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTable {
    /// By volume, then by time.
    pub snapshots: Vec<SnapshotEntry>,
    /// What the programs that use the volumes said when they were asked to write everything down, where that failed.
    #[serde(default)]
    pub complaints: Vec<String>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// Of which volume.
    pub volume: VolumeName,
    /// Its name.
    pub name: SnapshotName,
    /// Its id.
    pub id: SnapshotId,
    /// When it was taken.
    pub taken_at: UnixSeconds,
    /// `asked`, `scheduled` or `working`.
    pub reason: String,
    /// What would be free if it were removed, bytes; `None` where nobody knows.
    pub exclusive: Option<u64>,
    /// Those with one of these were taken at one instant.
    pub group: Option<String>,
    /// Whether the programs that use the volume had written everything down.
    pub application_consistent: bool,
    /// Where it is mounted, for looking at it.
    pub mount_point: Option<PathBuf>,
}

/// Remove a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveSnapshot {
    /// Of which volume.
    pub volume: VolumeName,
    /// Which.
    pub snapshot: SnapshotName,
}
method!(RemoveSnapshot, "/Drover.RemoveSnapshot", Empty);

/// Mount a snapshot to look at it, or unmount it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSnapshot {
    /// Of which volume.
    pub volume: VolumeName,
    /// Which.
    pub snapshot: SnapshotName,
    /// Whether it is to be mounted.
    pub mounted: bool,
}
method!(MountSnapshot, "/Drover.MountSnapshot", SnapshotEntry);

/// Put what a snapshot kept in the place of what is on its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollBack {
    /// Which volume.
    pub volume: VolumeName,
    /// To which snapshot of it.
    pub snapshot: SnapshotName,
}
method!(RollBack, "/Drover.RollBack", VolumeEntry);

/// What differs between a snapshot and a later one, or the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareSnapshot {
    /// Which volume.
    pub volume: VolumeName,
    /// The earlier snapshot.
    pub snapshot: SnapshotName,
    /// The later one; `None` for the volume as it is now.
    #[serde(default)]
    pub with: Option<SnapshotName>,
}
method!(CompareSnapshot, "/Drover.CompareSnapshot", Differences);

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// By path.
    pub differences: Vec<DifferenceEntry>,
    /// Whether that is all of it: an answer holds no more than 10,000.
    pub complete: bool,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceEntry {
    /// `added`, `removed` or `modified`.
    pub change: String,
    /// Below the root of the volume; what is no UTF-8 is replaced.
    pub path: String,
    /// Its size in bytes, after the change unless it was removed.
    pub size: u64,
}

/// Detach every volume and unmount every pool, and with `delete` remove all volumes first. For `drover reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TearDownVolumes {
    /// Whether the volumes go too.
    pub delete: bool,
}
method!(
    TearDownVolumes,
    "/Drover.TearDownVolumes",
    crate::plugin::TornDown
);
