//! What the command line asks this process.

mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_backup_protocol::{Created, Restored};
use drover_control_api::plugin::{Identity, TornDown, WhoAreYou};
use drover_control_api::volume::{
    BackUpVolume, BackupProgress, CompareSnapshot, CreateSnapshot, HowFar, MountSnapshot,
    PauseVolume, PoolReport, RemoveSnapshot, ResizeVolume, RestoreTrash, RollBack, SnapshotProject,
    Snapshots, TearDownVolumes, VerifyBackup, VolumeEntry, VolumeReport, VolumeStatus, VolumeTable,
    Volumes,
};
use drover_control_api::{Empty, Failure, Method};
use drover_http::control::{answer, decode};
use drover_http::{Request, Response, Service};
use drover_volumes::record::{VolumeRecord, VolumeState};

use crate::NAME;
use crate::clock::now;
use crate::error::{Error, Result};
use crate::pools::{Pool, figures, filling};
use crate::work::backup::Destination;
use crate::work::{Work, blocking};

/// What is said while volumes are not known.
const UNKNOWN: &str = "the records of volumes were lost, and a pool that volumes may lie on is not open: nothing is answered to the \
                       engine until it is, so that no container starts on an empty volume; see the log of drover-vol";

/// The methods under `/Drover.`.
pub(crate) struct Control {
    work: Arc<Work>,
}

impl Control {
    pub(crate) const fn new(work: Arc<Work>) -> Self {
        Self { work }
    }

    async fn who_are_you(&self) -> Identity {
        Identity {
            process: NAME.to_owned(),
            version: drover_daemon::VERSION.to_owned(),
            pid: std::process::id(),
            complaints: self.report().await.complaints,
        }
    }

    async fn report(&self) -> VolumeReport {
        let work = &self.work;
        let volumes = work.catalogue.volumes();
        let mut report = VolumeReport {
            volumes: count(&volumes, VolumeRecord::is_ready),
            attached: count(&volumes, |it| work.catalogue.observed(&it.id).attached),
            trashed: count(&volumes, |it| {
                matches!(it.state, VolumeState::Trashed { .. })
            }),
            snapshots: work
                .catalogue
                .snapshot_counts()
                .values()
                .map(|it| it.0)
                .sum(),
            ..VolumeReport::default()
        };
        if !work.catalogue.is_known() && !work.catalogue.never_had_any() {
            report.complaints.push(UNKNOWN.to_owned());
        }
        report.planned = work.pools.is_planned();
        let chosen = work.pools.chosen();
        report.complaints.extend(work.pools.complaints());
        if let Some(Err(sentence)) = &chosen
            && !report.complaints.iter().any(|it| it.contains(sentence))
        {
            report.complaints.push(sentence.clone());
        }
        for pool in work.pools.all() {
            let is_chosen = chosen == Some(Ok(pool.backend.kind()));
            match self.pool_report(&pool, &mut report.complaints).await {
                Ok(it) if is_chosen => report.pool = Some(it),
                Ok(it) => report.former_pools.push(it),
                Err(error) => report.complaints.push(error.sentence()),
            }
        }
        for record in &volumes {
            if let Some(complaint) = work.catalogue.observed(&record.id).complaint {
                let name = &record.name;
                report
                    .complaints
                    .push(format!("volume `{name}`: {complaint}"));
            }
        }
        report
    }

    async fn pool_report(&self, pool: &Pool, complaints: &mut Vec<String>) -> Result<PoolReport> {
        let backend = pool.backend.clone();
        let state = blocking(move || backend.pool()).await?;
        let reserve = self.work.pools.reserve();
        complaints.extend(filling(&state, reserve));
        let percent = figures(&state).percent();
        complaints.extend(state.complaints);
        let abilities = pool.backend.abilities();
        Ok(PoolReport {
            backend: pool.backend.kind(),
            place: state.place,
            reason: pool.reason.clone(),
            capacity: state.capacity,
            used: state.used,
            used_percent: percent,
            refused_from_percent: 100_u64.saturating_sub(u64::from(reserve)),
            snapshots: abilities.snapshots,
            size_limits: abilities.no_size_limit.is_none(),
        })
    }

