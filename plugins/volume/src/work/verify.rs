//! Backups that are read back on a schedule: every byte of the latest, each part compared with its own hash.

use std::sync::Arc;

use drover_backup_protocol::{Operation, Outcome, Request, Restored, Selector};
use drover_volumes::record::{Verification, VolumeRecord};
use tracing::{info, warn};

use super::Work;
use super::backup::repository;
use crate::clock::now;
use crate::error::Result;
use crate::worker;

impl Work {
    /// Reads the latest backup back that was made of a volume, and notes what was found.
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
        let ended = match self.verify(&record).await {
            Ok(restored) => {
                let (id, bytes) = (&restored.backup.id, restored.bytes);
                info!(volume = %record.name, backup = id, bytes, "the backup is whole");
                Verification {
                    begun_at: due,
                    verified_at: Some(now()),
                    id: Some(restored.backup.id),
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

    async fn verify(&self, record: &VolumeRecord) -> Result<Restored> {
        let backup = Selector {
            volume: record.name.to_string(),
            when: None,
            host: None,
        };
        let request = Request {
            repository: repository(&record.options)?,
            operation: Operation::Verify {
                backup,
                against: None,
            },
        };
        match self.run_worker(&record.id, &request).await? {
            Outcome::Verified(restored) => Ok(restored),
            _ => Err(worker::foreign()),
        }
    }

    fn note_verification(&self, record: &VolumeRecord, found: Verification) -> Result<()> {
        let noted = self.catalogue.change(&record.id, |it| {
            it.backups.verification = Some(found);
        });
        noted.map(drop)
    }
}
