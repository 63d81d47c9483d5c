//! Volumes in a thin pool of LVM, with ext4 or xfs on each.
//!
//! What there is, LVM knows: logical volumes of ours have the tag `drover`, and those that are complete the tag
//! `drover.ready`. LVM is driven by a process of its own, `drover-lvm`; nothing of it is linked here.
//!
//! A volume is mounted by way of a place out of sight, from where a directory of its file system is bound to where it
//! is wanted.

mod file_system;
mod health;
mod helper;
mod instant;
mod lvm;
mod name;
mod note;
mod pool;
mod report;
mod state;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use drover_model::{BackendKind, ByteSize, FileSystem, VolumeId};
use tracing::{info, warn};

use crate::backend::{
    Abilities, Access, Backend, Object, PoolState, Shape, SnapshotRef, Source, Usage,
};
use crate::error::{Error, Result};
use crate::loop_file::LoopDevice;
use crate::{mounts, space};
use file_system::Staged;
use helper::Helper;
use lvm::Lvm;
use name::{INSTANT, OURS, Role};
pub use pool::{ThinPlace, find_thin_group, missing_for_thin};
use state::State;

const FILE_SYSTEMS: &[FileSystem] = &FileSystem::ALL;

/// A thin pool.
#[derive(Debug)]
pub struct Thin {
    lvm: Lvm,
    place: ThinPlace,
    /// A directory of this backend alone.
    state_folder: PathBuf,
    /// Where file systems are mounted for a moment.
    staging: PathBuf,
    /// Held between the renamings of a rollback, which look from outside like one that was cut short.
    renaming: Mutex<()>,
    _loop_device: Option<LoopDevice>,
}

impl Thin {
    /// Opens the pool of a place, and makes it where it is ours to make. `helper` is the program `drover-lvm`; `state` is a
    /// directory of this backend alone.
    ///
    /// # Errors
    /// When there is no device-mapper, the place is not there, a loop file is gone, or the pool's metadata is damaged.
    pub fn open(place: ThinPlace, helper: &Path, state: &Path) -> Result<Self> {
        if let Some(reason) = missing_for_thin() {
            return Err(Error::Unsupported(reason));
        }
        mounts::make_directory(state)?;
        let mut lvm = Lvm::new(Helper::new(helper, state.join("lock")));
        let loop_device = pool::prepare(&place, &mut lvm, state)?;
        let thin = Self {
            lvm,
            place,
            state_folder: state.to_owned(),
            staging: state.join("staging"),
            renaming: Mutex::default(),
            _loop_device: loop_device,
        };
        thin.state()?;
        Ok(thin)
    }

    /// What there is, after rollbacks that a kill has cut short are put right.
    fn state(&self) -> Result<State> {
        let _renaming = self.renaming.lock().unwrap_or_else(PoisonError::into_inner);
        let state = State::read(&self.lvm)?;
        let renames = state.interrupted_rollbacks();
        if renames.is_empty() {
            return Ok(state);
        }
        for (from, to) in renames {
            warn!(
                from = from.name(),
                to = to.name(),
                "a rollback was cut short"
            );
            self.rename(&from, &to)?;
        }
        State::read(&self.lvm)
    }
}

