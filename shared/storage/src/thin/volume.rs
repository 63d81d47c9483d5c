//! One logical volume: made, with a file system on it, grown, and destroyed.

use std::path::PathBuf;

use drover_model::{ByteSize, FileSystem};
use tracing::warn;

use super::Thin;
use super::file_system::{self, Staged};
use super::name::{self, OURS, READY, Role};
use super::report::LogicalVolume;
use super::state::State;
use crate::backend::{Access, Backend, Object, Shape};
use crate::error::{Error, Result};
use crate::mounts;

/// The size of a volume that is given none, if the pool is not smaller.
const DEFAULT_SIZE: u64 = 10 << 30;
/// The least that a file system fits on.
const LEAST_SIZE: u64 = 8 << 20;

impl Thin {
    pub(super) fn rename(&self, from: &Role, to: &Role) -> Result<()> {
        self.lvm
            .run(&["lvrename", &self.lvm.group, &from.name(), &to.name()])
            .map(drop)
    }

    pub(super) fn device_of(&self, role: &Role) -> PathBuf {
        name::path(&name::device(&self.lvm.group, &role.name()))
    }

    pub(super) fn staging_of(&self, role: &Role) -> PathBuf {
        self.staging.join(role.name())
    }

    /// Has the device of a logical volume made.
    pub(super) fn activate(&self, role: &Role) -> Result<PathBuf> {
        // The path of a device that is gone can be left.
        let device = name::device(&self.lvm.group, &role.name());
        if self.lvm.status(&device)?.is_none() {
            self.lvm
                .run(&["lvchange", "-ay", "-K", &self.lvm.path(&role.name())])?;
        }
        Ok(name::path(&device))
    }

    pub(super) fn destroy(&self, role: &Role) -> Result<()> {
        self.lvm
            .run(&["lvremove", "-f", &self.lvm.path(&role.name())])
            .map(drop)
    }

    /// Marks a logical volume as complete.
    pub(super) fn finish(&self, role: &Role) -> Result<()> {
        self.lvm
            .run(&["lvchange", "--addtag", READY, &self.lvm.path(&role.name())])
            .map(drop)
    }

    /// Something half made by the name of what is to be made is removed first.
    pub(super) fn clear(&self, state: &State, role: &Role) -> Result<()> {
        if state.any(role).is_some() {
            mounts::release(&self.staging_of(role))?;
            self.destroy(role)?;
        }
        Ok(())
    }

    pub(super) fn refuse_mounted(&self, object: &Object) -> Result<()> {
        let role = Role::Object(object.clone());
        // A kill can have left it.
        mounts::release(&self.staging_of(&role))?;
        let device = self.device_of(&role);
        if mounts::list()?.iter().any(|mount| mount.source == device) {
            return Err(Error::Busy(object.to_string()));
        }
        Ok(())
    }

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
