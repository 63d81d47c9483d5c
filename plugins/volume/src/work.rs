//! Changes of volumes: one at a time for each volume, its intent on the disk before it is begun.

pub(crate) mod backup;
mod create;
mod device;
mod elsewhere;
mod notes;
mod rehearsal;
mod remove;
mod snapshot;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use drover_daemon::Settings;
use drover_engine::Engine;
use drover_http::Client;
use drover_model::{SnapshotName, VolumeName};
use drover_storage::{Access, Backend, Object, SnapshotRef};
use drover_volumes::capacity::Level;
use drover_volumes::record::VolumeRecord;
use tokio::sync::{Mutex as Gate, Notify, OwnedMutexGuard};

use crate::catalogue::Catalogue;
use crate::clock::now;
use crate::error::{Error, Result};
use crate::pools::{Pools, figures};
pub(crate) use create::is_anonymous;

/// A gate for each name: what is done to a volume is done by one at a time.
type Gates = Mutex<BTreeMap<VolumeName, Arc<Gate<()>>>>;

/// Everything that changes volumes.
pub(crate) struct Work {
    pub(crate) catalogue: Catalogue,
    pub(crate) pools: Arc<Pools>,
    pub(crate) engine: Engine,
    /// The coordinator of this host.
    pub(crate) coordinator: Client,
    /// A volume was mounted for a container.
    pub(crate) mounted: Notify,
    /// Somebody does not use a volume any more.
    pub(crate) released: Notify,
    /// Something was removed.
    pub(crate) removed: Notify,
    backups: backup::Workers,
    rehearsals: rehearsal::Rehearsals,
    mounts: PathBuf,
    trash_window: u64,
    backup_password_file: Option<PathBuf>,
    backup_options_file: Option<PathBuf>,
    gates: Gates,
}

impl Work {
    pub(crate) fn new(
        settings: &Settings,
        catalogue: Catalogue,
        pools: Pools,
        engine: Engine,
    ) -> Self {
        Self {
            catalogue,
            pools: Arc::new(pools),
            engine,
            coordinator: Client::unix(settings.control_socket()),
            mounted: Notify::new(),
            released: Notify::new(),
            removed: Notify::new(),
            backups: backup::Workers::new(settings),
            rehearsals: rehearsal::Rehearsals::default(),
            mounts: settings.state_dir.join("volumes/mounts"),
            trash_window: settings.volumes.trash_window.as_secs(),
            backup_password_file: settings.volumes.backup_password_file.clone(),
            backup_options_file: settings.volumes.backup_options_file.clone(),
            gates: Gates::default(),
        }
    }

    /// Waits until nothing else is done to a volume of that name.
    pub(crate) async fn gate(&self, name: &VolumeName) -> OwnedMutexGuard<()> {
        self.gate_of(name).lock_owned().await
    }

