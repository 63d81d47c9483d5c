//! Backups of volumes, and volumes from backups. The work itself is done by a process: see [`crate::worker`].

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use drover_backup_protocol::{
    Backup, Create, Created, Operation, Outcome, Progress, Repository, Request, Restore, Selector,
    Source, Target,
};
use drover_daemon::Settings;
use drover_model::VolumeId;
use drover_storage::{Access, Backend, Object};
use drover_volumes::SnapshotRecord;
use drover_volumes::VolumeOptions;
use drover_volumes::record::{LastBackup, SnapshotReason, VolumeRecord};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{info, warn};

use super::{Work, blocking, reference};
use crate::clock::{now, stamp};
use crate::error::{Error, Result};
use crate::worker;

/// How many backups of schedules are made at a time on a host.
const AT_A_TIME: usize = 2;

/// The workers that run.
pub(crate) struct Workers {
    program: PathBuf,
    /// Where workers keep keys in memory.
    keys: PathBuf,
    host: String,
    slots: Semaphore,
    running: Mutex<BTreeMap<VolumeId, Running>>,
}

/// A worker that runs.
struct Running {
    stop: watch::Sender<bool>,
    progress: Option<Progress>,
}

/// What is done for a volume now; another for it is refused until this is dropped.
struct Turn<'a> {
    workers: &'a Workers,
    volume: &'a VolumeId,
    stop: watch::Receiver<bool>,
}

impl Workers {
    pub(crate) fn new(settings: &Settings) -> Self {
        let own = std::env::current_exe().unwrap_or_default();
        let host = settings.host_name.as_ref().map(ToString::to_string);
        Self {
            program: own.with_file_name(worker::PROGRAM),
            keys: settings.run_dir.join("backup-keys"),
            host: host.unwrap_or_else(machine),
            slots: Semaphore::new(AT_A_TIME),
            running: Mutex::default(),
        }
    }

    fn turn<'a>(&'a self, volume: &'a VolumeId) -> Result<Turn<'a>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(volume) {
            return Err(Error::Conflict(
                "another backup of the volume is under way".to_owned(),
            ));
        }
        let (sender, stop) = watch::channel(false);
        let begun = Running {
            stop: sender,
            progress: None,
        };
        running.insert(volume.clone(), begun);
        Ok(Turn {
            workers: self,
            volume,
            stop,
        })
    }

    async fn run(&self, volume: &VolumeId, mut request: Request) -> Result<Outcome> {
        let mut turn = self.turn(volume)?;
        request.repository.keys = Some(self.keys.clone());
        let stop = async {
            drop(turn.stop.wait_for(|stop| *stop).await);
        };
        let told = |progress| {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(running) = running.get_mut(volume) {
                running.progress = Some(progress);
            }
        };
        worker::run(&self.program, &request, told, stop).await
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = self
            .workers
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(self.volume);
    }
}

/// The name of this machine.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Where a backup goes to, and how it is marked.
pub(crate) struct Destination {
    pub(crate) repository: Repository,
    pub(crate) tags: Vec<String>,
    /// Whether the repository is made when there is none.
    pub(crate) init: bool,
}

/// Where the options of a volume say that its backups are.
pub(super) fn repository(options: &VolumeOptions) -> Result<Repository> {
    let (Some(url), Some(password_file)) = (&options.backup_to, &options.backup_password_file)
    else {
        return Err(Error::Invalid(
            "the volume has no `backup-to` and no `backup-password-file`: where its backups are is not known"
                .to_owned(),
        ));
    };
    Ok(Repository {
        url: url.clone(),
        password_file: password_file.into(),
        options_file: options.backup_options_file.as_ref().map(PathBuf::from),
        cache: None,
        keys: None,
        bandwidth: None,
    })
}

impl Work {
    /// The name of this host, as repositories and the catalogue have it.
    pub(crate) fn host(&self) -> &str {
        &self.backups.host
    }

    /// Where a volume is attached while it is being made: restored from a backup, or given to its owner.
    pub(crate) fn restore_point(&self, volume: &VolumeId) -> PathBuf {
        let folder = self.mount_folder().with_file_name("restores");
        folder.join(volume.as_str())
    }

    /// Whether a worker is busy with a volume.
    pub(crate) fn has_worker(&self, volume: &VolumeId) -> bool {
        let running = &self.backups.running;
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        running.contains_key(volume)
    }

