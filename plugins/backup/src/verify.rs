//! A backup is read back, every byte of it, and compared: with its own hashes always, and with what it was made of
//! when that is still there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use drover_backup_protocol::{
    Backup, Failure, FailureKind, Phase, Restored, Selector, Source, Unit,
};
use rustic_core::Id;
use rustic_core::repofile::{Node, NodeType};

use crate::catalog;
use crate::failure::{Result, failure, internal, unreadable};
use crate::fetch::{self, Wanted};
use crate::index::Index;
use crate::lock::Mode;
use crate::node::{find, mode};
use crate::repository::Session;
use crate::restore::image;

/// Verifies a backup.
pub(crate) fn verify(
    session: &Session,
    selector: &Selector,
    against: Option<&Source>,
) -> Result<Restored> {
    let (lock, index) = session.lock_and_load(Mode::Shared)?;
    let (backup, snapshot) = catalog::select(session, selector)?;
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
            walk.alone(&snapshot.tree)?;
            (walk.files, walk.bytes)
        }
        Some(Source::Tree { path }) if !backup.block => {
            let mut walk = Walk::new(session, &index);
            walk.volume(&snapshot.tree, &backup.volume, path)?;
            (walk.files, walk.bytes)
        }
        Some(_) => return Err(other_kind(&backup)),
    };
    lock.held()?;
    Ok(Restored {
        backup,
        files,
        bytes,
    })
}

/// Compares a source with what a backup lists.
pub(crate) fn compare(session: &Session, selector: &Selector, with: &Source) -> Result<Restored> {
    let (lock, index) = session.lock_and_load(Mode::Shared)?;
    let (backup, snapshot) = catalog::select(session, selector)?;
    session
        .reporter
        .begin(Phase::Verifying, Unit::Bytes, Some(backup.size));
    let (files, bytes) = match with {
        Source::Block { path, .. } if backup.block => {
            let node = image(session, &index, &backup, &snapshot)?;
            let (wanted, length) = fetch::content(&index, &node, |begin| begin)?;
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            fetch::beside(&wanted, |part| {
                same_hash(session, part, (&file, path, part.target), || {
                    let (length, begin) = (part.length(), part.target);
                    differs(path, &format!("within the {length} bytes at {begin}"))
                })
            })?;
            (1, length)
        }
        Source::Tree { path } if !backup.block => {
            let mut walk = Walk::new(session, &index);
            walk.by_hash = true;
            walk.volume(&snapshot.tree, &backup.volume, path)?;
            (walk.files, walk.bytes)
        }
        Source::Block { .. } | Source::Tree { .. } => return Err(other_kind(&backup)),
    };
    lock.held()?;
    Ok(Restored {
        backup,
        files,
        bytes,
    })
}

/// Reads what should be the content of a part, and compares its hash.
fn same_hash<T>(
    session: &Session,
    part: &Wanted<T>,
    (file, path, begin): (&File, &Path, u64),
    other: impl Fn() -> Failure,
) -> Result<()> {
    let mut content = vec![0; usize::try_from(part.length()).map_err(internal)?];
    match file.read_exact_at(&mut content, begin) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(other()),
        read => read.map_err(|error| unreadable(path, &error))?,
    }
    if !part.is(&content) {
        return Err(other());
    }
    session.reporter.advance(part.length());
    Ok(())
}

fn other_kind(backup: &Backup) -> Failure {
    let message = format!(
        "the backup of `{}` is not of the kind of what it is to be compared with",
        backup.volume
    );
    failure(FailureKind::InvalidInput, message)
}

fn differs(path: &Path, what: &str) -> Failure {
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
    let (wanted, _) = fetch::content(index, node, |begin| begin)?;
    fetch::each(session, index, wanted, |content, places| {
        let Some((file, path)) = &file else {
            return Ok(());
        };
        let mut original = vec![0; content.len()];
        for place in places {
            let begin = place.target;
            file.read_exact_at(&mut original, begin)
                .map_err(|error| unreadable(path, &error))?;
            if original != content {
                let what = format!("within the {} bytes at {begin}", content.len());
                return Err(differs(path, &what));
            }
        }
        Ok(())
    })?;
    Ok((1, node.meta.size))
}

