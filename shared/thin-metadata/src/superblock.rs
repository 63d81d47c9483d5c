//! The superblock (`struct thin_disk_superblock`).

use crate::block::{BLOCK_SIZE, Block, BlockKind, ReadBlock, read, read_verified};
use crate::error::{Error, Fault};

/// `THIN_SUPERBLOCK_MAGIC`.
const MAGIC: u64 = 27_022_010;
/// `THIN_VERSION`, and the one before it.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;
/// `THIN_METADATA_NEEDS_CHECK_FLAG`.
const NEEDS_CHECK: u32 = 1;
/// The least size of a data block, of which every other is a multiple, in sectors (`DATA_DEV_BLOCK_SIZE_MIN_SECTORS`).
const DATA_BLOCK_UNIT: u32 = 128;
/// The largest, in sectors (1 GiB).
const DATA_BLOCK_MAX: u32 = 2_097_152;
/// The bytes of a sector.
const SECTOR: u64 = 512;

/// Where things stand in it.
mod offset {
    pub(super) const FLAGS: usize = 4;
    pub(super) const MAGIC: usize = 32;
    pub(super) const VERSION: usize = 40;
    pub(super) const TIME: usize = 44;
    pub(super) const TRANSACTION: usize = 48;
    pub(super) const SNAPSHOT: usize = 56;
    pub(super) const DATA_SPACE: usize = 64;
    pub(super) const METADATA_SPACE: usize = 192;
    pub(super) const MAPPINGS: usize = 320;
    pub(super) const DEVICES: usize = 328;
    pub(super) const DATA_BLOCK_SIZE: usize = 336;
    pub(super) const METADATA_BLOCK_SIZE: usize = 340;
    pub(super) const INCOMPATIBLE: usize = 360;
}

/// Which state of the pool is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What was committed last. Of a pool in use it changes underneath the reader.
    Committed,
    /// The metadata snapshot that the pool holds.
    Snapshot,
}

/// How much of a device is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Blocks that are allocated.
    pub allocated: u64,
    /// Blocks that there are.
    pub blocks: u64,
}

/// The root of everything in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Whether the kernel asks for a check of the metadata before the pool is used again.
    pub needs_check: bool,
    /// Counts snapshots that were taken.
    pub time: u32,
    /// The transaction of user space: LVM's.
    pub transaction: u64,
    /// The size of a data block in bytes: 64 KiB to 1 GiB.
    pub data_block_size: u64,
    /// The data device. In a metadata snapshot, which has no space maps, it is that of the pool.
    pub data: Usage,
    /// The metadata device. (The superblock also tells its size, but that is not updated when it grows.)
    pub metadata: Usage,
    /// The block of the metadata snapshot, if one is held.
    pub snapshot: Option<u64>,
    /// The block of the root of the tree of mappings.
    pub(crate) mappings: u64,
    /// The block of the root of the tree of devices.
    pub(crate) devices: u64,
}

impl Superblock {
    /// Reads the superblock of a view.
    pub(crate) fn read(reader: &mut impl ReadBlock, view: View) -> Result<Self, Error> {
        let committed = Self::read_at(reader, 0)?;
        let (View::Snapshot, snapshot) = (view, committed.snapshot) else {
            return Ok(committed);
        };
        let number = snapshot.ok_or(Error::NoSnapshot)?;
        if number >= committed.metadata.blocks {
            return Err(Error::damaged(0, Fault::Pointer { to: number }));
        }
        let held = Self::read_at(reader, number)?;
        if held.data_block_size != committed.data_block_size {
            let fault = Fault::Size {
                name: "size of a data block",
                value: held.data_block_size,
            };
            return Err(Error::damaged(number, fault));
        }
        Ok(Self {
            needs_check: committed.needs_check,
            data: committed.data,
            metadata: committed.metadata,
            snapshot,
            ..held
        })
    }

    fn read_at(reader: &mut impl ReadBlock, number: u64) -> Result<Self, Error> {
        let block = match read_verified(reader, number, BlockKind::Superblock) {
            // What never was a pool has no checksum either: say so.
            Err(Error::Damaged {
                fault: Fault::Checksum,
                ..
            }) => return Err(not_a_superblock(reader, number)?),
            other => other?,
        };
        verify(number, &block)?;
        Ok(Self {
            needs_check: block.u32_at(offset::FLAGS) & NEEDS_CHECK != 0,
            time: block.u32_at(offset::TIME),
            transaction: block.u64_at(offset::TRANSACTION),
            data_block_size: u64::from(block.u32_at(offset::DATA_BLOCK_SIZE)) * SECTOR,
            data: usage(&block, offset::DATA_SPACE),
            metadata: usage(&block, offset::METADATA_SPACE),
            snapshot: Some(block.u64_at(offset::SNAPSHOT)).filter(|block| *block != 0),
            mappings: block.u64_at(offset::MAPPINGS),
            devices: block.u64_at(offset::DEVICES),
        })
    }
}

/// The error for a superblock whose checksum is wrong.
fn not_a_superblock(reader: &mut impl ReadBlock, number: u64) -> Result<Error, Error> {
    let block = read(reader, number)?;
    Ok(match block.u64_at(offset::MAGIC) {
        MAGIC => Error::damaged(number, Fault::Checksum),
        found => Error::NoThinPool {
            found,
            expected: MAGIC,
        },
    })
}

fn verify(number: u64, block: &Block) -> Result<(), Error> {
    let found = block.u64_at(offset::MAGIC);
    if found != MAGIC {
        return Err(Error::NoThinPool {
            found,
            expected: MAGIC,
        });
    }
    let version = block.u32_at(offset::VERSION);
    let features = block.u32_at(offset::INCOMPATIBLE);
    if !VERSIONS.contains(&version) || features != 0 {
        return Err(Error::Unknown { version, features });
    }
    let size = block.u32_at(offset::DATA_BLOCK_SIZE);
    if size == 0 || size > DATA_BLOCK_MAX || !size.is_multiple_of(DATA_BLOCK_UNIT) {
        let fault = Fault::Size {
            name: "size of a data block in sectors",
            value: size.into(),
        };
        return Err(Error::damaged(number, fault));
    }
    let size = u64::from(block.u32_at(offset::METADATA_BLOCK_SIZE));
    if size * SECTOR != BLOCK_SIZE as u64 {
        let fault = Fault::Size {
            name: "size of a metadata block in sectors",
            value: size,
        };
        return Err(Error::damaged(number, fault));
    }
    Ok(())
}

/// The counts at the start of a space map's root (`struct disk_sm_root`).
fn usage(block: &Block, offset: usize) -> Usage {
    Usage {
        blocks: block.u64_at(offset),
        allocated: block.u64_at(offset + 8),
    }
}
