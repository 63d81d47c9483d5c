//! An opened repository: its files, its key, its lock.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use drover_backup_protocol::{Failure, FailureKind, Repository as Place};
use rustic_core::repofile::{KeyFile, SnapshotFile};
use rustic_core::{
    ConfigOptions, Credentials, FileType, Id, KeyOptions, OpenStatus, Repository,
    RepositoryBackends, RepositoryOptions, RusticError,
};
use zeroize::Zeroizing;

use crate::codec::{Codec, hash};
use crate::failure::{Result, damaged, failure, internal, told};
use crate::fetch;
use crate::files::{Backend, Files, path_of};
use crate::index::Index;
use crate::known::Known;
use crate::lock::{Lock, Mode};
use crate::report::{Bars, Reporter};
use crate::storage::{self, Storage};

/// The format of repositories that is read and written.
const VERSION: u32 = 2;

/// Packs are closed when they have this size, bytes: as restic does by default.
pub(crate) const PACK_SIZE: usize = 16 << 20;

/// An opened repository.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its files.
    pub(crate) files: Arc<Files>,
    /// The library's view of it.
    pub(crate) repository: Repository<OpenStatus>,
    /// Its key at work.
    pub(crate) codec: Codec,
    /// Who is told how far the work is.
    pub(crate) reporter: Reporter,
    place: Place,
}

/// Whether a repository is made where none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    /// It is a failure that there is none.
    Never,
    /// It is made.
    IfMissing,
}

impl Session {
    /// Opens a repository; with it comes whether it was made now.
    pub(crate) fn open(place: &Place, make: Make, reporter: &Reporter) -> Result<(Self, bool)> {
        Self::of(storage::open(place)?, place, make, reporter)
    }

    /// Opens the repository in a storage.
    pub(crate) fn of(
        storage: Box<dyn Storage>,
        place: &Place,
        make: Make,
        reporter: &Reporter,
    ) -> Result<(Self, bool)> {
        reporter.meter().limit(place.bandwidth);
        let password = password(&place.password_file)?;
        let files = Arc::new(Files::new(storage, reporter.clone()));
        let there = !files.list(FileType::Config)?.is_empty();
        if !there && make == Make::Never {
            return Err(missing(&files));
        }
        let new = match there {
            true => None,
            false => init(&files, place, &password, reporter)?,
        };
        let made = new.is_some();
        let repository = match new {
            Some(repository) => repository,
            None => unlock(&files, place, &password, reporter)?,
        };
        let version = repository.config().version;
        if version != VERSION {
            return Err(other_version(&files, version));
        }
        let codec = Codec::new(&repository.key())?;
        let session = Self {
            files,
            repository,
            codec,
            reporter: reporter.clone(),
            place: place.clone(),
        };
        Ok((session, made))
    }

    /// Takes a lock on it.
    pub(crate) fn lock(&self, mode: Mode) -> Result<Lock> {
        Lock::take(&self.files, &self.codec, mode)
    }

    /// Takes a lock on it and reads its index, which nobody makes wrong meanwhile.
    pub(crate) fn lock_and_load(&self, mode: Mode) -> Result<(Lock, Index)> {
        let (lock, index) = Lock::take_while(&self.files, &self.codec, mode, || Index::load(self))?;
        Ok((lock, index?))
    }

    /// The library's view once more, to be used up; the key is not derived again.
    pub(crate) fn reopen(&self) -> Result<Repository<OpenStatus>> {
        library(&self.files, &self.place, &self.reporter)?
            .open(&Credentials::Masterkey(self.repository.key()))
            .map_err(|error| self.explain(&error))
    }

    /// The repository's id.
    pub(crate) fn id(&self) -> String {
        self.repository.config().id.to_hex().as_str().to_owned()
    }

    /// All snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> Result<Vec<SnapshotFile>> {
        let listed = self.files.list(FileType::Snapshot)?;
        let read = Mutex::new(Vec::with_capacity(listed.len()));
        fetch::beside(&listed, |(id, _)| {
            // Another process may have forgotten it meanwhile.
            let snapshot = self.read_snapshot(*id)?;
            read.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(snapshot);
            Ok(())
        })?;
        let mut snapshots = read.into_inner().unwrap_or_else(PoisonError::into_inner);
        snapshots.sort_by_key(|snapshot| (snapshot.time.timestamp(), snapshot.id));
        Ok(snapshots)
    }

    /// The snapshot with an id; `None` when it is not there.
    pub(crate) fn snapshot(&self, id: &str) -> Result<Option<SnapshotFile>> {
        id.parse().map_or(Ok(None), |id| self.read_snapshot(id))
    }

    fn read_snapshot(&self, id: Id) -> Result<Option<SnapshotFile>> {
        let path = path_of(FileType::Snapshot, &id);
        let Some(sealed) = self.files.read_path(&path)? else {
            return Ok(None);
        };
        let json = self
            .codec
            .unseal_file(&sealed)
            .ok_or_else(|| damaged(&path, "it is not what was written"))?;
        let mut snapshot: SnapshotFile =
            serde_json::from_slice(&json).map_err(|error| damaged(&path, error))?;
        snapshot.id = id.into();
        Ok(Some(snapshot))
    }

    /// What an error of the library means.
    pub(crate) fn explain(&self, error: &RusticError) -> Failure {
        self.files.explain(error)
    }
}

