//! Blocks of 4096 bytes, how they come, and their checksums.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Error, Fault};

/// The size of a block of metadata in bytes. The kernel knows no other.
pub const BLOCK_SIZE: usize = 4096;

/// Where every kind of block has its own number.
const NUMBER_OFFSET: usize = 8;

/// A block of metadata, aligned so that it can be read past the page cache.
#[derive(Clone)]
#[repr(align(4096))]
pub struct Block(pub [u8; BLOCK_SIZE]);

impl Default for Block {
    fn default() -> Self {
        Self([0; BLOCK_SIZE])
    }
}

/// Where blocks of metadata come from.
pub trait ReadBlock {
    /// Reads the block that begins `number` times [`BLOCK_SIZE`] bytes from the start.
    ///
    /// # Errors
    /// When it cannot be read whole.
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()>;
}

impl<R: Read + Seek> ReadBlock for R {
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()> {
        let offset = number
            .checked_mul(BLOCK_SIZE as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.seek(SeekFrom::Start(offset))?;
        self.read_exact(&mut block.0)
    }
}

/// What a block is; each kind is mixed into its checksum (`*_CSUM_XOR` in the kernel).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    Superblock,
    Node,
}

impl BlockKind {
    const fn mixed_in(self) -> u32 {
        match self {
            Self::Superblock => 160_774,
            Self::Node => 121_107,
        }
    }
}

/// Reads a block, whatever is in it.
pub(crate) fn read(reader: &mut impl ReadBlock, number: u64) -> Result<Block, Error> {
    let mut block = Block::default();
    match reader.read_block(number, &mut block) {
        Ok(()) => Ok(block),
        Err(source) => Err(Error::Read {
            block: number,
            source,
        }),
    }
}

/// Reads a block, and verifies its checksum and that it is where it says.
pub(crate) fn read_verified(
    reader: &mut impl ReadBlock,
    number: u64,
    kind: BlockKind,
) -> Result<Block, Error> {
    let block = read(reader, number)?;
    if block.u32_at(0) != block.checksum(kind) {
        return Err(Error::damaged(number, Fault::Checksum));
    }
    let recorded = block.u64_at(NUMBER_OFFSET);
    if recorded != number {
        return Err(Error::damaged(number, Fault::Number { recorded }));
    }
    Ok(block)
}

impl Block {
    /// A little-endian number; 0 past the end, where no caller reads.
    pub(crate) fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes_at(offset))
    }

    /// A little-endian number; 0 past the end, where no caller reads.
    pub(crate) fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes_at(offset))
    }

    pub(crate) fn bytes_at<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    /// What its first four bytes should be: the kernel's crc32c is not inverted in the end.
    fn checksum(&self, kind: BlockKind) -> u32 {
        let [_, _, _, _, covered @ ..] = &self.0;
        !crc32c::crc32c(covered) ^ kind.mixed_in()
    }
}
