//! What is not as it should be with a pool, as it was when it was looked at last: for answers that must not wait for a backend.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use drover_model::BackendKind;
use drover_storage::PoolState;
use drover_volumes::capacity::{Figures, Level};

/// How full a pool is.
pub(crate) const fn figures(state: &PoolState) -> Figures {
    Figures {
        capacity: state.capacity,
        used: state.used,
    }
}

/// That a pool fills up, when it does, and what follows.
pub(crate) fn filling(state: &PoolState, reserve: u8) -> Option<String> {
    let figures = figures(state);
    let follows = match figures.level(reserve) {
        Level::Fine => return None,
        Level::Filling | Level::NearlyFull => "make room, or enlarge it",
        Level::Reserve => "new volumes and snapshots are refused; make room, or enlarge it",
    };
    let (place, percent) = (&state.place, figures.percent());
    Some(format!("{place} is {percent} % full: {follows}"))
}

/// A sentence for each pool that has one.
#[derive(Default)]
pub(super) struct Notices(Mutex<BTreeMap<BackendKind, String>>);

impl Notices {
    pub(super) fn set(&self, kind: BackendKind, sentence: Option<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match sentence {
            Some(sentence) => all.insert(kind, sentence),
            None => all.remove(&kind),
        };
    }

    pub(super) fn of(&self, kind: BackendKind) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&kind).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_fills_up_is_told_with_what_follows() {
        let at = |used| {
            let place = "data/drover".to_owned();
            let state = PoolState {
                place,
                capacity: 1000,
                used,
                ..PoolState::default()
            };
            filling(&state, 5)
        };
        assert_eq!(at(799), None);
        for (used, told) in [
            (800, "data/drover is 80 % full: make room"),
            (909, "data/drover is 90 % full: make room"),
            (
                950,
                "data/drover is 95 % full: new volumes and snapshots are refused",
            ),
        ] {
            let sentence = at(used).unwrap();
            assert!(sentence.starts_with(told), "{sentence}");
        }
    }
}
