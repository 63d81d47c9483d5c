//! What can be said of backups.

use std::path::PathBuf;

use clap::{Arg, Args, Subcommand};
use drover_backup_protocol::{Keep, Selector};
use drover_model::ByteSize;

use crate::help;

/// Backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Make a repository for backups
    Init(Where),
    /// Back up a volume, or a directory, a device or an image under its name
    #[command(after_help = help::BACKUP_CREATE)]
    Create(CreateArguments),
    /// List the backups in a repository, or the latest of every host
    #[command(after_help = help::BACKUP_LS)]
    Ls(LsArguments),
    /// Restore a backup, or one path of it
    #[command(after_help = help::BACKUP_RESTORE)]
    Restore(RestoreArguments),
    /// Read a backup back, every byte of it, and compare
    Verify(VerifyArguments),
    /// Forget backups; their data goes with the next `prune`
    #[command(after_help = help::BACKUP_FORGET)]
    Forget(ForgetArguments),
    /// Remove data that no backup needs
    Prune(Where),
    /// Look for damage in a repository
    Check(CheckArguments),
    /// Remove locks of processes that are gone
    Unlock(UnlockArguments),
}

/// Where backups are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where backups are")]
pub(crate) struct Where {
    /// A directory, or s3://, gs://, azure:// or sftp://
    #[arg(long, visible_aliases = ["to", "from"], value_name = "URL", env = "DROVER_BACKUP_REPOSITORY", required = true)]
    pub(super) repository: Option<String>,
    /// Its password: the first line of this file
    #[arg(
        long,
        value_name = "FILE",
        env = "DROVER_BACKUP_PASSWORD_FILE",
        required = true
    )]
    pub(super) password_file: Option<PathBuf>,
    /// Credentials and settings of the target: lines of `name = value`
    #[arg(long, value_name = "FILE", env = "DROVER_BACKUP_OPTIONS_FILE")]
    pub(super) options_file: Option<PathBuf>,
    /// Keep copies of its index here
    #[arg(long, value_name = "DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Send and fetch no more a second than this, for example 10M
    #[arg(long, value_name = "SIZE")]
    pub(super) bandwidth: Option<ByteSize>,
    /// Write events as lines of JSON; the default where the output is no terminal
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// The name that the backup is found by
    pub(super) volume: String,
    /// What is backed up: a directory, a block device, or the image of one; else the volume of this name
    #[arg(long, value_name = "PATH")]
    pub(super) source: Option<PathBuf>,
    /// Something to find the backup by; may be given again
    #[arg(long, value_name = "TEXT")]
    pub(super) tag: Vec<String>,
    /// Make the repository when there is none
    #[arg(long)]
    pub(super) init: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Args)]
#[command(mut_args(unless_all))]
pub(crate) struct LsArguments {
    /// Only those of this volume
    pub(super) volume: Option<String>,
    /// The latest of each volume of every host of the cluster, and in which repositories they are
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

/// The catalogue of the cluster is in no repository.
fn unless_all(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "repository" | "password_file" => argument.required(false).required_unless_present("all"),
        _ => argument,
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// VOLUME, or VOLUME@WHEN: a time, the beginning of an id, or `latest`
    #[arg(value_name = "VOLUME[@WHEN]")]
    pub(super) backup: Selector,
    /// Where to: a directory that is empty or not there
    #[arg(long, value_name = "PATH")]
    pub(super) target: PathBuf,
    /// Only this path of the volume
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<PathBuf>,
    /// The target is a block device, or becomes the image of one
    #[arg(long, conflicts_with = "path")]
    pub(super) image: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// VOLUME, or VOLUME@WHEN
    #[arg(value_name = "VOLUME[@WHEN]")]
    pub(super) backup: Selector,
    /// Compare with this; else each part is compared with its own hash
    #[arg(long, value_name = "PATH")]
    pub(super) source: Option<PathBuf>,
    /// Restore it to a scratch volume beside the volume of this name, compare, and remove that again
    #[arg(long, conflicts_with = "source")]
    pub(super) restore: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// Of this volume; else of every volume, each by itself
    pub(super) volume: Option<String>,
    /// What is kept, for example '24h 7d 4w 12m'; everything else is forgotten
    #[arg(long, value_name = "SPANS", required_unless_present = "id")]
    pub(super) keep: Option<Keep>,
    /// Forget this one; may be given again
    #[arg(long, value_name = "ID")]
    pub(super) id: Vec<String>,
    /// Only say what would be forgotten
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Read all data, not only what describes it
    #[arg(long)]
    pub(super) read_data: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct UnlockArguments {
    /// Also locks of processes that may be alive
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) place: Where,
}
