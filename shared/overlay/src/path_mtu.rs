//! How large packets may be on the path to a peer: a search by probes, since what a device takes says nothing of
//! what a tunnel, a router or a misconfigured switch on the way does (RFC 8899, with probes of our own).
//!
//! A probe is a packet of a given size that must not be cut, which the peer sends back. Several sizes are asked at
//! once. A peer that answers nothing at all is away, and nothing follows from that.
//!
//! ```text
//! searching --no size is left between what passes and what fails--> found --it passes--> found
//!     ^                                                               |
//!     |<--twice it did not pass, and something smaller did------------|
//!     '<--a minute has gone by, and the device takes more--------------'
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use drover_ipsec::Moment;
use drover_model::Mtu;

/// How many sizes are asked at once between two others.
const AT_ONCE: u16 = 8;
/// How long until more is tried again than was found to pass.
const RAISE_AFTER: Duration = Duration::from_secs(60);

/// What is known of a path. Sizes are those of containers' packets, IP header included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtu {
    /// What the device takes: nothing larger can be asked.
    ceiling: Mtu,
    search: Search,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// The largest size that passes is one of these.
    Between {
        /// This passes, or is the least that is assumed to.
        passes: u16,
        /// This does not.
        fails: u16,
    },
    /// It is known.
    Found {
        size: u16,
        /// When that was found.
        at: Moment,
        /// Whether it did not pass the last time.
        doubted: bool,
    },
}

impl PathMtu {
    /// Nothing is known of a path but what its device takes.
    #[must_use]
    pub const fn new(ceiling: Mtu) -> Self {
        let search = Search::Between {
            passes: Mtu::MIN,
            fails: ceiling.get().saturating_add(1),
        };
        Self { ceiling, search }
    }

    /// What the device takes. When that changes, the search begins anew.
    pub fn set_ceiling(&mut self, ceiling: Mtu) {
        if self.ceiling != ceiling {
            *self = Self::new(ceiling);
        }
    }

    /// The largest packet that gets through. Until something has failed, what the device takes is believed, as it is
    /// nearly always right.
    #[must_use]
    pub fn mtu(&self) -> Mtu {
        let size = match self.search {
            Search::Between { fails, .. } if fails > self.ceiling.get() => return self.ceiling,
            Search::Between { passes: size, .. } | Search::Found { size, .. } => size,
        };
        Mtu::new(size).unwrap_or(self.ceiling)
    }

    /// The same, if it is less than the device takes.
    #[must_use]
    pub fn limit(&self) -> Option<Mtu> {
        Some(self.mtu()).filter(|mtu| *mtu < self.ceiling)
    }

    /// Whether it was found, and is not in doubt.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        matches!(self.search, Search::Found { doubted: false, .. })
    }

    /// The sizes to ask now: always at least one.
    #[must_use]
    pub fn sizes(&self, now: Moment) -> BTreeSet<Mtu> {
        let ceiling = self.ceiling.get();
        let mut sizes = match self.search {
            Search::Between { passes, fails } => between(passes, fails),
            Search::Found { size, doubted, .. } if doubted => between(Mtu::MIN, size),
            Search::Found { size, at, .. } if now.since(at) >= RAISE_AFTER => {
                between(size, ceiling.saturating_add(1))
            }
            Search::Found { .. } => BTreeSet::new(),
        };
        if let Search::Found { size, .. } = self.search {
            sizes.insert(size);
        }
        sizes.into_iter().filter_map(Mtu::new).collect()
    }

    /// Somebody says that less gets through. It may be a lie: nothing follows but that it is asked again.
    pub const fn doubt(&mut self) {
        if let Search::Found { doubted, .. } = &mut self.search {
            *doubted = true;
        }
    }

    /// Draws the conclusions: which sizes were asked, which of them came back, and whether the peer answered
    /// anything at all.
    pub fn heard(
        &mut self,
        asked: &BTreeSet<Mtu>,
        answered: &BTreeSet<Mtu>,
        alive: bool,
        now: Moment,
    ) {
        if !alive && answered.is_empty() {
            return;
        }
        let best = answered.last().map_or(0, |best| best.get());
        let beyond = asked.iter().map(|size| size.get());
        let failed = beyond.filter(|size| *size > best).min();
        self.search = match self.search {
            Search::Between { passes, fails } => {
                let fails = failed.map_or(fails, |failed| failed.min(fails));
                narrowed(passes.max(best), fails, now)
            }
            Search::Found { size, at, .. } if best == size && failed.is_none() => Search::Found {
                size,
                at,
                doubted: false,
            },
            Search::Found { size, .. } if best >= size => {
                let above_all = self.ceiling.get().saturating_add(1);
                narrowed(best, failed.unwrap_or(above_all), now)
            }
            Search::Found { size, at, doubted } if !doubted => Search::Found {
                size,
                at,
                doubted: true,
            },
            Search::Found { size, .. } => narrowed(best.max(Mtu::MIN), failed.unwrap_or(size), now),
        };
    }
}