    fn gate_of(&self, name: &VolumeName) -> Arc<Gate<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody holds or waits for is made anew when it is needed.
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        gates.entry(name.clone()).or_default().clone()
    }

    /// The same, unless something is being done: for work that is done later as well.
    pub(crate) fn try_gate(&self, name: &VolumeName) -> Option<OwnedMutexGuard<()>> {
        let gate = self.gate_of(name);
        gate.try_lock_owned().ok()
    }

    /// Where a volume is attached for containers.
    pub(crate) fn mount_point(&self, name: &VolumeName) -> PathBuf {
        self.mounts.join(name.as_str())
    }

    /// The folder of those places.
    pub(crate) fn mount_folder(&self) -> &Path {
        &self.mounts
    }

    /// Where a snapshot is mounted for looking at it.
    pub(crate) fn snapshot_point(&self, volume: &VolumeName, name: &SnapshotName) -> PathBuf {
        let folder = self.mounts.with_file_name("snapshots");
        folder.join(format!("{volume}@{name}"))
    }

    /// Has a volume attached, and holds it for a mount of a container.
    pub(crate) async fn mount(&self, name: &VolumeName, id: &str) -> Result<PathBuf> {
        let _gate = self.gate(name).await;
        let record = self.catalogue.ready(name)?;
        let hold = |record: &mut VolumeRecord| record.holds.take(id, now());
        // First, so that a kill after the attaching leaves a hold too many and never one too few.
        self.catalogue.change(&record.id, hold)?;
        match self.attach(&record).await {
            Ok(at) => Ok(at),
            Err(error) => {
                // The engine sends no `Unmount` for a mount that failed.
                let give_back = |record: &mut VolumeRecord| record.holds.give_back(id);
                self.catalogue.change(&record.id, give_back)?;
                Err(error)
            }
        }
    }

    async fn attach(&self, record: &VolumeRecord) -> Result<PathBuf> {
        let backend = self.pools.of(record.backend).await?;
        let at = self.mount_point(&record.name);
        let (object, place) = (Object::Volume(record.id.clone()), at.clone());
        let access = if record.options.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        blocking(move || backend.attach(&object, &place, access)).await?;
        self.catalogue.observe(&record.id, |it| {
            it.attached = true;
            it.unconfirmed = true;
        });
        self.mounted.notify_one();
        Ok(at)
    }

    /// Takes a hold back. Whether to detach is seen later.
    pub(crate) async fn unmount(&self, name: &VolumeName, id: &str) -> Result<()> {
        let _gate = self.gate(name).await;
        let Some(record) = self.catalogue.named(name) else {
            return Ok(());
        };
        self.catalogue
            .change(&record.id, |record| record.holds.give_back(id))?;
        // What is held still may be what an engine that was killed had held.
        self.catalogue.observe(&record.id, |it| it.suspect = true);
        self.released.notify_one();
        Ok(())
    }

    /// Detaches a volume; its gate is held.
    pub(crate) async fn detach(&self, record: &VolumeRecord) -> Result<()> {
        let at = self.mount_point(&record.name);
        let backend = self.pools.of(record.backend).await?;
        let object = Object::Volume(record.id.clone());
        blocking(move || backend.detach(&object, &at)).await?;
        // Whoever is told that it is not attached finds no hold either.
        self.catalogue
            .change(&record.id, |record| record.holds.clear())?;
        self.catalogue.observe(&record.id, |it| {
            it.attached = false;
            it.suspect = false;
            it.unconfirmed = false;
        });
        Ok(())
    }

    /// `ok`, or what is not as it should be with a volume or with its pool, as far as it has been seen.
    pub(crate) fn health(&self, record: &VolumeRecord) -> String {
        let complaint = self.catalogue.observed(&record.id).complaint;
        let complaint = complaint.or_else(|| self.pools.notice(record.backend));
        complaint.unwrap_or_else(|| "ok".to_owned())
    }

    /// Refuses where what is left of the pool is the reserve.
    async fn refuse_when_full(&self, backend: &Arc<dyn Backend>, what: &str) -> Result<()> {
        let asked = backend.clone();
        let pool = blocking(move || asked.pool()).await?;
        if let Some(complaint) = pool.complaints.first() {
            return Err(Error::Unavailable(complaint.clone()));
        }
        let figures = figures(&pool);
        if figures.level(self.pools.reserve()) == Level::Reserve {
            return Err(Error::Conflict(format!(
                "{what} is not made: {} is {} % full, and the rest is kept for the volumes that there are; remove volumes or \
                 snapshots, or enlarge it",
                pool.place,
                figures.percent()
            )));
        }
        Ok(())
    }

    /// The containers that run with a volume, by name.
    pub(crate) async fn running_users(
        &self,
        name: &VolumeName,
    ) -> std::result::Result<Vec<String>, drover_engine::Error> {
        let all = self.engine.containers_of_volume(name.as_str()).await?;
        // An engine's filter also takes what only begins like the name.
        let running = all.into_iter().filter(|container| {
            let uses = container.mounts.is_empty()
                || container.mounts.iter().any(|it| it.name == name.as_str());
            uses && !matches!(container.state.as_str(), "created" | "exited" | "dead")
        });
        Ok(running
            .map(|it| {
                let name = it.names.first().map(|name| name.trim_start_matches('/'));
                name.unwrap_or(&it.id).to_owned()
            })
            .collect())
    }
}

/// A snapshot as its backend knows it.
fn reference(record: &drover_volumes::SnapshotRecord) -> SnapshotRef {
    SnapshotRef {
        volume: record.volume.clone(),
        snapshot: record.id.clone(),
    }
}

/// A random id of a volume or a snapshot.
fn new_id<T: std::str::FromStr<Err: std::fmt::Display>>() -> Result<T> {
    let id = crate::clock::random_id().map_err(|error| Error::Internal(error.to_string()))?;
    id.parse()
        .map_err(|error: T::Err| Error::Internal(error.to_string()))
}

/// Runs what a backend does where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> drover_storage::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(Error::Internal(format!("a change ended in a bug: {error}"))),
    }
}
