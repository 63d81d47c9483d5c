//! How much room there is, on a file system and in a sparse file on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::backend::PoolState;
use crate::error::{Error, Result};

/// The space of a file system, bytes.
pub(crate) struct Space {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) read_only: bool,
}

impl Space {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let found = statvfs(path).map_err(|errno| Error::system("look at", path)(errno.into()))?;
        let block = found.fragment_size();
        Ok(Self {
            capacity: found.blocks().saturating_mul(block),
            available: found.blocks_available().saturating_mul(block),
            read_only: found.flags().contains(FsFlags::ST_RDONLY),
        })
    }
}

/// Has a pool in a sparse file tell what is true of the file: what it may yet take has to be free beneath it, or writes to it fail. One
/// that is gone is told, with what `remains` says.
pub(crate) fn limit_to_file(state: &mut PoolState, file: &Path, remains: &str) -> Result<()> {
    let Ok(found) = fs::metadata(file) else {
        state.complaints.push(format!(
            "the loop file `{}` is gone: what is on it goes with the next restart; {remains}",
            file.display(),
        ));
        return Ok(());
    };
    let beneath = Space::of(file.parent().unwrap_or(file))?.available;
    let taken = found.blocks().saturating_mul(512);
    state.used = used(state, taken, beneath);
    Ok(())
}

/// What counts as used of a pool whose file has taken so much, and finds so much free beneath, bytes.
fn used(state: &PoolState, taken: u64, beneath: u64) -> u64 {
    let already = taken.saturating_sub(state.used);
    let can_grow = beneath.saturating_add(already);
    state.used.max(state.capacity.saturating_sub(can_grow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_free_beneath_counts_as_used() {
        let state = PoolState {
            capacity: 100,
            used: 10,
            ..PoolState::default()
        };
        // All there is room for; less; what the file has taken already is its own; and none at all.
        assert_eq!(used(&state, 10, 200), 10);
        assert_eq!(used(&state, 10, 30), 70);
        assert_eq!(used(&state, 60, 0), 50);
        assert_eq!(used(&state, 0, 0), 100);
    }
}
