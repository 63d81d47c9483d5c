//! Where pools are: what the settings, what there is on this host, and what was chosen before say.

use std::path::PathBuf;
use std::sync::Arc;

use drover_daemon::BackendChoice;
use drover_model::BackendKind;
use drover_storage::{
    Backend, Btrfs, Directory, LoopPool, Thin, ThinPlace, find_thin_group, is_btrfs,
};
use tracing::info;

use super::{Pool, Pools};
use crate::error::{Error, Result};

/// The loop file of thin pools.
const THIN_FILE: &str = "thin.img";

impl Pools {
    /// The kinds of backend that there is a place of on this host, whatever is on it.
    pub(crate) fn evident(&self) -> Vec<BackendKind> {
        let is_there = |name: &str| self.folder.join(name).exists();
        let evident = BackendKind::ALL.into_iter().filter(|kind| match kind {
            BackendKind::Btrfs => self.loop_pool().exists() || is_there("btrfs/volumes"),
            BackendKind::Directory => is_there("directory/volumes"),
            BackendKind::Thin => is_there(THIN_FILE) || self.group().is_some(),
        });
        evident.collect()
    }

    /// Whether volumes may lie on this host at a place that cannot be opened: damaged, or another's for now. Of a directory that is
    /// configured and not there, or a volume group, nothing tells so.
    pub(super) fn may_hold(&self) -> bool {
        let mut evident = self.evident();
        if self.settings.volume_group.is_some() && self.settings.thin_pool.is_none() {
            let state = self.folder.join("thin");
            let found = helper().and_then(|helper| Ok(find_thin_group(&helper, &state)?));
            let is_there = found.is_ok_and(|found| found.is_some());
            evident.retain(|kind| *kind != BackendKind::Thin || is_there);
        }
        !evident.is_empty()
    }

    /// Whether new volumes take a loop file that is not there.
    pub(super) fn needs_making(&self) -> bool {
        let takes_btrfs = || {
            let has_place = self.settings.path.is_some() || self.is_on_btrfs();
            !has_place && !self.loop_pool().exists()
        };
        match self.settings.backend {
            BackendChoice::Directory => false,
            BackendChoice::Btrfs => takes_btrfs(),
            BackendChoice::Thin => {
                let file = &self.folder.join(THIN_FILE);
                let settings = &self.settings;
                let is_named = settings.volume_group.is_some() || settings.thin_pool.is_some();
                !is_named && !ThinPlace::was_made(file, &self.folder.join("thin"))
            }
            BackendChoice::Auto => takes_btrfs() && self.group().is_none(),
        }
    }

    pub(super) fn choose(&self) -> Result<Pool> {
        let told = |backend, reason: &str| Pool {
            backend,
            reason: reason.to_owned(),
        };
        match self.settings.backend {
            BackendChoice::Btrfs => Ok(told(self.btrfs()?, "`volumes.backend` says so")),
            BackendChoice::Thin => Ok(told(self.thin()?, "`volumes.backend` says so")),
            BackendChoice::Directory => Ok(told(self.directory()?, "`volumes.backend` says so")),
            BackendChoice::Auto => self.choose_alone(),
        }
    }

    /// What was chosen before; else a thin pool in the volume group that is configured; else btrfs where the state directory is on
    /// it, else a thin pool where a volume group has one, else btrfs on a loop file, else plain directories
    /// (`docs/decisions/0013-btrfs-before-thin-in-a-file.md` has why in this order).
    fn choose_alone(&self) -> Result<Pool> {
        let on_btrfs = std::fs::read_dir(self.folder.join("btrfs/volumes"));
        let was_chosen = on_btrfs.is_ok_and(|mut volumes| volumes.next().is_some());
        let has_place = self.settings.path.is_some() || self.loop_pool().exists() || was_chosen;
        let is_asked_for = self.settings.volume_group.is_some();
        if !has_place
            && (is_asked_for || !self.is_on_btrfs())
            && let Some(group) = self.group()
        {
            let reason = if is_asked_for {
                "`volumes.volume_group` says so".to_owned()
            } else {
                format!("the volume group `{group}` has a thin pool")
            };
            let backend = self.thin()?;
            return Ok(Pool { backend, reason });
        }
        match self.btrfs() {
            Ok(backend) => {
                let reason = if self.is_on_btrfs() {
                    "the state directory is on a btrfs"
                } else {
                    "the state directory is on no btrfs, so there is one in a loop file"
                };
                Ok(Pool {
                    backend,
                    reason: reason.to_owned(),
                })
            }
            // Volumes are there, or are wanted there and nowhere else.
            Err(error) if self.loop_pool().exists() || self.settings.path.is_some() => Err(error),
            Err(error) => Ok(Pool {
                backend: self.directory()?,
                reason: format!("no btrfs is to be had: {}", error.sentence()),
            }),
        }
    }