    /// How far the worker of a volume is, or of the scratch volume that a backup of it is restored to, once it has told.
    pub(crate) fn progress(&self, volume: &VolumeId) -> Option<Progress> {
        let scratch = self.rehearsals.scratch_of(volume);
        let running = &self.backups.running;
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let of_scratch = scratch.and_then(|scratch| running.get(&scratch));
        running.get(volume).or(of_scratch)?.progress
    }

    /// Forgets the keys of repositories that workers have kept in memory.
    pub(crate) fn forget_keys(&self) -> Result<()> {
        let keys = &self.backups.keys;
        match std::fs::remove_dir_all(keys) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Internal(
                format!("removing `{}`: {error}", keys.display()),
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits for a turn among the backups of schedules; `None` when the process ends.
    pub(super) async fn backup_slot(&self) -> Option<SemaphorePermit<'_>> {
        self.backups.slots.acquire().await.ok()
    }

    /// Has a worker do something with a repository, for a volume.
    pub(super) async fn ask_worker(
        &self,
        volume: &VolumeId,
        place: &Repository,
        operation: Operation,
    ) -> Result<Outcome> {
        let request = Request {
            repository: place.clone(),
            operation,
        };
        self.backups.run(volume, request).await
    }

    /// The backup that is meant, in a repository.
    pub(super) async fn find_backup(
        &self,
        volume: &VolumeId,
        place: &Repository,
        wanted: &Selector,
    ) -> Result<Backup> {
        let operation = Operation::Find {
            backup: wanted.clone(),
        };
        match self.ask_worker(volume, place, operation).await? {
            Outcome::Found(found) => Ok(found),
            _ => Err(worker::foreign()),
        }
    }

    /// Ends the worker of a volume, if there is one, and waits until it is gone.
    pub(crate) async fn stop_worker(&self, volume: &VolumeId) {
        let running = {
            let running = &self.backups.running;
            let running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(volume).map(|it| it.stop.clone())
        };
        if let Some(running) = running {
            running.send_replace(true);
            running.closed().await;
        }
    }

    /// Writes a backup onto a volume that is being made and is empty.
    pub(super) async fn restore_backup(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        wanted: &Selector,
    ) -> Result<()> {
        let place = repository(&record.options)?;
        let device = self.device_to_restore(backend, record, &place, wanted);
        let outcome = match device.await? {
            Some(path) => {
                let target = Target::Block { path, blank: true };
                let restored = self.write_back(record, &place, wanted, target);
                let restored = restored.await;
                if restored.is_ok() {
                    self.fill_device(backend, record).await?;
                }
                restored
            }
            None => self.restore_files(backend, record, &place, wanted).await,
        };
        outcome.inspect_err(|error| {
            // Whoever asked may have gone meanwhile.
            warn!(volume = %record.name, error = error.sentence(), "is not restored from its backup");
        })
    }

    pub(super) async fn restore_files(
        &self,
        backend: &Arc<dyn Backend>,
        record: &VolumeRecord,
        place: &Repository,
        wanted: &Selector,
    ) -> Result<()> {
        let at = self.restore_point(&record.id);
        let object = Object::Volume(record.id.clone());
        let (attaching, attached, point) = (backend.clone(), object.clone(), at.clone());
        blocking(move || attaching.attach(&attached, &point, Access::ReadWrite)).await?;
        let target = Target::Directory { path: at.clone() };
        let outcome = self.write_back(record, place, wanted, target).await;
        let backend = backend.clone();
        let detached = blocking(move || backend.detach(&object, &at)).await;
        outcome.and(detached)
    }

    pub(super) async fn write_back(
        &self,
        record: &VolumeRecord,
        place: &Repository,
        wanted: &Selector,
        target: Target,
    ) -> Result<()> {
        let backup = wanted.clone();
        let operation = Operation::Restore(Restore { backup, target });
        let Outcome::Restored(restored) = self.ask_worker(&record.id, place, operation).await?
        else {
            return Err(worker::foreign());
        };
        info!(volume = %record.name, backup = restored.backup.id, bytes = restored.bytes, "restored from its backup");
        Ok(())
    }

    /// Makes the backup that is due, and notes what became of it.
    pub(crate) async fn back_up_on_schedule(self: Arc<Self>, record: VolumeRecord, due: u64) {
        let begun = self
            .catalogue
            .change(&record.id, |it| it.backups.begun_at = Some(due));
        // Without the note it would be due again and again.
        let outcome = match (begun, self.backups.slots.acquire().await) {
            (Err(error), _) => Err(error),
            (Ok(_), Err(_closed)) => return,
            (Ok(_), Ok(_slot)) => self.back_up_as_options_say(&record).await,
        };
        match outcome {
            Ok(made) => {
                info!(volume = %record.name, backup = made.backup.id, sent = made.sent, "backed up");
            }
            Err(error) => self.note_failure(&record, &error),
        }
    }

    /// A failure that goes on is in the log once.
    fn note_failure(&self, record: &VolumeRecord, error: &Error) {
        let sentence = error.sentence();
        let before = self.catalogue.volume(&record.id);
        let Some(before) = before else { return };
        if before.backups.failure.as_ref() != Some(&sentence) {
            warn!(volume = %record.name, error = sentence, "the backup that is due was not made");
        }
        let noted = self
            .catalogue
            .change(&record.id, |it| it.backups.failure = Some(sentence));
        if let Err(error) = noted {
            warn!(volume = %record.name, error = error.sentence(), "the failure cannot be noted");
        }
    }

    async fn back_up_as_options_say(&self, record: &VolumeRecord) -> Result<Created> {
        let destination = Destination {
            repository: repository(&record.options)?,
            tags: Vec::new(),
            init: true,
        };
        self.back_up(record, destination).await
    }

    /// Backs a volume up, as it is at this moment.
    pub(crate) async fn back_up(
        &self,
        record: &VolumeRecord,
        destination: Destination,
    ) -> Result<Created> {
        let url = destination.repository.url.clone();
        let name = format!("backup-{}", stamp(now())).parse()?;
        let names = std::slice::from_ref(&record.name);
        let taken = self.snapshot(names, &name, SnapshotReason::Working).await?;
        let Some(snapshot) = taken.snapshots.into_iter().next() else {
            return Err(Error::Internal("no snapshot was taken".to_owned()));
        };
        let made = self.save(record, &snapshot, destination).await;
        let _gate = self.gate(&record.name).await;
        let kept = match &made {
            Ok(made) => self.keep_base(record, &snapshot, made, &url).await,
            Err(_) => false,
        };
        if !kept && let Err(error) = self.purge_snapshot(&snapshot).await {
            warn!(volume = %record.name, snapshot = %snapshot.name, error = error.sentence(), "is removed later");
        }
        let made = made?;
        let last = LastBackup {
            taken_at: snapshot.taken_at,
            id: made.backup.id.clone(),
            to: url,
            size: made.backup.size,
        };
        self.catalogue.change(&record.id, |it| {
            // One to another place says nothing of the schedule's.
            if it.options.backup_to.as_ref() == Some(&last.to) {
                it.backups.failure = None;
            }
            it.backups.last = Some(last);
        })?;
        Ok(made)
    }

    /// Has what a snapshot kept written to a repository.
    async fn save(
        &self,
        record: &VolumeRecord,
        snapshot: &SnapshotRecord,
        destination: Destination,
    ) -> Result<Created> {
        let backend = self.pools.of(record.backend).await?;
        let device = self
            .device_to_save(&backend, record, snapshot, &destination.repository.url)
            .await?;
        let (source, parent) = match device {
            Some(device) => device,
            None => {
                let at = self.snapshot_point(&record.name, &snapshot.name);
                let (object, place) = (Object::Snapshot(reference(snapshot)), at.clone());
                blocking(move || backend.attach(&object, &place, Access::ReadOnly)).await?;
                (Source::Tree { path: at }, None)
            }
        };
        let create = Create {
            volume: record.name.to_string(),
            host: self.backups.host.clone(),
            time: i64::try_from(snapshot.taken_at).ok(),
            tags: destination.tags,
            facts: BTreeMap::new(),
            source,
            parent,
            init: destination.init,
        };
        let (place, create) = (&destination.repository, Operation::Create(create));
        match self.ask_worker(&record.id, place, create).await? {
            Outcome::Created(created) => Ok(created),
            _ => Err(worker::foreign()),
        }
    }

    /// Removes the snapshots of a volume that backups needed; its gate is held.
    pub(crate) async fn purge_working(&self, record: &VolumeRecord) -> Result<()> {
        for snapshot in self.catalogue.snapshots(Some(&record.id)) {
            if snapshot.reason == SnapshotReason::Working {
                self.purge_snapshot(&snapshot).await?;
            }
        }
        Ok(())
    }
}
