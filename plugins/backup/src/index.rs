//! What a repository holds: which blob is where. Read whole into memory; some 80 bytes a blob.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use rustic_core::repofile::{BlobType, IndexFile, IndexPack, Tree};
use rustic_core::{FileType, Id};

use crate::codec::{Codec, hash};
use crate::failure::{Result, damaged};
use crate::files::{Files, path_of};
use crate::repository::Session;

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    pack: u32,
    offset: u32,
    length: u32,
    /// The length of its content, when it is compressed.
    plain: Option<NonZeroU32>,
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
        let mut index = Self::default();
        for (id, _) in session.files.list(FileType::Index)? {
            let path = path_of(FileType::Index, &id);
            let Some(sealed) = session.files.read_path(&path)? else {
                // Another process has put a newer one in its place meanwhile.
                continue;
            };
            let file = read(&session.codec, &path, &sealed)?;
            for pack in &file.packs {
                index.add(pack);
            }
            index
                .condemned
                .extend(file.packs_to_delete.iter().map(|pack| *pack.id));
        }
        Ok(index)
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
                length: blob.location.length,
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

    /// Reads some content, and compares it with its hash.
    pub(crate) fn read_data(&self, files: &Files, codec: &Codec, id: &Id) -> Result<Vec<u8>> {
        self.read_blob(files, codec, id, self.data.get(id))
    }

    /// Reads a tree, and compares it with its hash.
    pub(crate) fn read_tree(&self, files: &Files, codec: &Codec, id: &Id) -> Result<Tree> {
        let content = self.read_blob(files, codec, id, self.trees.get(id))?;
        serde_json::from_slice(&content)
            .map_err(|error| damaged(&format!("tree {}", id.to_hex().as_str()), error))
    }

    fn read_blob(
        &self,
        files: &Files,
        codec: &Codec,
        id: &Id,
        blob: Option<&Blob>,
    ) -> Result<Vec<u8>> {
        let name = id.to_hex();
        let Some((blob, pack)) = blob.and_then(|blob| Some((blob, self.pack(blob)?))) else {
            return Err(damaged(
                "index",
                format!("no pack is known to hold blob `{}`", name.as_str()),
            ));
        };
        let sealed = files.read_part(FileType::Pack, pack, blob.offset, blob.length)?;
        codec
            .unseal_blob(&sealed, blob.plain)
            .filter(|content| hash(content) == *id)
            .ok_or_else(|| {
                let what = format!("blob `{}` in it is not what was written", name.as_str());
                damaged(&path_of(FileType::Pack, pack), what)
            })
    }
}

/// Reads an index file.
pub(crate) fn read(codec: &Codec, path: &str, sealed: &[u8]) -> Result<IndexFile> {
    let json = codec
        .unseal_file(sealed)
        .ok_or_else(|| damaged(path, "it is not what was written"))?;
    serde_json::from_slice(&json).map_err(|error| damaged(path, error))
}