impl Backend for Thin {
    fn kind(&self) -> BackendKind {
        BackendKind::Thin
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            snapshots: true,
            no_size_limit: None,
            needs_size: true,
            file_systems: FILE_SYSTEMS,
        }
    }

    fn create(&self, volume: &VolumeId, shape: &Shape) -> Result<()> {
        let object = Object::Volume(volume.clone());
        let state = self.state()?;
        if state.complete(&object).is_some() {
            return Ok(());
        }
        let kind = shape.file_system.unwrap_or(FileSystem::Ext4);
        file_system::check_options(kind, &shape.mkfs_options)?;
        let size = self.size_for(shape)?;
        let role = Role::Object(object);
        self.clear(&state, &role)?;
        self.make(&role, size, &["-kn"])?;
        self.or_destroy(&role, self.build(&role, kind, &shape.mkfs_options))
    }

    fn clone_object(&self, volume: &VolumeId, source: &Source, shape: &Shape) -> Result<()> {
        let object = Object::Volume(volume.clone());
        let state = self.state()?;
        if state.complete(&object).is_some() {
            return Ok(());
        }
        let found = state.existing(source)?;
        if let Some(size) = shape.size {
            self.check_size(size)?;
            if size.bytes() < found.size {
                return Err(Error::Invalid(format!(
                    "a size of {size} is less than that of {source}: give at least {}M",
                    found.size >> 20
                )));
            }
        }
        let role = Role::Object(object);
        self.clear(&state, &role)?;
        let taken = self.take(&[(source, role.clone())], OURS);
        let grown = taken.and_then(|()| match shape.size {
            Some(size) => self.grow(&role, found, size.bytes()),
            None => Ok(()),
        });
        self.or_destroy(&role, grown.and_then(|()| self.finish(&role)))
    }

    fn remove(&self, object: &Object) -> Result<()> {
        let role = Role::Object(object.clone());
        if self.state()?.any(&role).is_none() {
            return Ok(());
        }
        self.refuse_mounted(object)?;
        self.destroy(&role)
    }

    fn snapshot(&self, snapshots: &[SnapshotRef]) -> Result<()> {
        let Some(first) = snapshots.first() else {
            return Ok(());
        };
        let state = self.state()?;
        let objects: Vec<(Object, Object)> = snapshots
            .iter()
            .map(|it| (Object::Volume(it.volume.clone()), it.clone().into()))
            .collect();
        for (origin, _) in &objects {
            state.existing(origin)?;
        }
        let is_there = |object: &Object| state.complete(object).is_some();
        if objects.iter().all(|(_, snapshot)| is_there(snapshot)) {
            return Ok(());
        }
        let copies: Vec<(&Object, Role)> = objects
            .iter()
            .map(|(origin, snapshot)| (origin, Role::Object(snapshot.clone())))
            .collect();
        // Some of an earlier attempt would be of another instant.
        for (_, role) in &copies {
            self.clear(&state, role)?;
        }
        let instant = first.snapshot.to_string();
        let taken = self.take(&copies, &format!("{INSTANT}{instant}"));
        let roles: Vec<Role> = copies.into_iter().map(|(_, role)| role).collect();
        if let Err(error) = taken {
            let made = State::read(&self.lvm)?;
            for role in &roles {
                self.clear(&made, role)?;
            }
            return Err(error);
        }
        self.finish_instant(&roles, &instant)
    }

    fn rollback(&self, snapshot: &SnapshotRef) -> Result<()> {
        let state = self.state()?;
        let volume = Object::Volume(snapshot.volume.clone());
        let size = state.existing(&volume)?.size;
        let source = Object::from(snapshot.clone());
        let found = state.existing(&source)?;
        self.refuse_mounted(&volume)?;
        let place = Role::Object(volume);
        let replacement = Role::Replacement(snapshot.volume.clone());
        let replaced = Role::Replaced(snapshot.volume.clone());
        self.clear(&state, &replacement)?;
        self.clear(&state, &replaced)?;
        let taken = self.take(&[(&source, replacement.clone())], OURS);
        let grown = taken.and_then(|()| match found.size < size {
            true => self.grow(&replacement, found, size),
            false => Ok(()),
        });
        self.or_destroy(&replacement, grown.and_then(|()| self.finish(&replacement)))?;
        let renaming = self.renaming.lock().unwrap_or_else(PoisonError::into_inner);
        self.rename(&place, &replaced)?;
        self.rename(&replacement, &place)?;
        drop(renaming);
        self.destroy(&replaced)
    }

    fn resize(&self, volume: &VolumeId, size: ByteSize) -> Result<()> {
        let object = Object::Volume(volume.clone());
        let state = self.state()?;
        let found = state.existing(&object)?;
        self.check_size(size)?;
        // LVM rounds up to its extents.
        let extent = 4 << 20;
        if size.bytes().next_multiple_of(extent) < found.size {
            return Err(Error::Invalid(format!(
                "{object} is larger than {size}, and its file system cannot shrink: give at least {}M",
                found.size >> 20
            )));
        }
        self.grow(&Role::Object(object), found, size.bytes())
    }

    fn usage(&self, object: &Object) -> Result<Usage> {
        let id = self.state()?.thin_id(object)?;
        let (block_size, devices) = self.lvm.thin_devices()?;
        let mapped = devices.into_iter().find(|(other, _)| *other == id);
        Ok(Usage {
            used: mapped.map(|(_, blocks)| blocks.saturating_mul(block_size)),
            exclusive: None,
        })
    }

    fn attach(&self, object: &Object, at: &Path, access: Access) -> Result<()> {
        self.state()?.existing(object)?;
        let role = Role::Object(object.clone());
        let device = self.activate(&role)?;
        let mounted = mounts::at(at)?;
        if let Some(mount) = mounted
            && mount.source == device
            && mount.read_only == (access == Access::ReadOnly)
        {
            return Ok(());
        }
        let whole = match object {
            Object::Volume(_) => Access::ReadWrite,
            Object::Snapshot(_) => Access::ReadOnly,
        };
        let staged = Staged::mount(&device, &self.staging_of(&role), whole)?;
        let bound = mounts::bind(&staged.root(), at, access);
        staged.release()?;
        bound
    }

    fn detach(&self, object: &Object, at: &Path) -> Result<()> {
        mounts::release(at)?;
        let Object::Snapshot(_) = object else {
            return Ok(());
        };
        let role = Role::Object(object.clone());
        let device = self.device_of(&role);
        let elsewhere = mounts::list()?.iter().any(|mount| mount.source == device);
        if !elsewhere {
            // Others may have it open.
            if let Err(error) = self
                .lvm
                .run(&["lvchange", "-an", &self.lvm.path(&role.name())])
            {
                info!(%object, %error, "a snapshot stays active");
            }
        }
        Ok(())
    }

    fn objects(&self) -> Result<BTreeSet<Object>> {
        Ok(self.state()?.objects())
    }

    fn note(&self, object: &Object, text: &str) -> Result<()> {
        let state = self.state()?;
        let found = state.existing(object)?;
        let Some(tags) = note::tags(text) else {
            return Err(Error::Invalid(format!(
                "a note of {} bytes about {object} is too long for LVM",
                text.len()
            )));
        };
        let mut words = vec!["lvchange"];
        for tag in note::among(&found.tags).filter(|tag| !tags.contains(tag)) {
            words.extend(["--deltag", tag]);
        }
        for tag in tags.iter().filter(|tag| !found.tags.contains(*tag)) {
            words.extend(["--addtag", tag]);
        }
        if words.len() == 1 {
            return Ok(());
        }
        let path = self.lvm.path(&Role::Object(object.clone()).name());
        words.push(&path);
        self.lvm.run(&words).map(drop)
    }

    fn notes(&self) -> Result<BTreeMap<Object, String>> {
        Ok(self.state()?.notes())
    }

    fn tidy(&self) -> Result<()> {
        for mount in mounts::below(&self.staging)? {
            mounts::release(&mount.at)?;
        }
        let state = self.state()?;
        for (instant, snapshots) in state.instants_done() {
            self.forget_instant(&snapshots, &instant)?;
        }
        for role in self.state()?.half_made() {
            info!(name = role.name(), "removing what was half made");
            self.destroy(&role)?;
        }
        Ok(())
    }

    fn close(&self, delete: bool) -> Result<Vec<String>> {
        for mount in mounts::below(&self.staging)? {
            mounts::release(&mount.at)?;
        }
        match &self.place {
            ThinPlace::LoopFile { file, .. } => {
                self.lvm.run(&["vgchange", "-an", &self.lvm.group])?;
                if !delete {
                    return Ok(Vec::new());
                }
                self.lvm.run(&["vgremove", "-f", &self.lvm.group])?;
                pool::remove_file(file, &self.state_folder)?;
                Ok(vec![format!("loop file {}", file.display())])
            }
            ThinPlace::Group { .. } if delete && pool::is_ours_alone(&self.lvm)? => {
                let path = self.lvm.pool_path();
                self.lvm.run(&["lvremove", "-f", &path])?;
                Ok(vec![format!("thin pool {path}")])
            }
            ThinPlace::Group { .. } | ThinPlace::Pool { .. } => Ok(Vec::new()),
        }
    }

    fn pool(&self) -> Result<PoolState> {
        let mut state = self.pool_state()?;
        if let ThinPlace::LoopFile { file, .. } = &self.place {
            space::limit_to_file(&mut state, file, "copy what you need from its volumes")?;
        }
        Ok(state)
    }

    /// What it costs is what has changed, not what there is.
    fn changes(
        &self,
        since: Option<&SnapshotRef>,
        snapshot: &SnapshotRef,
    ) -> Result<Option<Vec<Range<u64>>>> {
        let state = self.state()?;
        let id = |snapshot: &SnapshotRef| state.thin_id(&snapshot.clone().into());
        let old = since.map(id).transpose()?;
        let ranges = self.lvm.changes(old, id(snapshot)?)?;
        let ranges = ranges.into_iter();
        Ok(Some(
            ranges
                .map(|(offset, length)| offset..offset.saturating_add(length))
                .collect(),
        ))
    }

    fn device(&self, object: &Object) -> Result<Option<PathBuf>> {
        self.state()?.existing(object)?;
        self.activate(&Role::Object(object.clone())).map(Some)
    }
}
