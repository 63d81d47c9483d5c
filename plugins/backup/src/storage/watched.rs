//! A storage for tests: it counts what it is asked, and has files appear while it is being looked at.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use drover_backup_protocol::Repository;

use super::Storage;
use crate::failure::Result;

/// A repository in a folder, with its password file and the keys that are known beside it.
pub(crate) fn place(folder: &Path) -> Repository {
    Repository {
        url: folder.join("repository").display().to_string(),
        password_file: folder.join("password"),
        options_file: None,
        cache: None,
        keys: Some(folder.join("keys")),
        bandwidth: None,
    }
}

/// What was seen, and what is shown.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// How often something was listed.
    pub(crate) lists: AtomicUsize,
    /// How often a key was read.
    pub(crate) keys: AtomicUsize,
    /// The names of files that are not there yet.
    pub(crate) late: HashSet<String>,
    /// After so many lists they are there, all at once.
    pub(crate) after: usize,
}

impl Watch {
    fn shows(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        !self.late.contains(name) || self.lists.load(Ordering::Relaxed) > self.after
    }
}

/// A storage that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    /// What it is.
    pub(crate) inner: Box<dyn Storage>,
    /// By whom.
    pub(crate) watch: Arc<Watch>,
}

impl Storage for Watched {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        self.watch.lists.fetch_add(1, Ordering::Relaxed);
        let mut found = self.inner.list(folder)?;
        found.retain(|(name, _)| self.watch.shows(name));
        Ok(found)
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>> {
        if path.starts_with("keys/") {
            self.watch.keys.fetch_add(1, Ordering::Relaxed);
        }
        if self.watch.shows(path) {
            return self.inner.read(path);
        }
        Ok(None)
    }

    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.inner.read_range(path, offset, length)
    }

    fn write(&self, path: &str, content: &[Bytes]) -> Result<()> {
        self.inner.write(path, content)
    }

    fn write_new(&self, path: &str, content: &[Bytes]) -> Result<bool> {
        self.inner.write_new(path, content)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.inner.remove(path)
    }

    fn size(&self, path: &str) -> Result<Option<u64>> {
        self.inner.size(path)
    }

    fn create(&self) -> Result<()> {
        self.inner.create()
    }
}
