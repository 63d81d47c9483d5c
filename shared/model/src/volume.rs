//! Volumes: names, ids, where they can lie, and what is on them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::hex_id;
use crate::text::{checked_text, shown};

/// How long a name can be, bytes.
const LONGEST: usize = 128;

/// Why a text is not the name of a volume or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} name `{name}` is not usable: use 1 to 128 of a-z, A-Z, 0-9, `_`, `.` and `-`, starting with a letter or digit"
)]
pub struct VolumeNameError {
    kind: &'static str,
    /// What was given, cut to 80 characters.
    name: String,
}

checked_text!(
    /// The name of a volume, unique on its host. Always one safe component of a path: the engine itself
    /// checks the names of plugins' volumes for nothing.
    VolumeName, VolumeNameError, |text: &str| check_name("volume", text)
);
checked_text!(
    /// The name of a snapshot, unique among those of its volume.
    SnapshotName, VolumeNameError, |text: &str| check_name("snapshot", text)
);

fn check_name(kind: &'static str, text: &str) -> Result<(), VolumeNameError> {
    if is_name(text) {
        return Ok(());
    }
    let name = shown(text);
    Err(VolumeNameError { kind, name })
}

/// Docker's own rule for local volumes, and a length that every backend and file system bears.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.len() <= LONGEST
        && text.bytes().all(inner)
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

hex_id!(
    /// What a volume is called by its backend, as long as it lives: 16 hexadecimal digits. A name can be given
    /// again while its former bearer lies in the trash; an id cannot.
    VolumeId, "volume id", 16
);
hex_id!(
    /// What a snapshot is called by its backend: 16 hexadecimal digits.
    SnapshotId, "snapshot id", 16
);

/// A kind of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// A subvolume of btrfs a volume.
    Btrfs,
    /// A volume of a thin pool of LVM a volume.
    Thin,
    /// A directory a volume: no snapshots.
    Directory,
}

impl BackendKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Btrfs, Self::Thin, Self::Directory];

    /// Its name in settings and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Thin => "thin",
            Self::Directory => "directory",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A file system that a backend of block devices makes on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// xfs.
    Xfs,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    /// Its name for mount(8).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_safe_component_of_a_path() {
        for good in [
            "a",
            "pg",
            "shop_pg-data.1",
            &"f".repeat(64),
            &"x".repeat(128),
        ] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            "bad/name",
            "../etc",
            "a b",
            "a\0",
            "a\n",
            "ü",
            "a@b",
            &"x".repeat(129),
            &"x".repeat(300),
        ] {
            let error = bad.parse::<VolumeName>().unwrap_err().to_string();
            assert!(error.contains("volume name"), "{error}");
            assert!(error.len() < 300, "{error}");
            assert!(serde_json::from_value::<SnapshotName>(bad.into()).is_err());
        }
    }
}
