//! A plain directory a volume, on whatever file system there is: no snapshots, no clones, no limit of size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use drover_model::{BackendKind, ByteSize, VolumeId};
use tracing::warn;

use crate::backend::{
    Abilities, Access, Backend, Object, PoolState, Shape, SnapshotRef, Source, Usage,
};
use crate::btrfs::plain_state;
use crate::error::{Error, Result};
use crate::mounts;
use crate::notes::Notes;

/// Volumes in a directory.
#[derive(Debug)]
pub struct Directory {
    base: PathBuf,
    notes: Notes,
}

const NO_SNAPSHOTS: &str = "volumes in plain directories have no snapshots, clones or rollbacks: use the backend \
                            `btrfs` or `thin` (`volumes.backend`)";
const NO_LIMIT: &str = "volumes in plain directories have no limit of size: leave out `size`, or use the backend \
                        `btrfs` or `thin` (`volumes.backend`)";

impl Directory {
    /// Volumes below a directory, which is made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(base: &Path) -> Result<Self> {
        let base = base.to_owned();
        for folder in ["volumes", "staging"] {
            mounts::make_directory(&base.join(folder))?;
        }
        let notes = Notes::open(&base)?;
        Ok(Self { base, notes })
    }

    fn path(&self, object: &Object) -> Result<PathBuf> {
        match object {
            Object::Volume(volume) => Ok(self.base.join("volumes").join(volume.as_str())),
            Object::Snapshot(_) => Err(Error::NotFound(object.to_string())),
        }
    }

    fn existing(&self, object: &Object) -> Result<PathBuf> {
        let path = self.path(object)?;
        if path.is_dir() {
            Ok(path)
        } else {
            Err(Error::NotFound(object.to_string()))
        }
    }
}

impl Backend for Directory {
    fn kind(&self) -> BackendKind {
        BackendKind::Directory
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            snapshots: false,
            no_size_limit: Some(NO_LIMIT.to_owned()),
            needs_size: false,
            file_systems: &[],
        }
    }

    fn create(&self, volume: &VolumeId, shape: &Shape) -> Result<()> {
        if shape.size.is_some() {
            return Err(Error::Unsupported(NO_LIMIT.to_owned()));
        }
        let place = self.path(&Object::Volume(volume.clone()))?;
        if place.exists() {
            return Ok(());
        }
        let staged = self.base.join("staging").join(volume.as_str());
        mounts::make_directory(&staged)?;
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o755))
            .and_then(|()| fs::rename(&staged, &place))
            .map_err(Error::system("make", &place))
    }

    fn clone_object(&self, _volume: &VolumeId, _source: &Source, _shape: &Shape) -> Result<()> {
        Err(Error::Unsupported(NO_SNAPSHOTS.to_owned()))
    }

    fn remove(&self, object: &Object) -> Result<()> {
        let Object::Volume(volume) = object else {
            return Ok(());
        };
        let path = self.path(object)?;
        if !path.exists() {
            return Ok(());
        }
        for mount in mounts::list()? {
            if mount
                .root
                .ends_with(path.strip_prefix(&self.base).unwrap_or(&path))
                && mounts::is_same(&mount.at, &path).unwrap_or(false)
            {
                return Err(Error::Busy(object.to_string()));
            }
        }
        let gone = self.base.join("staging").join(format!("{volume}.gone"));
        remove_all(&gone)?;
        fs::rename(&path, &gone).map_err(Error::system("remove", &path))?;
        self.notes.remove(object)?;
        remove_all(&gone)
    }

    fn snapshot(&self, _snapshots: &[SnapshotRef]) -> Result<()> {
        Err(Error::Unsupported(NO_SNAPSHOTS.to_owned()))
    }

    fn rollback(&self, _snapshot: &SnapshotRef) -> Result<()> {
        Err(Error::Unsupported(NO_SNAPSHOTS.to_owned()))
    }

    fn resize(&self, _volume: &VolumeId, _size: ByteSize) -> Result<()> {
        Err(Error::Unsupported(NO_LIMIT.to_owned()))
    }

    fn usage(&self, object: &Object) -> Result<Usage> {
        self.existing(object).map(|_| Usage::default())
    }

    fn attach(&self, object: &Object, at: &Path, access: Access) -> Result<()> {
        mounts::bind(&self.existing(object)?, at, access)
    }

    fn detach(&self, _object: &Object, at: &Path) -> Result<()> {
        mounts::release(at)
    }

    fn objects(&self) -> Result<BTreeSet<Object>> {
        let folder = self.base.join("volumes");
        let entries = fs::read_dir(&folder).map_err(Error::system("list", &folder))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names
            .filter_map(|name| name.to_str()?.parse().ok().map(Object::Volume))
            .collect())
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
        let folder = self.base.join("staging");
        let entries = fs::read_dir(&folder).map_err(Error::system("list", &folder))?;
        for entry in entries.flatten() {
            if let Err(error) = remove_all(&entry.path()) {
                warn!(%error, "what is left of a volume could not be removed");
            }
        }
        Ok(())
    }

    fn close(&self, delete: bool) -> Result<Vec<String>> {
        if delete {
            for folder in ["volumes", "staging", "notes"] {
                // Only what is empty: what is in use is not there any more.
                match fs::remove_dir(self.base.join(folder)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::system("remove", self.base.join(folder))(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(Vec::new())
    }

    fn pool(&self) -> Result<PoolState> {
        plain_state(&self.base)
    }

    fn device(&self, object: &Object) -> Result<Option<PathBuf>> {
        self.existing(object).map(|_| None)
    }
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove", path)(error))
        }
        _ => Ok(()),
    }
}
