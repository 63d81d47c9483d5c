//! Keys of repositories that were derived from their passwords before, which takes its time on purpose: kept in memory of this host, for as long
//! as it runs.
//!
//! What is kept is encrypted with the password itself. That is no protection worth the name, and need not be: whoever can read it can read the
//! password file. It makes another password one that is not known, and a key that was taken out of its repository is not asked for.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use rustic_core::Id;
use rustic_core::repofile::MasterKey;
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use crate::codec::Codec;
use crate::report::Reporter;

/// The length of a salt, bytes.
const SALT: usize = 32;

/// The keys that are known to whoever has a password.
pub(crate) struct Known<'a> {
    folder: &'a Path,
    password: &'a str,
}

impl<'a> Known<'a> {
    /// Those in a folder.
    pub(crate) const fn new(folder: &'a Path, password: &'a str) -> Self {
        Self { folder, password }
    }

    /// What a key file of a repository was found to hold.
    pub(crate) fn get(&self, id: &Id) -> Option<MasterKey> {
        let kept = fs::read(self.path(id)).ok()?;
        let (salt, sealed) = kept.split_at_checked(SALT)?;
        let plain = Zeroizing::new(self.codec(salt).unseal(sealed)?);
        serde_json::from_slice(&plain).ok()
    }

    /// Keeps what a key file holds.
    pub(crate) fn put(&self, id: &Id, key: &MasterKey, reporter: &Reporter) {
        if let Err(error) = self.write(id, key) {
            let folder = self.folder.display();
            reporter.warn(format!("a key is not kept in `{folder}`: {error}"));
        }
    }

    fn path(&self, id: &Id) -> PathBuf {
        self.folder.join(id.to_hex().as_str())
    }

    fn write(&self, id: &Id, key: &MasterKey) -> std::io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.folder)?;
        if statfs(self.folder)?.filesystem_type() != TMPFS_MAGIC {
            // Nothing of it gets onto a disk.
            return Ok(());
        }
        let mut content = vec![0; SALT];
        getrandom::fill(&mut content)?;
        let plain = Zeroizing::new(serde_json::to_vec(key)?);
        let sealed = self.codec(&content).seal(&plain);
        content.extend(sealed.map_err(std::io::Error::other)?);
        let unfinished = self.folder.join(format!(".{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&content)?;
        fs::rename(unfinished, self.path(id))
    }

    /// What encrypts with the password.
    fn codec(&self, salt: &[u8]) -> Codec {
        let digest = Sha512::new()
            .chain_update("drover: keys that were derived")
            .chain_update(salt)
            .chain_update(self.password);
        Codec::of_bytes(&Zeroizing::new(digest.finalize().into()))
    }
}
