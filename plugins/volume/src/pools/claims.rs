//! A pool of a volume group is one process's at a time. Two would each take the other's volumes for their own, and remove what the
//! other is making.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use drover_storage::Error as Storage;

use crate::error::{Error, Result};

/// Where all processes of a machine look, whatever their settings are.
const FOLDER: &str = "/run/drover-pools";

/// The pools that this process has: it has a lock on a file for each, which ends with the process, however that ends.
pub(super) struct Claims {
    folder: PathBuf,
    held: Mutex<BTreeMap<String, File>>,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            folder: PathBuf::from(FOLDER),
            held: Mutex::default(),
        }
    }
}

impl Claims {
    /// Takes a pool, if it has it not yet.
    pub(super) fn take(&self, group: &str, pool: &str) -> Result<()> {
        // A name has no slash; as in the names of its devices, a single hyphen stands between the two.
        let name = [group, pool].map(|part| part.replace('-', "--")).join("-");
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(&name) {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.folder);
        made.map_err(Storage::system("make", &self.folder))?;
        let path = self.folder.join(&name);
        let file = File::create(&path).map_err(Storage::system("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Unavailable(format!(
                    "another Drover on this machine keeps its volumes in the pool `{group}/{pool}`: give this one a pool of its own, with \
                     `volumes.volume_group` and `volumes.thin_pool`"
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Storage::system("lock", &path)(error).into());
            }
        }
        held.insert(name, file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let process = || Claims {
            folder: folder.path().join("pools"),
            ..Claims::default()
        };
        let (first, second) = (process(), process());
        first.take("a-b", "c").unwrap();
        first.take("a-b", "c").unwrap();
        let refusal = second.take("a-b", "c").unwrap_err().to_string();
        assert!(
            refusal.contains("`a-b/c`") && refusal.contains("thin_pool"),
            "{refusal}"
        );
        second.take("a", "b-c").unwrap();
        drop(first);
        second.take("a-b", "c").unwrap();
    }
}
