//! Notes beside objects, a file each, for backends of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::backend::{Object, SnapshotRef};
use crate::error::{Error, Result};

/// The notes of a pool.
#[derive(Debug)]
pub(crate) struct Notes {
    folder: PathBuf,
}

impl Notes {
    /// Those below the directory of a pool; their folder is made if it is missing.
    pub(crate) fn open(base: &Path) -> Result<Self> {
        let folder = base.join("notes");
        crate::mounts::make_directory(&folder)?;
        Ok(Self { folder })
    }

    /// Writes a note down, in the place of an earlier one: whole, and on the disk when this returns.
    pub(crate) fn write(&self, object: &Object, text: &str) -> Result<()> {
        let path = self.folder.join(name(object));
        let new = path.with_extension("new");
        let written = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        written().map_err(Error::system("write the note", &path))
    }

    /// The notes that there are.
    pub(crate) fn read(&self) -> Result<BTreeMap<Object, String>> {
        let mut notes = BTreeMap::new();
        for (object, path) in self.files()? {
            let text = fs::read_to_string(&path).map_err(Error::system("read the note", &path))?;
            notes.insert(object, text);
        }
        Ok(notes)
    }

    /// Removes the notes of what is not there any more.
    pub(crate) fn keep(&self, objects: impl FnOnce() -> Result<BTreeSet<Object>>) -> Result<()> {
        // First: what is made and noted from now on is none of these.
        let files = self.files()?;
        let objects = objects()?;
        for (object, path) in files {
            if !objects.contains(&object) {
                fs::remove_file(&path).map_err(Error::system("remove the note", &path))?;
            }
        }
        Ok(())
    }

    /// Removes the note of an object, if it has one.
    pub(crate) fn remove(&self, object: &Object) -> Result<()> {
        let path = self.folder.join(name(object));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::system("remove the note", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn files(&self) -> Result<Vec<(Object, PathBuf)>> {
        let entries = fs::read_dir(&self.folder).map_err(Error::system("list", &self.folder))?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths
            .filter_map(|path| Some((parse(path.file_name()?.to_str()?)?, path)))
            .collect())
    }
}

fn name(object: &Object) -> String {
    match object {
        Object::Volume(volume) => volume.to_string(),
        Object::Snapshot(it) => format!("{}_{}", it.volume, it.snapshot),
    }
}

/// `None` for a note that a kill left half written, too.
fn parse(name: &str) -> Option<Object> {
    let Some((volume, snapshot)) = name.split_once('_') else {
        return Some(Object::Volume(name.parse().ok()?));
    };
    Some(Object::Snapshot(SnapshotRef {
        volume: volume.parse().ok()?,
        snapshot: snapshot.parse().ok()?,
    }))
}
