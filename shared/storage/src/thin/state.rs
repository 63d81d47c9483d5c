//! What there is in a pool, as LVM's metadata has it.

use std::collections::{BTreeMap, BTreeSet};

use super::lvm::Lvm;
use super::name::{INSTANT, INSTANT_DONE, OURS, READY, Role};
use super::note;
use super::report::LogicalVolume;
use crate::backend::Object;
use crate::error::{Error, Result};

/// The logical volumes of ours in a pool.
#[derive(Debug)]
pub(super) struct State {
    /// By name, which is a [`Role`]'s.
    ours: BTreeMap<String, (Role, LogicalVolume)>,
    /// Numbers of instants whose snapshots are all there.
    done: BTreeSet<String>,
}

impl State {
    pub(super) fn read(lvm: &Lvm) -> Result<Self> {
        Ok(Self::new(lvm.logical_volumes()?, &lvm.pool))
    }

    fn new(volumes: Vec<LogicalVolume>, pool: &str) -> Self {
        let mut state = Self {
            ours: BTreeMap::new(),
            done: BTreeSet::new(),
        };
        for volume in volumes {
            let done = volume.group_tags.iter();
            let done = done.filter_map(|tag| tag.strip_prefix(INSTANT_DONE));
            state.done.extend(done.map(str::to_owned));
            if volume.pool != pool || !volume.tags.contains(OURS) {
                continue;
            }
            if let Some(role) = Role::parse(&volume.name) {
                state.ours.insert(volume.name.clone(), (role, volume));
            }
        }
        state
    }

    /// What has a role, complete or not.
    pub(super) fn any(&self, role: &Role) -> Option<&LogicalVolume> {
        self.ours.get(&role.name()).map(|(_, volume)| volume)
    }

    fn is_complete(&self, volume: &LogicalVolume) -> bool {
        volume.tags.contains(READY)
            || instant_of(volume).is_some_and(|instant| self.done.contains(instant))
    }

    /// What an object is, if it is complete.
    pub(super) fn complete(&self, object: &Object) -> Option<&LogicalVolume> {
        let found = self.any(&Role::Object(object.clone()));
        found.filter(|volume| self.is_complete(volume))
    }

    pub(super) fn existing(&self, object: &Object) -> Result<&LogicalVolume> {
        self.complete(object)
            .ok_or_else(|| Error::NotFound(object.to_string()))
    }

    /// The number of an object in its pool.
    pub(super) fn thin_id(&self, object: &Object) -> Result<u32> {
        self.existing(object)?;
        self.number(&Role::Object(object.clone()))
    }

    /// The number in its pool of what has a role, complete or not.
    pub(super) fn number(&self, role: &Role) -> Result<u32> {
        let found = self.any(role);
        found
            .and_then(|volume| volume.thin_id.parse().ok())
            .ok_or_else(|| {
                Error::Unavailable(format!(
                    "LVM does not tell the number of `{}` in its pool",
                    role.name()
                ))
            })
    }

    /// All that is complete.
    pub(super) fn objects(&self) -> BTreeSet<Object> {
        let complete = self
            .ours
            .values()
            .filter(|(_, volume)| self.is_complete(volume));
        complete
            .filter_map(|(role, _)| match role {
                Role::Object(object) => Some(object.clone()),
                Role::Replacement(_) | Role::Replaced(_) => None,
            })
            .collect()
    }

    /// The notes of what is complete.
    pub(super) fn notes(&self) -> BTreeMap<Object, String> {
        let complete = self
            .ours
            .values()
            .filter(|(_, volume)| self.is_complete(volume));
        complete
            .filter_map(|(role, volume)| match role {
                Role::Object(object) => Some((object.clone(), note::read(&volume.tags)?)),
                Role::Replacement(_) | Role::Replaced(_) => None,
            })
            .collect()
    }

    /// What no call will finish.
    pub(super) fn half_made(&self) -> Vec<Role> {
        let left = self.ours.values().filter(|(role, volume)| match role {
            Role::Object(_) => !self.is_complete(volume),
            Role::Replacement(_) | Role::Replaced(_) => true,
        });
        left.map(|(role, _)| role.clone()).collect()
    }

    /// What must be renamed so that every volume has its place: a kill came between the two renamings of a rollback.
    pub(super) fn interrupted_rollbacks(&self) -> Vec<(Role, Role)> {
        let mut renames = Vec::new();
        for (role, _) in self.ours.values() {
            let Role::Replaced(volume) = role else {
                continue;
            };
            let place = Role::Object(Object::Volume(volume.clone()));
            if self.any(&place).is_some() {
                continue;
            }
            let replacement = Role::Replacement(volume.clone());
            match self.any(&replacement) {
                Some(found) if self.is_complete(found) => renames.push((replacement, place)),
                _ => renames.push((role.clone(), place)),
            }
        }
        renames
    }

