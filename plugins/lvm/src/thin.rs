//! Metadata of thin pools in use: read from a metadata snapshot, of which a pool holds one at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, Result};
use drover_lvm_protocol::{Answer, Metadata};
use drover_thin_metadata::{BLOCK_SIZE, Block, DeviceId, Pool, ReadBlock, View};
use nix::libc::O_DIRECT;

use crate::device_mapper::{self, DeviceMapper};

const RESERVE: &str = "reserve_metadata_snap";
const RELEASE: &str = "release_metadata_snap";

/// A device, read past the page cache: the kernel writes metadata behind it.
struct Direct(File);

impl ReadBlock for Direct {
    fn read_block(&mut self, number: u64, block: &mut Block) -> io::Result<()> {
        let offset = number
            .checked_mul(BLOCK_SIZE as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.0.read_exact_at(&mut block.0, offset)
    }
}

/// Makes thin devices snapshots of others while devices are suspended.
pub(crate) fn snapshots(
    pool: &str,
    suspend: &[String],
    snapshots: &[(u32, u32)],
) -> Result<Answer> {
    let mapper = DeviceMapper::open()?;
    let mut suspended = Vec::new();
    let done = suspend_all(&mapper, suspend, &mut suspended)
        .and_then(|()| snapshot_all(&mapper, pool, snapshots));
    let mut resumed = Ok(());
    for device in suspended {
        if let Err(error) = mapper.resume(device) {
            resumed = Err(error);
        }
    }
    done?;
    resumed?;
    Ok(Answer::Done)
}

fn suspend_all<'device>(
    mapper: &DeviceMapper,
    devices: &'device [String],
    suspended: &mut Vec<&'device str>,
) -> Result<(), device_mapper::Error> {
    for device in devices {
        if mapper.suspend(device)? {
            suspended.push(device);
        }
    }
    Ok(())
}

fn snapshot_all(
    mapper: &DeviceMapper,
    pool: &str,
    snapshots: &[(u32, u32)],
) -> Result<(), device_mapper::Error> {
    for (origin, snapshot) in snapshots {
        mapper.message(pool, &format!("delete {snapshot}"))?;
        mapper.message(pool, &format!("create_snap {snapshot} {origin}"))?;
    }
    Ok(())
}

/// A metadata snapshot, released in the end.
struct Reserved<'pool> {
    mapper: DeviceMapper,
    pool: &'pool str,
}

impl<'pool> Reserved<'pool> {
    fn take(pool: &'pool str) -> Result<Self> {
        let mapper = DeviceMapper::open()?;
        release_left_over(&mapper, pool)?;
        mapper.message(pool, RESERVE)?;
        Ok(Self { mapper, pool })
    }

    fn release(self) -> Result<()> {
        self.mapper.message(self.pool, RELEASE)?;
        Ok(())
    }
}

/// Releases the metadata snapshot that a process which was killed has left.
pub(crate) fn release_left_over(mapper: &DeviceMapper, pool: &str) -> Result<bool> {
    // Transaction, metadata, data, and the block of the snapshot, or a hyphen when none is held.
    let held = mapper.status(pool)?.is_some_and(|target| {
        let word = target.status.split_whitespace().nth(3);
        word.is_some_and(|held| held != "-")
    });
    if held {
        mapper.message(pool, RELEASE)?;
    }
    Ok(held)
}

/// Does something with the metadata of a pool as it is now.
fn with_metadata<T>(
    metadata: &Metadata,
    work: impl FnOnce(&mut Pool<Direct>) -> Result<T>,
) -> Result<T> {
    let reserved = Reserved::take(&metadata.pool)?;
    let done = open(metadata).and_then(|mut pool| work(&mut pool));
    let released = reserved.release();
    let done = done?;
    released?;
    Ok(done)
}

fn open(metadata: &Metadata) -> Result<Pool<Direct>> {
    let path = device_mapper::path(&metadata.metadata);
    let device = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECT)
        .open(&path)
        .with_context(|| format!("opening `{}`", path.display()))?;
    Ok(Pool::open(Direct(device), View::Snapshot)?)
}

/// The thin devices of a pool.
pub(crate) fn devices(metadata: &Metadata) -> Result<Answer> {
    with_metadata(metadata, |pool| {
        let devices = pool.devices()?;
        Ok(Answer::ThinDevices {
            block_size: pool.superblock().data_block_size,
            devices: devices
                .iter()
                .map(|device| (device.id.0, device.mapped_blocks))
                .collect(),
        })
    })
}

/// The ranges in which one thin device differs from another.
pub(crate) fn changes(metadata: &Metadata, old: Option<u32>, new: u32) -> Result<Answer> {
    with_metadata(metadata, |pool| {
        let block_size = pool.superblock().data_block_size;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for change in pool.changes(old.map(DeviceId), DeviceId(new))? {
            let blocks = change?.blocks;
            let start = blocks.start.saturating_mul(block_size);
            let length = (blocks.end - blocks.start).saturating_mul(block_size);
            match ranges.last_mut() {
                // Changes of another kind.
                Some((before, until)) if *before + *until == start => *until += length,
                _ => ranges.push((start, length)),
            }
        }
        Ok(Answer::ThinChanges { ranges })
    })
}
