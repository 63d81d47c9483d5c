//! A backup is read back, every byte of it, and compared: with its own hashes always, and with what it was made of
//! when that is still there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use drover_backup_protocol::{BLOCK_CHUNK, FailureKind, Phase, Restored, Selector, Source, Unit};
use rustic_core::Id;
use rustic_core::repofile::{Node, NodeType};

use crate::catalog;
use crate::chunks;
use crate::failure::{Result, failure, internal, unreadable};
use crate::index::Index;
use crate::lock::Mode;
use crate::repository::Session;
use crate::restore::image;

/// Verifies a backup.
pub(crate) fn verify(
    session: &Session,
    selector: &Selector,
    against: Option<&Source>,
) -> Result<Restored> {
    let lock = session.lock(Mode::Shared)?;
    let (backup, snapshot) = catalog::select(session, selector)?;
    let index = Index::load(session)?;
    session
        .reporter
        .begin(Phase::Verifying, Unit::Bytes, Some(backup.size));
    let (files, bytes) = match against {
        None if backup.block => device(
            session,
            &index,
            &image(session, &index, &backup, &snapshot)?,
            None,
        )?,
        Some(Source::Block { path, .. }) if backup.block => {
            let node = image(session, &index, &backup, &snapshot)?;
            device(session, &index, &node, Some(path))?
        }
        None => {
            let mut walk = Walk::new(session, &index);
            walk.tree(&snapshot.tree, Path::new("/"), None)?;
            (walk.files, walk.bytes)
        }
        Some(Source::Tree { path }) if !backup.block => {
            let mut walk = Walk::new(session, &index);
            walk.volume(&snapshot.tree, &backup.volume, path)?;
            (walk.files, walk.bytes)
        }
        Some(_) => {
            let message = format!(
                "the backup of `{}` is not of the kind of what it is to be compared with",
                backup.volume
            );
            return Err(failure(FailureKind::InvalidInput, message));
        }
    };
    lock.held()?;
    Ok(Restored {
        backup,
        files,
        bytes,
    })
}

fn differs(path: &Path, what: &str) -> drover_backup_protocol::Failure {
    let message = format!(
        "the backup differs from what it was made of: `{}` {what}",
        path.display()
    );
    failure(FailureKind::Differs, message)
}

fn device(
    session: &Session,
    index: &Index,
    node: &Node,
    against: Option<&Path>,
) -> Result<(u64, u64)> {
    let file = match against {
        None => None,
        Some(path) => {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            Some((file, path))
        }
    };
    chunks::each(session, index, node, |number, content| {
        let Some((file, path)) = &file else {
            return Ok(());
        };
        let mut original = vec![0; content.len()];
        file.read_exact_at(&mut original, number * BLOCK_CHUNK)
            .map_err(|error| unreadable(path, &error))?;
        if original == content {
            return Ok(());
        }
        let begin = number * BLOCK_CHUNK;
        let what = format!("within the {} bytes at {begin}", content.len());
        Err(differs(path, &what))
    })?;
    Ok((1, node.meta.size))
}

/// Goes through a tree.
struct Walk<'a> {
    session: &'a Session,
    index: &'a Index,
    files: u64,
    bytes: u64,
}

impl<'a> Walk<'a> {
    const fn new(session: &'a Session, index: &'a Index) -> Self {
        Self {
            session,
            index,
            files: 0,
            bytes: 0,
        }
    }

    /// The tree of a volume, compared with a directory.
    fn volume(&mut self, root: &Id, volume: &str, path: &Path) -> Result<()> {
        let (files, codec) = (&self.session.files, &self.session.codec);
        let tree = self.index.read_tree(files, codec, root)?;
        let found = tree.nodes.into_iter().find(|node| node.name == volume);
        let Some(node) = found else {
            return Err(failure(
                FailureKind::Damaged,
                format!("the snapshot has no directory `{volume}`"),
            ));
        };
        self.node(&node, path, true)
    }

    fn tree(&mut self, id: &Id, path: &Path, against: Option<&Path>) -> Result<()> {
        let (files, codec) = (&self.session.files, &self.session.codec);
        let tree = self.index.read_tree(files, codec, id)?;
        if let Some(folder) = against {
            same_names(folder, &tree.nodes)?;
        }
        for node in &tree.nodes {
            self.node(node, &path.join(node.name()), against.is_some())?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, path: &Path, compare: bool) -> Result<()> {
        if compare {
            same_metadata(node, path)?;
        }
        if let Some(subtree) = &node.subtree {
            return self.tree(subtree, path, compare.then_some(path));
        }
        self.files += 1;
        let mut original = match (compare, &node.node_type) {
            (true, NodeType::File) => {
                Some(File::open(path).map_err(|error| unreadable(path, &error))?)
            }
            _ => None,
        };
        for id in node.content.as_deref().unwrap_or_default() {
            let (files, codec) = (&self.session.files, &self.session.codec);
            let content = self.index.read_data(files, codec, id)?;
            if let Some(file) = &mut original {
                let mut same = vec![0; content.len()];
                let read = file.read_exact(&mut same);
                if read.is_err() || same != content {
                    return Err(differs(path, "has other content"));
                }
            }
            let length = u64::try_from(content.len()).map_err(internal)?;
            self.bytes += length;
            self.session.reporter.advance(length);
        }
        Ok(())
    }
}

fn same_names(folder: &Path, nodes: &[Node]) -> Result<()> {
    let unread = |error: std::io::Error| unreadable(folder, &error);
    let mut there = BTreeSet::new();
    for entry in folder.read_dir().map_err(unread)? {
        there.insert(entry.map_err(unread)?.file_name());
    }
    let kept: BTreeSet<OsString> = nodes.iter().map(|node| node.name().into_owned()).collect();
    match there.symmetric_difference(&kept).next() {
        None => Ok(()),
        Some(name) if kept.contains(name) => {
            Err(differs(&folder.join(name), "is only in the backup"))
        }
        Some(name) => Err(differs(&folder.join(name), "is not in the backup")),
    }
}

fn same_metadata(node: &Node, path: &Path) -> Result<()> {
    let found = path
        .symlink_metadata()
        .map_err(|error| unreadable(path, &error))?;
    let meta = &node.meta;
    if meta.uid != Some(found.uid()) || meta.gid != Some(found.gid()) {
        return Err(differs(path, "has another owner"));
    }
    let kind = match node.node_type {
        NodeType::File => found.is_file(),
        NodeType::Dir => found.is_dir(),
        NodeType::Symlink { .. } => found.is_symlink(),
        _ => !found.is_file() && !found.is_dir() && !found.is_symlink(),
    };
    if !kind {
        return Err(differs(path, "is of another kind"));
    }
    if node.is_file() && meta.size != found.len() {
        return Err(differs(path, "has another size"));
    }
    if node.is_symlink() {
        let target = path.read_link().map_err(|error| unreadable(path, &error))?;
        if target != node.node_type.to_link() {
            return Err(differs(path, "leads elsewhere"));
        }
        return Ok(());
    }
    let bits = |mode: u32| mode & 0o777;
    if meta.mode.map(bits) != Some(bits(found.mode())) {
        return Err(differs(path, "has another mode"));
    }
    Ok(())
}
