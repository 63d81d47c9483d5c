//! The file of this process's records: opened, or set aside when it is damaged.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use drover_store::Error;
use drover_store::local::Database;
use tracing::{error, warn};

use crate::catalogue::Catalogue;
use crate::clock::{now, stamp};

/// Reads what is known of volumes. A file that is damaged is set aside, and what is on the backends tells what there is.
///
/// # Errors
/// When the file cannot be opened, or was written by a later version.
pub(crate) async fn open(folder: &Path) -> anyhow::Result<Catalogue> {
    let path = folder.join("volumes.redb");
    let attempts = Attempts(folder.join("volumes.opening"));
    if attempts.begin() > DEADLY {
        let aside = set_aside(&path)?;
        error!(
            kept = %aside.display(),
            "opening `{}` has ended this process {DEADLY} times: it is damaged and set aside, and which volumes there are is read \
             from the volumes themselves",
            path.display()
        );
    }
    let database = match Database::open_own(&path).await {
        Err(damage @ Error::Damaged { .. }) => {
            let aside = set_aside(&path)?;
            error!(
                kept = %aside.display(),
                "{damage}: it is set aside, and which volumes there are is read from the volumes themselves"
            );
            Database::open_own(&path).await?
        }
        other => other?,
    };
    attempts.end();
    Catalogue::open(&database).with_context(|| {
        format!(
            "`{}` cannot be read: run the version of Drover that wrote it",
            path.display()
        )
    })
}

/// How often the file is opened that had ended the process before.
const DEADLY: u64 = 3;

/// How often opening was begun and not ended: a byte each in a file.
struct Attempts(PathBuf);

impl Attempts {
    /// Notes that it begins; the how manyth time in turn that is.
    fn begin(&self) -> u64 {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        let mut options = std::fs::OpenOptions::new();
        let noted = std::fs::create_dir_all(folder);
        let noted = noted.and_then(|()| options.create(true).append(true).open(&self.0));
        let noted = noted.and_then(|mut file| {
            file.write_all(b".")?;
            file.metadata()
        });
        // A disk that takes no note of it takes nothing else either, and says so at the next step.
        noted.map_or(1, |file| file.len())
    }

    fn end(&self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!(%error, "`{}` stays", self.0.display());
        }
    }
}

fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
    let aside = path.with_extension(format!("damaged-{}", stamp(now())));
    std::fs::rename(path, &aside)
        .with_context(|| format!("`{}` is damaged and cannot be set aside", path.display()))?;
    Ok(aside)
}
