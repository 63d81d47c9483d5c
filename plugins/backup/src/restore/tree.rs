//! A tree is written back: what there is is made as it is walked; then files are filled, with what lies beside each other in the
//! repository at once; and then comes what filling would change. Never more in memory than a few thousand files.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use drover_backup_protocol::{Phase, Unit};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use rustic_core::Id;
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Node, NodeType};

use crate::failure::{Result, unwritable};
use crate::faults::Faults;
use crate::fetch::{self, Wanted};
use crate::index::Index;
use crate::node::{beneath, link_key, mode};
use crate::repository::Session;

/// Files are filled when so many are waiting for it.
const FILES: usize = 4096;

/// Or when so many parts of them are.
const PARTS: usize = 32_768;

/// Writes a directory or a file at a path; gives how many files and bytes.
pub(super) fn restore(
    session: &Session,
    index: &Index,
    node: Node,
    path: &Path,
) -> Result<(u64, u64)> {
    let size = size(session, index, &node)?;
    session
        .reporter
        .begin(Phase::Restoring, Unit::Bytes, Some(size));
    let mut restoring = Restoring {
        session,
        index,
        root: path,
        files: Vec::new(),
        wanted: Vec::new(),
        directories: Vec::new(),
        linked: HashMap::new(),
        faults: Faults::default(),
        count: 0,
        bytes: 0,
    };
    restoring.node(node, path.to_path_buf())?;
    restoring.fill()?;
    let told = format!(
        "could not be given what they had beneath `{}`",
        path.display()
    );
    restoring.faults.tell(&session.reporter, &told);
    sync(path).map_err(|error| unwritable(path, &error))?;
    Ok((restoring.count, restoring.bytes))
}

/// The size of all files, bytes.
fn size(session: &Session, index: &Index, node: &Node) -> Result<u64> {
    let Some(subtree) = &node.subtree else {
        return Ok(node.meta.size);
    };
    let tree = index.read_tree(&session.files, &session.codec, subtree)?;
    let mut all = 0;
    for node in &tree.nodes {
        all += size(session, index, node)?;
    }
    Ok(all)
}

/// What was written is on the disk, as far as that says so.
fn sync(path: &Path) -> std::io::Result<()> {
    let opened = File::open(path);
    match opened {
        Ok(place) => Ok(nix::unistd::syncfs(&place)?),
        // A link or a device that was asked for alone.
        Err(_) => Ok(()),
    }
}

/// A part of a file.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Which of the files that are waiting.
    file: usize,
    /// Where in it.
    begin: u64,
}

struct Restoring<'a> {
    session: &'a Session,
    index: &'a Index,
    root: &'a Path,
    /// Files that are there and to be filled.
    files: Vec<(PathBuf, Node)>,
    /// What they are filled with.
    wanted: Vec<Wanted<Place>>,
    /// Directories with everything in them, before those that they are in.
    directories: Vec<(PathBuf, Node)>,
    /// Files with several names: the first of each.
    linked: HashMap<(u64, u64), PathBuf>,
    faults: Faults,
    count: u64,
    bytes: u64,
}

