//! Network namespaces: made on a thread of their own, kept by a bind mount, entered on threads that
//! end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::error::Error;

/// The namespace file of the thread that asks.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace that is held open.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
}

/// What tells one namespace from another while either exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
        }
    }
}

impl Namespace {
    /// The namespace of this process.
    pub(crate) fn own() -> Result<Self, Error> {
        let open = File::open(OWN);
        let file = open.map_err(|source| failed("open", Path::new(OWN), source))?;
        Ok(Self {
            file: Arc::new(file),
        })
    }

    /// The namespace that is mounted at `path`; made if there is none. The flag says whether it was.
    pub(crate) fn at(path: &Path) -> Result<(Self, bool), Error> {
        let made = !is_namespace(path);
        if made {
            make(path)?;
        }
        let file = File::open(path).map_err(|source| failed("open", path, source))?;
        Ok((
            Self {
                file: Arc::new(file),
            },
            made,
        ))
    }

    /// The namespace that is mounted at `path`, made by somebody else; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn mounted_at(path: &Path) -> Result<Option<Self>, Error> {
        if !is_namespace(path) {
            return Ok(None);
        }
        // A file that is open keeps its mount busy, and the mount is not ours: the same namespace is held by
        // another file.
        let reopen = || {
            let mounted = File::open(path)?;
            setns(mounted.as_fd(), CloneFlags::CLONE_NEWNET)?;
            File::open(OWN)
        };
        let file = on_thread(reopen).and_then(|file| file);
        let file = file.map_err(|source| failed("open", path, source))?;
        Ok(Some(Self {
            file: Arc::new(file),
        }))
    }

    /// Which namespace is mounted at `path`; `None` when none is.
    #[must_use]
    pub fn id_at(path: &Path) -> Option<NamespaceId> {
        let meta = fs::metadata(path).ok()?;
        is_namespace(path).then(|| NamespaceId::of(&meta))
    }

    /// Whether it is still the one that is mounted at `path`.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let held = self.file.metadata().ok().map(|meta| NamespaceId::of(&meta));
        held.is_some() && held == Self::id_at(path)
    }

    /// The descriptor, for messages that name a namespace.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a thread inside of the namespace and waits for it. For work that is short.
    ///
    /// # Errors
    /// When the thread cannot be started or cannot enter.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let run = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        };
        on_thread(run)?
    }

    /// The same without blocking the caller's thread.
    ///
    /// # Errors
    /// When the thread cannot be started or cannot enter.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let namespace = self.clone();
        let joined = tokio::task::spawn_blocking(move || namespace.enter(work)).await;
        joined.map_err(io::Error::other)?
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        spawned
            .join()
            .map_err(|_panic| io::Error::other("the thread in the namespace panicked"))
    })
}

/// Unmounts a namespace and removes its file. One that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    if is_namespace(path) {
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(|errno| failed("unmount", path, errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path, source))
        }
        _ => Ok(()),
    }
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

fn make(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| failed("make a place for", path, source))?;
    }
    let create = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    create.map_err(|source| failed("make a place for", path, source))?;
    let born = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(
            Some(OWN),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    };
    let made = on_thread(born).map_err(|source| failed("make", path, source))?;
    made.map_err(|errno| failed("make", path, errno.into()))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace {
        action,
        path: path.to_owned(),
        source,
    }
}
