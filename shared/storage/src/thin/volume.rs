//! One logical volume: made, with a file system on it, and grown.

use drover_model::{ByteSize, FileSystem};
use tracing::warn;

use super::Thin;
use super::file_system::{self, Staged};
use super::name::{OURS, Role};
use super::report::LogicalVolume;
use crate::backend::{Access, Backend, Shape};
use crate::error::{Error, Result};
use crate::mounts;

/// The size of a volume that is given none, if the pool is not smaller.
const DEFAULT_SIZE: u64 = 10 << 30;
/// The least that a file system fits on.
const LEAST_SIZE: u64 = 8 << 20;

impl Thin {
    /// How large a volume is to be.
    pub(super) fn size_for(&self, shape: &Shape) -> Result<u64> {
        let Some(size) = shape.size else {
            return Ok(DEFAULT_SIZE.min(self.pool()?.capacity).max(LEAST_SIZE));
        };
        self.check_size(size)?;
        Ok(size.bytes())
    }

    pub(super) fn check_size(&self, size: ByteSize) -> Result<()> {
        if size.bytes() < LEAST_SIZE {
            return Err(Error::Invalid(format!(
                "a size of {size} is too small for a file system: give at least 8M"
            )));
        }
        let capacity = self.pool()?.capacity;
        if size.bytes() > capacity {
            return Err(Error::Invalid(format!(
                "a size of {size} is more than the pool `{}` holds: give at most {}M",
                self.lvm.pool_path(),
                capacity >> 20
            )));
        }
        Ok(())
    }

    /// Makes an empty logical volume in the pool.
    pub(super) fn make(&self, role: &Role, size: u64, options: &[&str]) -> Result<()> {
        let (extent, name) = (format!("{size}b"), role.name());
        let pool = &self.lvm.pool;
        let mut words = vec![
            "lvcreate",
            "-y",
            "--type",
            "thin",
            "-V",
            &extent,
            "--thinpool",
            pool,
            "-n",
            &name,
        ];
        words.extend(["-Wn", "--addtag", OURS]);
        words.extend(options);
        words.push(&self.lvm.group);
        self.lvm.run(&words).map(drop)
    }

    /// Makes a file system on a new logical volume.
    pub(super) fn build(&self, role: &Role, kind: FileSystem, options: &[String]) -> Result<()> {
        let device = self.activate(role)?;
        file_system::make(kind, &device, options, &self.staging_of(role))?;
        self.finish(role)
    }

    /// Does the rest of making something; when that fails, what was made is removed.
    pub(super) fn or_destroy(&self, role: &Role, done: Result<()>) -> Result<()> {
        if done.is_err()
            && let Err(error) =
                mounts::release(&self.staging_of(role)).and_then(|()| self.destroy(role))
        {
            warn!(name = role.name(), %error, "what was half made stays until the pool is tidied");
        }
        done
    }

    /// Grows a logical volume, and the file system on it.
    pub(super) fn grow(&self, role: &Role, found: &LogicalVolume, size: u64) -> Result<()> {
        if found.size < size {
            let extent = format!("{size}b");
            let path = self.lvm.path(&role.name());
            self.lvm.run(&["lvextend", "-L", &extent, &path])?;
        }
        let device = self.activate(role)?;
        // Also when only the file system is too small yet, after a kill between the two.
        let staged = Staged::mount(&device, &self.staging_of(role), Access::ReadWrite)?;
        let grown = staged.grow(&device);
        staged.release()?;
        grown
    }
}
