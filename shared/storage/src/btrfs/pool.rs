//! The file system beneath: one in a loop file, and how full any is.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_model::ByteSize;
use nix::mount::{MsFlags, mount};
use tracing::info;

use super::{open, request};
use crate::backend::PoolState;
use crate::error::{Error, Result};
use crate::space::{self, Space};
use crate::{loop_file, mounts, program};

/// How long making a file system may take.
const MAKING: Duration = Duration::from_secs(60);
/// Less than this is no pool, bytes: btrfs needs 109 MiB at least.
const LEAST: u64 = 256 << 20;
/// The label of our file systems.
const LABEL: &str = "drover";

/// A btrfs in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopPool {
    /// The file. It is sparse: it takes what is on it.
    pub file: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
    /// How large it is made, and made when it is smaller; `None` for half of what is free where it lies, when it is
    /// made.
    pub size: Option<ByteSize>,
}

/// What is there once a loop file has been made: one that is gone is not made anew.
fn marker(file: &Path) -> PathBuf {
    file.with_extension("made")
}

/// Removes a loop file for good.
pub(super) fn remove_file(file: &Path) -> Result<()> {
    let marker = marker(file);
    fs::remove_file(&marker).map_err(Error::system("remove", &marker))?;
    fs::remove_file(file).map_err(Error::system("remove", file))
}

/// Whether a directory is on a btrfs.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_btrfs(path: &Path) -> Result<bool> {
    let found = nix::sys::statfs::statfs(path)
        .map_err(|errno| Error::system("look at", path)(errno.into()))?;
    Ok(found.filesystem_type() == nix::sys::statfs::BTRFS_SUPER_MAGIC)
}

impl LoopPool {
    /// Whether there is one, or was: a file that was finished, which may be gone since.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.file.exists() || marker(&self.file).exists()
    }

    /// Has it made, mounted, and as large as it should be.
    pub(super) fn mount(&self) -> Result<PathBuf> {
        if !self.file.exists() {
            if mounts::at(&self.at)?.is_some() {
                // What is mounted lies in a file without a name: it would be gone with the next restart.
                return Err(Error::Unavailable(format!(
                    "the loop file `{}` is gone, and what was on it is still mounted at `{}`: copy what you need from \
                     there, then unmount it",
                    self.file.display(),
                    self.at.display()
                )));
            }
            let marker = marker(&self.file);
            if marker.exists() {
                return Err(Error::Unavailable(format!(
                    "the loop file `{}` is gone: bring it back; or, if what was on it is to be given up, remove `{}`, and another is made",
                    self.file.display(),
                    marker.display()
                )));
            }
            self.make()?;
        }
        mounts::make_directory(&self.at)?;
        if mounts::at(&self.at)?.is_none() {
            let device = loop_file::attach(&self.file)?;
            let flags = MsFlags::MS_NOATIME;
            let options = Some("user_subvol_rm_allowed");
            mount(Some(device.path()), &self.at, Some("btrfs"), flags, options).map_err(
                |errno| {
                    Error::Unavailable(format!(
                        "the btrfs in `{}` cannot be mounted ({}): see the kernel's log, and `btrfs check` on it",
                        self.file.display(),
                        errno.desc()
                    ))
                },
            )?;
        }
        let marker = marker(&self.file);
        if !marker.exists() {
            fs::write(&marker, "").map_err(Error::system("make", &marker))?;
        }
        self.grow()?;
        Ok(self.at.clone())
    }

    /// Makes the file under another name, so that one of its own name is always whole.
    fn make(&self) -> Result<()> {
        if !program::is_installed("mkfs.btrfs") {
            return Err(Error::Unavailable(
                "there is no program `mkfs.btrfs`: install the package btrfs-progs".to_owned(),
            ));
        }
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        mounts::make_directory(folder)?;
        let size = self.size_to_make(folder)?;
        let new = self.file.with_extension("new");
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new);
        let file = opened.map_err(Error::system("make", &new))?;
        file.set_len(size).map_err(Error::system("make", &new))?;
        drop(file);
        let arguments = ["-q", "-f", "-L", LABEL];
        let arguments = arguments.map(Path::new).into_iter().chain([new.as_path()]);
        program::run("mkfs.btrfs", arguments, MAKING)?;
        fs::rename(&new, &self.file).map_err(Error::system("put in place", &self.file))?;
        info!(file = %self.file.display(), size, "made a btrfs in a loop file");
        Ok(())
    }

    fn size_to_make(&self, folder: &Path) -> Result<u64> {
        let free = Space::of(folder)?.available;
        let size = self.size.map_or(free / 2, ByteSize::bytes);
        let size = size / 4096 * 4096;
        if size < LEAST {
            return Err(Error::Full(format!(
                "a pool of volumes takes at least 256M, and `{}` has {}M free, of which one takes half unless \
                 `volumes.loop_size` says otherwise",
                folder.display(),
                free >> 20
            )));
        }
        Ok(size)
    }

    fn grow(&self) -> Result<()> {
        let Some(wanted) = self.size else {
            return Ok(());
        };
        let found = fs::metadata(&self.file).map_err(Error::system("look at", &self.file))?;
        let size = wanted.bytes() / 4096 * 4096;
        if found.len() >= size {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).open(&self.file);
        let file = file.map_err(Error::system("open", &self.file))?;
        file.set_len(size)
            .map_err(Error::system("grow", &self.file))?;
        loop_file::grown(&self.file)?;
        request::grow(&open(&self.at)?)
            .map_err(|errno| Error::system("grow the btrfs at", &self.at)(errno.into()))?;
        info!(file = %self.file.display(), size, "the loop file has grown");
        Ok(())
    }
}

/// How a pool at `base` is, which lies in `file` or on a file system of its own.
pub(super) fn state(base: &Path, file: Option<&Path>) -> Result<PoolState> {
    let mut state = plain_state(base)?;
    state.place = base.display().to_string();
    let Some(file) = file else {
        return Ok(state);
    };
    state.place = format!("loop file {}", file.display());
    let remains = format!("copy it from `{}`", base.display());
    space::limit_to_file(&mut state, file, &remains)?;
    Ok(state)
}

/// How the file system of a directory is.
pub(crate) fn plain_state(base: &Path) -> Result<PoolState> {
    let space = Space::of(base)?;
    let mut complaints = Vec::new();
    if space.read_only {
        complaints.push(format!(
            "the file system at `{}` is read-only: see the kernel's log for the error that made it so",
            base.display()
        ));
    }
    Ok(PoolState {
        place: base.display().to_string(),
        capacity: space.capacity,
        used: space.capacity.saturating_sub(space.available),
        metadata_percent: None,
        complaints,
    })
}
