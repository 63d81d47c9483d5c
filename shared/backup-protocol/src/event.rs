//! What a worker answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A line of a worker's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// How far it is. At most four a second.
    Progress(Progress),
    /// Something a person should know that does not stop the work.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The work is done.
    Done {
        /// What came of it.
        outcome: Outcome,
    },
    /// The work could not be done.
    Failed(Failure),
}

/// How far a piece of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// What is counted.
    pub unit: Unit,
    /// So much of it is done.
    pub done: u64,
    /// Of so much, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What was sent to the target until now, bytes.
    pub sent: u64,
    /// What was fetched from the target until now, bytes.
    pub fetched: u64,
}

/// What a worker is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opens the repository: key, lock, index.
    Opening,
    /// Reads the source and sends what is new.
    Saving,
    /// Writes to the target of a restore.
    Restoring,
    /// Reads a backup, and compares.
    Verifying,
    /// Looks for damage.
    Checking,
    /// Removes data.
    Pruning,
}

/// What [`Progress::done`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files of the repository, or steps.
    Items,
}

/// What came of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The repository is there.
    Initialised {
        /// Its id.
        id: String,
        /// It was made now.
        made: bool,
    },
    /// A backup was made.
    Created(Created),
    /// The backups that there are.
    Listed {
        /// Oldest first.
        backups: Vec<Backup>,
    },
    /// A backup, or a part, was restored.
    Restored(Restored),
    /// Which backup was meant.
    Found(Backup),
    /// Everything was read and nothing differed.
    Verified(Restored),
    /// Backups were forgotten.
    Forgotten(Forgotten),
    /// Data was removed.
    Pruned(Pruned),
    /// Damage was looked for.
    Checked(Checked),
    /// Locks were removed.
    Unlocked {
        /// So many.
        removed: u64,
    },
}

/// A backup in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its id, 64 hexadecimal digits: the id of the snapshot, as restic tells it.
    pub id: String,
    /// The volume it was made of.
    pub volume: String,
    /// The host it was made on.
    pub host: String,
    /// When the volume was as it was backed up: seconds since 1970.
    pub time: i64,
    /// It is the image of a block device; else a tree of files.
    pub block: bool,
    /// The size of the device, or of all files together, bytes.
    pub size: u64,
    /// What the user wants to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is needed to make such a volume anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The backup.
    pub backup: Backup,
    /// The backup whose data was taken for what had not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What was read of the source, bytes.
    pub read: u64,
    /// What of that was new to the repository, bytes before compression.
    pub new: u64,
    /// What was sent to the target, bytes.
    pub sent: u64,
    /// Data of an earlier run that did not end, found again: bytes.
    #[serde(default)]
    pub resumed: u64,
}

/// What was restored or compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The backup.
    pub backup: Backup,
    /// Files, or 1 for a block device.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Those which are still there.
    pub kept: Vec<Backup>,
    /// Those which are not.
    pub forgotten: Vec<Backup>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The backups that are there, oldest first.
    #[serde(default)]
    pub backups: Vec<Backup>,
    /// What the repository has become smaller by, bytes.
    pub removed: u64,
    /// What is left, bytes.
    pub left: u64,
}

/// What a search for damage found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Files of the repository that were looked at.
    pub files: u64,
    /// What is wrong; empty when all is well.
    pub problems: Vec<Problem>,
}

/// Something wrong in a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The file of the repository, as a path in it, when one can be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// The backups that need it and so cannot be restored whole, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<String>,
}

/// Why a piece of work could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure: callers branch on this.
    pub kind: FailureKind,
    /// For a person: the object, what is wrong, what to change.
    pub message: String,
}

/// The kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is wrong.
    InvalidInput,
    /// The password opens no key of the repository.
    WrongPassword,
    /// There is no repository at the URL.
    NoRepository,
    /// There is one of a format that is not known here.
    UnsupportedVersion,
    /// Another process holds a lock that does not go together with the work.
    Locked,
    /// The backup, or the file in it, is not there.
    NotFound,
    /// The target of the repository does not answer, or refuses.
    Unreachable,
    /// The target of the repository, or of a restore, is full.
    Full,
    /// The repository is damaged, or did not keep what was written to it.
    Damaged,
    /// What is to be backed up cannot be read, or a restore cannot be written.
    Source,
    /// A backup is not the same as what it was made of.
    Differs,
    /// A bug.
    Internal,
}
