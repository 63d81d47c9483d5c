//! How the pool is: its figures, and what is not as it should be.

use super::Thin;
use super::report::PoolStatus;
use crate::backend::PoolState;
use crate::error::Result;

impl Thin {
    /// How the pool is, as the kernel says.
    pub(super) fn pool_state(&self) -> Result<PoolState> {
        let status = self.lvm.status(&self.lvm.pool_device()?)?;
        let Some(status) = status.filter(|target| target.kind == "thin-pool") else {
            return Ok(self.describe(None, 0));
        };
        let parsed = PoolStatus::parse(&status.status);
        let block_size = match &parsed {
            Some(PoolStatus::Working { data, .. }) => {
                status.sectors.saturating_mul(512) / data.1.max(1)
            }
            _ => 0,
        };
        Ok(self.describe(parsed, block_size))
    }

    /// The state of the pool, from what the kernel says.
    fn describe(&self, status: Option<PoolStatus>, block_size: u64) -> PoolState {
        let path = self.lvm.pool_path();
        let mut state = PoolState {
            place: self.place.describe(&self.lvm),
            ..PoolState::default()
        };
        let repair = format!("stop what uses it, and repair it with `lvconvert --repair {path}`");
        match status {
            None => state.complaints.push(format!(
                "the pool `{path}` is not active: activate it with `lvchange -ay {path}`"
            )),
            Some(PoolStatus::Failed) => state.complaints.push(format!(
                "the pool `{path}` has failed, its metadata is damaged or its disk is: {repair}"
            )),
            Some(PoolStatus::Working {
                metadata,
                data,
                mode,
                needs_check,
            }) => {
                state.capacity = data.1.saturating_mul(block_size);
                state.used = data.0.saturating_mul(block_size);
                state.metadata_percent =
                    u8::try_from(metadata.0.saturating_mul(100) / metadata.1.max(1)).ok();
                if needs_check {
                    let sentence = format!(
                        "the kernel asks for a check of the metadata of the pool `{path}`: {repair}"
                    );
                    state.complaints.push(sentence);
                } else if mode == "ro" {
                    let sentence = format!(
                        "the pool `{path}` is read-only, since its metadata is full or cannot be written: {repair}"
                    );
                    state.complaints.push(sentence);
                }
            }
        }
        state
    }
}
