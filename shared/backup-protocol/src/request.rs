//! What a worker is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Where the backups are.
    pub repository: Repository,
    /// What is to be done.
    pub operation: Operation,
}

/// A repository, and how to get at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Where it lies: an absolute path, `file:///PATH`, `s3://BUCKET/PATH`, `gs://BUCKET/PATH`,
    /// `azure://CONTAINER/PATH` or `sftp://USER@HOST:PORT/PATH`. It never holds a secret.
    pub url: String,
    /// The file whose first line is the password.
    pub password_file: PathBuf,
    /// A file of lines `name = value` for the target: credentials, endpoint, region and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options_file: Option<PathBuf>,
    /// A directory for copies of the repository's index and trees. Without one everything is fetched each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// A directory in memory for keys that were derived from the password, so that the next worker need not. Whoever can
    /// read it can read the repository. Without one it is derived each time, 0.4 s of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,
    /// The most that is sent or fetched, bytes a second; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
}

/// What is to be done with a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Operation {
    /// Makes the repository. One that is there already, and opens with the password, is left as it is.
    Init,
    /// Makes a backup.
    Create(Create),
    /// Lists the backups, oldest first.
    List {
        /// Only those of this volume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<String>,
    },
    /// Tells which backup is meant.
    Find {
        /// Which.
        backup: Selector,
    },
    /// Writes a backup, or one file of it, somewhere.
    Restore(Restore),
    /// Reads a backup back, every byte of it, and compares it with a source that holds what it was made of.
    Verify {
        /// Which backup.
        backup: Selector,
        /// What it is compared with; with none it is only read and each part compared with its own hash.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        against: Option<Source>,
    },
    /// Compares a source with what a backup lists, by hashes: nothing of the backup's data is fetched.
    Compare {
        /// Which backup.
        backup: Selector,
        /// What should hold the same.
        with: Source,
    },
    /// Forgets backups. Their data goes with the next [`Operation::Prune`].
    Forget {
        /// Of which volume; with `None` of every volume, each by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<String>,
        /// These, by id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        backups: Vec<String>,
        /// All but those which this keeps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<Keep>,
        /// Only says what would be forgotten.
        #[serde(default)]
        dry_run: bool,
    },
    /// Removes data that no backup needs.
    Prune,
    /// Looks for damage.
    Check {
        /// Reads all data, not only what describes it.
        #[serde(default)]
        read_data: bool,
    },
    /// Removes locks of processes that are gone; with `all` every lock.
    Unlock {
        /// Also those that look alive.
        #[serde(default)]
        all: bool,
    },
}

/// A backup to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The volume's name.
    pub volume: String,
    /// The host's name.
    pub host: String,
    /// When the source was as it is backed up: seconds since 1970. `None` is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// What the user wants to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is needed to make such a volume anew (`fs`, `mode` and so on); told again by [`Backup::facts`].
    ///
    /// [`Backup::facts`]: crate::Backup::facts
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// A snapshot of the volume; never the live volume.
    pub source: Source,
    /// The backup that [`Source::Block::changed`] counts from, by id. When it is no longer in the repository,
    /// everything is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Makes the repository when there is none.
    #[serde(default)]
    pub init: bool,
}

/// What is backed up, or compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A directory with everything beneath it on the same file system.
    Tree {
        /// The directory.
        path: PathBuf,
    },
    /// A block device, or a file that is the image of one.
    Block {
        /// The device or the file.
        path: PathBuf,
        /// Its size, bytes.
        size: u64,
        /// The ranges that may differ from the parent; with no parent, the ranges that may hold anything but
        /// zeros. Everything else is not read. `None` is everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed: Option<Vec<ByteRange>>,
    },
}

/// A range of bytes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteRange {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Which backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Of which volume.
    pub volume: String,
    /// `latest`, the beginning of an id (at least 6 digits), or a time (`2026-05-01`, `2026-05-01T10:00:00Z`): the
    /// newest backup that is not younger. `None` is `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Only of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Which backup.
    pub backup: Selector,
    /// Where to.
    pub target: Target,
}

/// Where a backup is restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// A directory that is empty or not there, for a tree.
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A device that is at least as large, or a file, for a block device.
    Block {
        /// The device or the file. A file that is not there is made.
        path: PathBuf,
        /// It reads as zeros everywhere, so that zeros need not be written.
        #[serde(default)]
        blank: bool,
    },
    /// One file or directory of the backup.
    Part {
        /// Its path within the volume.
        inner: PathBuf,
        /// The path it gets, which is not there yet.
        path: PathBuf,
    },
}

/// How many backups are kept for each span of time: the newest of each of the last so many hours, days and so on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The newest so many, whatever their age.
    #[serde(default)]
    pub last: u32,
    /// One for each of so many hours.
    #[serde(default)]
    pub hourly: u32,
    /// One for each of so many days.
    #[serde(default)]
    pub daily: u32,
    /// One for each of so many weeks.
    #[serde(default)]
    pub weekly: u32,
    /// One for each of so many months.
    #[serde(default)]
    pub monthly: u32,
    /// One for each of so many years.
    #[serde(default)]
    pub yearly: u32,
}
