//! Notes beside volumes, and volumes known by their notes when the records are lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use drover_model::VolumeName;
use drover_storage::{Backend, Object};
use drover_volumes::note::{SnapshotNote, VolumeNote};
use drover_volumes::options::VolumeOptions;
use drover_volumes::record::{SnapshotReason, SnapshotRecord, VolumeRecord, VolumeState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{info, warn};

use super::{Work, blocking, reference};
use crate::clock::now;
use crate::error::{Error, Result};

/// What was found on a backend, with no record.
#[derive(Default)]
struct Found {
    volumes: Vec<VolumeRecord>,
    snapshots: Vec<SnapshotRecord>,
}

impl Work {
    /// Keeps beside a volume what it is.
    pub(super) async fn note(&self, record: &VolumeRecord) -> Result<()> {
        let backend = self.pools.of(record.backend).await?;
        let object = Object::Volume(record.id.clone());
        write(backend, vec![(object, text(&VolumeNote::of(record))?)]).await
    }

    /// The same, where a note that is old is better than a failure: it is written again at the next start.
    pub(crate) async fn renew_note(&self, record: &VolumeRecord) {
        if let Err(error) = self.note(record).await {
            warn!(volume = %record.name, error = error.sentence(), "the note beside it is old");
        }
    }

    /// Keeps beside snapshots what they are.
    pub(super) async fn note_snapshots(
        &self,
        backend: Arc<dyn Backend>,
        records: &[SnapshotRecord],
    ) -> Result<()> {
        let mut notes = Vec::new();
        for record in records {
            let object = Object::Snapshot(reference(record));
            notes.push((object, text(&SnapshotNote::of(record))?));
        }
        write(backend, notes).await
    }

    /// Brings the notes of a pool to what the records say.
    pub(crate) async fn renew_notes(&self, backend: Arc<dyn Backend>) -> Result<()> {
        let asked = backend.clone();
        let (objects, notes) = blocking(move || Ok((asked.objects()?, asked.notes()?))).await?;
        let mut wanted = Vec::new();
        for record in self.catalogue.volumes() {
            if !matches!(record.state, VolumeState::Creating | VolumeState::Removing) {
                let object = Object::Volume(record.id.clone());
                wanted.push((object, text(&VolumeNote::of(&record))?));
            }
        }
        for record in self.catalogue.snapshots(None) {
            let object = Object::Snapshot(reference(&record));
            wanted.push((object, text(&SnapshotNote::of(&record))?));
        }
        wanted.retain(|(object, text)| objects.contains(object) && notes.get(object) != Some(text));
        write(backend, wanted).await
    }

    /// Takes into the catalogue what is on the open pools and has no record; with that all volumes are known. Of a catalogue that
    /// knows all there is, a power cut or a bad disk may have lost the last change: then it is what has a note.
    pub(crate) async fn adopt(&self) -> Result<()> {
        let was_known = self.catalogue.is_known();
        let mut all = Found::default();
        for pool in self.pools.all() {
            // Asked before, so that what is removed meanwhile is not taken for something unknown.
            let before = self.catalogue.objects();
            let mut found = read(pool.backend.clone(), !was_known, &before).await?;
            if !found.is_empty() {
                let objects = blocking(move || pool.backend.objects()).await?;
                found.keep(|object| objects.contains(object));
            }
            let now = self.catalogue.objects();
            found.keep(|object| !now.contains(object));
            all.volumes.extend(found.volumes);
            all.snapshots.extend(found.snapshots);
        }
        if was_known && all.is_empty() {
            return Ok(());
        }
        for (was, is) in give_names(&mut all.volumes, self.catalogue.names()) {
            warn!(volume = %is, "another volume is called `{was}` as well, so this one got another name");
        }
        self.catalogue.adopt(&all.volumes, &all.snapshots)?;
        if !all.is_empty() {
            let (volumes, snapshots) = (all.volumes.len(), all.snapshots.len());
            warn!(
                volumes,
                snapshots,
                "records were lost; what they were of is known again by what lies beside it. When backups were made, and who uses what, \
                 is seen anew"
            );
        }
        Ok(())
    }
}

impl Found {
    const fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.snapshots.is_empty()
    }

    fn keep(&mut self, is: impl Fn(&Object) -> bool) {
        self.volumes
            .retain(|record| is(&Object::Volume(record.id.clone())));
        self.snapshots
            .retain(|record| is(&Object::Snapshot(reference(record))));
    }
}

fn text(note: &impl Serialize) -> Result<String> {
    serde_json::to_string(note).map_err(|error| Error::Internal(error.to_string()))
}

async fn write(backend: Arc<dyn Backend>, notes: Vec<(Object, String)>) -> Result<()> {
    blocking(move || {
        let mut notes = notes.iter();
        notes.try_for_each(|(object, text)| backend.note(object, text))
    })
    .await
}

/// A note; `None` for one that is not there or cannot be read.
fn parse<T: DeserializeOwned>(object: &Object, text: Option<&String>) -> Option<T> {
    let note = serde_json::from_str(text?);
    note.inspect_err(|error| warn!(%object, %error, "the note beside it cannot be read"))
        .ok()
}

/// What is on a backend, but for what is known. With `all` what has no note is not passed over: it gets a name of its id.
async fn read(backend: Arc<dyn Backend>, all: bool, known: &BTreeSet<Object>) -> Result<Found> {
    let asked = backend.clone();
    let (objects, notes) = blocking(move || Ok((asked.objects()?, asked.notes()?))).await?;
    let mut found = Found::default();
    for object in objects {
        let noted = notes.get(&object);
        if known.contains(&object) || (noted.is_none() && !all) {
            continue;
        }
        match &object {
            Object::Volume(id) => {
                let note = match parse::<VolumeNote>(&object, noted) {
                    Some(note) => note,
                    None => VolumeNote {
                        version: 1,
                        name: format!("recovered-{id}").parse()?,
                        options: VolumeOptions::default(),
                        size: None,
                        created_at: now(),
                        state: VolumeState::Ready,
                        paused: false,
                    },
                };
                info!(volume = %note.name, %id, "known again");
                let record = note.record(id.clone(), backend.kind());
                found.volumes.push(record);
            }
            Object::Snapshot(it) => {
                let note = match parse::<SnapshotNote>(&object, noted) {
                    Some(note) => note,
                    None => SnapshotNote {
                        version: 1,
                        name: format!("recovered-{}", it.snapshot).parse()?,
                        taken_at: now(),
                        reason: SnapshotReason::Asked,
                        group: None,
                        application_consistent: false,
                    },
                };
                let record = note.record(it.volume.clone(), it.snapshot.clone());
                found.snapshots.push(record);
            }
        }
    }
    Ok(found)
}

/// Gives volumes other names that bear one which another has: what was lost may be older than a note that was not
/// renewed. The latest keeps the name.
fn give_names(
    volumes: &mut [VolumeRecord],
    mut names: BTreeSet<VolumeName>,
) -> Vec<(VolumeName, VolumeName)> {
    volumes.sort_by_key(|record| std::cmp::Reverse(record.created_at));
    let mut given = Vec::new();
    for record in volumes {
        let bears = matches!(record.state, VolumeState::Ready | VolumeState::Retained);
        if !bears || names.insert(record.name.clone()) {
            continue;
        }
        if let Ok(name) = format!("recovered-{}", record.id).parse::<VolumeName>() {
            given.push((record.name.clone(), name.clone()));
            record.name = name;
        }
    }
    given
}
