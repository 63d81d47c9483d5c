//! Backups that are verified: the latest on a schedule, and others when asked.

use std::sync::Arc;

use drover_backup_protocol::{Operation, Outcome, Repository, Restored, Selector};
use drover_volumes::record::{Verification, VolumeRecord};
use tracing::{info, warn};

use super::backup::repository;
use super::{Work, new_id};
use crate::clock::now;
use crate::error::{Error, Result};
use crate::worker;

impl Work {
    /// Verifies the latest backup that was made of a volume, and notes what was found.
    pub(crate) async fn verify_on_schedule(self: Arc<Self>, record: VolumeRecord, due: u64) {
        let begun = Verification {
            begun_at: due,
            ..record.backups.verification.clone().unwrap_or_default()
        };
        // Without the note it would be due again and again.
        if let Err(error) = self.note_verification(&record, begun.clone()) {
            warn!(volume = %record.name, error = error.sentence(), "its backup is not verified");
            return;
        }
        let Some(_slot) = self.backup_slot().await else {
            return;
        };
        let ended = match self.verify_latest(&record).await {
            Ok((found, restored)) => {
                let (id, bytes) = (&found.backup.id, found.bytes);
                info!(volume = %record.name, backup = id, bytes, restored, "the backup is whole");
                Verification {
                    begun_at: due,
                    verified_at: Some(now()),
                    id: Some(found.backup.id),
                    restored,
                    failure: None,
                }
            }
            Err(error) => {
                let failure = error.sentence();
                warn!(volume = %record.name, error = failure, "the backup was not verified");
                Verification {
                    failure: Some(failure),
                    ..begun
                }
            }
        };
        if let Err(error) = self.note_verification(&record, ended) {
            warn!(volume = %record.name, error = error.sentence(), "what was found cannot be noted");
        }
    }

    async fn verify_latest(&self, record: &VolumeRecord) -> Result<(Restored, bool)> {
        let repository = repository(&record.options)?;
        let latest = Selector {
            volume: record.name.to_string(),
            when: None,
            host: None,
        };
        match self.verify(record, &repository, &latest).await {
            // Where it cannot be restored now, it is read at least.
            Err(Error::Conflict(reason)) => {
                info!(volume = %record.name, reason, "the backup is read, and not restored");
                let read = Operation::Verify {
                    backup: latest,
                    against: None,
                };
                match self.ask_worker(&record.id, &repository, read).await? {
                    Outcome::Verified(restored) => Ok((restored, false)),
                    _ => Err(worker::foreign()),
                }
            }
            restored => restored.map(|restored| (restored, true)),
        }
    }

    /// Restores a backup of a volume to a scratch volume and compares it.
    pub(crate) async fn verify(
        &self,
        record: &VolumeRecord,
        place: &Repository,
        wanted: &Selector,
    ) -> Result<Restored> {
        let backup = self.find_backup(&new_id()?, place, wanted).await?;
        self.rehearse(record, place, &backup).await
    }

    fn note_verification(&self, record: &VolumeRecord, found: Verification) -> Result<()> {
        let noted = self.catalogue.change(&record.id, |it| {
            it.backups.verification = Some(found);
        });
        noted.map(drop)
    }
}
