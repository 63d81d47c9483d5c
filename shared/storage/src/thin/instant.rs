//! Copies of logical volumes, all of one instant.

use super::Thin;
use super::name::{self, INSTANT, INSTANT_DONE, READY, Role};
use super::state::State;
use crate::backend::Object;
use crate::error::Result;

impl Thin {
    /// Makes logical volumes with the content that others have, all at one instant. They are not complete yet.
    ///
    /// LVM makes them as empty volumes that are not active, and knows from then on their numbers in the pool; the pool then
    /// makes those numbers snapshots, while the origins are suspended: for as long as a few messages take, where LVM
    /// would need as many commands, and could not keep several suspended.
    pub(super) fn take(&self, copies: &[(&Object, Role)], tag: &str) -> Result<()> {
        let before = State::read(&self.lvm)?;
        for (origin, copy) in copies {
            let size = before.existing(origin)?.size;
            self.make(copy, size, &["-an", "-ky", "--addtag", tag])?;
        }
        let made = State::read(&self.lvm)?;
        let mut numbers = Vec::new();
        let mut suspend = Vec::new();
        for (origin, copy) in copies {
            numbers.push((made.thin_id(origin)?, made.number(copy)?));
            let origin = Role::Object((*origin).clone());
            suspend.push(name::device(&self.lvm.group, &origin.name()));
        }
        suspend.sort();
        suspend.dedup();
        self.lvm.make_snapshots(suspend, numbers)
    }

    /// Marks snapshots of one instant as complete, all with one change of the group's metadata; then tidies the marks.
    pub(super) fn finish_instant(&self, snapshots: &[Role], instant: &str) -> Result<()> {
        if let [one] = snapshots {
            return self.finish(one);
        }
        let done = format!("{INSTANT_DONE}{instant}");
        self.lvm
            .run(&["vgchange", "--addtag", &done, &self.lvm.group])?;
        self.forget_instant(snapshots, instant)
    }

    pub(super) fn forget_instant(&self, snapshots: &[Role], instant: &str) -> Result<()> {
        let (tag, done) = (
            format!("{INSTANT}{instant}"),
            format!("{INSTANT_DONE}{instant}"),
        );
        for snapshot in snapshots {
            let path = self.lvm.path(&snapshot.name());
            self.lvm
                .run(&["lvchange", "--addtag", READY, "--deltag", &tag, &path])?;
        }
        self.lvm
            .run(&["vgchange", "--deltag", &done, &self.lvm.group])
            .map(drop)
    }
}
