//! Where the lab keeps what outlives a run, and what does not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::{interrupt, process};

/// The directory outside of the checkout that runs share: `DROVER_CACHE`, or `~/.cache/drover`.
#[must_use]
pub fn directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("DROVER_CACHE") {
        return directory.into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/drover")
}

/// The root file system of a Debian suite, as `integration-tests/make-root` builds it.
#[must_use]
pub fn root(suite: &str) -> PathBuf {
    directory().join("roots").join(suite)
}

/// The directory of Drover's programs: `DROVER_BIN`, or where this program itself was built.
///
/// # Errors
/// Fails when this program's own path is unknown.
pub fn binaries() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("DROVER_BIN") {
        return Ok(directory.into());
    }
    let own = std::env::current_exe().context("this program's own path")?;
    let directory = own.parent().context("this program lies in no directory")?;
    if directory.ends_with("deps") {
        return Ok(directory.parent().unwrap_or(directory).to_owned());
    }
    Ok(directory.to_owned())
}

/// The state of one run: its hosts' disks. Removed when it is dropped, or by the next run when this
/// one was killed.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

/// How many this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

impl RunDirectory {
    /// Makes one, after removing what killed runs have left.
    ///
    /// # Errors
    /// Fails when the directory cannot be made.
    pub fn create() -> Result<Self> {
        let parent = std::env::var_os("DROVER_LAB_STATE")
            .map_or_else(|| directory().join("lab"), PathBuf::from);
        fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
        // One at a time: between a directory and its lock, somebody else would take it for a leftover.
        let file = File::create(parent.join("lock")).context("making the lock of all runs")?;
        let _making = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("locking the directory of all runs")?;
        sweep(&parent)?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("run-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        let file = File::create(path.join("lock")).context("making the lock of the run")?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .context("locking the directory of the run")?;
        interrupt::also_remove(&path);
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // What cannot be removed now, the next run removes.
        let _removed = remove(&self.path);
        if let Some(parent) = self.path.parent() {
            let _swept = sweep_groups(parent);
        }
    }
}

/// Removes the runs whose lock nobody holds, and the control groups of runs that are gone.
fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).context("listing the runs")? {
        let path = entry.context("listing the runs")?.path();
        let ours = path.file_name().and_then(|name| name.to_str());
        if !ours.is_some_and(|name| name.starts_with("run-")) {
            continue;
        }
        let free = match File::open(path.join("lock")) {
            Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok(),
            Err(_) => true,
        };
        if free {
            remove(&path).with_context(|| format!("removing the leftover {}", path.display()))?;
        }
    }
    sweep_groups(parent)
}

/// Removes the control groups of runs that are gone.
fn sweep_groups(parent: &Path) -> Result<()> {
    process::machine(&["sh", "-c", SWEEP_GROUPS, "sweep", &parent.to_string_lossy()])?;
    Ok(())
}

/// Removes empty control groups of runs that have no directory any more.
const SWEEP_GROUPS: &str = "
for group in /sys/fs/cgroup/*/drover-lab/run-* /sys/fs/cgroup/drover-lab/run-*; do
    [ -d \"$group\" ] || continue
    run=${group##*/}; run=${run%-host*}
    [ -d \"$1/$run\" ] || find \"$group\" -depth -type d -exec rmdir {} \\; 2>/dev/null
done
rmdir /sys/fs/cgroup/*/drover-lab /sys/fs/cgroup/drover-lab 2>/dev/null
true";

/// Removes the files of a run.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        process::machine(&["rm", "-rf", "--one-file-system", &path.to_string_lossy()])?;
    }
    Ok(())
}