    /// Instants whose snapshots are all there and still marked, with those snapshots.
    pub(super) fn instants_done(&self) -> Vec<(String, Vec<Role>)> {
        let members = |instant: &String| {
            let of_it = self
                .ours
                .values()
                .filter(|(_, volume)| instant_of(volume) == Some(instant));
            of_it.map(|(role, _)| role.clone()).collect()
        };
        self.done
            .iter()
            .map(|instant| (instant.clone(), members(instant)))
            .collect()
    }
}

/// The instant that a snapshot was taken at with others, while it is marked with it.
fn instant_of(volume: &LogicalVolume) -> Option<&str> {
    volume.tags.iter().find_map(|tag| tag.strip_prefix(INSTANT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SnapshotRef;

    fn volume(role: &Role, tags: &[&str], group_tags: &[&str]) -> LogicalVolume {
        let set = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
        LogicalVolume {
            name: role.name(),
            tags: set(tags),
            size: 1 << 30,
            pool: "drover".to_owned(),
            thin_id: "1".to_owned(),
            kind: "thin".to_owned(),
            group: "vg".to_owned(),
            group_tags: set(group_tags),
        }
    }

    fn object(number: u64) -> Object {
        Object::Volume(format!("{number:016x}").parse().unwrap())
    }

    fn state(volumes: Vec<LogicalVolume>) -> State {
        State::new(volumes, "drover")
    }

    #[test]
    fn what_is_half_made_or_not_ours_is_not_there() {
        let role = |number| Role::Object(object(number));
        let mut other = volume(&role(4), &[OURS, READY], &[]);
        other.pool = "theirs".to_owned();
        let state = state(vec![
            volume(&role(1), &[OURS, READY], &[]),
            volume(&role(2), &[OURS], &[]),
            volume(&role(3), &[READY], &[]),
            other,
        ]);
        assert_eq!(state.objects(), [object(1)].into());
        assert_eq!(state.half_made(), [role(2)]);
        assert!(state.existing(&object(3)).is_err() && state.any(&role(4)).is_none());
    }

    #[test]
    fn snapshots_of_one_instant_are_there_together_or_not_at_all() {
        let snapshot = |number: u64| {
            Object::Snapshot(SnapshotRef {
                volume: format!("{number:016x}").parse().unwrap(),
                snapshot: "00000000000000ff".parse().unwrap(),
            })
        };
        let tag = format!("{INSTANT}7");
        let made = |group_tags: &[&str]| {
            let tags = [OURS, tag.as_str()];
            state(vec![
                volume(&Role::Object(snapshot(1)), &tags, group_tags),
                volume(&Role::Object(snapshot(2)), &tags, group_tags),
            ])
        };
        let cut_short = made(&[]);
        assert!(cut_short.objects().is_empty() && cut_short.instants_done().is_empty());
        assert_eq!(cut_short.half_made().len(), 2);
        let done = made(&["drover.done=7"]);
        assert_eq!(done.objects().len(), 2);
        assert!(done.half_made().is_empty());
        assert_eq!(done.instants_done()[0].1.len(), 2);
    }

    #[test]
    fn a_rollback_that_was_cut_short_is_finished_or_undone() {
        let Object::Volume(id) = object(1) else {
            return;
        };
        let place = Role::Object(object(1));
        let (new, old) = (Role::Replacement(id.clone()), Role::Replaced(id));
        let ready = [OURS, READY];
        let before = state(vec![volume(&place, &ready, &[]), volume(&new, &ready, &[])]);
        assert!(before.interrupted_rollbacks().is_empty());
        assert_eq!(before.half_made().as_slice(), std::slice::from_ref(&new));
        let between = state(vec![volume(&old, &ready, &[]), volume(&new, &ready, &[])]);
        assert_eq!(
            between.interrupted_rollbacks(),
            [(new.clone(), place.clone())]
        );
        let half = state(vec![volume(&old, &ready, &[]), volume(&new, &[OURS], &[])]);
        assert_eq!(half.interrupted_rollbacks(), [(old.clone(), place.clone())]);
        let after = state(vec![volume(&place, &ready, &[]), volume(&old, &ready, &[])]);
        assert!(after.interrupted_rollbacks().is_empty());
        assert_eq!(after.half_made(), [old]);
    }
}
