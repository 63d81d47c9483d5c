//! The folder where the engine keeps the namespaces of containers: a task for each.
//!
//! The kernel says when a file comes; once a second the folder is looked at all the same, so that nothing is missed
//! that came before the watch, and a folder that does not exist yet is found.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drover_daemon::task;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::sandbox::Sandboxes;

const LOOK: Duration = Duration::from_secs(1);

/// The tasks, by file. Dropping it ends them all.
#[derive(Default)]
struct Tasks(HashMap<PathBuf, JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.values().for_each(JoinHandle::abort);
    }
}

/// Watches the folder for ever.
pub(crate) async fn watch(folder: PathBuf, sandboxes: Arc<Sandboxes>) {
    let mut tasks = Tasks::default();
    let mut ticks = tokio::time::interval(LOOK);
    let mut inotify = None;
    loop {
        if inotify.is_none() {
            inotify = subscribe(&folder);
        }
        // Cancel-safe: what has happened stays in the kernel's queue.
        tokio::select! {
            _ = ticks.tick() => {}
            lost = happened(inotify.as_mut()) => if lost {
                inotify = None;
            }
        }
        tasks.0.retain(|_, task| !task.is_finished());
        for path in files(&folder) {
            tasks.0.entry(path.clone()).or_insert_with(|| {
                let sandboxes = sandboxes.clone();
                task::spawn("sandbox", async move { sandboxes.tend(path).await })
            });
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let entries = entries.filter_map(Result::ok);
            // The host's own namespace, which containers may share: not ours to touch.
            let entries = entries.filter(|entry| entry.file_name() != "default");
            entries.map(|entry| entry.path()).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            warn!(folder = %folder.display(), %error, "cannot look for sandboxes");
            Vec::new()
        }
    }
}

/// Has a thread wait for the kernel; what it hands on is closed when the watch is lost.
fn subscribe(folder: &Path) -> Option<mpsc::Receiver<()>> {
    if !folder.is_dir() {
        return None;
    }
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    // One that was not taken yet is as good as two.
    let (happened, receiver) = mpsc::channel(1);
    let begun = Inotify::init(InitFlags::IN_CLOEXEC)
        .and_then(|inotify| inotify.add_watch(folder, events).map(|_| inotify))
        .map_err(io::Error::from)
        .and_then(|inotify| {
            let thread = std::thread::Builder::new().name("inotify".to_owned());
            thread.spawn(move || hand_on(&inotify, &happened))
        });
    match begun {
        Ok(_) => Some(receiver),
        Err(error) => {
            warn!(folder = %folder.display(), %error, "cannot be told of new sandboxes: looks once a second");
            None
        }
    }
}

fn hand_on(inotify: &Inotify, happened: &mpsc::Sender<()>) {
    let over =
        AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    while let Ok(events) = inotify.read_events() {
        let sent = happened.try_send(());
        let is_over = events.iter().any(|event| event.mask.intersects(over));
        if is_over || matches!(sent, Err(mpsc::error::TrySendError::Closed(()))) {
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
