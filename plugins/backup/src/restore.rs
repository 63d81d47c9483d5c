//! Backups are written back here: a device from its chunks, a tree file by file.

mod tree;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drover_backup_protocol::{Backup, FailureKind, Phase, Restore, Restored, Target, Unit};
use rustic_core::repofile::{Node, SnapshotFile};

use crate::catalog;
use crate::failure::{Result, failure, unwritable};
use crate::fetch;
use crate::image::Image;
use crate::index::Index;
use crate::lock::Mode;
use crate::node::find;
use crate::repository::Session;

/// Restores a backup, or a part of it.
pub(crate) fn restore(session: &Session, restore: &Restore) -> Result<Restored> {
    let (lock, index) = session.lock_and_load(Mode::Shared)?;
    let (backup, snapshot) = catalog::select(session, &restore.backup)?;
    let restored = match &restore.target {
        Target::Directory { path } => {
            if backup.block {
                return Err(is_device(&backup));
            }
            empty(path)?;
            let inner = catalog::path_of(&backup);
            let node = find(session, &index, &snapshot.tree, Path::new(&inner))?;
            tree::restore(session, &index, node, path)?
        }
        Target::Block { path, blank } => {
            if !backup.block {
                return Err(is_tree(&backup));
            }
            let node = image(session, &index, &backup, &snapshot)?;
            (1, device(session, &index, &node, path, *blank)?)
        }
        Target::Part { inner, path } => part(session, &index, (&backup, &snapshot), inner, path)?,
    };
    lock.held()?;
    Ok(Restored {
        backup,
        files: restored.0,
        bytes: restored.1,
    })
}

fn is_device(backup: &Backup) -> drover_backup_protocol::Failure {
    let message = format!(
        "the backup of `{}` is the image of a block device of {} bytes: restore it to a device or a file with `--image`, or one path of it with `--path`",
        backup.volume, backup.size
    );
    failure(FailureKind::InvalidInput, message)
}

fn is_tree(backup: &Backup) -> drover_backup_protocol::Failure {
    let message = format!(
        "the backup of `{}` is a tree of files, and no block device: restore it to a directory",
        backup.volume
    );
    failure(FailureKind::InvalidInput, message)
}

/// A directory that a tree is restored to holds nothing, so that nothing in it is lost or mixed up.
fn empty(path: &Path) -> Result<()> {
    let mut entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return std::fs::create_dir_all(path).map_err(|error| unwritable(path, &error));
        }
        Err(error) => return Err(unwritable(path, &error)),
    };
    // A file system of its own has this when it is new.
    let in_the_way = entries.find(|entry| {
        let name = entry.as_ref().map(std::fs::DirEntry::file_name);
        !name.is_ok_and(|name| name == "lost+found")
    });
    match in_the_way {
        None => Ok(()),
        Some(_) => Err(failure(
            FailureKind::InvalidInput,
            format!(
                "the directory `{}` is not empty: nothing in it is overwritten",
                path.display()
            ),
        )),
    }
}

/// The image of a device: its node in the snapshot.
pub(crate) fn image(
    session: &Session,
    index: &Index,
    backup: &Backup,
    snapshot: &SnapshotFile,
) -> Result<Node> {
    let tree = index.read_tree(&session.files, &session.codec, &snapshot.tree)?;
    let name = format!("{}.img", backup.volume);
    let found = tree.nodes.into_iter().find(|node| node.name == name);
    found.ok_or_else(|| {
        let message = format!("the snapshot `{}` has no file `{name}`", backup.id);
        failure(FailureKind::Damaged, message)
    })
}

fn device(session: &Session, index: &Index, node: &Node, path: &Path, blank: bool) -> Result<u64> {
    let size = node.meta.size;
    let (file, blank) = open_target(path, size, blank)?;
    session
        .reporter
        .begin(Phase::Restoring, Unit::Bytes, Some(size));
    let (wanted, _) = fetch::content(index, node, |begin| begin)?;
    fetch::each(session, index, wanted, |content, places| {
        if blank && content.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        for place in places {
            file.write_all_at(content, place.target)
                .map_err(|error| unwritable(path, &error))?;
        }
        Ok(())
    })?;
    file.sync_all().map_err(|error| unwritable(path, &error))?;
    Ok(size)
}

/// Opens what a device is restored to; with it comes whether it reads as zeros everywhere.
fn open_target(path: &Path, size: u64, blank: bool) -> Result<(File, bool)> {
    let unwritable = |error| unwritable(path, &error);
    let is_device = path
        .metadata()
        .is_ok_and(|metadata| metadata.file_type().is_block_device());
    let mut options = OpenOptions::new();
    options.write(true).read(true).mode(0o600);
    if !is_device {
        let file = options
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(unwritable)?;
        file.set_len(size).map_err(unwritable)?;
        return Ok((file, true));
    }
    let file = options.open(path).map_err(unwritable)?;
    let mut end = &file;
    let room = std::io::Seek::seek(&mut end, std::io::SeekFrom::End(0)).map_err(unwritable)?;
    if room < size {
        let message = format!(
            "`{}` has {room} bytes, and the backup needs {size}",
            path.display()
        );
        return Err(failure(FailureKind::InvalidInput, message));
    }
    Ok((file, blank))
}

/// Restores one path of a backup.
fn part(
    session: &Session,
    index: &Index,
    (backup, snapshot): (&Backup, &SnapshotFile),
    inner: &Path,
    path: &Path,
) -> Result<(u64, u64)> {
    let inner = within(inner)?;
    if path.symlink_metadata().is_ok() {
        let message = format!(
            "`{}` is there already: nothing is overwritten",
            path.display()
        );
        return Err(failure(FailureKind::InvalidInput, message));
    }
    if !backup.block {
        let inner = Path::new(&catalog::path_of(backup)).join(inner);
        let node = find(session, index, &snapshot.tree, &inner)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        }
        return tree::restore(session, index, node, path);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let scratch = Image::beside(folder.unwrap_or_else(|| Path::new(".")))?;
    let node = image(session, index, backup, snapshot)?;
    device(session, index, &node, scratch.path(), true)?;
    scratch.copy_out(&inner, path)
}

/// A path within a volume, without a leading slash; it does not leave the volume.
fn within(inner: &Path) -> Result<PathBuf> {
    let relative = inner.strip_prefix("/").unwrap_or(inner);
    let leaves = relative
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_)));
    if relative.as_os_str().is_empty() || leaves {
        let message = format!("`{}` is no path within a volume", inner.display());
        return Err(failure(FailureKind::InvalidInput, message));
    }
    Ok(relative.to_path_buf())
}
