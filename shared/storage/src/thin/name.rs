//! What logical volumes are called, and their devices.

use std::path::{Path, PathBuf};

use drover_model::VolumeId;

use crate::backend::{Object, SnapshotRef};

/// The pool that we make in a volume group.
pub(super) const POOL: &str = "drover";
/// Everything of ours has this tag.
pub(super) const OURS: &str = "drover";
/// What is complete has this tag as well.
pub(super) const READY: &str = "drover.ready";
/// Snapshots of one instant have this tag with the number of the instant. They are complete when the volume group has
/// [`INSTANT_DONE`] with that number.
pub(super) const INSTANT: &str = "drover.instant=";
/// See [`INSTANT`].
pub(super) const INSTANT_DONE: &str = "drover.done=";

/// What begins the names of our logical volumes.
const PREFIX: &str = "drover_";

/// What a logical volume of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// A volume or a snapshot.
    Object(Object),
    /// What is to take a volume's place in a rollback.
    Replacement(VolumeId),
    /// What had a volume's place before a rollback.
    Replaced(VolumeId),
}

impl Role {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Object(Object::Volume(volume)) => format!("{PREFIX}v_{volume}"),
            Self::Object(Object::Snapshot(it)) => {
                format!("{PREFIX}s_{}_{}", it.volume, it.snapshot)
            }
            Self::Replacement(volume) => format!("{PREFIX}r_{volume}"),
            Self::Replaced(volume) => format!("{PREFIX}o_{volume}"),
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (kind, id) = name.strip_prefix(PREFIX)?.split_once('_')?;
        Some(match kind {
            "v" => Self::Object(Object::Volume(id.parse().ok()?)),
            "r" => Self::Replacement(id.parse().ok()?),
            "o" => Self::Replaced(id.parse().ok()?),
            "s" => {
                let (volume, snapshot) = id.split_once('_')?;
                Self::Object(Object::Snapshot(SnapshotRef {
                    volume: volume.parse().ok()?,
                    snapshot: snapshot.parse().ok()?,
                }))
            }
            _ => return None,
        })
    }
}

/// What device-mapper calls the device of a logical volume: LVM doubles hyphens, so that one of its own stands out.
pub(super) fn device(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// What begins the names of the devices of our logical volumes in a group.
pub(super) fn device_prefix(group: &str) -> String {
    device(group, PREFIX)
}

/// The path of a device.
pub(super) fn path(device: &str) -> PathBuf {
    Path::new("/dev/mapper").join(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_what_it_was_made_of() {
        let volume: VolumeId = "00000000000000a1".parse().unwrap();
        let snapshot = SnapshotRef {
            volume: volume.clone(),
            snapshot: "00000000000000b2".parse().unwrap(),
        };
        for (role, name) in [
            (
                Role::Object(Object::Volume(volume.clone())),
                "drover_v_00000000000000a1",
            ),
            (
                Role::Object(Object::Snapshot(snapshot)),
                "drover_s_00000000000000a1_00000000000000b2",
            ),
            (
                Role::Replacement(volume.clone()),
                "drover_r_00000000000000a1",
            ),
            (Role::Replaced(volume), "drover_o_00000000000000a1"),
        ] {
            assert_eq!(role.name(), name);
            assert_eq!(Role::parse(name), Some(role));
        }
        for other in [
            "root",
            "drover",
            "drover_v_",
            "drover_x_00000000000000a1",
            "drover_v_zz",
        ] {
            assert_eq!(Role::parse(other), None, "{other}");
        }
    }

    #[test]
    fn hyphens_are_doubled_in_the_names_of_devices() {
        assert_eq!(device("vg-a", "lv-b"), "vg--a-lv--b");
        assert_eq!(device_prefix("vg-a"), "vg--a-drover_");
    }
}
