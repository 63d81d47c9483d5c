//! Snapshots of several subvolumes at one instant.
//!
//! The kernel has no call for it. But a snapshot is made when a transaction is committed, and all that are asked for in
//! one transaction are made in the same step of its commit, during which nothing is written
//! (`create_pending_snapshots`, `fs/btrfs/transaction.c`). A transaction that waits for the one before it to reach the disk
//! can still be joined: so one commit is begun, and meanwhile all snapshots are asked for at once. Whether they share a
//! transaction the kernel tells afterwards, and if not they are taken anew.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Barrier;

use nix::errno::Errno;
use tracing::debug;

use super::{Btrfs, open, request};
use crate::error::{Error, Result};
use crate::mounts;

/// How often it is tried.
const TRIES: u32 = 40;

/// One snapshot that is to be taken.
pub(super) struct Wanted {
    /// Of what.
    pub(super) subvolume: PathBuf,
    /// Into which directory; into each only one can be taken at a time, so it is another for each.
    pub(super) folder: PathBuf,
    /// Under which name.
    pub(super) name: OsString,
    /// What it is called once all are of one instant.
    pub(super) place: PathBuf,
}

impl Wanted {
    /// Where it is taken.
    pub(super) fn staged(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

/// Takes read-only snapshots, all in one transaction.
pub(super) fn take(backend: &Btrfs, wanted: &[Wanted]) -> Result<()> {
    let base = open(&backend.base)?;
    for it in wanted {
        mounts::make_directory(&it.folder)?;
    }
    for attempt in 1..=TRIES {
        // What waits to be written is written first, so that no snapshot waits for it.
        sync(&base, backend)?;
        if wanted.len() > 1 {
            touch(backend)?;
        }
        clear(backend, wanted)?;
        take_together(backend, &base, wanted)?;
        if are_of_one_instant(wanted)? {
            debug!(attempt, snapshots = wanted.len(), "taken at one instant");
            return Ok(());
        }
    }
    clear(backend, wanted)?;
    Err(Error::Busy(format!(
        "the btrfs at `{}` is so busy that {} volumes could not be had at one instant: try again",
        backend.base.display(),
        wanted.len()
    )))
}

fn clear(backend: &Btrfs, wanted: &[Wanted]) -> Result<()> {
    wanted.iter().try_for_each(|it| backend.clear(&it.staged()))
}

fn sync(base: &File, backend: &Btrfs) -> Result<()> {
    nix::unistd::syncfs(base).map_err(|errno| Error::system("sync", &backend.base)(errno.into()))
}

/// Gives the next commit something to do.
fn touch(backend: &Btrfs) -> Result<()> {
    let mark = backend.staging().join("commit");
    fs::create_dir(&mark)
        .and_then(|()| fs::remove_dir(&mark))
        .map_err(Error::system("write to", mark))
}

fn take_together(backend: &Btrfs, base: &File, wanted: &[Wanted]) -> Result<()> {
    let mut open_ones = Vec::new();
    for it in wanted {
        open_ones.push((open(&it.subvolume)?, open(&it.folder)?, it.name.as_os_str()));
    }
    let barrier = Barrier::new(open_ones.len() + 1);
    let outcomes: Vec<nix::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = open_ones
            .iter()
            .map(|(subvolume, folder, name)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    request::snapshot(subvolume, folder, name, true)
                })
            })
            .collect();
        if threads.len() > 1 {
            // The commit that the others wait behind; what comes of it does not matter.
            if let Err(errno) = request::begin_commit(base) {
                debug!(%errno, "no commit to wait behind");
            }
        }
        barrier.wait();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(Errno::ECANCELED)));
        ended.collect()
    });
    for (outcome, it) in outcomes.into_iter().zip(wanted) {
        outcome.map_err(|errno| backend.no_room("take the snapshot", &it.staged(), errno))?;
    }
    Ok(())
}

fn are_of_one_instant(wanted: &[Wanted]) -> Result<bool> {
    let mut transactions = Vec::new();
    for it in wanted {
        let path = it.staged();
        let made = request::subvolume(&open(&path)?)
            .map_err(|errno| Error::system("identify", &path)(errno.into()))?;
        transactions.push(made.made_in);
    }
    transactions.dedup();
    Ok(transactions.len() <= 1)
}
