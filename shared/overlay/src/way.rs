//! Where the packets of a lane to a peer go: to the address that it advertises, to another one of it, or to whatever its
//! NAT makes of it; and how that is found, and found again.
//!
//! Packets that came from somewhere say where to try, and nothing more: anybody can send a packet that looks like
//! the peer's. A way is taken only after the peer has answered to something that was encrypted for it and sent by
//! that way, and only while the present way is silent. So a way that works is never lost to one that was not proven, nor
//! to one that was.
//!
//! ```text
//! taken --answers--> taken
//!   '---silent--> others are tried in turn, what was heard from before all --one answers--> that is taken
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

/// After so many silent rounds in a row nobody is in a hurry any more.
const HURRIED: u32 = 30;

/// A way to a peer: between which addresses, and to which UDP port. The port that packets are sent from is the lane's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// This host's address.
    pub local: IpAddr,
    /// The address that packets are sent to.
    pub remote: IpAddr,
    /// The port that they are sent to.
    pub port: u16,
}

/// What is known of the ways of one lane to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// To the address that the peer advertises, at the port of the lane.
    home: Way,
    /// To further addresses of it.
    further: BTreeSet<Way>,
    taken: Way,
    /// Against the ways that packets have come by. Nothing says that they were the peer's.
    hints: BTreeSet<Way>,
    /// The last of them that was new.
    heard: Option<Way>,
    trial: Option<Way>,
    /// Whether the peer has answered by the way that is taken.
    proven: bool,
    /// How often the way that is taken was silent, in a row.
    silent: u32,
    /// Counts trials, so that a late answer to one is not taken for an answer to another.
    attempt: u8,
}

impl Ways {
    /// Nothing is known but where the peer says it is.
    #[must_use]
    pub const fn new(home: Way) -> Self {
        Self {
            home,
            further: BTreeSet::new(),
            taken: home,
            hints: BTreeSet::new(),
            heard: None,
            trial: None,
            proven: false,
            silent: 0,
            attempt: 0,
        }
    }

    /// Where the peer says it is. When that changes, all begins anew.
    pub fn set_known(&mut self, home: Way, further: BTreeSet<Way>) {
        if self.home != home {
            *self = Self::new(home);
        }
        self.further = further;
    }

    /// Where packets with SPIs of the peer came from until now, as far as is remembered.
    pub fn set_hints(&mut self, hints: BTreeSet<Way>) {
        self.hints = hints;
    }

    /// A packet with an SPI of the peer came from somewhere else than before: back by this way it would get there.
    pub fn hear(&mut self, way: Way) {
        self.heard = Some(way);
    }

    /// The way that is taken.
    #[must_use]
    pub const fn taken(&self) -> Way {
        self.taken
    }

    /// The same, if it is not where the peer says it is.
    #[must_use]
    pub fn detour(&self) -> Option<Way> {
        Some(self.taken).filter(|taken| *taken != self.home)
    }

    /// Whether it is a way that only packets have told of.
    #[must_use]
    pub fn is_learned(&self) -> bool {
        self.taken != self.home && !self.further.contains(&self.taken)
    }

    /// What is tried beside, and the number of this trial.
    #[must_use]
    pub fn trial(&self) -> Option<(Way, u8)> {
        self.trial.map(|way| (way, self.attempt))
    }

    /// Chooses what to try now. A way that was just heard from is tried even while the present one answers, so that no
    /// round is lost when a NAT has begun to map anew; any other only when that is silent.
    pub fn choose(&mut self) {
        let heard = self.heard.filter(|heard| *heard != self.taken);
        let elsewhere = self.further.union(&self.hints).copied();
        let elsewhere = elsewhere.filter(|way| *way != self.home);
        let known = [self.home].into_iter().chain(elsewhere);
        let known = known.filter(|way| *way != self.taken && Some(*way) != heard);
        self.trial = if self.silent == 0 {
            heard
        } else {
            // What was heard from every other time: who forges it must not keep the others from being tried.
            let others: Vec<_> = known.collect();
            let round = usize::try_from(self.silent.saturating_sub(1)).unwrap_or_default();
            let of = |turn: usize| {
                others
                    .iter()
                    .copied()
                    .cycle()
                    .nth(turn % others.len().max(1))
            };
            match heard {
                Some(heard) if others.is_empty() || round % 2 == 0 => Some(heard),
                Some(_) => of(round / 2),
                None => of(round),
            }
        };
        // 0 is no trial's.
        self.attempt = self.attempt.checked_add(1).unwrap_or(1);
    }

