//! The files of a repository as the rest of the worker sees them: counted, held to the bandwidth limit, read back
//! where it matters, and given to the library as its backend.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use drover_backup_protocol::{Failure, FailureKind};
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use crate::failure::{Result, damaged, failure, told};
use crate::report::Reporter;
use crate::storage::Storage;

/// The files of a repository.
#[derive(Debug)]
pub(crate) struct Files {
    storage: Box<dyn Storage>,
    reporter: Reporter,
    /// What went wrong first; the library would tell it only as text.
    failed: Mutex<Option<Failure>>,
    /// The key that was written by this process, if one was.
    key_written: Mutex<Option<Id>>,
    /// The only key that the library is shown; all of them without one.
    shown_key: Mutex<Option<Id>>,
    /// Snapshots that the library writes are not written.
    hold_snapshots: AtomicBool,
}

/// The path of a file of the repository.
pub(crate) fn path_of(kind: FileType, id: &Id) -> String {
    let name = id.to_hex();
    let name = name.as_str();
    match kind {
        FileType::Config => "config".to_owned(),
        FileType::Pack => {
            let (two, _) = name.split_at_checked(2).unwrap_or((name, ""));
            format!("data/{two}/{name}")
        }
        other => format!("{}/{name}", other.dirname()),
    }
}

impl Files {
    /// The files in a storage.
    pub(crate) const fn new(storage: Box<dyn Storage>, reporter: Reporter) -> Self {
        Self {
            storage,
            reporter,
            failed: Mutex::new(None),
            key_written: Mutex::new(None),
            shown_key: Mutex::new(None),
            hold_snapshots: AtomicBool::new(false),
        }
    }

    /// Where they are, for people.
    pub(crate) fn location(&self) -> String {
        self.storage.location()
    }

    /// How long a file may be there before every process finds it in a list.
    pub(crate) fn listing_delay(&self) -> Duration {
        self.storage.listing_delay()
    }

    /// Makes what has to be there before the first file is written.
    pub(crate) fn create(&self) -> Result<()> {
        self.storage.create()
    }

    /// All files of a kind with their sizes.
    pub(crate) fn list(&self, kind: FileType) -> Result<Vec<(Id, u64)>> {
        if kind == FileType::Config {
            let size = self.storage.size("config")?;
            return Ok(size.map(|size| (Id::default(), size)).into_iter().collect());
        }
        self.list_folder(kind.dirname())
    }

    /// All files of a folder whose names are ids.
    pub(crate) fn list_folder(&self, folder: &str) -> Result<Vec<(Id, u64)>> {
        let found = self.storage.list(folder)?;
        let ids = found.into_iter().filter(|(name, _)| name.len() == 64);
        Ok(ids
            .filter_map(|(name, size)| Some((name.parse().ok()?, size)))
            .collect())
    }

    /// A whole file by its path; `None` when it is not there.
    pub(crate) fn read_path(&self, path: &str) -> Result<Option<Bytes>> {
        let content = self.storage.read(path)?;
        if let Some(content) = &content {
            self.reporter.meter().fetch(content.len());
        }
        Ok(content)
    }

    /// A whole file, which has to be there.
    pub(crate) fn read(&self, kind: FileType, id: &Id) -> Result<Bytes> {
        let path = path_of(kind, id);
        self.read_path(&path)?
            .ok_or_else(|| damaged(&path, "it is not there"))
    }

    /// A part of a file.
    pub(crate) fn read_part(
        &self,
        kind: FileType,
        id: &Id,
        offset: u32,
        length: u32,
    ) -> Result<Bytes> {
        let path = path_of(kind, id);
        let content = self
            .storage
            .read_range(&path, offset.into(), length.into())?;
        self.reporter.meter().fetch(content.len());
        Ok(content)
    }

    /// Writes a file, and makes sure that the target has it: packs by their size, everything else by reading it.
    pub(crate) fn write(&self, kind: FileType, id: &Id, content: &[Bytes]) -> Result<()> {
        let path = path_of(kind, id);
        self.write_path(&path, content, kind != FileType::Pack)
    }

    /// Writes a file by its path.
    pub(crate) fn write_path(&self, path: &str, content: &[Bytes], read_back: bool) -> Result<()> {
        let length = content.iter().map(Bytes::len).sum();
        self.reporter.meter().send(length);
        self.storage.write(path, content)?;
        self.make_sure(path, content, read_back)
    }

    fn make_sure(&self, path: &str, content: &[Bytes], read_back: bool) -> Result<()> {
        let length: usize = content.iter().map(Bytes::len).sum();
        let kept = if read_back {
            let found = self.read_path(path)?;
            found.is_some_and(|found| found == content.concat())
        } else {
            let size = self.storage.size(path)?;
            size == u64::try_from(length).ok()
        };
        if kept {
            return Ok(());
        }
        let location = self.location();
        Err(failure(
            FailureKind::Damaged,
            format!(
                "`{location}` did not keep what was written to `{path}`: it cannot be trusted with backups"
            ),
        ))
    }

