//! How a repository's files and blobs are hashed, compressed and encrypted: restic's format, version 2.
//!
//! Source: restic's design document, "Repository Layout", "Pack Format", "Keys, Encryption and MAC".

use std::num::NonZeroU32;

use aes256ctr_poly1305aes::aead::{Aead, AeadInPlace};
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use rustic_core::Id;
use rustic_core::repofile::MasterKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::failure::{Result, internal};

/// The length of a nonce, bytes.
const NONCE: usize = 16;

/// What encryption adds: a nonce and a tag, bytes.
pub(crate) const OVERHEAD: u32 = 32;

/// The first byte of a file that is compressed.
const COMPRESSED: u8 = 2;

/// The level that restic and rustic use by default.
const LEVEL: i32 = 3;

/// Encrypts and decrypts with a repository's key.
#[derive(Clone)]
pub(crate) struct Codec {
    cipher: Aes256CtrPoly1305Aes,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Codec")
    }
}

/// The id of some content.
pub(crate) fn hash(content: &[u8]) -> Id {
    Id::new(Sha256::digest(content).into())
}

impl Codec {
    /// The codec of a repository.
    pub(crate) fn new(key: &MasterKey) -> Result<Self> {
        let parts = [
            key.encrypt.as_slice(),
            key.mac.k.as_slice(),
            key.mac.r.as_slice(),
        ];
        let bytes = Zeroizing::new(parts.concat());
        match <&[u8; 64]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Ok(Self::of_bytes(bytes)),
            Err(_) => Err(internal("the repository's key has not 64 bytes")),
        }
    }

    /// The codec of a key.
    pub(crate) fn of_bytes(key: &[u8; 64]) -> Self {
        Self {
            cipher: Aes256CtrPoly1305Aes::new(Key::from_slice(key)),
        }
    }

    /// Encrypts: nonce, then content, then tag.
    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(internal)?;
        let nonce = Nonce::from(nonce);
        let mut sealed = Vec::with_capacity(plain.len() + NONCE * 2);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let body = sealed.get_mut(NONCE..).unwrap_or_default();
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce, &[], body)
            .map_err(internal)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Decrypts; `None` when it is not what was encrypted with this key.
    pub(crate) fn unseal(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE)?;
        self.cipher.decrypt(Nonce::from_slice(nonce), body).ok()
    }

    /// A file of JSON as it is kept, with its id.
    pub(crate) fn seal_file(&self, json: &[u8]) -> Result<(Id, Vec<u8>)> {
        let mut plain = vec![COMPRESSED];
        plain.extend(zstd::bulk::compress(json, LEVEL).map_err(internal)?);
        let sealed = self.seal(&plain)?;
        Ok((hash(&sealed), sealed))
    }

    /// The JSON of a file.
    pub(crate) fn unseal_file(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let plain = self.unseal(sealed)?;
        match plain.split_first() {
            Some((&COMPRESSED, compressed)) => zstd::stream::decode_all(compressed).ok(),
            _ => Some(plain),
        }
    }

    /// The content of a blob.
    pub(crate) fn unseal_blob(&self, sealed: &[u8], plain: Option<NonZeroU32>) -> Option<Vec<u8>> {
        let content = self.unseal(sealed)?;
        match plain {
            None => Some(content),
            Some(length) => {
                zstd::bulk::decompress(&content, usize::try_from(length.get()).ok()?).ok()
            }
        }
    }
}

/// Compresses and encrypts blobs; each thread has its own.
pub(crate) struct Sealer {
    codec: Codec,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Sealer {
    /// With a repository's codec.
    pub(crate) fn new(codec: Codec) -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(LEVEL).map_err(internal)?;
        Ok(Self { codec, compressor })
    }

    /// A blob as it is kept.
    pub(crate) fn seal(&mut self, content: &[u8]) -> Result<Vec<u8>> {
        let compressed = self.compressor.compress(content).map_err(internal)?;
        self.codec.seal(&compressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_unsealed_and_nothing_else() {
        let codec = Codec::new(&MasterKey::new()).unwrap();
        let sealed = codec.seal(b"content").unwrap();
        assert_eq!(codec.unseal(&sealed).unwrap(), b"content");
        for index in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[index] ^= 1;
            assert_eq!(codec.unseal(&flipped), None, "bit of byte {index}");
        }
        assert_eq!(codec.unseal(&sealed[..20]), None);
        assert_eq!(codec.unseal(&[]), None);
        let (id, file) = codec.seal_file(b"{}").unwrap();
        assert_eq!(id, hash(&file));
        assert_eq!(codec.unseal_file(&file).unwrap(), b"{}");
    }
}
