//! A repository in a directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_backup_protocol::{Failure, FailureKind};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
    XFS_SUPER_MAGIC, statfs,
};

use super::{LISTING_DELAY, SWEPT, Storage, UNFINISHED};
use crate::failure::{Result, failure};

/// The folders of a repository.
const FOLDERS: &[&str] = &["data", "index", "keys", "locks", "snapshots"];

/// File systems of this host alone.
const LOCAL: &[FsType] = &[
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
];

/// The repository in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// Makes names of files that are being written unlike each other.
    serial: AtomicU64,
}

impl Directory {
    /// The repository in the directory at `root`.
    pub(super) const fn new(root: PathBuf) -> Self {
        Self {
            root,
            serial: AtomicU64::new(0),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What an error means for whoever asked.
    fn explain(path: &Path, doing: &str, error: &std::io::Error) -> Failure {
        let name = path.display();
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => failure(
                FailureKind::Full,
                format!(
                    "{doing} `{name}`: no space is left: make room, then ask again; what was sent is kept"
                ),
            ),
            _ => failure(
                FailureKind::Unreachable,
                format!("{doing} `{name}`: {error}"),
            ),
        }
    }

    /// Calls `see` with the path and the size of each file beneath a folder.
    fn walk(folder: &Path, see: &mut impl FnMut(PathBuf, u64)) -> std::io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                Self::walk(&entry.path(), see)?;
            } else if kind.is_file() {
                match entry.metadata() {
                    Ok(metadata) => see(entry.path(), metadata.len()),
                    // Another process has removed it meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn name_of(path: &Path) -> Option<&str> {
        path.file_name()?.to_str()
    }

    /// Writes a file beside its place, and gives it its name when it is whole. What `lasts` is on the disk then.
    fn write_whole(
        &self,
        path: &Path,
        content: &[Bytes],
        lasts: bool,
        give_name: fn(&Path, &Path) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // restic ignores files of other names than its own in these folders.
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{}-{serial}", std::process::id());
        let unfinished = folder.join(name);
        let written = Self::write_new(&unfinished, content, lasts)
            .and_then(|()| give_name(&unfinished, path))
            .and_then(|()| match lasts {
                true => File::open(folder)?.sync_all(),
                false => Ok(()),
            });
        match fs::remove_file(&unfinished) {
            // It has its name, or was never made; else it is one file too many, which nobody reads.
            Ok(()) | Err(_) => written,
        }
    }

    fn write_new(path: &Path, content: &[Bytes], lasts: bool) -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        for part in content {
            file.write_all(part)?;
        }
        if lasts {
            file.sync_all()?;
        }
        Ok(())
    }
}

impl Storage for Directory {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let folder = self.path(folder);
        let mut found = Vec::new();
        let walked = Self::walk(&folder, &mut |path, size| {
            found.extend(Self::name_of(&path).map(|name| (name.to_owned(), size)));
        });
        match walked {
            Ok(()) => Ok(found),
            Err(error) => Err(Self::explain(&folder, "listing", &error)),
        }
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>> {
        let path = self.path(path);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::explain(&path, "reading", &error)),
        }
    }

    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes> {
        let path = self.path(path);
        let mut content = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        File::open(&path)
            .and_then(|file| file.read_exact_at(&mut content, offset))
            .map_err(|error| Self::explain(&path, "reading", &error))?;
        Ok(content.into())
    }

    fn write(&self, path: &str, content: &[Bytes]) -> Result<()> {
        // A lock is good for as long as its process lives, and no process outlives its machine.
        let lasts = !path.starts_with("locks/");
        let path = self.path(path);
        self.write_whole(&path, content, lasts, |from, to| fs::rename(from, to))
            .map_err(|error| Self::explain(&path, "writing", &error))
    }

    fn write_new(&self, path: &str, content: &[Bytes]) -> Result<bool> {
        let path = self.path(path);
        match self.write_whole(&path, content, true, |from, to| fs::hard_link(from, to)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Self::explain(&path, "writing", &error)),
        }
    }

    fn remove(&self, path: &str) -> Result<()> {
        let path = self.path(path);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Self::explain(&path, "removing", &error)),
        }
    }

    fn size(&self, path: &str) -> Result<Option<u64>> {
        let path = self.path(path);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::explain(&path, "looking for", &error)),
        }
    }

    fn sweep(&self) -> Result<()> {
        for folder in SWEPT {
            let folder = self.path(folder);
            let mut unfinished = Vec::new();
            let walked = Self::walk(&folder, &mut |path, _| {
                if Self::name_of(&path).is_some_and(|name| name.starts_with(UNFINISHED)) {
                    unfinished.push(path);
                }
            });
            walked
                .and_then(|()| unfinished.iter().try_for_each(fs::remove_file))
                .map_err(|error| Self::explain(&folder, "clearing", &error))?;
        }
        Ok(())
    }

    fn listing_delay(&self) -> Duration {
        match statfs(&self.root) {
            Ok(found) if LOCAL.contains(&found.filesystem_type()) => Duration::ZERO,
            // It is on another host, or there is none.
            Ok(_) | Err(_) => LISTING_DELAY,
        }
    }

    fn create(&self) -> Result<()> {
        for folder in FOLDERS {
            let path = self.path(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| Self::explain(&path, "making", &error))?;
        }
        Ok(())
    }
}
