//! What is to be asked of the engine: each container once at a time, so many at once.

use std::collections::BTreeSet;

/// How many containers are asked for at once.
const AT_ONCE: usize = 16;

/// Containers that are to be looked at. What happens to one while it is being looked at makes it be looked at
/// once more, however often it happens.
#[derive(Debug, Default)]
pub(super) struct Work {
    due: BTreeSet<String>,
    under_way: BTreeSet<String>,
    later: BTreeSet<String>,
}

impl Work {
    /// A container is to be looked at.
    pub(super) fn add(&mut self, id: String) {
        self.due.insert(id);
    }

    /// The next container to look at now, if there is one and room for it.
    pub(super) fn begin(&mut self) -> Option<String> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let mut due = self.due.iter();
        let id = due.find(|id| !self.under_way.contains(*id))?.clone();
        self.due.remove(&id);
        self.under_way.insert(id.clone());
        Some(id)
    }

    /// It was looked at; `again` when the engine did not answer.
    pub(super) fn end(&mut self, id: &str, again: bool) {
        self.under_way.remove(id);
        if again {
            self.later.insert(id.to_owned());
        }
    }

    /// Whether something waits for [`Self::retry`].
    pub(super) fn waits(&self) -> bool {
        !self.later.is_empty()
    }

    /// What the engine did not answer is due again.
    pub(super) fn retry(&mut self) {
        self.due.append(&mut self.later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_looked_at_once_at_a_time_and_once_more() {
        let mut work = Work::default();
        work.add("a".to_owned());
        work.add("a".to_owned());
        assert_eq!(work.begin().as_deref(), Some("a"));
        work.add("a".to_owned());
        work.add("a".to_owned());
        assert_eq!(work.begin(), None);
        work.end("a", false);
        assert_eq!(work.begin().as_deref(), Some("a"));
        work.end("a", true);
        assert_eq!(work.begin(), None);
        assert!(work.waits());
        work.retry();
        assert_eq!(work.begin().as_deref(), Some("a"));
    }

    #[test]
    fn so_many_are_looked_at_at_once() {
        let mut work = Work::default();
        (0..100).for_each(|number| work.add(number.to_string()));
        let begun: Vec<_> = std::iter::from_fn(|| work.begin()).collect();
        assert_eq!(begun.len(), AT_ONCE);
        work.end(&begun[0], false);
        assert!(work.begin().is_some());
        assert!(work.begin().is_none());
    }
}