    /// Draws the conclusions of a round: whether the peer answered by the way that is taken, and whether by
    /// the one that was tried with this number. Says whether another way is taken now.
    pub fn conclude(&mut self, answered: bool, tried: Option<u8>) -> bool {
        let proven = self.trial.filter(|_| tried == Some(self.attempt));
        if answered {
            self.proven = true;
            self.silent = 0;
            // There is no need for what was heard, as long as nothing else is heard.
            if self.trial.is_some() && self.trial == self.heard {
                self.heard = None;
            }
            self.trial = None;
            return false;
        }
        self.silent = self.silent.saturating_add(1);
        let Some(proven) = proven else { return false };
        self.taken = proven;
        self.proven = true;
        self.silent = 0;
        self.heard = None;
        self.trial = None;
        true
    }

    /// Whether it is enough to ask every other time: the way answers, and is not one that a NAT may change at any moment.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let heard = self.heard.is_some_and(|heard| heard != self.taken);
        self.proven && self.silent == 0 && self.trial.is_none() && !heard && !self.is_learned()
    }

    /// Whether the next round should be soon.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let heard = self.heard.is_some_and(|heard| heard != self.taken);
        (1..HURRIED).contains(&self.silent) || heard && self.silent == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(last: u8, port: u16) -> Way {
        Way {
            local: "192.0.2.1".parse().unwrap(),
            remote: IpAddr::from([192, 0, 2, last]),
            port,
        }
    }

    fn round(ways: &mut Ways, reachable: &BTreeSet<Way>) -> bool {
        ways.choose();
        let answered = reachable.contains(&ways.taken());
        let tried = ways.trial().filter(|(way, _)| reachable.contains(way));
        ways.conclude(answered, tried.map(|(_, attempt)| attempt))
    }

    #[test]
    fn a_moved_port_is_followed_in_one_round() {
        let mut ways = Ways::new(way(2, 4740));
        assert!(!ways.is_calm(), "nobody has answered yet");
        assert!(!round(&mut ways, &[way(2, 4740)].into()));
        assert!(ways.is_calm());
        ways.hear(way(2, 31000));
        assert!(ways.is_unsettled() && !ways.is_calm());
        assert!(round(&mut ways, &[way(2, 31000)].into()));
        assert_eq!(ways.taken(), way(2, 31000));
        assert!(!ways.is_calm(), "a NAT may change it again");
        assert!(ways.is_learned() && ways.detour().is_some() && !ways.is_unsettled());
    }

    #[test]
    fn what_is_heard_does_not_displace_what_answers() {
        let mut ways = Ways::new(way(2, 4740));
        ways.hear(way(9, 666));
        for _ in 0..5 {
            assert!(!round(&mut ways, &[way(2, 4740), way(9, 666)].into()));
            assert_eq!(ways.taken(), way(2, 4740));
        }
        assert!(!ways.is_unsettled(), "it is tried once");
        assert_eq!(ways.trial(), None);
    }

    #[test]
    fn a_further_address_is_found_and_the_first_is_found_again() {
        let mut ways = Ways::new(way(2, 4740));
        ways.set_known(way(2, 4740), [way(3, 4740), way(4, 4740)].into());
        let tried = (0..4).filter(|_| round(&mut ways, &[way(4, 4740)].into()));
        assert_eq!(tried.count(), 1);
        assert_eq!(ways.taken(), way(4, 4740));
        assert!(!ways.is_learned() && ways.is_calm());
        for _ in 0..4 {
            round(&mut ways, &[way(2, 4740)].into());
        }
        assert_eq!((ways.taken(), ways.detour()), (way(2, 4740), None));
    }

    #[test]
    fn what_was_heard_before_anybody_listened_is_tried() {
        let mut ways = Ways::new(way(2, 4740));
        ways.set_known(way(2, 4740), [way(3, 4740)].into());
        ways.set_hints([way(2, 4740), way(9, 31000)].into());
        for _ in 0..3 {
            round(&mut ways, &[way(9, 31000)].into());
        }
        assert_eq!(ways.taken(), way(9, 31000));
        assert!(ways.is_learned());
    }

    #[test]
    fn an_answer_to_an_earlier_trial_is_none_to_this() {
        let mut ways = Ways::new(way(2, 4740));
        ways.set_known(way(2, 4740), [way(3, 4740), way(4, 4740)].into());
        round(&mut ways, &BTreeSet::new());
        ways.choose();
        let (_, earlier) = ways.trial().unwrap();
        ways.conclude(false, None);
        ways.choose();
        assert!(!ways.conclude(false, Some(earlier)));
        assert_eq!(ways.taken(), way(2, 4740));
    }

    #[test]
    fn a_peer_that_says_it_has_moved_is_believed() {
        let mut ways = Ways::new(way(2, 4740));
        ways.hear(way(2, 31000));
        round(&mut ways, &[way(2, 31000)].into());
        ways.set_known(way(7, 4740), BTreeSet::new());
        assert_eq!((ways.taken(), ways.detour()), (way(7, 4740), None));
    }
}
