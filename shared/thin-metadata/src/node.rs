//! Nodes of btrees (`struct btree_node`), taken apart and verified.

use crate::block::{BLOCK_SIZE, Block, BlockKind, ReadBlock, read_verified};
use crate::error::{Error, Fault};

/// The bytes before the keys.
const HEADER: usize = 32;
/// The bytes of a key.
const KEY: usize = 8;

const INNER: u32 = 1;
const LEAF: u32 = 2;

/// What is kept in the leaves of a tree.
pub(crate) trait Value: Copy {
    /// Its bytes on the disk.
    const SIZE: u32;

    /// Takes it from a node.
    fn read(block: &Block, offset: usize) -> Self;
}

impl Value for u64 {
    const SIZE: u32 = 8;

    fn read(block: &Block, offset: usize) -> Self {
        block.u64_at(offset)
    }
}

/// A node that was verified on its own: keys ascend, and inner nodes are not empty.
#[derive(Debug)]
pub(crate) enum Node<V> {
    /// The least key below each child, or less than that, and the child's block.
    Inner(Vec<(u64, u64)>),
    /// Keys and values.
    Leaf(Vec<(u64, V)>),
}

impl<V: Value> Node<V> {
    pub(crate) fn read(reader: &mut impl ReadBlock, number: u64) -> Result<Self, Error> {
        let block = read_verified(reader, number, BlockKind::Node)?;
        let (flags, entries) = (block.u32_at(4), block.u32_at(16));
        let (capacity, value_size) = (block.u32_at(20), block.u32_at(24));
        let damaged = Error::damaged(
            number,
            Fault::Header {
                flags,
                entries,
                capacity,
                value_size,
            },
        );
        let is_leaf = flags == LEAF;
        let expected = if is_leaf { V::SIZE } else { u64::SIZE };
        let (Ok(count), Ok(capacity)) = (usize::try_from(entries), usize::try_from(capacity))
        else {
            return Err(damaged);
        };
        let fits = capacity
            .checked_mul(KEY + expected as usize)
            .is_some_and(|size| size <= BLOCK_SIZE - HEADER);
        let has_kind = is_leaf || (flags == INNER && count > 0);
        if !has_kind || !fits || count > capacity || value_size != expected {
            return Err(damaged);
        }
        let values = HEADER + capacity * KEY;
        Ok(if is_leaf {
            Self::Leaf(pairs(number, &block, values, count)?)
        } else {
            Self::Inner(pairs(number, &block, values, count)?)
        })
    }
}

/// The keys, which must ascend, with their values.
fn pairs<V: Value>(
    number: u64,
    block: &Block,
    values: usize,
    count: usize,
) -> Result<Vec<(u64, V)>, Error> {
    let mut pairs: Vec<(u64, V)> = Vec::with_capacity(count);
    for index in 0..count {
        let key = block.u64_at(HEADER + index * KEY);
        if pairs.last().is_some_and(|(before, _)| *before >= key) {
            return Err(Error::damaged(number, Fault::Order { key }));
        }
        pairs.push((key, V::read(block, values + index * V::SIZE as usize)));
    }
    Ok(pairs)
}