    fn volumes(&self, asked: &Volumes) -> VolumeTable {
        let all = self.work.catalogue.volumes();
        let wanted = all.iter().filter(|record| {
            asked.name.as_ref().is_none_or(|name| *name == record.name)
                && (asked.removed || record.is_ready())
        });
        let counts = self.work.catalogue.snapshot_counts();
        VolumeTable {
            volumes: wanted
                .map(|record| self.entry(record, counts.get(&record.id)))
                .collect(),
        }
    }

    fn entry_of(&self, record: &VolumeRecord) -> VolumeEntry {
        let counts = self.work.catalogue.snapshot_counts();
        self.entry(record, counts.get(&record.id))
    }

    fn entry(&self, record: &VolumeRecord, snapshots: Option<&(u64, u64)>) -> VolumeEntry {
        let observed = self.work.catalogue.observed(&record.id);
        let (state, restorable_until) = match record.state {
            VolumeState::Creating => ("creating", None),
            VolumeState::Ready => ("ready", None),
            VolumeState::Trashed { until, .. } => ("trashed", Some(until)),
            VolumeState::Retained => ("retained", None),
            VolumeState::Removing => ("removing", None),
        };
        let schedule = record.options.snapshot_schedule.filter(|_| !record.paused);
        let next = schedule.map(|it| it.next(it.jitter(record.id.as_str()), now()));
        VolumeEntry {
            name: record.name.clone(),
            id: record.id.clone(),
            backend: record.backend,
            state: state.to_owned(),
            size: record.size,
            used: observed.used,
            created_at: record.created_at,
            mount_point: observed
                .attached
                .then(|| self.work.mount_point(&record.name)),
            holds: record.holds.len() as u64,
            snapshots: snapshots.map_or(0, |it| it.0),
            last_snapshot: snapshots.map(|it| it.1),
            next_snapshot: next.filter(|_| record.is_ready()),
            last_backup: record.backups.last.as_ref().map(|it| it.taken_at),
            paused: record.paused,
            restorable_until,
            options: options(record),
            health: self.work.health(record),
        }
    }

    async fn pause(&self, asked: PauseVolume) -> Result<VolumeEntry> {
        let record = self.work.catalogue.ready(&asked.volume)?;
        let changed = self
            .work
            .catalogue
            .change(&record.id, |it| it.paused = asked.paused)?;
        let gone = || Error::NoVolume(asked.volume.clone());
        let record = changed.ok_or_else(gone)?;
        self.work.renew_note(&record).await;
        Ok(self.entry_of(&record))
    }

    /// In a task of its own, so that the snapshot is removed also when whoever asked has gone.
    async fn back_up(&self, asked: BackUpVolume) -> Result<Created> {
        let record = self.work.catalogue.ready(&asked.volume)?;
        let destination = Destination {
            repository: asked.repository,
            tags: asked.tags,
            init: asked.init,
        };
        let work = self.work.clone();
        let backup = tokio::spawn(async move { work.back_up(&record, destination).await });
        backup
            .await
            .map_err(|error| Error::Internal(format!("the backup was not made: {error}")))?
    }

    /// In a task of its own, so that the scratch volume is removed also when whoever asked has gone.
    async fn verify(&self, asked: VerifyBackup) -> Result<Restored> {
        let record = self.work.catalogue.ready(&asked.volume)?;
        let work = self.work.clone();
        let verified =
            tokio::spawn(
                async move { work.verify(&record, &asked.repository, &asked.backup).await },
            );
        verified
            .await
            .map_err(|error| Error::Internal(format!("the backup was not verified: {error}")))?
    }

    fn how_far(&self, asked: &BackupProgress) -> Result<HowFar> {
        let record = self.work.catalogue.ready(&asked.volume)?;
        let progress = self.work.progress(&record.id);
        Ok(HowFar { progress })
    }

    async fn tear_down(&self, asked: &TearDownVolumes) -> Result<TornDown> {
        if !self.work.catalogue.is_known() && !asked.delete {
            return Err(Error::Unavailable(UNKNOWN.to_owned()));
        }
        let mut removed = Vec::new();
        let volumes = self.work.catalogue.volumes();
        // A pool that nothing lies on is nothing to keep.
        let delete = asked.delete || volumes.is_empty();
        for record in volumes {
            self.work.stop_worker(&record.id).await;
            let _gate = self.work.gate(&record.name).await;
            self.work.purge_working(&record).await?;
            if record.is_ready() {
                self.work.detach(&record).await?;
            }
            if asked.delete {
                self.work.purge(&record).await?;
                removed.push(format!("volume {}", record.name));
            }
        }
        for pool in self.work.pools.all() {
            let backend = pool.backend;
            let closed = blocking(move || backend.close(delete)).await?;
            removed.extend(closed);
        }
        self.work.forget_keys()?;
        Ok(TornDown { removed })
    }
}

