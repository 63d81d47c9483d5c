//! Btrfs: a volume is a subvolume, a snapshot a read-only one, a limit of size a quota of what a subvolume refers to.
//!
//! ```text
//! BASE/volumes/ID              a volume
//! BASE/snapshots/VOLUME/ID     a snapshot; with `.new` or `.gone` behind it one that is being made, or is going
//! BASE/notes/...               what is kept beside each of these
//! BASE/staging/...             the same of volumes: nothing there is anything yet, or any more
//! ```
//! The kernel moves a read-only subvolume to no other directory, and takes only one snapshot at a time into one.
//!
//! BASE lies on a btrfs that was there, or is the root of one on a loop file ([`pool`]). Quotas are turned on with the
//! first volume that has a limit: they make every write of the whole file system dearer.

mod instant;
mod pool;
mod quota;
mod request;
mod subvolume;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use drover_model::{BackendKind, ByteSize};
use drover_model::{SnapshotId, VolumeId};
use tracing::warn;

use crate::backend::{
    Abilities, Access, Backend, Object, PoolState, Shape, SnapshotRef, Source, Usage,
};
use crate::error::{Error, Result};
use crate::mounts;
use crate::notes::Notes;

use quota::limit_of;
use subvolume::{entries, open, remove_if_empty, rename, tree_of};

pub(crate) use pool::plain_state;
pub use pool::{LoopPool, is_btrfs};

/// How often, and after which pause, unmounting a pool is tried.
const RELEASE_TRIES: u32 = 40;
const RELEASE_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Volumes on a btrfs.
#[derive(Debug)]
pub struct Btrfs {
    base: PathBuf,
    notes: Notes,
    /// The file that the file system lies in, when it does in one.
    loop_file: Option<PathBuf>,
    /// Whether something was removed whose space is not free yet.
    removed: AtomicBool,
    /// Held while one subvolume takes the place of another: a directory that is read meanwhile shows neither of them.
    exchanging: RwLock<()>,
}

impl Btrfs {
    /// Volumes below a directory of a btrfs that is mounted.
    ///
    /// # Errors
    /// When the directory is on another file system, or cannot be written.
    pub fn open(base: &Path) -> Result<Self> {
        mounts::make_directory(base)?;
        if !is_btrfs(base)? {
            return Err(Error::Unavailable(format!(
                "`{}` is not on a btrfs",
                base.display()
            )));
        }
        Self::at(base, None)
    }

    /// Volumes on a btrfs in a loop file, which is made and mounted where it is not.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn open_loop(pool: &LoopPool) -> Result<Self> {
        let base = pool.mount()?;
        Self::at(&base, Some(pool.file.clone()))
    }

    fn at(base: &Path, loop_file: Option<PathBuf>) -> Result<Self> {
        let backend = Self {
            base: base.to_owned(),
            notes: Notes::open(base)?,
            loop_file,
            removed: AtomicBool::new(false),
            exchanging: RwLock::new(()),
        };
        for folder in ["volumes", "snapshots", "staging"] {
            mounts::make_directory(&backend.base.join(folder))?;
        }
        Ok(backend)
    }

    fn path(&self, object: &Object) -> PathBuf {
        match object {
            Object::Volume(volume) => self.base.join("volumes").join(volume.as_str()),
            Object::Snapshot(it) => self.snapshots_of(&it.volume).join(it.snapshot.as_str()),
        }
    }

    fn volume_path(&self, volume: &VolumeId) -> PathBuf {
        self.base.join("volumes").join(volume.as_str())
    }

    fn snapshots_of(&self, volume: &VolumeId) -> PathBuf {
        self.base.join("snapshots").join(volume.as_str())
    }

    fn existing(&self, object: &Object) -> Result<PathBuf> {
        let path = self.path(object);
        if path.is_dir() {
            Ok(path)
        } else {
            Err(Error::NotFound(object.to_string()))
        }
    }

    /// While this is held no volume is given another subvolume.
    fn settled(&self) -> RwLockReadGuard<'_, ()> {
        self.exchanging
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts each of two subvolumes in the place of the other.
    fn exchange(&self, one: &Path, other: &Path) -> Result<()> {
        let _nobody_looks = self
            .exchanging
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        let here = nix::fcntl::AT_FDCWD;
        nix::fcntl::renameat2(here, one, here, other, flags)
            .map_err(|errno| Error::system("put in place", other)(errno.into()))
    }

    fn staging(&self) -> PathBuf {
        self.base.join("staging")
    }

    fn place(&self) -> &Path {
        self.loop_file.as_deref().unwrap_or(&self.base)
    }
}