/// Parts of files are read when so many are waiting for it.
const PARTS: usize = 32_768;

/// A part of a file.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Which of the files that are waiting it is compared with.
    file: Option<usize>,
    /// Where in it.
    begin: u64,
}

/// Goes through a tree.
struct Walk<'a> {
    session: &'a Session,
    index: &'a Index,
    /// Files that are to be compared with what is read of them.
    paths: Vec<PathBuf>,
    wanted: Vec<Wanted<Place>>,
    files: u64,
    bytes: u64,
    /// What is there is hashed, and nothing is fetched.
    by_hash: bool,
}

impl<'a> Walk<'a> {
    const fn new(session: &'a Session, index: &'a Index) -> Self {
        Self {
            session,
            index,
            paths: Vec::new(),
            wanted: Vec::new(),
            files: 0,
            bytes: 0,
            by_hash: false,
        }
    }

    /// The tree of a volume, compared with a directory.
    fn volume(&mut self, root: &Id, volume: &str, path: &Path) -> Result<()> {
        let node = find(self.session, self.index, root, Path::new(volume))?;
        self.node(&node, path, true)?;
        self.read()
    }

    /// A tree, compared with nothing.
    fn alone(&mut self, root: &Id) -> Result<()> {
        self.tree(root, Path::new("/"), false)?;
        self.read()
    }

    fn tree(&mut self, id: &Id, path: &Path, compare: bool) -> Result<()> {
        let (files, codec) = (&self.session.files, &self.session.codec);
        let tree = self.index.read_tree(files, codec, id)?;
        if compare {
            same_names(path, &tree.nodes)?;
        }
        for node in &tree.nodes {
            self.node(node, &path.join(node.name()), compare)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, path: &Path, compare: bool) -> Result<()> {
        if compare {
            same_metadata(node, path)?;
        }
        if let Some(subtree) = &node.subtree {
            return self.tree(subtree, path, compare);
        }
        self.files += 1;
        let file = (compare && node.is_file()).then_some(self.paths.len());
        let parts = fetch::content(self.index, node, |begin| Place { file, begin })?;
        let (mut parts, length) = parts;
        if file.is_some() {
            if length != node.meta.size {
                return Err(differs(path, "has other content"));
            }
            self.paths.push(path.to_path_buf());
        }
        self.bytes += length;
        self.wanted.append(&mut parts);
        if self.wanted.len() < PARTS {
            return Ok(());
        }
        self.read()
    }

    /// Reads what is waiting for it.
    fn read(&mut self) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let paths = std::mem::take(&mut self.paths);
        if self.by_hash {
            return fetch::beside(&wanted, |part| {
                let Place { file, begin } = part.target;
                let Some(path) = file.and_then(|file| paths.get(file)) else {
                    return Ok(());
                };
                let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                let other = || differs(path, "has other content");
                same_hash(self.session, part, (&file, path, begin), other)
            });
        }
        fetch::each(self.session, self.index, wanted, |content, places| {
            let mut same = vec![0; content.len()];
            for place in places {
                let Place { file, begin } = place.target;
                let Some(path) = file.and_then(|file| paths.get(file)) else {
                    continue;
                };
                let original = File::open(path).map_err(|error| unreadable(path, &error))?;
                let read = original.read_exact_at(&mut same, begin);
                if read.is_err() || same != content {
                    return Err(differs(path, "has other content"));
                }
            }
            Ok(())
        })
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
    if mode(node) != Some(found.mode() & 0o7777) {
        return Err(differs(path, "has another mode"));
    }
    Ok(())
}
