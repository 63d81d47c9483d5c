//! What is known of the cluster, read by every query and written by the registry's stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use drover_control_api::record::UnixSeconds;
use drover_control_api::registry::RegistryEvent;
use drover_names::Directory;
use tokio::sync::watch;

/// The directory, and who waits for it.
#[derive(Debug)]
pub(crate) struct Known {
    /// Held for the time of one answer, or one event.
    directory: RwLock<Directory>,
    followed: AtomicBool,
    changes: AtomicU64,
    /// Changes when a container of this host may have.
    local: watch::Sender<u64>,
}

impl Known {
    /// Nothing is known, and that since now.
    pub(crate) fn new() -> Self {
        let mut directory = Directory::default();
        directory.set_cut(Some(now()));
        Self {
            directory: RwLock::new(directory),
            followed: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            local: watch::channel(0).0,
        }
    }

    /// Looks at the directory. No waiting inside.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        look(
            &self
                .directory
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Whether the stream is followed.
    pub(crate) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Whether the registry can tell what it has not told yet: it is followed, and has news itself.
    pub(crate) fn may_tell(&self) -> bool {
        self.is_followed() && self.read(|directory| directory.stale_since().is_none())
    }

    /// Changes when a container of this host may have.
    pub(crate) fn local_changes(&self) -> watch::Receiver<u64> {
        self.local.subscribe()
    }

    /// How often something has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Takes in what was told an earlier process, until then.
    pub(crate) fn recall(&self, events: Vec<RegistryEvent>, since: UnixSeconds) {
        let mut directory = self.write();
        events.into_iter().for_each(|event| directory.apply(event));
        directory.set_cut(Some(since));
    }

    /// Takes an event in.
    pub(crate) fn apply(&self, event: RegistryEvent) {
        let is_synced = matches!(event, RegistryEvent::Synced);
        let is_local = {
            let mut directory = self.write();
            let is_local = match &event {
                RegistryEvent::Container(record) => Some(&record.host) == directory.this_host(),
                RegistryEvent::ContainerGone { host, .. } => Some(host) == directory.this_host(),
                RegistryEvent::Host { name, .. } => Some(name) == directory.this_host(),
                _ => is_synced,
            };
            directory.apply(event);
            is_local
        };
        self.changes.fetch_add(1, Ordering::Relaxed);
        if is_synced {
            self.followed.store(true, Ordering::Relaxed);
        }
        if is_local {
            self.local
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// The stream is cut: what is known may be out of date from now on.
    pub(crate) fn cut(&self) {
        self.followed.store(false, Ordering::Relaxed);
        let mut directory = self.write();
        let since = directory.stale_since().unwrap_or_else(now);
        directory.set_cut(Some(since));
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Directory> {
        self.directory
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of day.
pub(crate) fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
