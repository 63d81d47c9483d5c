//! Reads the metadata of device-mapper thin pools: which thin devices there are, and which blocks differ between two
//! of them. The format is that of `drivers/md/dm-thin-metadata.c` and `drivers/md/persistent-data` of the kernel.
//!
//! A snapshot shares with its origin all nodes of the btree in which nothing has been written since; the comparison
//! skips them unread, so that it costs what has changed and not what there is.
//!
//! Nothing is believed: the checksum, number, shape and order of every node that is read are verified. Damaged metadata,
//! and metadata that someone forged with valid checksums, is an [`Error`], and never a panic or work without an end.
//! Nothing is written, and space maps are not checked: that is what `thin_check` is for.
//!
//! It does no I/O of its own: [`ReadBlock`] brings the blocks. A pool that is in use is read by its metadata snapshot
//! ([`View::Snapshot`]), which the kernel's message `reserve_metadata_snap` makes, past the page cache.

mod block;
mod btree;
mod changes;
mod error;
mod node;
mod pool;
mod superblock;

pub use block::{BLOCK_SIZE, Block, ReadBlock};
pub use changes::{Change, ChangeKind, Changes};
pub use error::{Error, Fault};
pub use pool::{Device, DeviceId, Pool};
pub use superblock::{Superblock, Usage, View};
