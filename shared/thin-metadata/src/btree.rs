//! A walk through a btree in the order of its keys, which opens a node only when told to.
//!
//! Every node stands for a range of keys that the nodes above it give, and its own keys must lie in it. So no node can
//! stand twice on a level, however the metadata was forged, and a walk comes to an end.

use crate::block::ReadBlock;
use crate::error::{Error, Fault};
use crate::node::{Node, Value};

/// Above this no tree is: with two entries a node it would have more keys than there are.
const HEIGHT_MAX: u32 = 64;

/// What comes next in a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head<V> {
    /// A node that has not been opened.
    Node(Unopened),
    /// An entry of a leaf.
    Entry { key: u64, value: V },
}

/// A node that has not been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unopened {
    pub(crate) block: u64,
    /// No key in it is less.
    pub(crate) first: u64,
    /// No key in it is greater.
    last: u64,
    /// 0 for a leaf.
    pub(crate) level: u32,
    /// Roots alone may be leaves without an entry.
    is_root: bool,
}

impl<V> Head<V> {
    /// A key that is not greater than any that follows.
    pub(crate) const fn key(&self) -> u64 {
        match self {
            Self::Node(node) => node.first,
            Self::Entry { key, .. } => *key,
        }
    }
}

/// A walk. What it holds in memory is at most one node for each level.
#[derive(Debug)]
pub(crate) struct Walk<V> {
    /// What is still to come, the next last.
    ahead: Vec<Head<V>>,
    /// How many blocks the metadata has.
    limit: u64,
}

impl<V: Value> Walk<V> {
    /// A walk through nothing.
    pub(crate) const fn empty() -> Self {
        Self {
            ahead: Vec::new(),
            limit: 0,
        }
    }

    /// A walk that begins before the root. Reads the nodes on the way to the first leaf, to know the height.
    pub(crate) fn begin(reader: &mut impl ReadBlock, root: u64, limit: u64) -> Result<Self, Error> {
        let level = height::<V>(reader, root, limit)?;
        let root = Unopened {
            block: root,
            first: 0,
            last: u64::MAX,
            level,
            is_root: true,
        };
        Ok(Self {
            ahead: vec![Head::Node(root)],
            limit,
        })
    }

    pub(crate) fn head(&self) -> Option<Head<V>> {
        self.ahead.last().copied()
    }

    /// Goes past what comes next, unread.
    pub(crate) fn skip(&mut self) {
        self.ahead.pop();
    }

    /// Opens the node that comes next: what is in it comes in its place.
    pub(crate) fn open(
        &mut self,
        reader: &mut impl ReadBlock,
        node: Unopened,
    ) -> Result<(), Error> {
        self.ahead.pop();
        let damaged = |fault| Err(Error::damaged(node.block, fault));
        match (Node::<V>::read(reader, node.block)?, node.level) {
            (Node::Leaf(entries), 0) => {
                if entries.is_empty() && !node.is_root {
                    return damaged(Fault::Level);
                }
                node.holds(&entries)?;
                let entries = entries.into_iter().rev();
                self.ahead
                    .extend(entries.map(|(key, value)| Head::Entry { key, value }));
                Ok(())
            }
            (Node::Inner(children), 1..) => {
                node.holds(&children)?;
                let mut last = node.last;
                for (first, block) in children.into_iter().rev() {
                    pointer(node.block, block, self.limit)?;
                    self.ahead.push(Head::Node(Unopened {
                        block,
                        first,
                        last,
                        level: node.level - 1,
                        is_root: false,
                    }));
                    last = first.saturating_sub(1);
                }
                Ok(())
            }
            _ => damaged(Fault::Level),
        }
    }

    /// Opens nodes until an entry comes next, takes it, and goes past it.
    pub(crate) fn next_entry(
        &mut self,
        reader: &mut impl ReadBlock,
    ) -> Result<Option<(u64, V)>, Error> {
        while let Some(head) = self.head() {
            match head {
                Head::Node(node) => self.open(reader, node)?,
                Head::Entry { key, value } => {
                    self.skip();
                    return Ok(Some((key, value)));
                }
            }
        }
        Ok(None)
    }
}

impl Unopened {
    /// Checks that ascending keys lie in the range that the node stands for.
    fn holds<V>(&self, entries: &[(u64, V)]) -> Result<(), Error> {
        let (first, last) = (entries.first(), entries.last());
        let outside = first
            .filter(|(key, _)| *key < self.first)
            .or(last.filter(|(key, _)| *key > self.last));
        match outside {
            Some((key, _)) => Err(Error::damaged(self.block, Fault::Order { key: *key })),
            None => Ok(()),
        }
    }
}

/// The value of a key.
pub(crate) fn look_up<V: Value>(
    reader: &mut impl ReadBlock,
    (root, limit): (u64, u64),
    wanted: u64,
) -> Result<Option<V>, Error> {
    let mut block = root;
    for _ in 0..HEIGHT_MAX {
        match Node::<V>::read(reader, block)? {
            Node::Leaf(entries) => {
                let found = entries.binary_search_by_key(&wanted, |(key, _)| *key);
                return Ok(found
                    .ok()
                    .and_then(|index| entries.get(index))
                    .map(|entry| entry.1));
            }
            Node::Inner(children) => {
                let after = children.partition_point(|(first, _)| *first <= wanted);
                let Some((_, child)) = after.checked_sub(1).and_then(|index| children.get(index))
                else {
                    return Ok(None);
                };
                pointer(block, *child, limit)?;
                block = *child;
            }
        }
    }
    Err(Error::damaged(root, Fault::Level))
}

/// How far the leaves are below a root.
fn height<V: Value>(reader: &mut impl ReadBlock, root: u64, limit: u64) -> Result<u32, Error> {
    let mut block = root;
    for level in 0..HEIGHT_MAX {
        match Node::<V>::read(reader, block)? {
            Node::Leaf(_) => return Ok(level),
            Node::Inner(children) => {
                let (_, child) = *children
                    .first()
                    .ok_or(Error::damaged(block, Fault::Level))?;
                pointer(block, child, limit)?;
                block = child;
            }
        }
    }
    Err(Error::damaged(root, Fault::Level))
}

/// Checks a pointer from one block to another: block 0 is the superblock.
pub(crate) fn pointer(from: u64, to: u64, limit: u64) -> Result<(), Error> {
    if to == 0 || to >= limit {
        return Err(Error::damaged(from, Fault::Pointer { to }));
    }
    Ok(())
}
