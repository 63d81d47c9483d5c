//! Subvolumes: made out of sight and put in their place, and removed whatever is in them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use drover_model::{ByteSize, VolumeId};
use nix::errno::Errno;
use tracing::debug;

use super::{Btrfs, request};
use crate::backend::Object;
use crate::error::{Error, Result};
use crate::mounts;

impl Btrfs {
    /// A free place in staging: what lies there is removed.
    pub(super) fn stage(&self, name: &OsStr) -> Result<PathBuf> {
        let path = self.staging().join(name);
        self.clear(&path)?;
        Ok(path)
    }

    /// Removes the subvolume at a path, if there is one.
    pub(super) fn clear(&self, path: &Path) -> Result<()> {
        if path.exists() {
            self.destroy(path)?;
        }
        Ok(())
    }

    /// Makes a volume in staging, sets its limit, and puts it in its place.
    pub(super) fn make(
        &self,
        volume: &VolumeId,
        size: Option<ByteSize>,
        make: impl FnOnce(&File, &OsStr) -> nix::Result<()>,
    ) -> Result<()> {
        let place = self.volume_path(volume);
        if place.exists() {
            return Ok(());
        }
        let name = OsString::from(volume.as_str());
        let staged = self.stage(&name)?;
        let folder = open(&self.staging())?;
        make(&folder, &name).map_err(|errno| self.no_room("make the subvolume", &staged, errno))?;
        if let Some(size) = size {
            self.limit(&staged, size)?;
        }
        rename(&staged, &place)
    }

    /// A failure, which on a full pool says so.
    pub(super) fn no_room(&self, action: &'static str, path: &Path, errno: Errno) -> Error {
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Error::Full(format!(
                "there is no room left on `{}`",
                self.place().display()
            )),
            Errno::EROFS => Error::Unavailable(format!(
                "the btrfs at `{}` is read-only: see the kernel's log for the error that made it so",
                self.base.display()
            )),
            other => Error::system(action, path)(other.into()),
        }
    }

    /// Removes a subvolume, whatever is in it, and its quota group if that goes already.
    pub(super) fn destroy(&self, path: &Path) -> Result<()> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::NotFound(format!("`{}`", path.display())));
        };
        let parent = open(folder)?;
        let tree = tree_of(path)?;
        match request::destroy(&parent, name) {
            // Subvolumes of its own, which anybody may make in it.
            Err(Errno::ENOTEMPTY) => {
                let failed = |errno: Errno| Error::system("empty", path)(errno.into());
                request::make_writable(&open(path)?).map_err(failed)?;
                fs::remove_dir_all(path).map_err(Error::system("empty", path))?;
            }
            Err(Errno::ENOENT) => {}
            other => other.map_err(|errno| Error::system("remove", path)(errno.into()))?,
        }
        self.removed.store(true, Ordering::Relaxed);
        // Newer kernels remove it themselves; it may be counted for a while yet, and then `tidy` comes later.
        if let Err(errno) = request::forget_quota(&open(&self.base)?, tree) {
            debug!(tree, %errno, "the quota group stays for now");
        }
        Ok(())
    }

    pub(super) fn refuse_mounted(&self, object: &Object) -> Result<()> {
        let path = self.existing(object)?;
        for mount in mounts::list()? {
            if mount.file_system == "btrfs"
                && mount
                    .root
                    .ends_with(path.strip_prefix(&self.base).unwrap_or(&path))
                && mounts::is_same(&mount.at, &path).unwrap_or(false)
            {
                return Err(Error::Busy(object.to_string()));
            }
        }
        Ok(())
    }

    /// Every subvolume of ours, unfinished ones included.
    pub(super) fn subvolumes(&self) -> Result<Vec<PathBuf>> {
        let mut all = entries(&self.base.join("volumes"))?;
        all.extend(entries(&self.staging())?);
        for (_, folder) in entries(&self.base.join("snapshots"))? {
            all.extend(entries(&folder)?);
        }
        Ok(all.into_iter().map(|(_, path)| path).collect())
    }
}

/// The folder of the snapshots of a volume goes with the last of them.
pub(super) fn remove_if_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::system("remove", folder)),
    }
}

pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::system("open", path))
}

pub(super) fn tree_of(path: &Path) -> Result<u64> {
    let root = open(path)?;
    request::subvolume(&root)
        .map(|it| it.tree)
        .map_err(|errno| Error::system("identify", path)(errno.into()))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::system("put in place", to))
}

/// The names of a directory and their paths.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error: io::Error| Error::system("list", folder)(error);
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(|error| Error::system("list", folder)(error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        all.push((name, entry.path()));
    }
    Ok(all)
}
