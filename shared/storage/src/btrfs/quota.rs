//! Limits of size: quotas of what subvolumes refer to.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use drover_model::ByteSize;
use nix::errno::Errno;
use tracing::debug;

use super::subvolume::{open, tree_of};
use super::{Btrfs, request};
use crate::error::{Error, Result};

impl Btrfs {
    pub(super) fn limit(&self, subvolume: &Path, size: ByteSize) -> Result<()> {
        let root = open(&self.base)?;
        let tree = tree_of(subvolume)?;
        let refused = |errno: Errno| Error::system("limit the size of", subvolume)(errno.into());
        match request::limit(&root, tree, size.bytes()) {
            // Quotas are off, or have never been on.
            Err(Errno::ENOTCONN | Errno::EINVAL | Errno::ENOENT) => {
                request::enable_quotas(&root).map_err(refused)?;
                request::wait_for_quotas(&root).map_err(refused)?;
                request::limit(&root, tree, size.bytes()).map_err(refused)
            }
            other => other.map_err(refused),
        }
    }

    /// Quota groups of subvolumes that are gone; they cost time at every commit.
    pub(super) fn forget_quotas(&self) -> Result<()> {
        let root = open(&self.base)?;
        let failed = |errno: Errno| Error::system("list the quotas of", &self.base)(errno.into());
        if !request::has_quotas(&root).map_err(failed)? {
            return Ok(());
        }
        let mut used = BTreeSet::new();
        for path in self.subvolumes()? {
            used.insert(tree_of(&path)?);
        }
        let mut first = 256;
        loop {
            let groups = request::groups(&root, first).map_err(failed)?;
            let Some(last) = groups.last() else {
                return Ok(());
            };
            first = last.tree + 1;
            // On a file system of somebody else's most groups are not ours, and one that is in use cannot be removed.
            let gone = groups.iter().filter(|group| {
                self.loop_file.is_some() && !used.contains(&group.tree) && group.referenced == 0
            });
            for group in gone {
                if let Err(errno) = request::forget_quota(&root, group.tree) {
                    debug!(tree = group.tree, %errno, "a quota group stays");
                }
            }
        }
    }
}

/// The limit of a subvolume; `None` without one.
pub(super) fn limit_of(root: &File, path: &Path) -> Result<Option<ByteSize>> {
    let limit = request::limit_of(root, tree_of(path)?)
        .map_err(|errno| Error::system("read the limit of", path)(errno.into()))?;
    Ok(limit.and_then(|bytes| ByteSize::new(bytes).ok()))
}
