//! Automatic pools that were offered. An engine that finds one in the way of a route or a resolver asks
//! again, and gives back what it did not take when it has found one that will do: what came back unused
//! is not offered again for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drover_model::Pool;
use tokio::time::Instant;

/// For how long a refusal is remembered.
const MEMORY: Duration = Duration::from_secs(600);

/// The offers of this process.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<BTreeMap<Pool, Instant>>);

impl Offers {
    /// A pool was offered.
    pub(crate) fn offered(&self, pool: Pool) {
        self.with(|offers| offers.insert(pool, Instant::now()));
    }

    /// An address of the pool was asked for: the engine took it.
    pub(crate) fn taken(&self, pool: Pool) {
        self.with(|offers| offers.remove(&pool));
    }

    /// The pool came back.
    pub(crate) fn returned(&self, pool: Pool) {
        self.with(|offers| {
            if let Some(offer) = offers.get_mut(&pool) {
                *offer = Instant::now();
            }
        });
    }

    /// What not to offer.
    pub(crate) fn avoid(&self, now: Instant) -> BTreeSet<Pool> {
        self.with(|offers| {
            offers.retain(|_, when| now.saturating_duration_since(*when) < MEMORY);
            offers.keys().copied().collect()
        })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut BTreeMap<Pool, Instant>) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_not_offered_again_for_a_while() {
        let offers = Offers::default();
        let (taken, refused) = (
            "10.64.0.0/16".parse().unwrap(),
            "10.65.0.0/16".parse().unwrap(),
        );
        offers.offered(taken);
        offers.offered(refused);
        offers.taken(taken);
        offers.returned(taken);
        offers.returned(refused);
        let now = Instant::now();
        assert_eq!(offers.avoid(now), BTreeSet::from([refused]));
        assert!(offers.avoid(now + MEMORY).is_empty());
    }
}
