//! A block device as a backup: one file, in chunks of one length, of which those that have not changed are taken from
//! the parent without being read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use drover_backup_protocol::{ByteRange, Create, FailureKind, Phase, Unit};
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType, SnapshotFile, SnapshotSummary, Tree};
use rustic_core::{DataId, Id};

use super::Saved;
use super::writer::{Chunk, Writer};
use crate::catalog;
use crate::codec::hash;
use crate::failure::{Result, failure, internal, unreadable};
use crate::index::Index;
use crate::layout::Layout;
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
    layout: Layout,
}

/// What is read, and what is known.
#[derive(Debug)]
struct Plan {
    layout: Layout,
    /// Chunk by chunk.
    origins: Vec<Origin>,
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
    index: &Index,
) -> Result<Saved> {
    let file = File::open(device.path).map_err(|error| unreadable(device.path, &error))?;
    let parent = match &create.parent {
        Some(id) => named_parent(session, create, index, id)?,
        None => None,
    };
    let parent = parent.filter(|parent| parent.layout.fits(device.size));
    let layout = match &parent {
        Some(parent) => parent.layout,
        None => last_layout(session, create, index)?
            .filter(|layout| layout.fits(device.size))
            .unwrap_or_else(|| Layout::of_new(device.size)),
    };
    let plan = Plan {
        layout,
        origins: origins(
            device,
            layout,
            create.parent.is_some(),
            parent.as_ref(),
            index,
        )?,
    };
    let to_read = plan.to_read(device.size);
    session
        .reporter
        .begin(Phase::Saving, Unit::Bytes, Some(to_read));
    let (tree, new) = std::thread::scope(|scope| -> Result<_> {
        let mut writer = Writer::start(scope, session, index)?;
        let fed = feed(&file, device, &plan, &writer);
        let written = writer.written()?;
        fed?;
        let tree = tree(create, device, plan.ids(written.ids))?;
        let id = writer.put_tree(&tree)?;
        writer.finish()?;
        Ok((id, written.new))
    })?;
    let mut snapshot = catalog::snapshot(create, device.size)?;
    snapshot.tree = tree.into();
    snapshot.summary = Some(summary(device, to_read, new));
    Ok(Saved {
        snapshot,
        parent: parent.map(|parent| parent.id),
        read: to_read,
        new,
    })
}

impl Plan {
    /// How many bytes are read.
    fn to_read(&self, size: u64) -> u64 {
        let all = (0..).zip(&self.origins);
        let read = all.filter(|(_, origin)| **origin == Origin::Read);
        read.map(|(number, _)| self.layout.length_of(number, size))
            .sum()
    }

    /// The ids of all chunks, with those of the chunks that were written.
    fn ids(&self, written: Vec<(usize, Id)>) -> Vec<Id> {
        let mut ids: Vec<Id> = self.origins.iter().map(|origin| origin.known()).collect();
        let mut zeros = Id::default();
        for (number, id) in written {
            match ids.get_mut(number) {
                Some(place) => *place = id,
                None => zeros = id,
            }
        }
        for (place, origin) in ids.iter_mut().zip(&self.origins) {
            if *origin == Origin::Zeros {
                *place = zeros;
            }
        }
        ids
    }
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

/// The parent's content; `None` when it is not there any more or is no image of ours.
fn named_parent(
    session: &Session,
    create: &Create,
    index: &Index,
    id: &str,
) -> Result<Option<Parent>> {
    let Some(snapshot) = session.snapshot(id)? else {
        session.reporter.warn(format!(
            "the backup `{id}`, which this one counts from, is gone: everything is read"
        ));
        return Ok(None);
    };
    parent(session, create, index, &snapshot)
}

fn parent(
    session: &Session,
    create: &Create,
    index: &Index,
    snapshot: &SnapshotFile,
) -> Result<Option<Parent>> {
    let is_block = catalog::backup(snapshot).is_some_and(|backup| backup.block);
    if !is_block || !index.has_tree(&snapshot.tree) {
        return Ok(None);
    }
    let tree = index.read_tree(&session.files, &session.codec, &snapshot.tree)?;
    let name = format!("{}.img", create.volume);
    let Some(node) = tree.nodes.into_iter().find(|node| node.name == name) else {
        return Ok(None);
    };
    let content = node.content.unwrap_or_default();
    let content: Vec<Id> = content.iter().map(|id| **id).collect();
    let size = node.meta.size;
    Ok(
        Layout::of_backup(&content, size, index).map(|layout| Parent {
            id: catalog::text_of(&snapshot.id),
            content,
            size,
            layout,
        }),
    )
}

/// The layout of the volume's last backup: with another, nothing of what was sent would be found again.
fn last_layout(session: &Session, create: &Create, index: &Index) -> Result<Option<Layout>> {
    let snapshots = session.snapshots()?;
    let of_volume = |snapshot: &&SnapshotFile| {
        catalog::backup(snapshot)
            .is_some_and(|backup| backup.block && backup.volume == create.volume)
    };
    match snapshots.iter().rev().find(of_volume) {
        Some(last) => Ok(parent(session, create, index, last)?.map(|last| last.layout)),
        None => Ok(None),
    }
}

/// Where each chunk comes from.
fn origins(
    device: &Device<'_>,
    layout: Layout,
    counts_from_parent: bool,
    parent: Option<&Parent>,
    index: &Index,
) -> Result<Vec<Origin>> {
    let chunks = usize::try_from(layout.chunks(device.size)).map_err(internal)?;
    // Ranges that count from a parent which is not there tell nothing.
    let usable = device
        .changed
        .filter(|_| !counts_from_parent || parent.is_some());
    let Some(changed) = usable else {
        return Ok(vec![Origin::Read; chunks]);
    };
    let mut origins: Vec<Origin> = (0..chunks)
        .map(|number| unchanged(number, device.size, layout, parent, index))
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
        let first = usize::try_from(range.offset / layout.length()).map_err(internal)?;
        let last = usize::try_from((end - 1) / layout.length()).map_err(internal)?;
        if let Some(touched) = origins.get_mut(first..=last) {
            touched.fill(Origin::Read);
        }
    }
    Ok(origins)
}

