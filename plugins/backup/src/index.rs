//! What a repository holds: which blob is where. Read whole into memory; some 80 bytes a blob.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use drover_backup_protocol::Failure;
use rustic_core::repofile::{BlobType, IndexFile, IndexPack, Tree};
use rustic_core::{FileType, Id};

use crate::codec::{Codec, OVERHEAD, hash};
use crate::failure::{Result, damaged};
use crate::fetch;
use crate::files::{Files, path_of};
use crate::repository::Session;

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blob {
    /// The number of its pack.
    pub(crate) pack: u32,
    /// Where in the pack it begins.
    pub(crate) offset: u32,
    /// What it takes there, bytes.
    pub(crate) size: u32,
    /// The length of its content, when it is compressed.
    pub(crate) plain: Option<NonZeroU32>,
}

impl Blob {
    /// Where in the pack it ends.
    pub(crate) const fn end(&self) -> u32 {
        self.offset.saturating_add(self.size)
    }

    /// The length of its content, bytes.
    pub(crate) fn length(&self) -> u32 {
        let uncompressed = self.size.saturating_sub(OVERHEAD);
        self.plain.map_or(uncompressed, NonZeroU32::get)
    }
}

/// The index of a repository.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<Id>,
    numbers: HashMap<Id, u32>,
    data: HashMap<Id, Blob>,
    trees: HashMap<Id, Blob>,
    /// Packs that are to be removed, and so are no good to build upon.
    condemned: HashSet<Id>,
}

impl Index {
    /// Reads all index files.
    pub(crate) fn load(session: &Session) -> Result<Self> {
        let listed = session.files.list(FileType::Index)?;
        let whole = Mutex::new(Self::default());
        fetch::beside(&listed, |(id, _)| {
            let path = path_of(FileType::Index, id);
            let Some(sealed) = session.files.read_path(&path)? else {
                // Another process has put a newer one in its place meanwhile.
                return Ok(());
            };
            let file = read(&session.codec, &path, &sealed)?;
            let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
            for pack in &file.packs {
                whole.add(pack);
            }
            let condemned = file.packs_to_delete.iter().map(|pack| *pack.id);
            whole.condemned.extend(condemned);
            Ok(())
        })?;
        Ok(whole.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds what a pack holds.
    pub(crate) fn add(&mut self, pack: &IndexPack) {
        let Ok(next) = u32::try_from(self.packs.len()) else {
            return;
        };
        let number = *self.numbers.entry(*pack.id).or_insert_with(|| {
            self.packs.push(*pack.id);
            next
        });
        for blob in &pack.blobs {
            let place = Blob {
                pack: number,
                offset: blob.location.offset,
                size: blob.location.length,
                plain: blob.location.uncompressed_length,
            };
            match blob.tpe {
                BlobType::Data => self.data.insert(*blob.id, place),
                BlobType::Tree => self.trees.insert(*blob.id, place),
            };
        }
    }

    /// A pack is known.
    pub(crate) fn knows_pack(&self, pack: &Id) -> bool {
        self.numbers.contains_key(pack) || self.condemned.contains(pack)
    }

    /// Some content is in the repository.
    pub(crate) fn has_data(&self, id: &Id) -> bool {
        self.data.contains_key(id)
    }

    /// A tree is in the repository.
    pub(crate) fn has_tree(&self, id: &Id) -> bool {
        self.trees.contains_key(id)
    }

    /// The pack that some content is in.
    pub(crate) fn pack_of_data(&self, id: &Id) -> Option<&Id> {
        self.pack(self.data.get(id)?)
    }

    /// The pack that a tree is in.
    pub(crate) fn pack_of_tree(&self, id: &Id) -> Option<&Id> {
        self.pack(self.trees.get(id)?)
    }

    fn pack(&self, blob: &Blob) -> Option<&Id> {
        self.packs.get(usize::try_from(blob.pack).ok()?)
    }

    /// How long some content is, bytes.
    pub(crate) fn length_of(&self, id: &Id) -> Option<u64> {
        self.data.get(id).map(|blob| blob.length().into())
    }

    /// Where some content is.
    pub(crate) fn blob(&self, id: &Id) -> Result<Blob> {
        self.data.get(id).copied().ok_or_else(|| unknown(id))
    }

    /// Reads a tree, and compares it with its hash.
    pub(crate) fn read_tree(&self, files: &Files, codec: &Codec, id: &Id) -> Result<Tree> {
        let blob = self.trees.get(id).ok_or_else(|| unknown(id))?;
        let sealed = self.read_run(files, blob, blob.size)?;
        let content = self.unseal(codec, id, blob, &sealed)?;
        serde_json::from_slice(&content)
            .map_err(|error| damaged(&format!("tree {}", id.to_hex().as_str()), error))
    }

    /// Reads so many bytes of a pack, from where a blob begins.
    pub(crate) fn read_run(&self, files: &Files, first: &Blob, size: u32) -> Result<Bytes> {
        files.read_part(FileType::Pack, self.pack_of(first)?, first.offset, size)
    }

    /// The content of a blob, compared with its hash.
    pub(crate) fn unseal(
        &self,
        codec: &Codec,
        id: &Id,
        blob: &Blob,
        sealed: &[u8],
    ) -> Result<Vec<u8>> {
        let content = codec.unseal_blob(sealed, blob.plain);
        match content.filter(|content| hash(content) == *id) {
            Some(content) => Ok(content),
            None => {
                let name = id.to_hex();
                let what = format!("blob `{}` in it is not what was written", name.as_str());
                Err(damaged(&path_of(FileType::Pack, self.pack_of(blob)?), what))
            }
        }
    }

    fn pack_of(&self, blob: &Blob) -> Result<&Id> {
        self.pack(blob)
            .ok_or_else(|| damaged("index", "a blob is in a pack that it does not name"))
    }
}

fn unknown(id: &Id) -> Failure {
    let name = id.to_hex();
    let what = format!("no pack is known to hold blob `{}`", name.as_str());
    damaged("index", what)
}

/// Reads an index file.
pub(crate) fn read(codec: &Codec, path: &str, sealed: &[u8]) -> Result<IndexFile> {
    let json = codec
        .unseal_file(sealed)
        .ok_or_else(|| damaged(path, "it is not what was written"))?;
    serde_json::from_slice(&json).map_err(|error| damaged(path, error))
}