fn count(volumes: &[VolumeRecord], is: impl Fn(&VolumeRecord) -> bool) -> u64 {
    volumes.iter().filter(|record| is(record)).count() as u64
}

/// The options of a volume as they were given, as texts.
fn options(record: &VolumeRecord) -> BTreeMap<String, String> {
    let value = serde_json::to_value(&record.options).unwrap_or_default();
    let fields = value.as_object().cloned().unwrap_or_default();
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    fields
        .into_iter()
        .map(|(name, value)| (name.replace('_', "-"), text(value)))
        .collect()
}

impl Service for Control {
    async fn call(&self, request: Request) -> Response {
        let body = &request.body;
        match request.path.as_str() {
            WhoAreYou::PATH => {
                run::<WhoAreYou, _>(body, async |_| Ok(self.who_are_you().await)).await
            }
            VolumeStatus::PATH => {
                run::<VolumeStatus, _>(body, async |_| Ok(self.report().await)).await
            }
            Volumes::PATH => run::<Volumes, _>(body, async |it| Ok(self.volumes(&it))).await,
            Snapshots::PATH => {
                run::<Snapshots, _>(body, async |it| self.snapshots(&it).await).await
            }
            BackupProgress::PATH => {
                run::<BackupProgress, _>(body, async |it| self.how_far(&it)).await
            }
            PauseVolume::PATH => run::<PauseVolume, _>(body, async |it| self.pause(it).await).await,
            CompareSnapshot::PATH => {
                run::<CompareSnapshot, _>(body, async |it| self.compare(it).await).await
            }
            _ => self.change(request).await,
        }
    }
}

impl Control {
    /// The methods that change something.
    async fn change(&self, request: Request) -> Response {
        let (body, work) = (&request.body, &self.work);
        match request.path.as_str() {
            ResizeVolume::PATH => {
                run::<ResizeVolume, _>(body, async |it| {
                    Ok(self.entry_of(&work.resize(&it.volume, it.size).await?))
                })
                .await
            }
            RestoreTrash::PATH => {
                run::<RestoreTrash, _>(body, async |it| {
                    let restored = work.restore(&it.volume, it.new_name.as_ref()).await?;
                    Ok(self.entry_of(&restored))
                })
                .await
            }
            CreateSnapshot::PATH => {
                run::<CreateSnapshot, _>(body, async |it| self.take(&it.volumes, &it.name).await)
                    .await
            }
            SnapshotProject::PATH => {
                run::<SnapshotProject, _>(body, async |it| self.snapshot_project(it).await).await
            }
            BackUpVolume::PATH => {
                run::<BackUpVolume, _>(body, async |it| self.back_up(it).await).await
            }
            VerifyBackup::PATH => {
                run::<VerifyBackup, _>(body, async |it| self.verify(it).await).await
            }
            RemoveSnapshot::PATH => {
                run::<RemoveSnapshot, _>(body, async |it| {
                    work.remove_snapshot(&it.volume, &it.snapshot).await?;
                    Ok(Empty {})
                })
                .await
            }
            MountSnapshot::PATH => {
                run::<MountSnapshot, _>(body, async |it| self.mount_snapshot(it).await).await
            }
            RollBack::PATH => {
                run::<RollBack, _>(body, async |it| {
                    Ok(self.entry_of(&work.roll_back(&it.volume, &it.snapshot).await?))
                })
                .await
            }
            TearDownVolumes::PATH => {
                run::<TearDownVolumes, _>(body, async |it| self.tear_down(&it).await).await
            }
            other => Response::not_found(other),
        }
    }
}

async fn run<M: Method, F>(body: &[u8], method: F) -> Response
where
    F: AsyncFnOnce(M) -> Result<M::Answer>,
{
    let outcome = match decode::<M>(body) {
        Ok(request) => method(request).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    answer::<M>(outcome)
}