impl Backend for Btrfs {
    fn kind(&self) -> BackendKind {
        BackendKind::Btrfs
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            snapshots: true,
            no_size_limit: None,
            needs_size: false,
            file_systems: &[],
        }
    }

    fn create(&self, volume: &VolumeId, shape: &Shape) -> Result<()> {
        self.make(volume, shape.size, request::create)
    }

    fn clone_object(&self, volume: &VolumeId, source: &Source, shape: &Shape) -> Result<()> {
        let subvolume = open(&self.existing(source)?)?;
        self.make(volume, shape.size, |folder, name| {
            request::snapshot(&subvolume, folder, name, false)
        })
    }

    fn remove(&self, object: &Object) -> Result<()> {
        let path = self.path(object);
        if !path.exists() {
            return Ok(());
        }
        self.refuse_mounted(object)?;
        let (gone, folder) = match object {
            Object::Volume(volume) => (self.staging().join(format!("{volume}.gone")), None),
            Object::Snapshot(it) => {
                let folder = self.snapshots_of(&it.volume);
                (folder.join(format!("{}.gone", it.snapshot)), Some(folder))
            }
        };
        self.clear(&gone)?;
        rename(&path, &gone)?;
        self.notes.remove(object)?;
        self.destroy(&gone)?;
        if let Some(folder) = folder {
            remove_if_empty(&folder)?;
        }
        Ok(())
    }

    fn snapshot(&self, snapshots: &[SnapshotRef]) -> Result<()> {
        let mut plan = Vec::new();
        let mut there = Vec::new();
        for it in snapshots {
            let object = Object::Snapshot(it.clone());
            let place = self.path(&object);
            if place.exists() {
                there.push(object);
            }
            plan.push(instant::Wanted {
                subvolume: self.existing(&Object::Volume(it.volume.clone()))?,
                folder: self.snapshots_of(&it.volume),
                name: OsString::from(format!("{}.new", it.snapshot)),
                place,
            });
        }
        if there.len() == snapshots.len() {
            return Ok(());
        }
        // Some of an earlier attempt would be of another instant.
        for object in &there {
            self.remove(object)?;
        }
        instant::take(self, &plan)?;
        plan.iter()
            .try_for_each(|it| rename(&it.staged(), &it.place))
    }

    fn rollback(&self, snapshot: &SnapshotRef) -> Result<()> {
        let volume = Object::Volume(snapshot.volume.clone());
        let place = self.existing(&volume)?;
        let source = self.existing(&Object::Snapshot(snapshot.clone()))?;
        self.refuse_mounted(&volume)?;
        let root = open(&self.base)?;
        let name = OsString::from(format!("{}.rollback", snapshot.volume));
        let staged = self.stage(&name)?;
        let limited = limit_of(&root, &place)?;
        let made = request::snapshot(&open(&source)?, &open(&self.staging())?, &name, false);
        made.map_err(|errno| self.no_room("make the subvolume", &staged, errno))?;
        if let Some(size) = limited {
            self.limit(&staged, size)?;
        }
        self.exchange(&staged, &place)?;
        self.destroy(&staged)
    }

    fn resize(&self, volume: &VolumeId, size: ByteSize) -> Result<()> {
        let object = Object::Volume(volume.clone());
        let path = self.existing(&object)?;
        let used = self.usage(&object)?.used;
        if used.is_some_and(|used| used > size.bytes()) {
            return Err(Error::Invalid(format!(
                "{object} has more on it than {size}: remove something first"
            )));
        }
        self.limit(&path, size)
    }

    fn usage(&self, object: &Object) -> Result<Usage> {
        let _settled = self.settled();
        let path = self.existing(object)?;
        let root = open(&self.base)?;
        let counted = request::counted(&root, tree_of(&path)?)
            .map_err(|errno| Error::system("read the quota of", &path)(errno.into()))?;
        Ok(counted.map_or_else(Usage::default, |it| Usage {
            used: Some(it.referenced),
            exclusive: Some(it.exclusive),
        }))
    }

    fn attach(&self, object: &Object, at: &Path, access: Access) -> Result<()> {
        mounts::bind(&self.existing(object)?, at, access)
    }

    fn detach(&self, _object: &Object, at: &Path) -> Result<()> {
        mounts::release(at)
    }

    fn objects(&self) -> Result<BTreeSet<Object>> {
        let _settled = self.settled();
        let mut objects = BTreeSet::new();
        for (name, _) in entries(&self.base.join("volumes"))? {
            if let Ok(volume) = name.parse::<VolumeId>() {
                objects.insert(Object::Volume(volume));
            }
        }
        for (volume, folder) in entries(&self.base.join("snapshots"))? {
            let Ok(volume) = volume.parse::<VolumeId>() else {
                continue;
            };
            for (name, _) in entries(&folder)? {
                if let Ok(snapshot) = name.parse::<SnapshotId>() {
                    let volume = volume.clone();
                    objects.insert(Object::Snapshot(SnapshotRef { volume, snapshot }));
                }
            }
        }
        Ok(objects)
    }

    fn note(&self, object: &Object, text: &str) -> Result<()> {
        self.existing(object)?;
        self.notes.write(object, text)
    }

    fn notes(&self) -> Result<BTreeMap<Object, String>> {
        self.notes.read()
    }

    fn tidy(&self) -> Result<()> {
        self.notes.keep(|| self.objects())?;
        let mut left = entries(&self.staging())?;
        for (_, folder) in entries(&self.base.join("snapshots"))? {
            let unfinished = |(name, _): &(String, PathBuf)| name.parse::<SnapshotId>().is_err();
            left.extend(entries(&folder)?.into_iter().filter(unfinished));
        }
        for (name, path) in left {
            if let Err(error) = self.destroy(&path) {
                warn!(name, %error, "what is left of a volume could not be removed");
            }
        }
        for (_, folder) in entries(&self.base.join("snapshots"))? {
            remove_if_empty(&folder)?;
        }
        self.forget_quotas()?;
        self.reclaim()
    }

    fn reclaim(&self) -> Result<()> {
        if self.removed.swap(false, Ordering::Relaxed) {
            request::sync(&open(&self.base)?)
                .map_err(|errno| Error::system("sync", &self.base)(errno.into()))?;
        }
        Ok(())
    }

    fn close(&self, delete: bool) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        match &self.loop_file {
            Some(file) => {
                release_soon(&self.base)?;
                if delete {
                    pool::remove_file(file)?;
                    removed.push(format!("loop file {}", file.display()));
                }
            }
            None if delete => {
                for folder in ["volumes", "snapshots", "staging", "notes"] {
                    remove_if_empty(&self.base.join(folder))?;
                }
            }
            None => {}
        }
        Ok(removed)
    }

    fn pool(&self) -> Result<PoolState> {
        pool::state(&self.base, self.loop_file.as_deref())
    }

    fn device(&self, object: &Object) -> Result<Option<PathBuf>> {
        self.existing(object).map(|_| None)
    }
}

/// Unmounts the pool; somebody who asks how it is has it open for a moment.
fn release_soon(base: &Path) -> Result<()> {
    for _ in 0..RELEASE_TRIES {
        match mounts::release(base) {
            Err(Error::Busy(_)) => std::thread::sleep(RELEASE_PAUSE),
            other => return other,
        }
    }
    mounts::release(base)
}