impl Restoring<'_> {
    fn node(&mut self, node: Node, path: PathBuf) -> Result<()> {
        match &node.node_type {
            NodeType::Dir => return self.directory(node, path),
            NodeType::File => return self.file(node, path),
            _ => {}
        }
        special(&node, &path).map_err(|error| unwritable(&path, &error))?;
        describe(&node, &path, &self.faults);
        Ok(())
    }

    fn directory(&mut self, mut node: Node, path: PathBuf) -> Result<()> {
        let made = DirBuilder::new().mode(0o700).create(&path);
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && self.may_be_there(&path) => {}
            made => made.map_err(|error| unwritable(&path, &error))?,
        }
        if let Some(subtree) = node.subtree.take() {
            for below in self.nodes(&subtree)? {
                let place = beneath(&path, &below)?;
                self.node(below, place)?;
            }
        }
        self.directories.push((path, node));
        self.fill_when_many()
    }

    /// The place itself, and what a file system has of its own.
    fn may_be_there(&self, path: &Path) -> bool {
        let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        is_directory && (path == self.root || path == self.root.join("lost+found"))
    }

    fn nodes(&self, tree: &Id) -> Result<Vec<Node>> {
        let (files, codec) = (&self.session.files, &self.session.codec);
        Ok(self.index.read_tree(files, codec, tree)?.nodes)
    }

    fn file(&mut self, mut node: Node, path: PathBuf) -> Result<()> {
        let failed = |error| unwritable(&path, &error);
        self.count += 1;
        let file = self.files.len();
        let parts = fetch::content(self.index, &node, |begin| Place { file, begin })?;
        let (mut parts, length) = parts;
        self.bytes += length;
        node.content = None;
        if let Some(key) = link_key(&node) {
            if let Some(first) = self.linked.get(&key) {
                self.session.reporter.advance(length);
                return std::fs::hard_link(first, &path).map_err(failed);
            }
            self.linked.insert(key, path.clone());
        }
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        made.and_then(|file| file.set_len(length)).map_err(failed)?;
        self.files.push((path, node));
        self.wanted.append(&mut parts);
        self.fill_when_many()
    }

    fn fill_when_many(&mut self) -> Result<()> {
        let waiting = self.files.len() + self.directories.len();
        if waiting < FILES && self.wanted.len() < PARTS {
            return Ok(());
        }
        self.fill()
    }

    /// Fills the files that are waiting for it, and finishes them.
    fn fill(&mut self) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let files = std::mem::take(&mut self.files);
        fetch::each(self.session, self.index, wanted, |content, places| {
            // A hole is there already.
            if content.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            for place in places {
                let Place { file, begin } = place.target;
                if let Some((path, _)) = files.get(file) {
                    write(path, content, begin).map_err(|error| unwritable(path, &error))?;
                }
            }
            Ok(())
        })?;
        for (path, node) in files.iter().chain(&std::mem::take(&mut self.directories)) {
            describe(node, path, &self.faults);
        }
        Ok(())
    }
}

fn write(path: &Path, content: &[u8], begin: u64) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    file.write_all_at(content, begin)
}

/// Makes a link, a device, a pipe or a socket.
fn special(node: &Node, path: &Path) -> std::io::Result<()> {
    let make = |kind, device| Ok(mknod(path, kind, Mode::from_bits_truncate(0o600), device)?);
    match &node.node_type {
        NodeType::Symlink { .. } => symlink(node.node_type.to_link(), path),
        NodeType::Dev { device } => make(SFlag::S_IFBLK, *device),
        NodeType::Chardev { device } => make(SFlag::S_IFCHR, *device),
        NodeType::Fifo => make(SFlag::S_IFIFO, 0),
        NodeType::Socket => make(SFlag::S_IFSOCK, 0),
        NodeType::Dir | NodeType::File => Err(Error::from(ErrorKind::Unsupported)),
    }
}

/// Gives what is there its owner, mode, attributes and times, in an order in which none undoes another. A file without one of them is better
/// than none.
fn describe(node: &Node, path: &Path, faults: &Faults) {
    let meta = &node.meta;
    let note = |what: &str, done: std::io::Result<()>| {
        if let Err(error) = done {
            faults.note(format!("the {what} of `{}`: {error}", path.display()));
        }
    };
    note("owner", lchown(path, meta.uid, meta.gid));
    // A link has no mode of its own.
    if let (false, Some(mode)) = (node.is_symlink(), mode(node)) {
        let permissions = Permissions::from_mode(mode);
        note("mode", std::fs::set_permissions(path, permissions));
    }
    for attribute in &meta.extended_attributes {
        let value = attribute.value.as_deref().unwrap_or_default();
        let what = format!("attribute `{}`", attribute.name);
        note(&what, xattr::set(path, &attribute.name, value));
    }
    if let Some(changed) = meta.mtime {
        let (read, changed) = (spec(meta.atime.unwrap_or(changed)), spec(changed));
        let set = utimensat(
            AT_FDCWD,
            path,
            &read,
            &changed,
            UtimensatFlags::NoFollowSymlink,
        );
        note("times", set.map_err(Error::from));
    }
}

fn spec(time: Timestamp) -> TimeSpec {
    // Before 1970 both parts are negative there, and the second one never is here.
    let nanoseconds = time.as_nanosecond();
    let second = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default();
    let rest = i64::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default();
    TimeSpec::new(second, rest)
}
