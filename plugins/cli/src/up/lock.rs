//! One supervisor a run directory.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The file whose lock the supervisor holds.
pub(crate) const LOCK_FILE: &str = "up.lock";

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another supervisor has it.
    #[error(
        "`drover up` runs already in `{}`{}: stop it first, or name another `--run-dir`",
        .run_dir.display(), .holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Taken {
        /// Where.
        run_dir: PathBuf,
        /// Who.
        holder: Option<i32>,
    },
    /// The file cannot be opened, locked or written.
    #[error("cannot lock `{}`", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Takes the lock of a run directory; it ends with the process that holds it, however that ends.
pub(crate) fn take(run_dir: &Path) -> Result<Flock<File>, LockError> {
    let path = run_dir.join(LOCK_FILE);
    let failed = |source| LockError::File {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            LockError::Taken {
                run_dir: run_dir.to_owned(),
                holder: noted_holder(&path),
            }
        } else {
            failed(errno.into())
        }
    })?;
    lock.set_len(0).map_err(failed)?;
    lock.rewind().map_err(failed)?;
    writeln!(lock, "{}", std::process::id()).map_err(failed)?;
    Ok(lock)
}

/// The supervisor of a run directory, if one runs.
pub(crate) fn holder(run_dir: &Path) -> Option<i32> {
    let path = run_dir.join(LOCK_FILE);
    let file = File::open(&path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err(_) => noted_holder(&path),
    }
}

fn noted_holder(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_supervisor_is_refused_and_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(holder(folder.path()), None);
        let first = take(folder.path()).unwrap();
        let refused = take(folder.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(refused.contains(&format!("process {pid}")), "{refused}");
        assert_eq!(holder(folder.path()), i32::try_from(pid).ok());
        drop(first);
        assert_eq!(holder(folder.path()), None);
        assert!(take(folder.path()).is_ok());
    }
}
