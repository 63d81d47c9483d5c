//! The catalogue: which volumes, snapshots and backups there are on all hosts. `drover-vol` tells the coordinator of its host's, which keeps
//! them in the cluster's store, so that every host can list them, and restore what another has backed up.
//!
//! A volume is at `volumes/<host>/<id>` as long as it is there and its host is in the cluster. The last backup of a volume to a
//! repository is at `backups/<host>/<volume>/<repository>`, also when the volume is gone, or the host: the backup still is there.

use drover_model::{BackendKind, ByteSize, HostName, SnapshotName, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::record::UnixSeconds;
use crate::{Empty, method};

/// The path of the stream: one JSON object a line, an empty line as a sign of life.
pub const PATH: &str = "/v1/catalogue";

/// How many snapshots of a volume are told, the latest ones; the rest is counted.
pub const MOST_SNAPSHOTS: usize = 64;

/// A volume of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueVolume {
    /// What its backend calls it.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// Where it lies.
    pub backend: BackendKind,
    /// `ready`, `trashed` or `retained`.
    pub state: String,
    /// How much fits on it; `None` for as much as the pool holds.
    pub size: Option<ByteSize>,
    /// When it was created.
    pub created_at: UnixSeconds,
    /// Its latest snapshots, by time, at most [`MOST_SNAPSHOTS`].
    pub snapshots: Vec<CatalogueSnapshot>,
    /// How many it has that are older.
    #[serde(default)]
    pub older_snapshots: u64,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// When it was taken.
    pub taken_at: UnixSeconds,
    /// `asked` or `scheduled`.
    pub reason: String,
    /// Whether the programs that use the volume had written everything down.
    #[serde(default)]
    pub application_consistent: bool,
}

/// The last backup of a volume to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueBackup {
    /// The name of the volume.
    pub volume: VolumeName,
    /// The URL of the repository. It holds no secret.
    pub to: String,
    /// The backup's id there.
    pub id: String,
    /// The host as the repository has it.
    pub by: String,
    /// When the volume was as it was backed up.
    pub taken_at: UnixSeconds,
    /// The size of all files together, bytes.
    pub size: u64,
}

/// The record of a volume in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEntryRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// The volume.
    #[serde(flatten)]
    pub volume: CatalogueVolume,
}

/// A backup as it is listed, and what is known of later ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedBackup {
    /// The last backup that the repository still has.
    #[serde(flatten)]
    pub backup: CatalogueBackup,
    /// The ids of those that were listed before and that the repository has no more. Kept until the host that made them has
    /// made another: it would list them again, not knowing that they are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<String>,
}

impl ListedBackup {
    /// Whether the repository has no backup of the volume any more; the entry is there for its host to take note.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.forgotten.contains(&self.backup.id)
    }
}

/// The record of a backup in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEntryRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// The backup.
    #[serde(flatten)]
    pub listed: ListedBackup,
}

/// Writes down which volumes, snapshots and backups this host has, and forgets what is gone.
///
/// Refused as denied on a host that was removed from its cluster, as unavailable while the store does not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCatalogue {
    /// Volumes that are new, or not as they were.
    pub volumes: Vec<CatalogueVolume>,
    /// Volumes that are not there any more.
    pub gone: Vec<VolumeId>,
    /// Backups that were made.
    pub backups: Vec<CatalogueBackup>,
    /// Backups that are listed no longer.
    #[serde(default)]
    pub dropped: Vec<CatalogueBackup>,
}
method!(RecordCatalogue, "/v1/RecordCatalogue", Empty);

/// Corrects what is listed of backups that their repository has no more, whatever host has made them. What is listed
/// otherwise meanwhile stays as it is.
///
/// Refused as denied on a host that was removed from its cluster, as unavailable while the store does not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetBackups {
    /// Which, at most [`MOST_FORGOTTEN`].
    pub backups: Vec<ForgottenBackup>,
}
method!(ForgetBackups, "/v1/ForgetBackups", Empty);

/// How many backups one [`ForgetBackups`] may tell of: with their URLs they stay well below the limit of a call, 1 MiB.
pub const MOST_FORGOTTEN: usize = 100;

/// A backup that its repository has no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenBackup {
    /// The host that it is listed of.
    pub host: HostName,
    /// What is listed.
    pub backup: CatalogueBackup,
    /// The last one that is left there of the same host and volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<CatalogueBackup>,
}

/// One line of the stream: what is written down of this host, and then each change of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum CatalogueEvent {
    /// What follows is complete.
    Reset,
    /// A volume, new or changed.
    Volume(CatalogueVolume),
    /// A volume is not written down any more.
    VolumeGone {
        /// Which.
        id: VolumeId,
    },
    /// A backup, new or changed.
    Backup(ListedBackup),
    /// Everything has been said, up to now.
    Synced,
}

/// The catalogue of the whole cluster, as this host's coordinator has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Only of volumes of this name.
    #[serde(default)]
    pub volume: Option<VolumeName>,
}
method!(Catalogue, "/v1/Catalogue", CatalogueTable);

/// Whether a host can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is there: what is told of it is as it is now.
    Present,
    /// It gives no sign of life: what is told of it is as it was.
    Away,
    /// It was removed from the cluster.
    Removed,
}

/// Answer to [`Catalogue`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueTable {
    /// By name, then by host.
    pub volumes: Vec<HostVolume>,
    /// By volume, then by host.
    pub backups: Vec<HostBackup>,
    /// Why the store cannot be reached: all this is as it was then.
    #[serde(default)]
    pub problem: Option<String>,
    /// Since when it cannot be reached.
    #[serde(default)]
    pub problem_since: Option<UnixSeconds>,
}

/// A volume, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostVolume {
    /// Its host.
    pub host: HostName,
    /// Whether the host is there.
    pub presence: Presence,
    /// The volume.
    #[serde(flatten)]
    pub volume: CatalogueVolume,
}

/// A backup, and who has made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBackup {
    /// The host that has made it.
    pub host: HostName,
    /// Whether the host is there.
    pub presence: Presence,
    /// The backup.
    #[serde(flatten)]
    pub backup: CatalogueBackup,
}
