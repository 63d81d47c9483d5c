//! A pool: its superblock and its thin devices.

use std::fmt;

use crate::block::{Block, ReadBlock};
use crate::btree::{Walk, look_up, pointer};
use crate::changes::Changes;
use crate::error::Error;
use crate::node::Value;
use crate::superblock::{Superblock, View};

/// The number of a thin device in its pool: 24 bits (LVM's `thin_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A thin device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub id: DeviceId,
    /// How many blocks it has mapped, its own and shared ones.
    pub mapped_blocks: u64,
    /// The pool's transaction when it was made.
    pub transaction: u64,
    /// The pool's time when it was made.
    pub created: u32,
    /// The pool's time when a snapshot of it was last taken, or when it was made as one.
    pub snapshotted: u32,
}

/// `struct disk_device_details`.
#[derive(Debug, Clone, Copy)]
struct Details {
    mapped_blocks: u64,
    transaction: u64,
    created: u32,
    snapshotted: u32,
}

impl Value for Details {
    const SIZE: u32 = 24;

    fn read(block: &Block, offset: usize) -> Self {
        Self {
            mapped_blocks: block.u64_at(offset),
            transaction: block.u64_at(offset + 8),
            created: block.u32_at(offset + 16),
            snapshotted: block.u32_at(offset + 20),
        }
    }
}

/// The metadata of a pool.
#[derive(Debug)]
pub struct Pool<R> {
    reader: R,
    superblock: Superblock,
}

impl<R: ReadBlock> Pool<R> {
    /// Reads the superblock of a view.
    ///
    /// # Errors
    /// When the block cannot be read, is damaged, is no thin pool's, or when no metadata snapshot is held and it is
    /// asked for.
    pub fn open(mut reader: R, view: View) -> Result<Self, Error> {
        let superblock = Superblock::read(&mut reader, view)?;
        for root in [superblock.mappings, superblock.devices] {
            pointer(0, root, superblock.metadata.blocks)?;
        }
        Ok(Self { reader, superblock })
    }

    /// The superblock.
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// All thin devices, in the order of their numbers.
    ///
    /// # Errors
    /// When a block cannot be read or is damaged.
    pub fn devices(&mut self) -> Result<Vec<Device>, Error> {
        let Superblock {
            devices, metadata, ..
        } = self.superblock;
        let mut walk = Walk::<Details>::begin(&mut self.reader, devices, metadata.blocks)?;
        let mut found = Vec::new();
        while let Some((key, details)) = walk.next_entry(&mut self.reader)? {
            let Ok(id) = u32::try_from(key) else {
                let fault = crate::error::Fault::Order { key };
                return Err(Error::damaged(devices, fault));
            };
            found.push(Device {
                id: DeviceId(id),
                mapped_blocks: details.mapped_blocks,
                transaction: details.transaction,
                created: details.created,
                snapshotted: details.snapshotted,
            });
        }
        Ok(found)
    }

    /// What is different in `new`, compared with `old`, in the order of blocks. Without an `old`, everything that is
    /// mapped in `new`.
    ///
    /// # Errors
    /// When there is no such device, or when a block cannot be read or is damaged.
    pub fn changes(
        &mut self,
        old: Option<DeviceId>,
        new: DeviceId,
    ) -> Result<Changes<'_, R>, Error> {
        let old = match old {
            Some(old) => self.mappings(old)?,
            None => Walk::empty(),
        };
        let new = self.mappings(new)?;
        Ok(Changes::new(
            &mut self.reader,
            old,
            new,
            self.superblock.data.blocks,
        ))
    }

    /// A walk through the mappings of a device.
    fn mappings(&mut self, device: DeviceId) -> Result<Walk<u64>, Error> {
        let Superblock {
            mappings, metadata, ..
        } = self.superblock;
        let limit = metadata.blocks;
        let root = look_up::<u64>(&mut self.reader, (mappings, limit), device.0.into())?
            .ok_or(Error::NoDevice { device })?;
        pointer(mappings, root, limit)?;
        Walk::begin(&mut self.reader, root, limit)
    }
}
