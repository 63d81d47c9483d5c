//! The file of this process's records: opened, or set aside when it is damaged.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use drover_daemon::set_aside;
use drover_store::Error;
use drover_store::local::Database;
use tracing::{error, warn};

use crate::catalogue::Catalogue;

/// Reads what is known of volumes. A file that is damaged is set aside, and what is on the backends tells what there is.
///
/// # Errors
/// When the file cannot be opened, or was written by a later version.
pub(crate) async fn open(folder: &Path) -> anyhow::Result<Catalogue> {
    let path = folder.join("volumes.redb");
    let is_new = has_no_trace(folder);
    let attempts = Attempts(folder.join("volumes.opening"));
    if attempts.begin() > DEADLY && path.exists() {
        let aside = set_aside(&path).with_context(|| cannot(&path))?;
        error!(
            kept = %aside.display(),
            "opening `{}` has ended this process {DEADLY} times: it is damaged and set aside, and which volumes there are is read \
             from the volumes themselves",
            path.display()
        );
    }
    let database = match Database::open_own(&path).await {
        Err(damage @ Error::Damaged { .. }) => {
            let aside = set_aside(&path).with_context(|| cannot(&path))?;
            error!(
                kept = %aside.display(),
                "{damage}: it is set aside, and which volumes there are is read from the volumes themselves"
            );
            Database::open_own(&path).await?
        }
        other => other?,
    };
    attempts.end();
    Catalogue::open(&database, is_new).with_context(|| {
        format!(
            "`{}` cannot be read: run the version of Drover that wrote it",
            path.display()
        )
    })
}

/// Whether nothing in the state directory tells of volumes that there were: no file of records, none that was set aside, and not the
/// folder that comes with the first pool.
fn has_no_trace(folder: &Path) -> bool {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return error.kind() == ErrorKind::NotFound,
    };
    entries.into_iter().all(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name != "volumes" && name != "volumes.redb" && !name.starts_with("volumes.damaged-")
        })
    })
}

fn cannot(path: &Path) -> String {
    format!("`{}` is damaged and cannot be set aside", path.display())
}

/// How often the file is opened that had ended the process before.
const DEADLY: u64 = 3;

/// How often opening was begun and not ended: a byte each in a file.
struct Attempts(PathBuf);

impl Attempts {
    /// Notes that it begins; the how manyth time in turn that is.
    fn begin(&self) -> u64 {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        let mut options = fs::OpenOptions::new();
        let noted = fs::create_dir_all(folder);
        let noted = noted.and_then(|()| options.create(true).append(true).open(&self.0));
        let noted = noted.and_then(|mut file| {
            file.write_all(b".")?;
            file.metadata()
        });
        // A disk that takes no note of it takes nothing else either, and says so at the next step.
        noted.map_or(1, |file| file.len())
    }

    fn end(&self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!(%error, "`{}` stays", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contents of the files that were set aside, in order.
    fn kept(folder: &Path) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let aside = paths.filter(|path| path.to_string_lossy().contains("volumes.damaged-"));
        let mut kept: Vec<_> = aside.map(|path| fs::read(path).unwrap()).collect();
        kept.sort();
        kept
    }

    #[tokio::test]
    async fn every_damaged_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volumes.redb");
        let all: Vec<_> = (b'0'..b'5').map(|number| vec![number; 100]).collect();
        // Some of them within a second.
        for bytes in &all {
            fs::write(&path, bytes).unwrap();
            drop(open(folder.path()).await.unwrap());
        }
        assert_eq!(kept(folder.path()), all);
    }

    #[tokio::test]
    async fn only_a_state_directory_without_a_trace_never_had_a_volume() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volumes.redb");
        // Also when it was opened before, and nothing came of it.
        for _ in 0..2 {
            let catalogue = open(folder.path()).await.unwrap();
            assert!(catalogue.never_had_any() && !catalogue.is_known());
        }
        fs::write(&path, "damaged").unwrap();
        assert!(!open(folder.path()).await.unwrap().never_had_any());
        fs::remove_file(&path).unwrap();
        assert!(!open(folder.path()).await.unwrap().never_had_any());

        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("volumes")).unwrap();
        assert!(!open(other.path()).await.unwrap().never_had_any());
    }

    #[tokio::test]
    async fn a_file_whose_opening_ended_the_process_three_times_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volumes.redb");
        drop(open(folder.path()).await.unwrap());
        let attempts = folder.path().join("volumes.opening");
        for (deaths, expected) in [(2, 0), (3, 1)] {
            fs::write(&attempts, ".".repeat(deaths)).unwrap();
            drop(open(folder.path()).await.unwrap());
            assert_eq!(kept(folder.path()).len(), expected, "{deaths}");
            assert!(!attempts.exists());
        }
        // A file that is not there was not what ended it.
        fs::write(&attempts, "....").unwrap();
        fs::remove_file(&path).unwrap();
        drop(open(folder.path()).await.unwrap());
        assert_eq!(kept(folder.path()).len(), 1);
    }
}