/// The password: the first line of a file.
fn password(path: &Path) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(storage::read_secret(path, "password file")?);
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(failure(
            FailureKind::InvalidInput,
            format!(
                "the first line of the password file `{}` is empty",
                path.display()
            ),
        ));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn library(files: &Arc<Files>, place: &Place, reporter: &Reporter) -> Result<Repository<()>> {
    let mut options = RepositoryOptions::default().no_cache(place.cache.is_none());
    if let Some(cache) = &place.cache {
        options = options.cache_dir(cache.clone());
    }
    let backends = RepositoryBackends::new(Arc::new(Backend(Arc::clone(files))), None);
    Repository::new_with_progress(&options, &backends, Bars(reporter.clone()))
        .map_err(|error| files.explain(&error))
}

/// Opens a repository with that of its keys which is its own. Another process that makes the same repository has a key there, for the same
/// password, until it knows that it was the second; one that is killed then leaves it.
fn unlock(
    files: &Arc<Files>,
    place: &Place,
    password: &str,
    reporter: &Reporter,
) -> Result<Repository<OpenStatus>> {
    let keys = files.list(FileType::Key)?;
    let known = place
        .keys
        .as_deref()
        .map(|folder| Known::new(folder, password));
    for (id, _) in &keys {
        let key = known.as_ref().and_then(|known| known.get(id));
        if let Some(key) = key
            && let Ok(opened) = library(files, place, reporter)?.open(&Credentials::Masterkey(key))
        {
            return Ok(opened);
        }
        files.take_failure();
    }
    let credentials = Credentials::password(password);
    let mut failed = damaged("keys", "there is none, and nothing can be read without one");
    for (number, (id, _)) in keys.iter().enumerate() {
        files.show_key(Some(*id));
        let opened = library(files, place, reporter)?.open(&credentials);
        files.show_key(None);
        let error = match opened {
            Ok(opened) => {
                if let Some(known) = &known {
                    known.put(id, &opened.key(), reporter);
                }
                return Ok(opened);
            }
            Err(error) => unopened(files, id, &error),
        };
        match error.kind {
            // Another key may be the right one; damage is told before a password that fits none.
            FailureKind::WrongPassword if number > 0 => {}
            FailureKind::WrongPassword | FailureKind::Damaged => failed = error,
            _ => return Err(error),
        }
    }
    Err(failed)
}

/// Makes a repository; `None` when another process was faster.
fn init(
    files: &Arc<Files>,
    place: &Place,
    password: &str,
    reporter: &Reporter,
) -> Result<Option<Repository<OpenStatus>>> {
    files.create()?;
    // Where there is nothing that they open: of processes that were killed, or are about to be the second.
    let stray_keys = files.list(FileType::Key)?;
    if has_data(files)? {
        // Without its keys nobody could read it again. Another process may have made the repository and begun to fill it.
        if files.list(FileType::Config)?.is_empty() {
            return Err(damaged(
                "config",
                "it is gone, and there are backups: no other repository is made over them",
            ));
        }
        return Ok(None);
    }
    let config = ConfigOptions::default()
        .set_version(VERSION)
        .set_datapack_size(bytes(PACK_SIZE)?)
        .set_datapack_growfactor(0_u32);
    let made = library(files, place, reporter)?.init(
        &Credentials::password(password),
        &KeyOptions::default(),
        &config,
    );
    match made {
        Ok(opened) => {
            for (id, _) in stray_keys {
                files.remove_path(&path_of(FileType::Key, &id))?;
            }
            Ok(Some(opened))
        }
        Err(error) => {
            files.withdraw_key()?;
            if let Some(failed) = files.take_failure() {
                return Err(failed);
            }
            if files.list(FileType::Config)?.is_empty() {
                return Err(internal(told(&error)));
            }
            Ok(None)
        }
    }
}

