//! A directory as a backup: the library walks it, cuts files into chunks and sends what is new; here is what it is
//! given to walk, and what could not be read on the way.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_backup_protocol::{Create, FailureKind, Phase, Unit};
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{
    BackupOptions, Excludes, LocalSource, LocalSourceFilterOptions, LocalSourceSaveOptions,
    ParentOptions, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticResult,
};

use super::Saved;
use crate::catalog;
use crate::failure::{Result, failure, internal, told, unreadable};
use crate::faults::Faults;
use crate::node::directory_mode;
use crate::repository::Session;

/// Saves a directory, but for the snapshot.
pub(super) fn save(session: &Session, create: &Create, path: &Path) -> Result<Saved> {
    let root = root(create, path)?;
    session.reporter.begin(Phase::Saving, Unit::Bytes, None);
    let source = Source::new(path, root)?;
    let faults = source.faults.clone();
    let read = Arc::clone(&source.read);
    let parent = parent(session, create)?;
    let parents = ParentOptions::default()
        .parents(parent.iter().cloned().collect::<Vec<_>>())
        .force(parent.is_none());
    let name = catalog::path_in_snapshot(create);
    let options = BackupOptions::default()
        .as_path(PathBuf::from(&name))
        .parent_opts(parents);
    let repository = session
        .reopen()?
        .to_indexed_ids()
        .map_err(|error| session.explain(&error))?;
    let snapshot = catalog::snapshot(create, 0)?;
    // The library would write its snapshot before anybody has looked whether everything was read.
    session.files.hold_snapshots(true);
    let archived = repository.archive(&options, &source, snapshot, &[path.to_path_buf()]);
    session.files.hold_snapshots(false);
    let mut archived = archived.map_err(|error| session.explain(&error))?;
    if let Some(failed) = session.files.take_failure() {
        return Err(failed);
    }
    tell(session, &faults, path)?;
    let summary = archived.summary.as_ref();
    let new = summary.map_or(0, |summary| summary.data_added);
    let size = summary.map_or(0, |summary| summary.total_bytes_processed);
    archived.tags = catalog::snapshot(create, size)?.tags;
    Ok(Saved {
        snapshot: archived,
        parent,
        read: read.load(Ordering::Relaxed),
        new,
    })
}

/// Tells what could not be read. A backup without some files is better than none, unless it has none at all.
fn tell(session: &Session, faults: &Faults, path: &Path) -> Result<()> {
    let told = format!("could not be read beneath `{}`", path.display());
    faults.tell(&session.reporter, &told);
    match faults.first() {
        Some(first) if path.read_dir().is_err() => Err(failure(FailureKind::Source, first)),
        _ => Ok(()),
    }
}

/// The backup whose unchanged files are not read again: the one that was named, or the newest of the volume.
fn parent(session: &Session, create: &Create) -> Result<Option<String>> {
    let made = catalog::list(session, Some(&create.volume))?;
    let mut trees = made.into_iter().filter(|backup| !backup.block);
    let found = match &create.parent {
        Some(id) => trees.find(|backup| backup.id == *id),
        None => trees.next_back(),
    };
    Ok(found.map(|backup| backup.id))
}

