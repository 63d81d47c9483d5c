//! Where a repository's files lie: a directory of this host, or an object store or server behind a URL.
//!
//! Paths are those of a restic repository, relative to its root (`data/ab/ab12...`, `index/...`, `config`). A file is
//! there whole or not at all: what is written under a path is never seen half.

mod directory;
mod remote;
mod url;
#[cfg(test)]
pub(crate) mod watched;

use std::time::Duration;

use bytes::Bytes;
use drover_backup_protocol::Repository;

use crate::failure::Result;
pub(crate) use url::{Location, read_secret};

/// What restic waits between two looks at the locks.
const LISTING_DELAY: Duration = Duration::from_millis(200);

/// The folders in which files are left that were never finished, and what is in their names.
const SWEPT: [&str; 3] = ["data", "index", "snapshots"];
const UNFINISHED: &str = ".drover-";

/// The files of a repository.
pub(crate) trait Storage: Send + Sync + std::fmt::Debug {
    /// Where it is, for people.
    fn location(&self) -> String;

    /// The names and sizes of all files beneath a folder, at any depth; none when the folder is not there.
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>>;

    /// A whole file; `None` when it is not there.
    fn read(&self, path: &str) -> Result<Option<Bytes>>;

    /// A part of a file, which is as long as was asked for.
    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes>;

    /// Writes a file; when this returns, the file is on stable storage as far as the target says.
    fn write(&self, path: &str, content: &[Bytes]) -> Result<()>;

    /// Writes a file unless there is one already, which `false` says. A target that cannot tell writes it.
    fn write_new(&self, path: &str, content: &[Bytes]) -> Result<bool>;

    /// Removes a file; one that is not there is removed already.
    fn remove(&self, path: &str) -> Result<()>;

    /// The size of a file; `None` when it is not there.
    fn size(&self, path: &str) -> Result<Option<u64>>;

    /// Removes what is left of files that were never finished. Nobody else may be writing.
    fn sweep(&self) -> Result<()> {
        // What is not whole is not there.
        Ok(())
    }

    /// How long a file may be there before every process finds it in a list.
    fn listing_delay(&self) -> Duration {
        LISTING_DELAY
    }

    /// Makes what has to be there before the first file is written.
    fn create(&self) -> Result<()>;
}

/// The storage at a repository's URL.
pub(crate) fn open(repository: &Repository) -> Result<Box<dyn Storage>> {
    let location = url::parse(&repository.url)?;
    let options = url::options(repository.options_file.as_deref())?;
    Ok(match location {
        Location::Directory(path) => Box::new(directory::Directory::new(path)),
        remote => Box::new(remote::Remote::new(&remote, options, &repository.url)?),
    })
}