/// Whether anything is there that a key of the repository opens.
fn has_data(files: &Files) -> Result<bool> {
    for kind in [FileType::Snapshot, FileType::Index, FileType::Pack] {
        if !files.list(kind)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn bytes(size: usize) -> Result<bytesize::ByteSize> {
    u64::try_from(size)
        .map(bytesize::ByteSize::b)
        .map_err(internal)
}

fn missing(files: &Files) -> Failure {
    let location = files.location();
    failure(
        FailureKind::NoRepository,
        format!(
            "there is no repository at `{location}`: it has no file `config`; `drover backup init` makes one"
        ),
    )
}

fn other_version(files: &Files, version: u32) -> Failure {
    let location = files.location();
    let remedy = if version < VERSION {
        "; `restic migrate upgrade_repo_v2` makes it one of version 2"
    } else {
        ""
    };
    failure(
        FailureKind::UnsupportedVersion,
        format!(
            "the repository at `{location}` has format version {version}, and {VERSION} is what is known here{remedy}"
        ),
    )
}

/// Why a repository could not be opened with a key: the target, the password, or damage to one of two small files.
fn unopened(files: &Files, key: &Id, error: &RusticError) -> Failure {
    if let Some(failed) = files.take_failure() {
        return failed;
    }
    if let Some(damage) = damaged_key(files, key) {
        return damage;
    }
    if error.is_incorrect_password() {
        let location = files.location();
        return failure(
            FailureKind::WrongPassword,
            format!("the password opens no key of the repository at `{location}`"),
        );
    }
    // The target answers, the key is whole and was opened: one file is left.
    damaged("config", "it is not what was written")
}

/// What is wrong with a key that is not what was written.
fn damaged_key(files: &Files, id: &Id) -> Option<Failure> {
    let content = files.read(FileType::Key, id).ok()?;
    let readable = serde_json::from_slice::<KeyFile>(&content).is_ok();
    (hash(&content) != *id || !readable).then(|| {
        damaged(
            &path_of(FileType::Key, id),
            "it is not what was written, and so the password cannot be tried",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::storage::watched::{Watch, Watched, place};

    struct Lab {
        _folder: tempfile::TempDir,
        place: Place,
        files: Arc<Files>,
        watch: Arc<Watch>,
    }

    impl Lab {
        /// An empty repository.
        fn new() -> Self {
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            let place = place(folder.path());
            let watch = Arc::default();
            let storage = Watched {
                inner: storage::open(&place).unwrap(),
                watch: Arc::clone(&watch),
            };
            let reporter = Reporter::new(Box::new(std::io::sink()));
            let files = Arc::new(Files::new(Box::new(storage), reporter.clone()));
            let made = init(&files, &place, "password", &reporter).unwrap();
            assert!(made.is_some());
            Self {
                _folder: folder,
                place,
                files,
                watch,
            }
        }

        /// Opens it; with it comes how often a key was read, which is as often as one is derived.
        fn unlock(&self, password: &str) -> (Result<()>, usize) {
            self.watch.keys.store(0, Ordering::Relaxed);
            let reporter = Reporter::new(Box::new(std::io::sink()));
            let opened = unlock(&self.files, &self.place, password, &reporter);
            (opened.map(drop), self.watch.keys.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_key_that_was_derived_is_known_until_it_is_gone() {
        let lab = Lab::new();
        assert_eq!(lab.unlock("password"), (Ok(()), 1));
        assert_eq!(lab.unlock("password"), (Ok(()), 0));
        let (wrong, _) = lab.unlock("another");
        assert_eq!(wrong.unwrap_err().kind, FailureKind::WrongPassword);
        assert_eq!(lab.unlock("password"), (Ok(()), 0));
        for (id, _) in lab.files.list(FileType::Key).unwrap() {
            lab.files.remove_path(&path_of(FileType::Key, &id)).unwrap();
        }
        let (gone, _) = lab.unlock("password");
        assert_eq!(gone.unwrap_err().kind, FailureKind::Damaged);
    }

    #[test]
    fn of_a_damaged_config_is_told_after_one_try() {
        let lab = Lab::new();
        let sealed = lab.files.read_path("config").unwrap().unwrap();
        let cut = sealed.slice(1..);
        lab.files.write_path("config", &[cut], true).unwrap();
        let (failed, derived) = lab.unlock("password");
        let failed = failed.unwrap_err();
        assert!(failed.message.contains("`config`"), "{}", failed.message);
        // Once more it is read to see whether it is whole.
        assert_eq!(derived, 2);
    }
}