/// The volume's own directory, which the library does not look at: its owner and mode count as much as any.
fn root(create: &Create, path: &Path) -> Result<Node> {
    let unread = |error| unreadable(path, &error);
    let found = path.metadata().map_err(unread)?;
    if !found.is_dir() {
        let message = format!("`{}` is no directory", path.display());
        return Err(failure(FailureKind::InvalidInput, message));
    }
    // A directory of which nothing can be listed is not backed up as an empty one.
    path.read_dir().map_err(unread)?;
    let time = |seconds, nanoseconds: i64| {
        let nanoseconds = i32::try_from(nanoseconds).map_err(internal)?;
        Timestamp::new(seconds, nanoseconds).map_err(internal)
    };
    let mtime = time(found.mtime(), found.mtime_nsec())?;
    let mut meta = Metadata {
        mode: Some(directory_mode(found.mode())),
        mtime: Some(mtime),
        atime: Some(mtime),
        ctime: Some(time(found.ctime(), found.ctime_nsec())?),
        uid: Some(found.uid()),
        gid: Some(found.gid()),
        inode: found.ino(),
        links: found.nlink(),
        ..Metadata::default()
    };
    for name in xattr::list(path).map_err(unread)? {
        let value = xattr::get(path, &name).map_err(unread)?;
        let attribute = serde_json::json!({
            "name": name.to_string_lossy(),
            "value": BASE64_STANDARD.encode(value.unwrap_or_default()),
        });
        let attribute = serde_json::from_value(attribute).map_err(internal)?;
        meta.extended_attributes.push(attribute);
    }
    Ok(Node::new_node(create.volume.as_ref(), NodeType::Dir, meta))
}

/// A directory, its own entry first.
struct Source {
    root: (PathBuf, Node),
    beneath: LocalSource,
    faults: Faults,
    read: Arc<AtomicU64>,
}

impl Source {
    fn new(path: &Path, root: Node) -> Result<Self> {
        let beneath = LocalSource::new(
            LocalSourceSaveOptions::default(),
            &Excludes::default(),
            &LocalSourceFilterOptions::default().one_file_system(true),
            &[path],
        )
        .map_err(|error| failure(FailureKind::Source, told(&error)))?;
        Ok(Self {
            root: (path.to_path_buf(), root),
            beneath,
            faults: Faults::default(),
            read: Arc::default(),
        })
    }
}

impl ReadSource for Source {
    type Open = Opening;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        self.beneath.size()
    }

    fn entries(&self) -> Entries {
        Entries {
            root: Some(self.root.clone()),
            beneath: Box::new(
                self.beneath
                    .entries()
                    .map(|entry| entry.map(|entry| (entry.path, entry.node))),
            ),
            faults: self.faults.clone(),
            read: Arc::clone(&self.read),
        }
    }
}

/// The entries of a directory; those that cannot be read are noted and left out.
struct Entries {
    root: Option<(PathBuf, Node)>,
    beneath: Box<dyn Iterator<Item = RusticResult<(PathBuf, Node)>> + Send>,
    faults: Faults,
    read: Arc<AtomicU64>,
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Opening>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, node) = match self.root.take() {
            Some(root) => root,
            None => loop {
                match self.beneath.next()? {
                    Ok(found) => break found,
                    Err(error) => self.faults.note(told(&error)),
                }
            },
        };
        let open = Some(Opening {
            path: path.clone(),
            faults: self.faults.clone(),
            read: Arc::clone(&self.read),
        });
        Some(Ok(ReadSourceEntry { path, node, open }))
    }
}

/// A file that is opened when its turn comes.
struct Opening {
    path: PathBuf,
    faults: Faults,
    read: Arc<AtomicU64>,
}

impl ReadSourceOpen for Opening {
    type Reader = Reading;

    fn open(self) -> RusticResult<Reading> {
        match File::open(&self.path) {
            Ok(file) => Ok(Reading { file, opened: self }),
            Err(error) => {
                let fault = unreadable(&self.path, &error).message;
                self.faults.note(fault.clone());
                let fault = fault.replace(['{', '}'], "");
                Err(rustic_core::RusticError::new(
                    rustic_core::ErrorKind::InputOutput,
                    fault,
                ))
            }
        }
    }
}

/// A file that is being read.
struct Reading {
    file: File,
    opened: Opening,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer);
        match &read {
            Ok(count) => {
                let count = u64::try_from(*count).unwrap_or(0);
                self.opened.read.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let fault = unreadable(&self.opened.path, error).message;
                self.opened.faults.note(fault);
            }
        }
        read
    }
}
