//! What can be wrong with metadata.

use std::io;

use thiserror::Error;

use crate::pool::DeviceId;

/// Why metadata cannot be read.
#[derive(Debug, Error)]
pub enum Error {
    /// The medium does not give a block.
    #[error("block {block} of the metadata cannot be read")]
    Read {
        /// Its number.
        block: u64,
        /// What reading said.
        source: io::Error,
    },
    /// The first block is no superblock of a thin pool.
    #[error("this is no metadata of a thin pool: magic {found}, not {expected}")]
    NoThinPool {
        /// The number that stands there.
        found: u64,
        /// The number that should.
        expected: u64,
    },
    /// The pool was made by a kernel that knows more.
    #[error("metadata of version {version} with incompatible features {features:#x} is not known")]
    Unknown {
        /// The version of the format; 1 and 2 are known.
        version: u32,
        /// Features without which it cannot be read; none is known.
        features: u32,
    },
    /// A block is not what was written there.
    #[error("block {block} of the metadata is damaged: {fault}")]
    Damaged {
        /// Its number.
        block: u64,
        /// How it is seen.
        fault: Fault,
    },
    /// There is no such thin device.
    #[error("the pool has no thin device {device}")]
    NoDevice {
        /// The one that was asked for.
        device: DeviceId,
    },
    /// No metadata snapshot is held.
    #[error("the pool holds no snapshot of its metadata")]
    NoSnapshot,
}

impl Error {
    pub(crate) const fn damaged(block: u64, fault: Fault) -> Self {
        Self::Damaged { block, fault }
    }

    /// Whether the metadata itself is bad, so that it should be checked (`thin_check`) and repaired.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::NoThinPool { .. })
    }
}

/// How damage of a block is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The checksum is not that of its content.
    #[error("its checksum is wrong")]
    Checksum,
    /// It was written for another place.
    #[error("it says that it is block {recorded}")]
    Number {
        /// The block that it says it is.
        recorded: u64,
    },
    /// A size in the superblock that no kernel writes.
    #[error("its {name} is {value}")]
    Size {
        /// Which.
        name: &'static str,
        /// What stands there.
        value: u64,
    },
    /// A node's header makes no sense.
    #[error("its header is {flags:#x}, {entries} of {capacity} entries of {value_size} bytes")]
    Header {
        /// 1 for an inner node, 2 for a leaf.
        flags: u32,
        /// How many entries it has.
        entries: u32,
        /// How many it has room for.
        capacity: u32,
        /// The size of a value in bytes.
        value_size: u32,
    },
    /// Keys that are not in order, or not within what the node above says.
    #[error("its key {key} is out of order")]
    Order {
        /// The first such key.
        key: u64,
    },
    /// A leaf where an inner node should be, or the other way.
    #[error("it is on the wrong level of its tree")]
    Level,
    /// It points to where no node can be.
    #[error("it points to block {to}, where no node can be")]
    Pointer {
        /// Where it points to.
        to: u64,
    },
    /// It maps to where the data device has no block.
    #[error("it maps to data block {to} of {blocks}")]
    DataBlock {
        /// Where it maps to.
        to: u64,
        /// How many blocks there are.
        blocks: u64,
    },
}
