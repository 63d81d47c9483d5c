//! A block device as a backup: one file, in chunks of [`BLOCK_CHUNK`], of which those that have not changed are taken
//! from the parent without being read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use drover_backup_protocol::{BLOCK_CHUNK, ByteRange, Create, FailureKind, Phase, Unit};
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType, SnapshotSummary, Tree};
use rustic_core::{DataId, Id};

use super::Saved;
use super::writer::{Chunk, Writer, put_tree};
use crate::catalog;
use crate::codec::hash;
use crate::failure::{Result, failure, internal, unreadable};
use crate::index::Index;
use crate::repository::Session;

/// What is backed up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Device<'a> {
    /// The device, or its image.
    pub(super) path: &'a Path,
    /// Its size, bytes.
    pub(super) size: u64,
    /// What may differ from the parent, or from zeros.
    pub(super) changed: Option<&'a [ByteRange]>,
}

/// What the chunks were in the parent.
#[derive(Debug)]
struct Parent {
    id: String,
    content: Vec<Id>,
    size: u64,
}

/// Where a chunk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It is read.
    Read,
    /// It is as it was in the parent.
    Parent(Id),
    /// Nothing was ever written there.
    Zeros,
}

/// Saves a device, but for the snapshot.
pub(super) fn save(
    session: &Session,
    create: &Create,
    device: &Device<'_>,
    index: Index,
) -> Result<Saved> {
    let file = File::open(device.path).map_err(|error| unreadable(device.path, &error))?;
    let parent = match &create.parent {
        Some(id) => parent(session, create, &index, id)?,
        None => None,
    };
    let plan = plan(device, create.parent.is_some(), parent.as_ref(), &index)?;
    let to_read: u64 = (0..)
        .zip(&plan)
        .filter(|(_, origin)| **origin == Origin::Read)
        .map(|(number, _)| length_of(number, device.size))
        .sum();
    session
        .reporter
        .begin(Phase::Saving, Unit::Bytes, Some(to_read));
    let mut ids: Vec<Id> = plan.iter().map(|origin| origin.known()).collect();
    let written = std::thread::scope(|scope| -> Result<_> {
        let writer = Writer::start(scope, session, &index)?;
        let fed = feed(&file, device, &plan, &writer);
        let written = writer.finish()?;
        fed.map(|()| written)
    })?;
    let mut zeros = None;
    for (number, id) in written.ids {
        match ids.get_mut(number) {
            Some(place) => *place = id,
            None => zeros = Some(id),
        }
    }
    if let Some(zeros) = zeros {
        for (place, origin) in ids.iter_mut().zip(&plan) {
            if *origin == Origin::Zeros {
                *place = zeros;
            }
        }
    }
    let mut snapshot = catalog::snapshot(create, device.size)?;
    let tree = tree(create, device, ids)?;
    snapshot.tree = put_tree(session, &index, &tree)?.into();
    snapshot.summary = Some(summary(device, to_read, written.new));
    Ok(Saved {
        snapshot,
        parent: parent.map(|parent| parent.id),
        read: to_read,
        new: written.new,
    })
}

fn summary(device: &Device<'_>, read: u64, new: u64) -> SnapshotSummary {
    let mut summary = SnapshotSummary::default();
    summary.total_files_processed = 1;
    summary.total_bytes_processed = device.size;
    summary.data_added = new;
    summary.data_added_files = new;
    summary.files_changed = u64::from(read > 0);
    summary
}

impl Origin {
    const fn known(self) -> Id {
        match self {
            Self::Parent(id) => id,
            Self::Read | Self::Zeros => Id::new([0; 32]),
        }
    }
}

/// The length of a chunk of a device.
fn length_of(number: u64, size: u64) -> u64 {
    size.saturating_sub(number.saturating_mul(BLOCK_CHUNK))
        .min(BLOCK_CHUNK)
}

/// The parent's content; `None` when it is not there any more or is no image of ours.
fn parent(session: &Session, create: &Create, index: &Index, id: &str) -> Result<Option<Parent>> {
    let snapshots = session.snapshots()?;
    let Some(snapshot) = snapshots.iter().find(|one| catalog::text_of(&one.id) == id) else {
        session.reporter.warn(format!(
            "the backup `{id}`, which this one counts from, is gone: everything is read"
        ));
        return Ok(None);
    };
    let is_block = catalog::backup(snapshot).is_some_and(|backup| backup.block);
    if !is_block || !index.has_tree(&snapshot.tree) {
        return Ok(None);
    }
    let tree = index.read_tree(&session.files, &session.codec, &snapshot.tree)?;
    let name = format!("{}.img", create.volume);
    let Some(node) = tree.nodes.into_iter().find(|node| node.name == name) else {
        return Ok(None);
    };
    let content: Vec<Id> = node
        .content
        .unwrap_or_default()
        .iter()
        .map(|id| **id)
        .collect();
    let size = node.meta.size;
    let whole = u64::try_from(content.len()).is_ok_and(|len| len == size.div_ceil(BLOCK_CHUNK));
    Ok(whole.then(|| Parent {
        id: id.to_owned(),
        content,
        size,
    }))
}