    pub(super) fn open_kind(&self, kind: BackendKind) -> Result<Arc<dyn Backend>> {
        match kind {
            BackendKind::Btrfs => self.btrfs(),
            BackendKind::Directory => self.directory(),
            BackendKind::Thin => self.thin(),
        }
    }

    pub(super) fn is_on_btrfs(&self) -> bool {
        let place = self.settings.path.clone();
        let place = place.or_else(|| self.folder.parent().map(PathBuf::from));
        place.is_some_and(|place| is_btrfs(&place).unwrap_or(false))
    }

    fn btrfs(&self) -> Result<Arc<dyn Backend>> {
        // A loop file that there is holds volumes: nothing else is chosen over it.
        if self.settings.path.is_some() || (self.is_on_btrfs() && !self.loop_pool().exists()) {
            let place = self.settings.path.clone();
            let base = place.unwrap_or_else(|| self.folder.join("btrfs"));
            return Ok(Arc::new(Btrfs::open(&base)?));
        }
        Ok(Arc::new(Btrfs::open_loop(&self.loop_pool())?))
    }

    fn directory(&self) -> Result<Arc<dyn Backend>> {
        let place = match self.settings.backend {
            BackendChoice::Directory => self.settings.path.clone(),
            _ => None,
        };
        let base = place.unwrap_or_else(|| self.folder.join("directory"));
        Ok(Arc::new(Directory::open(&base)?))
    }

    fn thin(&self) -> Result<Arc<dyn Backend>> {
        let settings = &self.settings;
        let group = self.group();
        let place = match (&group, &settings.thin_pool) {
            (Some(group), Some(pool)) => ThinPlace::Pool {
                group: group.clone(),
                pool: pool.clone(),
            },
            (Some(group), None) => ThinPlace::Group {
                group: group.clone(),
                size: None,
            },
            (None, Some(pool)) => {
                return Err(Error::Unavailable(format!(
                    "`volumes.thin_pool` is `{pool}`, and there is no `volumes.volume_group`: set it as well"
                )));
            }
            (None, None) => ThinPlace::LoopFile {
                file: self.folder.join(THIN_FILE),
                size: settings.loop_size,
            },
        };
        match &place {
            ThinPlace::Pool { group, pool } => self.claims.take(group, pool)?,
            ThinPlace::Group { group, .. } => self.claims.take(group, ThinPlace::POOL)?,
            // It lies in the state directory, which is this process's alone.
            ThinPlace::LoopFile { .. } => {}
        }
        let thin = Thin::open(place, &helper()?, &self.folder.join("thin"))?;
        Ok(Arc::new(thin))
    }

    /// The volume group that is configured, or else one that has a pool of ours; `None` where a loop file is in use.
    pub(super) fn group(&self) -> Option<String> {
        let given = self.settings.volume_group.clone();
        if given.is_some() || self.folder.join(THIN_FILE).exists() {
            return given;
        }
        let found = find_thin_group(&helper().ok()?, &self.folder.join("thin"));
        found
            .inspect_err(|error| info!(%error, "no volume group is looked for"))
            .ok()?
    }

    pub(super) fn loop_pool(&self) -> LoopPool {
        LoopPool {
            file: self.folder.join("btrfs.img"),
            at: self.folder.join("btrfs"),
            size: self.settings.loop_size,
        }
    }
}

/// The program that drives LVM.
fn helper() -> Result<PathBuf> {
    let own =
        std::env::current_exe().map_err(drover_storage::Error::system("find", "/proc/self/exe"))?;
    Ok(own.with_file_name("drover-lvm"))
}
