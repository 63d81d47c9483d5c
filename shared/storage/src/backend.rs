//! The trait that every backend implements.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use drover_model::{BackendKind, ByteSize, FileSystem, SnapshotId, VolumeId};

use crate::error::Result;

/// What a backend can do, for messages and refusals before anything is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Whether it takes snapshots; clones and rollbacks come with them.
    pub snapshots: bool,
    /// Why a volume cannot have a limit of size; `None` when it can.
    pub no_size_limit: Option<String>,
    /// Whether every volume has one, because it is a device.
    pub needs_size: bool,
    /// The file systems it can make; empty when there is nothing to choose.
    pub file_systems: &'static [FileSystem],
}

/// What a new volume is to be. The owner and mode of its root directory are not the backend's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// How much is to fit on it; `None` for as much as the pool holds, or the backend's own default.
    pub size: Option<ByteSize>,
    /// The file system; `None` for the backend's own choice.
    pub file_system: Option<FileSystem>,
    /// Arguments of the program that makes it.
    pub mkfs_options: Vec<String>,
}

/// One snapshot of one volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotRef {
    /// The volume it was taken of. It may be gone since.
    pub volume: VolumeId,
    /// The snapshot.
    pub snapshot: SnapshotId,
}

/// Something that a backend keeps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A volume.
    Volume(VolumeId),
    /// A snapshot.
    Snapshot(SnapshotRef),
}

/// What a clone is a clone of.
pub type Source = Object;

/// Who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever may.
    ReadWrite,
    /// Nobody.
    ReadOnly,
}

/// How much an object takes, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is on it, what it shares with others included; `None` where counting takes a walk over every file
    /// ([`crate::walk`]).
    pub used: Option<u64>,
    /// What would be free if it alone were removed; `None` where nobody knows.
    pub exclusive: Option<u64>,
}

/// How a pool is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Where it is, for people: a device, a loop file, a directory.
    pub place: String,
    /// What it holds, bytes.
    pub capacity: u64,
    /// What is used of that, bytes.
    pub used: u64,
    /// How much of the space for metadata is used, percent; `None` where there is no such space.
    pub metadata_percent: Option<u8>,
    /// What is not as it should be, a sentence each; empty when all is well.
    pub complaints: Vec<String>,
}

/// A place for volumes.
///
/// Every method may be called again after a kill in the middle of it, with the same arguments, and then finishes the work:
/// creating what is there and removing what is not there succeed. An object is complete or absent: what a kill left
/// half made is never listed, and is removed by [`Backend::tidy`].
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> BackendKind;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Makes an empty volume. Its root directory is 0755 and root's, and there is nothing in it.
    ///
    /// # Errors
    /// When it cannot be, there is no room, or the pool is not usable.
    fn create(&self, volume: &VolumeId, shape: &Shape) -> Result<()>;

    /// Makes a volume with the content of another, or of a snapshot, at once, sharing what is the same. The size of
    /// the shape, if it is given, is not less than the source's where that matters.
    ///
    /// # Errors
    /// When the source is not there, the backend cannot, or there is no room.
    fn clone_object(&self, volume: &VolumeId, source: &Source, shape: &Shape) -> Result<()>;

    /// Removes a volume or a snapshot that is attached nowhere. Snapshots of a volume outlive it.
    ///
    /// # Errors
    /// When it is in use, or the pool is not usable.
    fn remove(&self, object: &Object) -> Result<()>;

    /// Takes a snapshot of each of these volumes, all at one instant, or none of them: no write that was begun after
    /// another had been acknowledged is in one snapshot without that other in its own. They are read-only.
    ///
    /// # Errors
    /// When a volume is not there, the backend cannot, or there is no room.
    fn snapshot(&self, snapshots: &[SnapshotRef]) -> Result<()>;

    /// Puts the content of a snapshot in the place of its volume's, which is attached nowhere. The snapshot stays.
    ///
    /// # Errors
    /// When either is not there, the volume is in use, or the backend cannot.
    fn rollback(&self, snapshot: &SnapshotRef) -> Result<()>;

    /// Sets how much fits on a volume, attached or not.
    ///
    /// # Errors
    /// When that is less than what is on it, or less than before on a backend that only grows, or the backend cannot.
    fn resize(&self, volume: &VolumeId, size: ByteSize) -> Result<()>;

    /// How much an object takes.
    ///
    /// # Errors
    /// When it is not there.
    fn usage(&self, object: &Object) -> Result<Usage>;

    /// Mounts an object at a directory, which is made if it is missing. One that is mounted there already stays so.
    ///
    /// # Errors
    /// When it is not there, or something else is mounted at that place.
    fn attach(&self, object: &Object, at: &Path, access: Access) -> Result<()>;

    /// Unmounts what is mounted at that directory, and removes the directory. Nothing mounted there is no fault.
    ///
    /// # Errors
    /// When it is in use.
    fn detach(&self, object: &Object, at: &Path) -> Result<()>;

    /// What there is, complete.
    ///
    /// # Errors
    /// When the pool is not usable.
    fn objects(&self) -> Result<BTreeSet<Object>>;

    /// Keeps a text beside an object, in the place of an earlier one, as long as the object is there. It is for whoever has
    /// lost what else was known of it. A rollback may lose it.
    ///
    /// # Errors
    /// When the object is not there, the text is longer than some thousand bytes, or it cannot be written.
    fn note(&self, object: &Object, text: &str) -> Result<()>;

    /// The notes of objects that have one.
    ///
    /// # Errors
    /// When the pool is not usable.
    fn notes(&self) -> Result<BTreeMap<Object, String>>;

    /// Removes what a kill left half made. Nothing else may be under way.
    ///
    /// # Errors
    /// When the pool is not usable.
    fn tidy(&self) -> Result<()>;

    /// Has the space of what was removed freed soon.
    ///
    /// # Errors
    /// When the pool is not usable.
    fn reclaim(&self) -> Result<()> {
        Ok(())
    }

    /// Lets go of what the pool lies on, of which nothing may be in use, and with `delete` removes it, as far as it was made
    /// here. Tells what was removed, as a person reads it. A backend that keeps nothing mounted of its own has nothing to do.
    ///
    /// # Errors
    /// When something is in use, or cannot be removed.
    fn close(&self, delete: bool) -> Result<Vec<String>> {
        let _nothing_to_remove = delete;
        Ok(Vec::new())
    }

    /// How the pool is.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn pool(&self) -> Result<PoolState>;

    /// The ranges of the device of a snapshot, in bytes, that may differ from an older one of the same volume: in
    /// order, and not touching. Without an older one, the ranges that may hold anything but zeros. `None` on backends
    /// of files, and of devices that cannot tell.
    ///
    /// # Errors
    /// When either is not there, or the pool is not usable.
    fn changes(
        &self,
        _since: Option<&SnapshotRef>,
        _snapshot: &SnapshotRef,
    ) -> Result<Option<Vec<Range<u64>>>> {
        Ok(None)
    }

    /// The block device of an object, readable while it is attached; `None` on backends of files.
    ///
    /// # Errors
    /// When the object is not there.
    fn device(&self, object: &Object) -> Result<Option<PathBuf>>;
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(volume) => write!(formatter, "volume {volume}"),
            Self::Snapshot(it) => write!(formatter, "snapshot {} of {}", it.snapshot, it.volume),
        }
    }
}

impl From<SnapshotRef> for Object {
    fn from(snapshot: SnapshotRef) -> Self {
        Self::Snapshot(snapshot)
    }
}
