//! Who holds a volume, and when it may be detached.
//!
//! What the engine says is a hint: it counts per mount id, `docker cp` re-uses the id of a running container, an engine
//! that crashed never sends the `Unmount` it owes, and one with live-restore sends an `Unmount` for a `Mount` that a former
//! process had. So a volume is detached late, when the engine's own list of containers says that nobody uses it.

use std::collections::BTreeMap;

use drover_control_api::record::UnixSeconds;
use serde::{Deserialize, Serialize};

/// How long a hold is taken for one whose container is about to start, seconds: an engine gives a `Mount` 120 s.
pub const STARTING: u64 = 150;

/// A mount id of the engine's. Engines use 64 hexadecimal digits; nothing here depends on it.
pub type MountId = String;

/// The holds of one id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// `Mount` calls less `Unmount` calls, at least 1.
    pub count: u32,
    /// When the last of them was taken; 0 once one was given back, as a container that is about to start gives nothing back.
    pub since: UnixSeconds,
}

/// The holds of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holds(BTreeMap<MountId, Hold>);

/// What is known of a volume that is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// A container that uses it runs, or is being started.
    Some,
    /// No container that uses it runs.
    None,
    /// The engine does not say.
    Unknown,
}

/// Whether to detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody uses it: detach, and forget what holds there are.
    Detach,
    /// It is in use, or may be: look again later.
    Wait,
}

impl Holds {
    /// A `Mount` was asked for.
    pub fn take(&mut self, id: &str, now: UnixSeconds) {
        let hold = self.0.entry(id.to_owned()).or_insert(Hold {
            count: 0,
            since: now,
        });
        hold.count = hold.count.saturating_add(1);
        hold.since = now;
    }

    /// An `Unmount` came, perhaps for an id that holds nothing.
    pub fn give_back(&mut self, id: &str) {
        if let Some(hold) = self.0.get_mut(id) {
            hold.count = hold.count.saturating_sub(1);
            hold.since = 0;
            if hold.count == 0 {
                self.0.remove(id);
            }
        }
    }

    /// Whether nobody holds it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ids hold it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a container may be about to start with it: the engine's list does not show it as running yet.
    #[must_use]
    pub fn is_starting(&self, now: UnixSeconds) -> bool {
        let young = |hold: &Hold| now.saturating_sub(hold.since) < STARTING;
        self.0.values().any(young)
    }

    /// Whether the engine is to be asked if a container runs with a volume that is attached: nobody holds it; or who does may be
    /// gone, since its engine is (`suspect`); or nobody has looked since the last `Mount` (`unconfirmed`), and its container has to
    /// run by now.
    #[must_use]
    pub fn is_doubtful(&self, suspect: bool, unconfirmed: bool, now: UnixSeconds) -> bool {
        self.is_empty() || suspect || (unconfirmed && !self.is_starting(now))
    }

    /// Whether a volume that is attached is to be detached now.
    #[must_use]
    pub fn verdict(&self, users: Users, now: UnixSeconds) -> Verdict {
        match users {
            Users::None if !self.is_starting(now) => Verdict::Detach,
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_cp_with_the_id_of_a_running_container_takes_nothing_from_it() {
        let mut holds = Holds::default();
        holds.take("a", 0);
        holds.take("a", 10);
        holds.give_back("a");
        assert_eq!(holds.len(), 1);
        holds.give_back("a");
        assert!(holds.is_empty());
        holds.give_back("a");
        assert!(holds.is_empty());
    }

    #[test]
    fn a_count_that_leaked_in_a_crash_does_not_keep_a_volume_attached() {
        let mut holds = Holds::default();
        holds.take("a", 0);
        assert_eq!(holds.verdict(Users::None, 10), Verdict::Wait);
        assert_eq!(holds.verdict(Users::None, STARTING), Verdict::Detach);
    }

    #[test]
    fn a_mount_that_its_engine_has_given_up_is_doubted_when_its_container_had_to_run() {
        let mut holds = Holds::default();
        assert!(holds.is_doubtful(false, false, 0));
        holds.take("a", 1000);
        assert!(!holds.is_doubtful(false, true, 1000 + STARTING - 1));
        assert!(holds.is_doubtful(false, true, 1000 + STARTING));
        assert_eq!(holds.verdict(Users::None, 1000 + STARTING), Verdict::Detach);
        // Somebody has looked, or it is of an engine that is gone.
        assert!(!holds.is_doubtful(false, false, 2000));
        assert!(holds.is_doubtful(true, false, 1001));
    }

    #[test]
    fn what_a_killed_engine_still_held_is_let_go_with_the_container() {
        let mut holds = Holds::default();
        holds.take("a", 1000);
        // The engine was killed; the next one mounts for the same container again.
        holds.take("a", 1010);
        assert_eq!(holds.verdict(Users::None, 1020), Verdict::Wait);
        holds.give_back("a");
        assert_eq!(holds.verdict(Users::Some, 1021), Verdict::Wait);
        assert_eq!(holds.verdict(Users::None, 1021), Verdict::Detach);
    }

    #[test]
    fn a_running_container_without_a_hold_keeps_its_volume() {
        let holds = Holds::default();
        assert_eq!(holds.verdict(Users::Some, 1000), Verdict::Wait);
        assert_eq!(holds.verdict(Users::Unknown, 1000), Verdict::Wait);
        assert_eq!(holds.verdict(Users::None, 1000), Verdict::Detach);
    }
}
