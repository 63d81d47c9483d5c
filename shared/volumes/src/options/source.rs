//! What a new volume has on it: a clone of another, or a backup.

use std::fmt;
use std::str::FromStr;

use drover_model::{SnapshotName, VolumeName};
use serde::{Deserialize, Serialize};

/// `VOLUME` or `VOLUME@SNAPSHOT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CloneSource {
    /// The volume.
    pub volume: VolumeName,
    /// Its snapshot; `None` for the volume as it is now.
    pub snapshot: Option<SnapshotName>,
}

/// `VOLUME@SNAPSHOT`: one snapshot of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotSelector {
    /// The volume.
    pub volume: VolumeName,
    /// Its snapshot.
    pub snapshot: SnapshotName,
}

/// `VOLUME` or `VOLUME@WHEN`: a backup in a repository. `WHEN` is the id of a backup, `latest`, or a time; the
/// repository knows which there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupSource {
    /// The volume that was backed up.
    pub volume: VolumeName,
    /// Which backup; `None` for the latest.
    pub when: Option<String>,
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((volume, rest)) => (volume, Some(rest)),
        None => (text, None),
    }
}

impl FromStr for CloneSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, snapshot) = split(text);
        Ok(Self {
            volume: super::parsed(volume)?,
            snapshot: snapshot.map(super::parsed).transpose()?,
        })
    }
}

impl FromStr for SnapshotSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, snapshot) = split(text);
        let snapshot = snapshot.ok_or("a snapshot is named VOLUME@SNAPSHOT")?;
        Ok(Self {
            volume: super::parsed(volume)?,
            snapshot: super::parsed(snapshot)?,
        })
    }
}

impl FromStr for BackupSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, when) = split(text);
        if when.is_some_and(|when| when.is_empty() || when.chars().any(char::is_control)) {
            return Err("after `@` stands a backup's id, `latest`, or a time".to_owned());
        }
        Ok(Self {
            volume: super::parsed(volume)?,
            when: when.map(str::to_owned),
        })
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
as_text!(CloneSource);
as_text!(SnapshotSelector);
as_text!(BackupSource);

impl fmt::Display for CloneSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.volume)?;
        match &self.snapshot {
            Some(snapshot) => write!(formatter, "@{snapshot}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SnapshotSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.volume, self.snapshot)
    }
}

impl fmt::Display for BackupSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.volume)?;
        match &self.when {
            Some(when) => write!(formatter, "@{when}"),
            None => Ok(()),
        }
    }
}
