//! Backups are written back here: a device from its chunks, a tree by the library.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drover_backup_protocol::{
    BLOCK_CHUNK, Backup, FailureKind, Phase, Restore, Restored, Target, Unit,
};
use rustic_core::repofile::{Node, NodeType, SnapshotFile};
use rustic_core::{LocalDestination, LsOptions, RestoreOptions};

use crate::catalog;
use crate::chunks;
use crate::failure::{Result, failure, internal, unwritable};
use crate::image::Image;
use crate::index::Index;
use crate::lock::Mode;
use crate::repository::Session;

/// Restores a backup, or a part of it.
pub(crate) fn restore(session: &Session, restore: &Restore) -> Result<Restored> {
    let lock = session.lock(Mode::Shared)?;
    let (backup, snapshot) = catalog::select(session, &restore.backup)?;
    let restored = match &restore.target {
        Target::Directory { path } => {
            if backup.block {
                return Err(is_device(&backup));
            }
            empty(path)?;
            tree(session, &snapshot, &catalog::path_of(&backup), path)?
        }
        Target::Block { path, blank } => {
            if !backup.block {
                return Err(is_tree(&backup));
            }
            let index = Index::load(session)?;
            let node = image(session, &index, &backup, &snapshot)?;
            (1, device(session, &index, &node, path, *blank)?)
        }
        Target::Part { inner, path } => part(session, &backup, &snapshot, inner, path)?,
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
    chunks::each(session, index, node, |number, content| {
        if blank && content.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        file.write_all_at(content, number * BLOCK_CHUNK)
            .map_err(|error| unwritable(path, &error))
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

/// Restores a directory or a file of a snapshot; gives how many files and bytes.
fn tree(
    session: &Session,
    snapshot: &SnapshotFile,
    inner: &str,
    path: &Path,
) -> Result<(u64, u64)> {
    let explain = |error: Box<rustic_core::RusticError>| session.explain(&error);
    let repository = session.reopen()?.to_indexed().map_err(explain)?;
    let node = repository
        .node_from_snapshot_and_path(snapshot, inner)
        .map_err(|error| {
            session.files.take_failure().unwrap_or_else(|| {
                let message = format!(
                    "there is no `{inner}` in the backup: {}",
                    crate::failure::told(&error)
                );
                failure(FailureKind::NotFound, message)
            })
        })?;
    let mut options = RestoreOptions::default().numeric_id(true);
    // Holes come back as holes. The option's type is not public, what it is written as is.
    options.sparse = serde_json::from_value(serde_json::json!("ByContent")).map_err(internal)?;
    let list = LsOptions::default();
    let is_file = node.node_type == NodeType::File;
    let mut place = path.to_string_lossy().into_owned();
    if !is_file && !place.ends_with('/') {
        place.push('/');
    }
    let destination = LocalDestination::new(&place, true, is_file).map_err(explain)?;
    let nodes = || repository.ls(&node, &list).map_err(explain);
    let (mut files, mut bytes) = (0, 0);
    for found in nodes()? {
        let (_, found) = found.map_err(explain)?;
        if found.is_file() {
            files += 1;
            bytes += found.meta.size;
        }
    }
    session
        .reporter
        .begin(Phase::Restoring, Unit::Bytes, Some(bytes));
    let plan = repository
        .prepare_restore(&options, nodes()?, &destination, false)
        .map_err(explain)?;
    repository
        .restore(plan, &options, nodes()?, &destination)
        .map_err(explain)?;
    if let Some(failed) = session.files.take_failure() {
        return Err(failed);
    }
    if node.is_dir() {
        own(path, &node)?;
    }
    Ok((files, bytes))
}

/// Gives the directory itself what the library gives only what is in it.
fn own(path: &Path, node: &Node) -> Result<()> {
    let unwritable = |error: std::io::Error| unwritable(path, &error);
    std::os::unix::fs::chown(path, node.meta.uid, node.meta.gid).map_err(unwritable)?;
    if let Some(mode) = node.meta.mode {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777);
        std::fs::set_permissions(path, mode).map_err(unwritable)?;
    }
    for attribute in &node.meta.extended_attributes {
        let value = attribute.value.as_deref().unwrap_or_default();
        xattr::set(path, &attribute.name, value).map_err(unwritable)?;
    }
    Ok(())
}

/// Restores one path of a backup.
fn part(
    session: &Session,
    backup: &Backup,
    snapshot: &SnapshotFile,
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
        let inner = format!("{}/{}", catalog::path_of(backup), inner.display());
        return tree(session, snapshot, &inner, path);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let scratch = Image::beside(folder.unwrap_or_else(|| Path::new(".")))?;
    let index = Index::load(session)?;
    let node = image(session, &index, backup, snapshot)?;
    device(session, &index, &node, scratch.path(), true)?;
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
