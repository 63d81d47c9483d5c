//! The options of a volume: `docker volume create -o KEY=VALUE`, `volume-opt`, `driver_opts`.
//!
//! All faults are reported at once; an option that does not exist is named with the one that was probably meant.

mod access;
mod source;

use std::collections::BTreeMap;
use std::fmt;

use drover_model::{ByteSize, FileSystem, nearest};
use serde::{Deserialize, Serialize};

pub use access::{Mode, Owner};
pub use source::{BackupSource, CloneSource, SnapshotSelector};

use crate::retention::Keep;
use crate::schedule::Schedule;

/// Every option.
const KNOWN: &[&str] = &[
    "size",
    "fs",
    "mkfs-opts",
    "from",
    "from-backup",
    "snapshot-schedule",
    "keep",
    "backup-to",
    "backup-password-file",
    "backup-options-file",
    "backup-schedule",
    "verify-schedule",
    "on-remove",
    "read-only",
    "owner",
    "mode",
];

/// What `docker volume rm` does with what is on a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemove {
    /// It stays; a volume that is created under the same name later has it.
    Retain,
    /// It can be restored until the window of the trash is over.
    #[default]
    Trash,
    /// It is gone at once, with its snapshots.
    Delete,
}

/// The options of a volume, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// `size`: how much fits on it; `None` for as much as the pool holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// `fs`: the file system, on backends of block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<FileSystem>,
    /// `mkfs-opts`: arguments of the program that makes it, separated by spaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mkfs_options: Vec<String>,
    /// `from`: what it is a clone of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<CloneSource>,
    /// `from-backup`: what it is restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_backup: Option<BackupSource>,
    /// `snapshot-schedule`: when snapshots are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_schedule: Option<Schedule>,
    /// `keep`: which snapshots of the schedule are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// `backup-to`: the URL of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_to: Option<String>,
    /// `backup-password-file`: the file with the password of the repository, an absolute path on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_password_file: Option<String>,
    /// `backup-options-file`: the file with what the repository's target needs, such as keys; an absolute path on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_options_file: Option<String>,
    /// `backup-schedule`: when backups are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_schedule: Option<Schedule>,
    /// `verify-schedule`: when the latest backup is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_schedule: Option<Schedule>,
    /// `on-remove`: what a removal does.
    #[serde(default)]
    pub on_remove: OnRemove,
    /// `read-only`: containers cannot write.
    #[serde(default)]
    pub read_only: bool,
    /// `owner`: who owns the root directory of a new volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// `mode`: the mode of the root directory of a new volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What is wrong with one option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionFault {
    /// There is no such option.
    #[error("there is no option `{name}`{}", did_you_mean(*nearest))]
    Unknown {
        /// What was given, cut to 80 characters.
        name: String,
        /// The nearest option there is.
        nearest: Option<&'static str>,
    },
    /// It has a value that it cannot have.
    #[error("option `{name}={value}`: {problem}")]
    Value {
        /// Which.
        name: &'static str,
        /// What was given, cut to 80 characters.
        value: String,
        /// What is wrong, and what it may be.
        problem: String,
    },
    /// Two options contradict each other, or one needs another.
    #[error("{0}")]
    Together(&'static str),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!(", did you mean `{nearest}`"),
        None => format!("; the options are {}", KNOWN.join(", ")),
    }
}

/// Everything that is wrong with the options of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionFaults(Vec<OptionFault>);

impl OptionFaults {
    /// The faults, at least one.
    #[must_use]
    pub fn faults(&self) -> &[OptionFault] {
        &self.0
    }
}

impl fmt::Display for OptionFaults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&all.join("; "))
    }
}

impl std::error::Error for OptionFaults {}

impl VolumeOptions {
    /// Reads the options of a `Create`.
    ///
    /// # Errors
    /// With every fault there is.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, OptionFaults> {
        let mut options = Self::default();
        let mut faults = Vec::new();
        for (name, value) in given {
            if let Err(fault) = options.set(name, value.trim()) {
                faults.push(fault);
            }
        }
        options.check_together(&mut faults);
        if faults.is_empty() {
            Ok(options)
        } else {
            Err(OptionFaults(faults))
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), OptionFault> {
        let Some(known) = KNOWN.iter().copied().find(|known| *known == name) else {
            return Err(OptionFault::Unknown {
                name: shortened(name),
                nearest: nearest(name, KNOWN),
            });
        };
        self.set_known(known, value)
            .map_err(|problem| OptionFault::Value {
                name: known,
                // A URL may hold what nobody should see.
                value: if known == "backup-to" {
                    "...".to_owned()
                } else {
                    shortened(value)
                },
                problem,
            })
    }