fn unchanged(
    number: usize,
    size: u64,
    layout: Layout,
    parent: Option<&Parent>,
    index: &Index,
) -> Origin {
    let position = u64::try_from(number).unwrap_or(u64::MAX);
    let length = layout.length_of(position, size);
    let Some(parent) = parent else {
        // The last chunk, when it is shorter, is read: its zeros are other zeros.
        return if length == layout.length() {
            Origin::Zeros
        } else {
            Origin::Read
        };
    };
    match parent.content.get(number) {
        Some(id) if layout.length_of(position, parent.size) == length && index.has_data(id) => {
            Origin::Parent(*id)
        }
        _ => Origin::Read,
    }
}

/// Reads what is to be read.
fn feed(file: &File, device: &Device<'_>, plan: &Plan, writer: &Writer<'_>) -> Result<()> {
    let layout = plan.layout;
    for (number, origin) in plan.origins.iter().enumerate() {
        if *origin != Origin::Read {
            continue;
        }
        let position = u64::try_from(number).map_err(internal)?;
        let length = layout.length_of(position, device.size);
        let mut content = vec![0; usize::try_from(length).map_err(internal)?];
        file.read_exact_at(&mut content, layout.begin(position))
            .map_err(|error| unreadable(device.path, &error))?;
        if !writer.put(Chunk { number, content }) {
            return Ok(());
        }
    }
    if plan.origins.contains(&Origin::Zeros) {
        // One chunk of zeros stands for all; its number is that of none.
        let number = plan.origins.len();
        let content = vec![0; usize::try_from(layout.length()).map_err(internal)?];
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

    const CHUNK: u64 = 512 << 10;

    fn device(size: u64, changed: Option<&[ByteRange]>) -> Device<'_> {
        Device {
            path: Path::new("/dev/x"),
            size,
            changed,
        }
    }

    fn planned(device: &Device<'_>, counts: bool, parent: Option<&Parent>) -> Result<Vec<Origin>> {
        let layout = Layout::of_new(device.size);
        origins(device, layout, counts, parent, &Index::default())
    }

    #[test]
    fn what_was_never_written_is_zeros() {
        let changed = [ByteRange {
            offset: CHUNK - 1,
            length: 2,
        }];
        let plan = planned(&device(CHUNK * 4 + 1, Some(&changed)), false, None).unwrap();
        use Origin::{Read, Zeros};
        assert_eq!(plan, [Read, Read, Zeros, Zeros, Read]);
    }

    #[test]
    fn ranges_that_count_from_a_parent_that_is_gone_are_not_used() {
        let plan = planned(&device(CHUNK, Some(&[])), true, None).unwrap();
        assert_eq!(plan, [Origin::Read]);
    }

    #[test]
    fn a_range_past_the_end_is_refused() {
        let changed = [ByteRange {
            offset: 1,
            length: CHUNK,
        }];
        let failed = planned(&device(CHUNK, Some(&changed)), false, None).unwrap_err();
        assert_eq!(failed.kind, FailureKind::InvalidInput);
    }

    #[test]
    fn content_that_the_repository_has_lost_is_read() {
        let parent = Parent {
            id: String::new(),
            content: vec![Id::new([1; 32])],
            size: CHUNK,
            layout: Layout::of_new(CHUNK),
        };
        let plan = planned(&device(CHUNK, Some(&[])), true, Some(&parent)).unwrap();
        assert_eq!(plan, [Origin::Read]);
    }
}
