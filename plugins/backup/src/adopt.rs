//! Packs of an earlier run that did not end: they are whole, and no index knows them yet.

use rustic_core::FileType;
use rustic_core::repofile::IndexFile;

use crate::failure::{Result, internal};
use crate::index::Index;
use crate::lock::Lock;
use crate::pack::read_header;
use crate::repository::Session;

/// Puts packs into the index that are in none; tells how many bytes they have.
///
/// While another process holds a lock, they may be its own and are left to it.
pub(crate) fn adopt(session: &Session, lock: &Lock, index: &mut Index) -> Result<u64> {
    if !lock.is_alone() {
        return Ok(0);
    }
    let mut adopted = IndexFile::default();
    let mut found = 0;
    for (id, size) in session.files.list(FileType::Pack)? {
        if index.knows_pack(&id) {
            continue;
        }
        // One that was cut off, where the target leaves such behind, is what `prune` removes.
        let Ok(pack) = read_header(&session.files, &session.codec, &id, size) else {
            continue;
        };
        index.add(&pack);
        adopted.packs.push(pack);
        found += size;
    }
    if !adopted.packs.is_empty() {
        save(session, &adopted)?;
    }
    Ok(found)
}

/// Writes an index file.
pub(crate) fn save(session: &Session, file: &IndexFile) -> Result<()> {
    let json = serde_json::to_vec(file).map_err(internal)?;
    let (id, sealed) = session.codec.seal_file(&json)?;
    session.files.write(FileType::Index, &id, &[sealed.into()])
}