    fn set_known(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "size" => self.size = Some(parsed(value)?),
            "fs" => self.file_system = Some(file_system(value)?),
            "mkfs-opts" => self.mkfs_options = words(value)?,
            "from" => self.from = Some(parsed(value)?),
            "from-backup" => self.from_backup = Some(parsed(value)?),
            "snapshot-schedule" => self.snapshot_schedule = Some(parsed(value)?),
            "keep" => self.keep = Some(parsed(value)?),
            "backup-to" => self.backup_to = Some(url(value)?),
            "backup-password-file" => self.backup_password_file = Some(absolute_path(value)?),
            "backup-options-file" => self.backup_options_file = Some(absolute_path(value)?),
            "backup-schedule" => self.backup_schedule = Some(parsed(value)?),
            "verify-schedule" => self.verify_schedule = Some(parsed(value)?),
            "on-remove" => self.on_remove = on_remove(value)?,
            "read-only" => self.read_only = truth(value)?,
            "owner" => self.owner = Some(parsed(value)?),
            "mode" => self.mode = Some(parsed(value)?),
            // `set` has looked it up.
            _ => {}
        }
        Ok(())
    }

    fn check_together(&self, faults: &mut Vec<OptionFault>) {
        let rules = [
            (
                self.from.is_some() && self.from_backup.is_some(),
                "`from` and `from-backup` both say what is on the volume: give one of them",
            ),
            (
                self.from.is_some() && (self.file_system.is_some() || self.makes_with_options()),
                "a clone has the file system of what it is a clone of: leave out `fs` and `mkfs-opts`",
            ),
            (
                self.keep.is_some() && self.snapshot_schedule.is_none(),
                "`keep` says which snapshots of a schedule are kept: give `snapshot-schedule` too",
            ),
            (
                self.backup_schedule.is_some() && self.backup_to.is_none(),
                "`backup-schedule` needs `backup-to`, the URL of the repository",
            ),
            (
                self.verify_schedule.is_some() && self.backup_to.is_none(),
                "`verify-schedule` needs `backup-to`, the URL of the repository",
            ),
            (
                self.backup_to.is_some() && self.backup_password_file.is_none(),
                "`backup-to` needs `backup-password-file`, the file with the repository's password, or the setting \
                 `volumes.backup_password_file`",
            ),
            (
                self.backup_options_file.is_some()
                    && self.backup_to.is_none()
                    && self.from_backup.is_none(),
                "`backup-options-file` needs `backup-to`, the URL of the repository",
            ),
        ];
        let broken = rules.into_iter().filter(|(broken, _)| *broken);
        faults.extend(broken.map(|(_, sentence)| OptionFault::Together(sentence)));
    }

    const fn makes_with_options(&self) -> bool {
        !self.mkfs_options.is_empty()
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn parsed<T: std::str::FromStr<Err: fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn file_system(value: &str) -> Result<FileSystem, String> {
    let known = FileSystem::ALL.into_iter().find(|it| it.as_str() == value);
    known.ok_or_else(|| "must be `ext4` or `xfs`".to_owned())
}

/// Arguments are never seen by a shell, so words are all there is.
fn words(value: &str) -> Result<Vec<String>, String> {
    if value.chars().any(char::is_control) {
        return Err("must be arguments separated by spaces".to_owned());
    }
    Ok(value.split_whitespace().map(str::to_owned).collect())
}

fn url(value: &str) -> Result<String, String> {
    let usable = !value.is_empty() && !value.chars().any(|it| it.is_control() || it == ' ');
    if !usable {
        return Err("must be the URL or the absolute path of a repository".to_owned());
    }
    // Keys and passwords come by file: what stands in an option is shown by `docker volume inspect`.
    let authority = value.split_once("://").map(|(_, rest)| rest);
    let user = authority.and_then(|rest| rest.split('/').next()?.rsplit_once('@'));
    if user.is_some_and(|(user, _)| user.contains(':')) {
        return Err("must not hold a password: give it by file".to_owned());
    }
    Ok(value.to_owned())
}

fn absolute_path(value: &str) -> Result<String, String> {
    if value.starts_with('/') && !value.contains('\0') {
        Ok(value.to_owned())
    } else {
        Err("must be an absolute path on this host".to_owned())
    }
}

fn on_remove(value: &str) -> Result<OnRemove, String> {
    match value {
        "retain" => Ok(OnRemove::Retain),
        "trash" => Ok(OnRemove::Trash),
        "delete" => Ok(OnRemove::Delete),
        _ => Err("must be `retain`, `trash` or `delete`".to_owned()),
    }
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("must be `true` or `false`".to_owned()),
    }
}

#[cfg(test)]
mod tests;
