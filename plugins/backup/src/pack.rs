//! Packs: blobs behind each other, then a header that lists them, encrypted, then the header's length.

use std::num::NonZeroU32;

use bytes::Bytes;
use rustic_core::repofile::{BlobType, IndexBlob, IndexPack};
use rustic_core::{BlobId, FileType, Id};
use sha2::{Digest, Sha256};

use crate::codec::{Codec, OVERHEAD};
use crate::failure::{Result, damaged, internal};
use crate::files::{Files, path_of};

/// The length of the field with the header's length, bytes.
const LENGTH: u32 = 4;

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    parts: Vec<Bytes>,
    blobs: Vec<IndexBlob>,
    size: u32,
}

/// A pack that is ready to be written.
#[derive(Debug)]
pub(crate) struct Pack {
    /// Its id.
    pub(crate) id: Id,
    /// What it holds.
    pub(crate) entry: IndexPack,
    /// Its bytes.
    pub(crate) content: Vec<Bytes>,
}

/// A blob as it is kept.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The hash of its content.
    pub(crate) id: Id,
    /// What it is.
    pub(crate) kind: BlobType,
    /// The length of its content.
    pub(crate) plain: u32,
    /// Compressed and encrypted.
    pub(crate) bytes: Bytes,
}

impl Filling {
    /// Its size without the header, bytes.
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// It holds nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Adds a blob.
    pub(crate) fn add(&mut self, sealed: Sealed) -> Result<()> {
        let length = u32::try_from(sealed.bytes.len()).map_err(internal)?;
        let blob = serde_json::json!({
            "id": sealed.id,
            "type": sealed.kind,
            "offset": self.size,
            "length": length,
            "uncompressed_length": sealed.plain,
        });
        self.blobs
            .push(serde_json::from_value(blob).map_err(internal)?);
        self.parts.push(sealed.bytes);
        self.size += length;
        Ok(())
    }

    /// Closes it.
    pub(crate) fn close(self, codec: &Codec) -> Result<Pack> {
        let mut header = Vec::with_capacity(self.blobs.len() * 41);
        for blob in &self.blobs {
            write_entry(&mut header, blob);
        }
        let header = codec.seal(&header)?;
        let length = u32::try_from(header.len()).map_err(internal)?;
        let mut content = self.parts;
        content.push(header.into());
        content.push(Bytes::copy_from_slice(&length.to_le_bytes()));
        let mut hasher = Sha256::new();
        for part in &content {
            hasher.update(part);
        }
        let id = Id::new(hasher.finalize().into());
        let entry = IndexPack {
            id: id.into(),
            blobs: self.blobs,
            time: None,
            size: None,
        };
        Ok(Pack { id, entry, content })
    }
}

fn write_entry(header: &mut Vec<u8>, blob: &IndexBlob) {
    let compressed = blob.location.uncompressed_length;
    let kind = match (blob.tpe, compressed.is_some()) {
        (BlobType::Data, false) => 0,
        (BlobType::Tree, false) => 1,
        (BlobType::Data, true) => 2,
        (BlobType::Tree, true) => 3,
    };
    header.push(kind);
    header.extend_from_slice(&blob.location.length.to_le_bytes());
    if let Some(plain) = compressed {
        header.extend_from_slice(&plain.get().to_le_bytes());
    }
    header.extend_from_slice(&raw(&blob.id));
}

/// The 32 bytes of an id.
fn raw(id: &BlobId) -> [u8; 32] {
    let text = id.to_hex();
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_str().as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or("0");
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    bytes
}

/// Reads what a pack holds from its own header.
pub(crate) fn read_header(files: &Files, codec: &Codec, id: &Id, size: u64) -> Result<IndexPack> {
    let path = path_of(FileType::Pack, id);
    let wrong = || damaged(&path, "its header is not what was written");
    let size = u32::try_from(size)
        .ok()
        .filter(|size| *size > LENGTH + OVERHEAD);
    let end = size.ok_or_else(wrong)? - LENGTH;
    let length = files.read_part(FileType::Pack, id, end, LENGTH)?;
    let length = <[u8; 4]>::try_from(length.as_ref()).map_err(internal)?;
    let length = u32::from_le_bytes(length);
    let begin = end.checked_sub(length).ok_or_else(wrong)?;
    let sealed = files.read_part(FileType::Pack, id, begin, length)?;
    let header = codec.unseal(&sealed).ok_or_else(wrong)?;
    let blobs = parse(&header).ok_or_else(wrong)?;
    let filled: u64 = blobs
        .iter()
        .map(|blob: &IndexBlob| u64::from(blob.location.length))
        .sum();
    if filled != u64::from(begin) {
        return Err(wrong());
    }
    Ok(IndexPack {
        id: (*id).into(),
        blobs,
        time: None,
        size: None,
    })
}

fn parse(mut header: &[u8]) -> Option<Vec<IndexBlob>> {
    let mut blobs = Vec::new();
    let mut offset: u32 = 0;
    while let Some((kind, rest)) = header.split_first() {
        let (tpe, compressed) = match kind {
            0 => (BlobType::Data, false),
            1 => (BlobType::Tree, false),
            2 => (BlobType::Data, true),
            3 => (BlobType::Tree, true),
            _ => return None,
        };
        let (length, mut rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        let mut uncompressed_length = None;
        if compressed {
            let (plain, after) = rest.split_first_chunk::<4>()?;
            uncompressed_length = NonZeroU32::new(u32::from_le_bytes(*plain));
            rest = after;
        }
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let blob = serde_json::json!({
            "id": Id::new(*id),
            "type": tpe,
            "offset": offset,
            "length": length,
            "uncompressed_length": uncompressed_length,
        });
        blobs.push(serde_json::from_value(blob).ok()?);
        offset = offset.checked_add(length)?;
        header = rest;
    }
    Some(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let mut filling = Filling::default();
        for (number, kind) in [(1_u8, BlobType::Data), (2, BlobType::Tree)] {
            filling
                .add(Sealed {
                    id: Id::new([number; 32]),
                    kind,
                    plain: 100,
                    bytes: vec![number; 50].into(),
                })
                .unwrap();
        }
        let mut header = Vec::new();
        for blob in &filling.blobs {
            write_entry(&mut header, blob);
        }
        assert_eq!(header.len(), 82);
        assert_eq!(parse(&header).unwrap(), filling.blobs);
        assert_eq!(parse(&header[..81]), None);
        assert_eq!(parse(&[9]), None);
        assert_eq!(parse(&[]).unwrap(), Vec::new());
    }
}
