//! Metadata as the kernel would write it, made in memory: trees that are never changed in place, so that those of a
//! snapshot and its origin share nodes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::rc::Rc;

use drover_thin_metadata::{BLOCK_SIZE, Block, ReadBlock};

/// Virtual blocks and the data blocks that they are mapped to.
pub(crate) type Mappings = BTreeMap<u64, u64>;

const DATA_BLOCKS: u64 = 10_000;
/// For trees that are larger than that.
const DATA_BLOCKS_LARGE: u64 = 400_000;
const SUPERBLOCK_XOR: u32 = 160_774;
const NODE_XOR: u32 = 121_107;

/// The metadata of a pool. Block 0 is the superblock.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    /// How many entries a node has room for.
    capacity: usize,
    snapshot: u64,
}

/// Counts what is read.
#[derive(Debug)]
pub(crate) struct Counted {
    bytes: Cursor<Vec<u8>>,
    pub(crate) reads: Rc<Cell<usize>>,
}

impl ReadBlock for Counted {
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.bytes.read_block(number, block)
    }
}

/// A node's entries; those of an inner node are children.
#[derive(Clone)]
struct Entries {
    is_leaf: bool,
    pairs: Vec<(u64, u64)>,
}

impl Image {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; BLOCK_SIZE],
            capacity,
            snapshot: 0,
        }
    }

    pub(crate) fn reader(&self) -> Counted {
        Counted {
            bytes: Cursor::new(self.bytes.clone()),
            reads: Rc::default(),
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes[offset..offset + 8].try_into().unwrap())
    }

    /// Gives a block its number and its checksum.
    fn seal(&mut self, block: usize) {
        let (start, end) = (block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
        self.put(start + 8, &(block as u64).to_le_bytes());
        let is_superblock = self.word(start + 32) == 27_022_010;
        let mixed_in = if is_superblock {
            SUPERBLOCK_XOR
        } else {
            NODE_XOR
        };
        let checksum = !crc32c::crc32c(&self.bytes[start + 4..end]) ^ mixed_in;
        self.put(start, &checksum.to_le_bytes());
    }

    /// Overwrites a word of a block, and gives the block a checksum that is right.
    pub(crate) fn forge(&mut self, block: usize, offset: usize, value: u64) {
        self.put(block * BLOCK_SIZE + offset, &value.to_le_bytes());
        self.seal(block);
    }

    fn node(&mut self, flags: u32, keys: &[u64], values: &[Vec<u8>], value_size: usize) -> u64 {
        let block = self.bytes.len() / BLOCK_SIZE;
        let start = block * BLOCK_SIZE;
        self.bytes.resize(start + BLOCK_SIZE, 0);
        self.put(start + 4, &flags.to_le_bytes());
        let capacity = self.capacity.min((BLOCK_SIZE - 32) / (8 + value_size));
        for (offset, number) in [(16, keys.len()), (20, capacity), (24, value_size)] {
            self.put(
                start + offset,
                &u32::try_from(number).unwrap().to_le_bytes(),
            );
        }
        for (index, key) in keys.iter().enumerate() {
            self.put(start + 32 + index * 8, &key.to_le_bytes());
        }
        for (index, value) in values.iter().enumerate() {
            self.put(start + 32 + capacity * 8 + index * value_size, value);
        }
        self.seal(block);
        block as u64
    }

    fn write(&mut self, entries: &Entries) -> u64 {
        let keys: Vec<u64> = entries.pairs.iter().map(|pair| pair.0).collect();
        let values = entries
            .pairs
            .iter()
            .map(|pair| pair.1.to_le_bytes().to_vec());
        let flags = if entries.is_leaf { 2 } else { 1 };
        self.node(flags, &keys, &values.collect::<Vec<_>>(), 8)
    }

    fn read(&self, block: u64) -> Entries {
        let start = usize::try_from(block).unwrap() * BLOCK_SIZE;
        let number = |offset: usize| {
            let bytes = self.bytes[start + offset..start + offset + 4]
                .try_into()
                .unwrap();
            u32::from_le_bytes(bytes) as usize
        };
        let values = start + 32 + number(20) * 8;
        let pair = |index| {
            (
                self.word(start + 32 + index * 8),
                self.word(values + index * 8),
            )
        };
        Entries {
            is_leaf: number(4) == 2,
            pairs: (0..number(16)).map(pair).collect(),
        }
    }

    /// Writes entries into as few nodes as they need, and gives back those nodes with their least keys.
    fn write_all(&mut self, is_leaf: bool, pairs: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let nodes = pairs.len().div_ceil(self.capacity).max(1);
        let chunks = pairs.chunks(pairs.len().div_ceil(nodes).max(1));
        chunks
            .map(|pairs| {
                let pairs = pairs.to_vec();
                (pairs[0].0, self.write(&Entries { is_leaf, pairs }))
            })
            .collect()
    }

    /// Nodes above nodes until there is one.
    fn root(&mut self, mut nodes: Vec<(u64, u64)>) -> u64 {
        while nodes.len() > 1 {
            nodes = self.write_all(false, &nodes);
        }
        match nodes.first() {
            Some((_, root)) => *root,
            None => self.node(2, &[], &[], 8),
        }
    }

    /// A tree of mappings. Returns its root.
    pub(crate) fn tree(&mut self, mappings: &Mappings) -> u64 {
        // The time, below the data block, is no part of the comparison.
        let pairs = mappings
            .iter()
            .map(|(key, to)| (*key, (to << 24) | (key % 100)));
        let leaves = self.write_all(true, &pairs.collect::<Vec<_>>());
        self.root(leaves)
    }

    /// A tree with a mapping put in, that shares all it can with the one it is made from.
    pub(crate) fn insert(&mut self, root: u64, key: u64, to: u64) -> u64 {
        let nodes = self.insert_below(root, key, to << 24);
        self.root(nodes)
    }

    fn insert_below(&mut self, block: u64, key: u64, value: u64) -> Vec<(u64, u64)> {
        let mut entries = self.read(block);
        let at = entries.pairs.partition_point(|pair| pair.0 <= key);
        if entries.is_leaf {
            match at.checked_sub(1) {
                Some(index) if entries.pairs[index].0 == key => entries.pairs[index].1 = value,
                _ => entries.pairs.insert(at, (key, value)),
            }
        } else {
            let index = at.saturating_sub(1);
            let nodes = self.insert_below(entries.pairs[index].1, key, value);
            entries.pairs.splice(index..=index, nodes);
        }
        self.write_all(entries.is_leaf, &entries.pairs)
    }

    /// A tree without a mapping. As in the kernel, the keys of inner nodes may stay below what is there.
    pub(crate) fn remove(&mut self, root: u64, key: u64) -> u64 {
        let below = self.remove_below(root, key);
        let nodes = below.map(|block| (0, block)).into_iter().collect();
        self.root(nodes)
    }

    fn remove_below(&mut self, block: u64, key: u64) -> Option<u64> {
        let mut entries = self.read(block);
        let at = entries.pairs.partition_point(|pair| pair.0 <= key);
        let Some(index) = at.checked_sub(1) else {
            return Some(block);
        };
        if !entries.is_leaf {
            match self.remove_below(entries.pairs[index].1, key) {
                Some(child) if child == entries.pairs[index].1 => return Some(block),
                Some(child) => entries.pairs[index].1 = child,
                None => drop(entries.pairs.remove(index)),
            }
        } else if entries.pairs[index].0 == key {
            entries.pairs.remove(index);
        } else {
            return Some(block);
        }
        (!entries.pairs.is_empty()).then(|| self.write(&entries))
    }

    /// Writes the trees of devices and the superblock, for these devices: number, root, and count of mappings.
    pub(crate) fn commit(&mut self, devices: &[(u32, u64, usize)]) {
        let keys: Vec<u64> = devices.iter().map(|device| device.0.into()).collect();
        let details = devices.iter().map(|device| {
            let mut details = vec![0; 24];
            details[..8].copy_from_slice(&(device.2 as u64).to_le_bytes());
            details
        });
        let details = self.node(2, &keys, &details.collect::<Vec<_>>(), 24);
        let roots = devices.iter().map(|device| device.1.to_le_bytes().to_vec());
        let roots = self.node(2, &keys, &roots.collect::<Vec<_>>(), 8);
        let blocks = (self.bytes.len() / BLOCK_SIZE) as u64;
        let large = blocks > 1_000;
        let data_blocks = if large {
            DATA_BLOCKS_LARGE
        } else {
            DATA_BLOCKS
        };
        for (offset, value) in [
            (32, 27_022_010),
            (40, 2),
            (56, self.snapshot),
            (64, data_blocks),
            (192, blocks),
            (320, roots),
            (328, details),
            // A data block of 128 sectors, and a metadata block of 8.
            (336, 128 | (8 << 32)),
        ] {
            self.put(offset, &value.to_le_bytes());
        }
        self.seal(0);
    }

    /// Keeps the superblock as it is, as the message `reserve_metadata_snap` does; the next commit tells where.
    pub(crate) fn reserve_snapshot(&mut self) {
        let block = self.bytes.len() / BLOCK_SIZE;
        let mut copy = self.bytes[..BLOCK_SIZE].to_vec();
        // It has no space maps.
        copy[64..320].fill(0);
        self.bytes.extend(copy);
        self.seal(block);
        self.snapshot = block as u64;
    }
}
