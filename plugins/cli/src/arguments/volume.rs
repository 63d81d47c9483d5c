//! What can be said of volumes and snapshots.

use clap::{Args, Subcommand};
use drover_model::{ByteSize, SnapshotName, VolumeName};
use drover_volumes::options::SnapshotSelector;

use super::Form;
use crate::help;

/// Volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List the volumes of this host, or of all
    Ls(VolumeLsArguments),
    /// Show all that is known of a volume
    Inspect(VolumeArguments),
    /// Change how much fits on a volume, while containers use it
    Resize(ResizeArguments),
    /// Bring a volume back that was removed
    #[command(name = "restore-trash", after_help = help::RESTORE_TRASH)]
    RestoreTrash(RestoreArguments),
    /// Have the schedules of a volume rest
    Pause(VolumeArguments),
    /// Have the schedules of a volume run again
    Resume(VolumeArguments),
    /// Show and manage snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// Snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot of a volume, or of several at one instant
    #[command(after_help = help::SNAPSHOT_CREATE)]
    Create(CreateArguments),
    /// List snapshots of this host, or of all
    Ls(SnapshotLsArguments),
    /// Remove a snapshot
    Rm(SnapshotArguments),
    /// Show what has changed since a snapshot
    Diff(DiffArguments),
    /// Mount a snapshot read-only, to look at it, and print where
    Mount(SnapshotArguments),
    /// Unmount a snapshot
    Umount(SnapshotArguments),
    /// Put what a snapshot kept in the place of what is on its volume
    #[command(after_help = help::ROLLBACK)]
    Rollback(SnapshotArguments),
}

/// Several volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Of all volumes of a Compose project
    #[command(after_help = help::SNAPSHOT_PROJECT)]
    Project(ProjectArguments),
}

#[derive(Debug, Args)]
pub(crate) struct VolumeLsArguments {
    /// What was removed and can be restored, too
    #[arg(long)]
    pub(crate) trash: bool,
    /// Those of every host of the cluster
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeArguments {
    /// The volume
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: VolumeName,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ResizeArguments {
    /// The volume
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: VolumeName,
    /// How much fits on it then, such as 20G
    #[arg(value_name = "SIZE")]
    pub(crate) size: ByteSize,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The name it had
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: VolumeName,
    /// The name it gets [default: the one it had]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) new_name: Option<VolumeName>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// The volumes, and the name of the snapshots
    #[arg(value_name = "VOLUME@NAME", required = true)]
    pub(crate) snapshots: Vec<SnapshotSelector>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotLsArguments {
    /// Only of this volume
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: Option<VolumeName>,
    /// Those of every host of the cluster
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArguments {
    /// The snapshot
    #[arg(value_name = "VOLUME@NAME")]
    pub(crate) snapshot: SnapshotSelector,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The snapshot
    #[arg(value_name = "VOLUME@NAME")]
    pub(crate) snapshot: SnapshotSelector,
    /// A later snapshot of the volume [default: the volume as it is now]
    #[arg(value_name = "NAME")]
    pub(crate) with: Option<SnapshotName>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ProjectArguments {
    /// The project's name
    #[arg(value_name = "PROJECT")]
    pub(crate) project: String,
    /// How the snapshots are called [default: the time]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<SnapshotName>,
    #[command(flatten)]
    pub(crate) form: Form,
}