    /// Removes a file by its path.
    pub(crate) fn remove_path(&self, path: &str) -> Result<()> {
        self.storage.remove(path)
    }

    /// Removes what is left of files that were never finished. Nobody else may be writing.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.storage.sweep()
    }

    /// Whether snapshots that the library writes are not written: until everything was looked at.
    pub(crate) fn hold_snapshots(&self, hold: bool) {
        self.hold_snapshots.store(hold, Ordering::Relaxed);
    }

    /// Takes away the key that this process has written, when the repository became another's.
    pub(crate) fn withdraw_key(&self) -> Result<()> {
        let key = lock(&self.key_written).take();
        key.map_or(Ok(()), |id| self.remove_path(&path_of(FileType::Key, &id)))
    }

    /// Shows the library one key alone, or all of them again.
    pub(crate) fn show_key(&self, only: Option<Id>) {
        *lock(&self.shown_key) = only;
    }

    /// What an error of the library means: the failure of the target behind it, when there was one.
    pub(crate) fn explain(&self, error: &RusticError) -> Failure {
        if let Some(failed) = self.take_failure() {
            return failed;
        }
        failure(FailureKind::Damaged, told(error))
    }

    /// What went wrong first with the target since this was asked last.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        lock(&self.failed).take()
    }

    fn note(&self, failure: Failure) -> Box<RusticError> {
        // The braces of the library's own templates are not in our text.
        let text = failure.message.replace(['{', '}'], "");
        lock(&self.failed).get_or_insert(failure);
        RusticError::new(ErrorKind::Backend, text)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files as the library's backend.
#[derive(Debug, Clone)]
pub(crate) struct Backend(pub(crate) Arc<Files>);

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.0.location()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let files = self.0.list(kind).map_err(|error| self.0.note(error))?;
        let shown = lock(&self.0.shown_key).filter(|_| kind == FileType::Key);
        Ok(files
            .into_iter()
            .filter(|(id, _)| shown.is_none_or(|shown| shown == *id))
            .map(|(id, size)| (id, u32::try_from(size).unwrap_or(u32::MAX)))
            .collect())
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        self.0.read(kind, id).map_err(|error| self.0.note(error))
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        self.0
            .read_part(kind, id, offset, length)
            .map_err(|error| self.0.note(error))
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        path_of(kind, id)
    }
}

impl WriteBackend for Backend {
    fn create(&self) -> RusticResult<()> {
        self.0.create().map_err(|error| self.0.note(error))
    }

    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        let content = content.into_vec();
        if kind == FileType::Key {
            *lock(&self.0.key_written) = Some(*id);
        }
        if kind == FileType::Snapshot && self.0.hold_snapshots.load(Ordering::Relaxed) {
            return Ok(());
        }
        if kind != FileType::Config {
            let written = self.0.write(kind, id, &content);
            return written.map_err(|error| self.0.note(error));
        }
        // Of two hosts that make the same repository at once one has to be the second.
        let written = self.0.storage.write_new("config", &content);
        let sure = |new: bool| match new {
            true => self.0.make_sure("config", &content, true).map(|()| true),
            false => Ok(false),
        };
        match written.and_then(sure) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RusticError::new(
                ErrorKind::Repository,
                "another process has made the repository",
            )),
            Err(error) => Err(self.0.note(error)),
        }
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        self.0
            .remove_path(&path_of(kind, id))
            .map_err(|error| self.0.note(error))
    }
}

#[cfg(test)]
mod tests {
    use drover_backup_protocol::Repository;

    use super::*;
    use crate::storage;

    #[test]
    fn all_that_goes_there_and_comes_back_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let place = Repository {
            url: folder.path().display().to_string(),
            password_file: Default::default(),
            options_file: None,
            cache: None,
            keys: None,
            bandwidth: None,
        };
        let reporter = Reporter::new(Box::new(std::io::sink()));
        let files = Files::new(storage::open(&place).unwrap(), reporter.clone());
        let seen = || (reporter.meter().sent(), reporter.meter().fetched());
        let id = Id::new([1; 32]);
        let content = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        files.write(FileType::Pack, &id, &content).unwrap();
        assert_eq!(seen(), (6, 0));
        // Anything but a pack is read back.
        files.write(FileType::Index, &id, &content).unwrap();
        assert_eq!(seen(), (12, 6));
        files.read_part(FileType::Pack, &id, 2, 3).unwrap();
        files.read(FileType::Index, &id).unwrap();
        assert_eq!(seen(), (12, 15));
    }
}