fn narrowed(passes: u16, fails: u16, now: Moment) -> Search {
    if fails.saturating_sub(passes) > 1 {
        return Search::Between { passes, fails };
    }
    Search::Found {
        size: passes,
        at: now,
        doubted: false,
    }
}

/// Sizes between two, neither of which is among them: spread evenly, the largest included.
fn between(passes: u16, fails: u16) -> BTreeSet<u16> {
    let most = fails.saturating_sub(1);
    let room = most.saturating_sub(passes);
    let step = room.div_ceil(AT_ONCE).max(1);
    let sizes = (0..AT_ONCE).map(|place| most.saturating_sub(place.saturating_mul(step)));
    sizes.filter(|size| *size > passes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mtu(bytes: u16) -> Mtu {
        Mtu::new(bytes).unwrap()
    }

    fn after(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    /// Asks once on a path that carries so much.
    fn ask(path: &mut PathMtu, carries: u16, now: Moment) {
        let asked = path.sizes(now);
        assert!(!asked.is_empty() && asked.len() <= 9, "{asked:?}");
        let answered = asked.iter().copied();
        let answered = answered.filter(|size| size.get() <= carries).collect();
        path.heard(&asked, &answered, true, now);
    }

    #[test]
    fn what_the_device_takes_is_asked_first_and_found_at_once() {
        let mut path = PathMtu::new(mtu(1438));
        assert_eq!(path.mtu(), mtu(1438));
        ask(&mut path, 1438, after(0));
        assert!(path.is_found());
        assert_eq!(path.mtu(), mtu(1438));
        assert_eq!(path.sizes(after(100)), BTreeSet::from([mtu(1438)]));
    }

    #[test]
    fn a_peer_that_is_away_says_nothing_of_the_path() {
        let mut path = PathMtu::new(mtu(1438));
        ask(&mut path, 1300, after(0));
        let before = path.clone();
        let asked = path.sizes(after(1));
        path.heard(&asked, &BTreeSet::new(), false, after(1));
        assert_eq!(path, before);
    }

    #[test]
    fn one_lost_packet_changes_nothing() {
        let mut path = PathMtu::new(mtu(1438));
        ask(&mut path, 1438, after(0));
        ask(&mut path, 0, after(10));
        assert!(!path.is_found());
        assert_eq!(path.mtu(), mtu(1438));
        ask(&mut path, 1438, after(11));
        assert!(path.is_found());
        assert_eq!(path.mtu(), mtu(1438));
    }

    #[test]
    fn nothing_but_small_packets_gets_through() {
        let mut path = PathMtu::new(mtu(9000));
        for round in 0..5 {
            ask(&mut path, 100, after(round));
        }
        assert!(path.is_found());
        assert_eq!(path.mtu(), mtu(Mtu::MIN));
    }

    proptest! {
        #[test]
        fn what_passes_is_found_exactly_and_followed(
            ceiling in 600_u16..9200,
            carried in proptest::collection::vec(576_u16..9200, 1..6),
        ) {
            let mut path = PathMtu::new(mtu(ceiling));
            let mut now = 0;
            for carries in carried {
                // A minute later, as more is not tried sooner.
                now += 60;
                for _round in 0..8 {
                    ask(&mut path, carries, after(now));
                    now += 1;
                }
                prop_assert!(path.is_found());
                prop_assert_eq!(path.mtu(), mtu(carries.min(ceiling)));
            }
        }

        #[test]
        fn no_answers_whatever_lead_beyond_what_the_device_takes(
            rounds in proptest::collection::vec((any::<u16>(), any::<bool>()), 1..40),
        ) {
            let mut path = PathMtu::new(mtu(1438));
            for (second, (bits, alive)) in rounds.into_iter().enumerate() {
                let now = after(u64::try_from(second).unwrap() * 30);
                let asked = path.sizes(now);
                let answered = asked.iter().enumerate();
                let answered = answered.filter(|(place, _)| bits >> (place % 16) & 1 == 1);
                let answered = answered.map(|(_, size)| *size).collect();
                path.heard(&asked, &answered, alive, now);
                prop_assert!(path.mtu() <= mtu(1438));
                prop_assert!(path.sizes(now).iter().all(|size| *size <= mtu(1438)));
            }
        }
    }
}
