//! The folder where the engine keeps the namespaces of containers: a task for each.
//!
//! The kernel says when a file comes or goes; once a second one task looks at all the same, so that nothing is missed
//! that came before the watch, a folder that does not exist yet is found, and a namespace that the engine has unmounted
//! is let go: it removes the file up to a minute later. A sandbox in which nothing happens costs nothing else.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drover_daemon::task;
use drover_kernel::{Namespace, NamespaceId};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::sandbox::Sandboxes;

const LOOK: Duration = Duration::from_secs(1);

/// A file in the folder, and the task that sees to what is mounted there.
struct Watched {
    task: JoinHandle<()>,
    mounted: Option<NamespaceId>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The files that are seen to.
struct Folder {
    path: PathBuf,
    sandboxes: Arc<Sandboxes>,
    watched: HashMap<PathBuf, Watched>,
}

/// Watches the folder for ever.
pub(crate) async fn watch(path: PathBuf, sandboxes: Arc<Sandboxes>) {
    let mut folder = Folder {
        path,
        sandboxes,
        watched: HashMap::new(),
    };
    let mut ticks = tokio::time::interval(LOOK);
    let mut inotify = None;
    loop {
        if inotify.is_none() {
            inotify = subscribe(&folder.path);
            // What came before the watch.
            folder.look();
        }
        // Cancel-safe: what has happened stays in the kernel's queue.
        tokio::select! {
            _ = ticks.tick() => {}
            lost = happened(inotify.as_mut()) => if lost {
                inotify = None;
            }
        }
        folder.look();
    }
}

impl Folder {
    fn look(&mut self) {
        let files = files(&self.path);
        self.watched.retain(|path, _| files.contains(path));
        for path in files {
            let mounted = Namespace::id_at(&path);
            let is_seen_to = self.watched.get(&path).is_some_and(|watched| {
                let is_same = watched.mounted.is_none() || watched.mounted == mounted;
                // One that has ended had nothing to see to, and nothing has come since.
                is_same && (!watched.task.is_finished() || mounted.is_none())
            });
            if let Some(watched) = self.watched.get_mut(&path).filter(|_| is_seen_to) {
                watched.mounted = mounted;
                continue;
            }
            let (sandboxes, file) = (self.sandboxes.clone(), path.clone());
            let task = task::spawn("sandbox", async move { sandboxes.tend(file).await });
            self.watched.insert(path, Watched { task, mounted });
        }
    }
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let entries = entries.filter_map(Result::ok);
            // The host's own namespace, which containers may share: not ours to touch.
            let entries = entries.filter(|entry| entry.file_name() != "default");
            entries.map(|entry| entry.path()).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => {
            warn!(folder = %folder.display(), %error, "cannot look for sandboxes");
            BTreeSet::new()
        }
    }
}

/// Has a thread wait for the kernel; what it hands on is closed when the watch is lost.
///
/// A folder that is not there yet comes with the first container after a boot, which must not wait for a tick: the
/// nearest folder above it is watched until something happens there.
fn subscribe(folder: &Path) -> Option<mpsc::Receiver<()>> {
    let watched = folder.ancestors().find(|folder| folder.is_dir())?;
    let is_above = watched != folder;
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    // One that was not taken yet is as good as two.
    let (happened, receiver) = mpsc::channel(1);
    let begun = Inotify::init(InitFlags::IN_CLOEXEC)
        .and_then(|inotify| inotify.add_watch(watched, events).map(|_| inotify))
        .map_err(io::Error::from)
        .and_then(|inotify| {
            let thread = std::thread::Builder::new().name("inotify".to_owned());
            thread.spawn(move || hand_on(&inotify, &happened, is_above))
        });
    match begun {
        // It has come before the watch on the one above.
        Ok(_) if is_above && folder.is_dir() => subscribe(folder),
        Ok(_) => Some(receiver),
        Err(error) => {
            warn!(folder = %folder.display(), %error, "cannot be told of new sandboxes: looks once a second");
            None
        }
    }
}

fn hand_on(inotify: &Inotify, happened: &mpsc::Sender<()>, once: bool) {
    let over =
        AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    while let Ok(events) = inotify.read_events() {
        let sent = happened.try_send(());
        let is_over = events.iter().any(|event| event.mask.intersects(over));
        if once || is_over || matches!(sent, Err(mpsc::error::TrySendError::Closed(()))) {
            return;
        }
    }
}

/// Waits until something has happened in the folder; says whether the watch is lost.
async fn happened(watch: Option<&mut mpsc::Receiver<()>>) -> bool {
    match watch {
        Some(watch) => watch.recv().await.is_none(),
        None => std::future::pending().await,
    }
}
