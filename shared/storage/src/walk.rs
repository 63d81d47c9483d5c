//! Walks over the files of a volume: how much they take, and what differs between two states.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What the files below a directory take on the disk, bytes; one with several names is counted once, other file
/// systems are not entered, and what goes away meanwhile is not counted.
///
/// # Errors
/// When the directory is not there.
pub fn size(root: &Path) -> Result<u64> {
    let top = fs::symlink_metadata(root).map_err(Error::system("look at", root))?;
    let mut counted = BTreeSet::new();
    let mut total = 0_u64;
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.dev() != top.dev() {
                continue;
            }
            if found.nlink() <= 1 || found.is_dir() || counted.insert(found.ino()) {
                total = total.saturating_add(found.blocks().saturating_mul(512));
            }
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(total)
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is only in the second state.
    Added,
    /// It is only in the first state.
    Removed,
    /// It is in both: its content, or who may do what with it, is not the same.
    Modified,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How.
    pub change: Change,
    /// Below the root of the volume, without a slash at the beginning; one that is removed or added as a whole is
    /// named without what is in it.
    pub path: PathBuf,
    /// Its size in the second state, in the first where it was removed, bytes; 0 for what has no content.
    pub size: u64,
}

/// What differs between two states of one volume, in the order of paths, at most `most` of it, and whether that is all.
///
/// Both are of one file system's history, so a file whose inode and time of change are the same is the same: no content is
/// read.
///
/// # Errors
/// When one of them cannot be read.
pub fn compare(before: &Path, after: &Path, most: usize) -> Result<(Vec<Difference>, bool)> {
    let mut differences = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let (old, new) = (names(&before.join(&folder))?, names(&after.join(&folder))?);
        let mut below = Vec::new();
        for name in old.union(&new) {
            let path = folder.join(name);
            let old = metadata(&before.join(&path))?;
            let new = metadata(&after.join(&path))?;
            let (change, size) = match (&old, &new) {
                (Some(old), Some(new)) => {
                    if old.is_dir() && new.is_dir() {
                        below.push(path.clone());
                    }
                    (differs(old, new).then_some(Change::Modified), content(new))
                }
                (Some(old), None) => (Some(Change::Removed), content(old)),
                (None, Some(new)) => (Some(Change::Added), content(new)),
                (None, None) => (None, 0),
            };
            let Some(change) = change else { continue };
            if differences.len() == most {
                return Ok((differences, false));
            }
            differences.push(Difference { change, path, size });
        }
        below.reverse();
        open.extend(below);
    }
    differences.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((differences, true))
}

fn names(folder: &Path) -> Result<BTreeSet<std::ffi::OsString>> {
    let failed = |error| Error::system("list", folder)(error);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(|error| Error::system("list", folder)(error))?;
        names.insert(entry.file_name());
    }
    Ok(names)
}

fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system("look at", path)(error)),
    }
}

fn content(found: &Metadata) -> u64 {
    let kind = found.file_type();
    let has_content = kind.is_file() && !kind.is_fifo();
    if has_content { found.len() } else { 0 }
}

fn differs(old: &Metadata, new: &Metadata) -> bool {
    if old.is_dir() && new.is_dir() {
        // Its names are compared one by one; the times of a directory change with them.
        return (old.mode(), old.uid(), old.gid()) != (new.mode(), new.uid(), new.gid());
    }
    let state = |it: &Metadata| (it.ino(), it.ctime(), it.ctime_nsec(), it.len(), it.mode());
    state(old) != state(new)
}
