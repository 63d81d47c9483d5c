//! What differs between two thin devices, without looking at what they share.

use std::ops::Range;

use crate::block::ReadBlock;
use crate::btree::{Head, Walk};
use crate::error::{Error, Fault};

/// The low bits of a mapping are the time at which it was made; the data block is above them.
const TIME_BITS: u32 = 24;

/// How blocks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Mapped in both, and to different data.
    Changed,
    /// Mapped in the new device alone.
    Added,
    /// Mapped in the old device alone: the new one reads as zeros there.
    Removed,
}

/// Blocks that follow each other and differ in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The blocks of the thin device, in units of the pool's data block.
    pub blocks: Range<u64>,
    /// How they differ.
    pub kind: ChangeKind,
}

/// The changes from one device to another, in order and as long as they can be. It ends with the first error.
#[derive(Debug)]
pub struct Changes<'pool, R> {
    reader: &'pool mut R,
    old: Walk<u64>,
    new: Walk<u64>,
    data_blocks: u64,
    /// The run that the next block may continue.
    run: Option<Change>,
    is_over: bool,
}

/// What one look at both walks came to.
enum Look {
    /// A block differs.
    Found(u64, ChangeKind),
    /// Something was opened, or is the same in both.
    Onwards,
    /// Both are at their end.
    End,
}

impl<'pool, R: ReadBlock> Changes<'pool, R> {
    pub(crate) const fn new(
        reader: &'pool mut R,
        old: Walk<u64>,
        new: Walk<u64>,
        data_blocks: u64,
    ) -> Self {
        Self {
            reader,
            old,
            new,
            data_blocks,
            run: None,
            is_over: false,
        }
    }

    fn look(&mut self) -> Result<Look, Error> {
        let (old, new) = match (self.old.head(), self.new.head()) {
            (None, None) => return Ok(Look::End),
            (Some(old), None) => return self.alone(Side::Old, old),
            (None, Some(new)) => return self.alone(Side::New, new),
            (Some(old), Some(new)) => (old, new),
        };
        if let (Head::Node(old), Head::Node(new)) = (old, new) {
            if old.block == new.block {
                self.old.skip();
                self.new.skip();
                return Ok(Look::Onwards);
            }
            // Nodes of one level may hide a shared one among their children; so the higher is opened first.
            if old.first == new.first || old.level != new.level {
                if old.level >= new.level {
                    self.old.open(self.reader, old)?;
                }
                if new.level >= old.level {
                    self.new.open(self.reader, new)?;
                }
                return Ok(Look::Onwards);
            }
        }
        match old.key().cmp(&new.key()) {
            std::cmp::Ordering::Less => self.alone(Side::Old, old),
            std::cmp::Ordering::Greater => self.alone(Side::New, new),
            std::cmp::Ordering::Equal => self.both(old, new),
        }
    }

    /// Two heads with the same key, not both of them nodes.
    fn both(&mut self, old: Head<u64>, new: Head<u64>) -> Result<Look, Error> {
        match (old, new) {
            (Head::Node(node), _) => self.old.open(self.reader, node)?,
            (_, Head::Node(node)) => self.new.open(self.reader, node)?,
            (Head::Entry { key, value: was }, Head::Entry { value: is, .. }) => {
                self.old.skip();
                self.new.skip();
                let (was, is) = (self.data_block(was)?, self.data_block(is)?);
                if was != is {
                    return Ok(Look::Found(key, ChangeKind::Changed));
                }
            }
        }
        Ok(Look::Onwards)
    }

    /// A head before which the other device has nothing.
    fn alone(&mut self, side: Side, head: Head<u64>) -> Result<Look, Error> {
        let (walk, kind) = match side {
            Side::Old => (&mut self.old, ChangeKind::Removed),
            Side::New => (&mut self.new, ChangeKind::Added),
        };
        match head {
            Head::Node(node) => {
                walk.open(self.reader, node)?;
                Ok(Look::Onwards)
            }
            Head::Entry { key, value } => {
                walk.skip();
                self.data_block(value)?;
                Ok(Look::Found(key, kind))
            }
        }
    }

    /// The data block of a mapping.
    fn data_block(&self, mapping: u64) -> Result<u64, Error> {
        let (to, blocks) = (mapping >> TIME_BITS, self.data_blocks);
        if to < blocks {
            return Ok(to);
        }
        // Which node it stood in is no longer known here; the superblock names the size that it exceeds.
        Err(Error::damaged(0, Fault::DataBlock { to, blocks }))
    }

    /// Puts a block to the run that it continues, or gives that run back and begins another.
    fn extend(&mut self, key: u64, kind: ChangeKind) -> Option<Change> {
        let end = key.saturating_add(1);
        match &mut self.run {
            Some(run) if run.kind == kind && run.blocks.end == key => {
                run.blocks.end = end;
                None
            }
            run => run.replace(Change {
                blocks: key..end,
                kind,
            }),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Old,
    New,
}

impl<R: ReadBlock> Iterator for Changes<'_, R> {
    type Item = Result<Change, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            match self.look() {
                Ok(Look::Found(key, kind)) => {
                    if let Some(run) = self.extend(key, kind) {
                        return Some(Ok(run));
                    }
                }
                Ok(Look::Onwards) => {}
                Ok(Look::End) => self.is_over = true,
                Err(error) => {
                    self.is_over = true;
                    self.run = None;
                    return Some(Err(error));
                }
            }
        }
        self.run.take().map(Ok)
    }
}
