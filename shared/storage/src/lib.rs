//! Where volumes lie: one trait, [`Backend`], and what implements it.
//!
//! A backend does what it is told, on the disk, and keeps no record of its own: what there is it reads from the disk, and
//! a volume or snapshot that is half made is not there ([`Backend::objects`]). Calls block; callers run them on threads
//! that may. Everything made here is marked as ours, and nothing unmarked is touched.

mod backend;
mod btrfs;
mod directory;
mod error;
pub mod loop_file;
pub mod mounts;
mod notes;
pub mod program;
mod space;
mod thin;
pub mod walk;

pub use backend::{
    Abilities, Access, Backend, Object, PoolState, Shape, SnapshotRef, Source, Usage,
};
pub use btrfs::{Btrfs, LoopPool, is_btrfs};
pub use directory::Directory;
pub use error::{Error, ErrorKind, Result};
pub use thin::{Thin, ThinPlace, find_thin_group, missing_for_thin};
