//! Backups are made here.

mod block;
mod tree;
mod writer;

use drover_backup_protocol::{Create, Created, Source};
use rustic_core::FileType;
use rustic_core::repofile::SnapshotFile;

use crate::adopt::adopt;
use crate::catalog;
use crate::failure::{Result, internal};
use crate::lock::Mode;
use crate::repository::Session;

/// Makes a backup.
pub(crate) fn create(session: &Session, create: &Create) -> Result<Created> {
    let (lock, mut index) = session.lock_and_load(Mode::Shared)?;
    let resumed = adopt(session, &lock, &mut index)?;
    let saved = match &create.source {
        Source::Tree { path } => {
            // The library reads the index for itself.
            drop(index);
            tree::save(session, create, path)?
        }
        Source::Block {
            path,
            size,
            changed,
        } => {
            let device = block::Device {
                path,
                size: *size,
                changed: changed.as_deref(),
            };
            block::save(session, create, &device, &index)?
        }
    };
    lock.held()?;
    let snapshot = finish(session, saved.snapshot)?;
    let backup =
        catalog::backup(&snapshot).ok_or_else(|| internal("a backup without its own tags"))?;
    Ok(Created {
        backup,
        parent: saved.parent,
        read: saved.read,
        new: saved.new,
        sent: session.reporter.meter().sent(),
        resumed,
    })
}

/// What was saved; nobody sees it before its snapshot is written.
#[derive(Debug)]
struct Saved {
    snapshot: SnapshotFile,
    parent: Option<String>,
    read: u64,
    new: u64,
}

/// Writes the snapshot, and with it makes the backup one.
fn finish(session: &Session, mut snapshot: SnapshotFile) -> Result<SnapshotFile> {
    let json = serde_json::to_vec(&snapshot).map_err(internal)?;
    let (id, sealed) = session.codec.seal_file(&json)?;
    session
        .files
        .write(FileType::Snapshot, &id, &[sealed.into()])?;
    snapshot.id = id.into();
    Ok(snapshot)
}
