//! A place for a backend, in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use drover_model::{SnapshotId, VolumeId};
use drover_storage::{
    Access, Backend, Btrfs, Directory, Error, LoopPool, Object, Shape, SnapshotRef, Thin, ThinPlace,
};
use drover_testkit::capability::{Capability, can_test};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

pub(crate) struct Lab {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) folder: TempDir,
    open: fn(&Path) -> Box<dyn Backend>,
}

/// Runs a test on every backend there is here.
pub(crate) fn each(test: fn(&Lab)) {
    test(&Lab::directory());
    if let Some(lab) = Lab::btrfs() {
        test(&lab);
    }
    if let Some(lab) = Lab::thin() {
        test(&lab);
    }
}

pub(crate) fn volume(number: u64) -> VolumeId {
    format!("{number:016x}").parse().unwrap()
}

pub(crate) fn snapshot(of: u64, number: u64) -> SnapshotRef {
    let snapshot: SnapshotId = format!("{number:016x}").parse().unwrap();
    SnapshotRef {
        volume: volume(of),
        snapshot,
    }
}

pub(crate) fn pool(folder: &Path) -> LoopPool {
    LoopPool {
        file: folder.join("btrfs.img"),
        at: folder.join("btrfs"),
        size: Some("256M".parse().unwrap()),
    }
}

fn open_directory(folder: &Path) -> Box<dyn Backend> {
    Box::new(Directory::open(&folder.join("directory")).unwrap())
}

fn open_btrfs(folder: &Path) -> Box<dyn Backend> {
    Box::new(Btrfs::open_loop(&pool(folder)).unwrap())
}

/// The program for LVM, of another package: in `DROVER_BIN`, or where cargo builds it.
fn drover_lvm() -> PathBuf {
    let folder = std::env::var_os("DROVER_BIN").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        let program = std::env::current_exe().unwrap();
        program.ancestors().nth(2).unwrap().to_owned()
    });
    folder.join("drover-lvm")
}

pub(crate) fn open_thin_at(place: ThinPlace, folder: &Path) -> Result<Thin, Error> {
    Thin::open(place, &drover_lvm(), &folder.join("thin"))
}

pub(crate) fn thin_file(folder: &Path) -> ThinPlace {
    ThinPlace::LoopFile {
        file: folder.join("thin.img"),
        size: Some("512M".parse().unwrap()),
    }
}

fn open_thin(folder: &Path) -> Box<dyn Backend> {
    Box::new(open_thin_at(thin_file(folder), folder).unwrap())
}

impl Lab {
    pub(crate) fn directory() -> Self {
        Self::new(open_directory)
    }

    /// `None` where there is no btrfs and none is required.
    pub(crate) fn btrfs() -> Option<Self> {
        Self::with(Capability::Btrfs, open_btrfs)
    }

    /// `None` where there is no device-mapper and none is required.
    pub(crate) fn thin() -> Option<Self> {
        Self::with(Capability::DeviceMapper, open_thin)
    }

    fn with(need: Capability, open: fn(&Path) -> Box<dyn Backend>) -> Option<Self> {
        can_test(&[need]).then(|| Self::new(open))
    }

    fn new(open: fn(&Path) -> Box<dyn Backend>) -> Self {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self {
            backend: open(folder.path()),
            folder,
            open,
        }
    }

    /// The backend as another process opens it, after this one was killed.
    pub(crate) fn reopen(&self) -> Box<dyn Backend> {
        (self.open)(self.folder.path())
    }

    pub(crate) fn has_snapshots(&self) -> bool {
        self.backend.abilities().snapshots
    }

    /// Makes a volume and attaches it.
    pub(crate) fn make(&self, number: u64) -> PathBuf {
        self.make_of(number, &Shape::default())
    }

    pub(crate) fn make_of(&self, number: u64, shape: &Shape) -> PathBuf {
        self.backend.create(&volume(number), shape).unwrap();
        self.attach(&Object::Volume(volume(number)))
    }

    pub(crate) fn place(&self, object: &Object) -> PathBuf {
        let name = object.to_string().replace(' ', "-");
        self.folder.path().join("mounts").join(name)
    }

    pub(crate) fn attach(&self, object: &Object) -> PathBuf {
        let at = self.place(object);
        let access = match object {
            Object::Volume(_) => Access::ReadWrite,
            Object::Snapshot(_) => Access::ReadOnly,
        };
        self.backend.attach(object, &at, access).unwrap();
        at
    }

    pub(crate) fn detach(&self, object: &Object) {
        self.backend.detach(object, &self.place(object)).unwrap();
    }
}

impl Lab {
    /// The volume group of a thin pool.
    pub(crate) fn group(&self) -> Option<String> {
        let place = self.backend.pool().ok()?.place;
        let (group, _) = place.split_once('/')?;
        (self.backend.kind().as_str() == "thin").then(|| group.to_owned())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let group = self.group();
        // The folder can be removed only once nothing is mounted in it.
        let mounts = drover_storage::mounts::list().unwrap();
        for it in mounts.iter().rev() {
            if it.at.starts_with(self.folder.path()) {
                let detach = nix::mount::MntFlags::MNT_DETACH;
                nix::mount::umount2(&it.at, detach).unwrap();
            }
        }
        // Then its loop device ends as well.
        if let Some(group) = group {
            let removed = Command::new("vgremove")
                .args(["-qq", "-f", &group])
                .status();
            assert!(removed.unwrap().success() || std::thread::panicking());
        }
    }
}