/// Where each chunk comes from.
fn plan(
    device: &Device<'_>,
    counts_from_parent: bool,
    parent: Option<&Parent>,
    index: &Index,
) -> Result<Vec<Origin>> {
    let chunks = usize::try_from(device.size.div_ceil(BLOCK_CHUNK)).map_err(internal)?;
    // Ranges that count from a parent which is not there tell nothing.
    let usable = device
        .changed
        .filter(|_| !counts_from_parent || parent.is_some());
    let Some(changed) = usable else {
        return Ok(vec![Origin::Read; chunks]);
    };
    let mut plan: Vec<Origin> = (0..chunks)
        .map(|number| unchanged(number, device.size, parent, index))
        .collect();
    for range in changed {
        let end = range
            .offset
            .checked_add(range.length)
            .filter(|end| *end <= device.size);
        let end = end.ok_or_else(|| {
            let message = format!(
                "the range of {} bytes at {} is not within the {} bytes of `{}`",
                range.length,
                range.offset,
                device.size,
                device.path.display()
            );
            failure(FailureKind::InvalidInput, message)
        })?;
        if range.length == 0 {
            continue;
        }
        let first = usize::try_from(range.offset / BLOCK_CHUNK).map_err(internal)?;
        let last = usize::try_from((end - 1) / BLOCK_CHUNK).map_err(internal)?;
        if let Some(touched) = plan.get_mut(first..=last) {
            touched.fill(Origin::Read);
        }
    }
    Ok(plan)
}

fn unchanged(number: usize, size: u64, parent: Option<&Parent>, index: &Index) -> Origin {
    let position = u64::try_from(number).unwrap_or(u64::MAX);
    let length = length_of(position, size);
    let Some(parent) = parent else {
        // The last chunk, when it is shorter, is read: its zeros are other zeros.
        return if length == BLOCK_CHUNK {
            Origin::Zeros
        } else {
            Origin::Read
        };
    };
    match parent.content.get(number) {
        Some(id) if length_of(position, parent.size) == length && index.has_data(id) => {
            Origin::Parent(*id)
        }
        _ => Origin::Read,
    }
}

/// Reads what is to be read.
fn feed(file: &File, device: &Device<'_>, plan: &[Origin], writer: &Writer<'_>) -> Result<()> {
    for (number, origin) in plan.iter().enumerate() {
        if *origin != Origin::Read {
            continue;
        }
        let position = u64::try_from(number).map_err(internal)?;
        let length = usize::try_from(length_of(position, device.size)).map_err(internal)?;
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, position * BLOCK_CHUNK)
            .map_err(|error| unreadable(device.path, &error))?;
        if !writer.put(Chunk { number, content }) {
            return Ok(());
        }
    }
    if plan.contains(&Origin::Zeros) {
        // One chunk of zeros stands for all; its number is that of none.
        let number = plan.len();
        let content = vec![0; usize::try_from(BLOCK_CHUNK).map_err(internal)?];
        writer.put(Chunk { number, content });
    }
    Ok(())
}

/// The tree with the device as its one file, as it is kept.
fn tree(create: &Create, device: &Device<'_>, content: Vec<Id>) -> Result<Vec<u8>> {
    let time = match create.time {
        Some(seconds) => Timestamp::from_second(seconds).map_err(internal)?,
        None => Timestamp::now(),
    };
    let meta = Metadata {
        mode: Some(0o600),
        mtime: Some(time),
        atime: Some(time),
        ctime: Some(time),
        uid: Some(0),
        gid: Some(0),
        size: device.size,
        links: 1,
        ..Metadata::default()
    };
    let name = format!("{}.img", create.volume);
    let mut node = Node::new_node(name.as_ref(), NodeType::File, meta);
    node.content = Some(content.into_iter().map(DataId::from).collect());
    let (json, id) = Tree { nodes: vec![node] }.serialize().map_err(internal)?;
    if hash(&json) == *id {
        return Ok(json);
    }
    Err(internal("a tree has another hash than its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(size: u64, changed: Option<&[ByteRange]>) -> Device<'_> {
        Device {
            path: Path::new("/dev/x"),
            size,
            changed,
        }
    }

    #[test]
    fn what_was_never_written_is_zeros() {
        let changed = [ByteRange {
            offset: BLOCK_CHUNK - 1,
            length: 2,
        }];
        let size = BLOCK_CHUNK * 4 + 1;
        let plan = plan(
            &device(size, Some(&changed)),
            false,
            None,
            &Index::default(),
        )
        .unwrap();
        use Origin::{Read, Zeros};
        assert_eq!(plan, [Read, Read, Zeros, Zeros, Read]);
    }

    #[test]
    fn ranges_that_count_from_a_parent_that_is_gone_are_not_used() {
        let plan = plan(
            &device(BLOCK_CHUNK, Some(&[])),
            true,
            None,
            &Index::default(),
        )
        .unwrap();
        assert_eq!(plan, [Origin::Read]);
    }

    #[test]
    fn a_range_past_the_end_is_refused() {
        let changed = [ByteRange {
            offset: 1,
            length: BLOCK_CHUNK,
        }];
        let device = device(BLOCK_CHUNK, Some(&changed));
        let failed = plan(&device, false, None, &Index::default()).unwrap_err();
        assert_eq!(failed.kind, FailureKind::InvalidInput);
    }

    #[test]
    fn content_that_the_repository_has_lost_is_read() {
        let parent = Parent {
            id: String::new(),
            content: vec![Id::new([1; 32])],
            size: BLOCK_CHUNK,
        };
        let device = device(BLOCK_CHUNK, Some(&[]));
        let plan = plan(&device, true, Some(&parent), &Index::default()).unwrap();
        assert_eq!(plan, [Origin::Read]);
    }
}
