//! What an exchange decides, case by case. `prop_exchange.rs` has the interleavings.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_ipsec::{
    Adopted, AssociationId, Counted, Direction, Due, Epoch, Exchange, Identity, Moment, PeerKey,
    PrivateKey, PublicKey, RefusedKey, Schedule, Spi, Tag,
};
use drover_model::{HostIndex, HostName};
use zeroize::Zeroizing;

const IDLE: u64 = 30;
const FOLLOW: u64 = 5;

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

fn index(number: u16) -> HostIndex {
    HostIndex::try_from(number).unwrap()
}

fn seed(number: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([number; 32])
}

fn beta() -> HostName {
    "beta".parse().unwrap()
}

fn key(generation: u64) -> PeerKey {
    PeerKey {
        member: "member of beta".to_owned(),
        index: index(2),
        generation,
        public: PrivateKey::from_seed(&seed(100 + u8::try_from(generation).unwrap())).public(),
        lanes: 1,
    }
}

fn epoch(own: u64, peer: u64) -> Epoch {
    Epoch {
        own: Tag::of(own),
        peer: Tag::of(peer),
    }
}

/// A host, alpha, whose kernel is a table of counters.
struct Alpha {
    exchange: Exchange,
    kernel: BTreeMap<AssociationId, Counted>,
    now: u64,
}

impl Alpha {
    fn new() -> Self {
        let identity = Identity {
            cluster: "cluster".to_owned(),
            member: "member of alpha".to_owned(),
            index: index(1),
            lanes: 2,
        };
        let schedule = Schedule {
            rotate_after: Duration::from_secs(3600),
            rotate_bytes: 1000,
            wipe_after: Duration::from_secs(60),
            idle_before_removal: Duration::from_secs(IDLE),
            follow_within: Duration::from_secs(FOLLOW),
        };
        let mut alpha = Self {
            exchange: Exchange::new(identity, schedule),
            kernel: BTreeMap::new(),
            now: 0,
        };
        alpha.observe();
        alpha
    }

    fn observe(&mut self) {
        self.exchange.observe(&self.kernel, at(self.now));
    }

    fn see(&mut self, keys: &[PeerKey]) -> Vec<RefusedKey> {
        let names = ["beta", "gamma"].map(|name| name.parse().unwrap());
        let peers = names.into_iter().zip(keys.iter().cloned()).collect();
        let refused = self.exchange.set_peers(&peers, at(self.now));
        refused.into_iter().map(|refusal| refusal.reason).collect()
    }

    /// Makes the kernel what it is to be. Answers how many associations it made.
    fn apply(&mut self) -> usize {
        let path = self.exchange.path(&beta());
        let id = |direction, spi| AssociationId {
            peer: index(2),
            direction,
            spi,
        };
        let wanted: BTreeSet<AssociationId> = path
            .associations
            .iter()
            .map(|association| id(association.direction, association.spi))
            .collect();
        self.kernel.retain(|id, _| wanted.contains(id));
        let mut made = 0;
        for association in path.associations {
            let id = id(association.direction, association.spi);
            if association.key.is_some() {
                assert!(self.kernel.insert(id, Counted::default()).is_none());
                made += 1;
            }
        }
        self.observe();
        made
    }

    fn generate(&mut self, number: u64) {
        let seed = seed(u8::try_from(number).unwrap());
        self.exchange.generate(number, &seed, at(self.now)).unwrap();
        self.apply();
        assert_eq!(self.exchange.publishable(), Some(number));
        self.exchange.published(number, at(self.now));
    }

    fn count(&mut self, direction: Direction, epoch: Epoch) {
        for (id, counted) in &mut self.kernel {
            let own = match direction {
                Direction::Receive => id.spi.receiver_tag(),
                Direction::Send => id.spi.sender_tag(),
            };
            let peer = match direction {
                Direction::Receive => id.spi.sender_tag(),
                Direction::Send => id.spi.receiver_tag(),
            };
            if id.direction == direction && (Epoch { own, peer }) == epoch {
                counted.packets += 1;
                counted.bytes += 600;
            }
        }
    }

    fn sends(&self) -> Option<Epoch> {
        self.exchange.path(&beta()).send
    }

    fn epochs(&self) -> BTreeSet<Epoch> {
        let path = self.exchange.path(&beta());
        path.associations.iter().map(|one| one.epoch).collect()
    }
}

/// Both hosts have a generation and alpha knows that beta receives.
fn settled() -> Alpha {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.exchange.due(at(0)), Some(Due::First));
    alpha.see(&[key(1)]);
    alpha.generate(1);
    alpha.exchange.answered(&beta(), epoch(1, 1));
    alpha
}

#[test]
fn a_generation_is_published_when_it_can_be_received_by() {
    let mut alpha = Alpha::new();
    alpha.see(&[key(1)]);
    alpha.exchange.generate(1, &seed(1), at(0)).unwrap();
    assert_eq!(alpha.exchange.publishable(), None);
    assert_eq!(alpha.sends(), None, "nobody has it");
    assert_eq!(alpha.apply(), 4, "two lanes, as alpha asks for, each way");
    assert_eq!(alpha.exchange.publishable(), Some(1));
    alpha.exchange.published(1, at(0));
    let path = alpha.exchange.path(&beta());
    assert_eq!((path.send, path.confirmed), (Some(epoch(1, 1)), false));
    assert_eq!(path.candidate, path.send);
    assert_eq!(path.lanes, 2);
    let directions: Vec<Direction> = path.associations.iter().map(|one| one.direction).collect();
    assert!(directions.is_sorted(), "the receiving ones first");
}

#[test]
fn the_key_is_told_until_the_kernel_has_it() {
    let mut alpha = Alpha::new();
    alpha.see(&[key(1)]);
    alpha.exchange.generate(1, &seed(1), at(0)).unwrap();
    let first = alpha.exchange.path(&beta()).associations[0].clone();
    assert!(first.key.is_some());
    alpha
        .exchange
        .installed(&beta(), first.direction, first.spi);
    let again = alpha.exchange.path(&beta()).associations;
    assert_eq!(again[0].key, None);
    assert!(again[1..].iter().all(|one| one.key.is_some()));
}

#[test]
fn the_confirmed_epoch_is_sent_by_until_the_next_is() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert_eq!(alpha.exchange.path(&beta()).candidate, Some(epoch(1, 2)));
    alpha.exchange.answered(&beta(), epoch(1, 2));
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
    assert_eq!(alpha.exchange.path(&beta()).candidate, None);
}

#[test]
fn what_comes_by_an_epoch_says_that_its_sender_has_it() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
}

#[test]
fn a_peer_that_is_there_is_not_asked_by_an_epoch_before_it_can_have_made_it() {
    let mut alpha = settled();
    alpha.now = 99;
    alpha.observe();
    alpha.now = 100;
    alpha.count(Direction::Receive, epoch(1, 1));
    alpha.observe();
    alpha.see(&[key(2)]);
    alpha.apply();
    let asks_by = |alpha: &Alpha| alpha.exchange.asks_by(&beta(), at(alpha.now));
    assert_eq!(alpha.exchange.path(&beta()).candidate, Some(epoch(1, 2)));
    assert_eq!(asks_by(&alpha), None);
    alpha.now += FOLLOW;
    assert_eq!(asks_by(&alpha), Some(epoch(1, 2)));
    alpha.exchange.answered(&beta(), epoch(1, 2));
    assert_eq!(asks_by(&alpha), None, "it has answered");
}

#[test]
fn a_peer_that_is_silent_or_has_no_other_epoch_is_asked_at_once() {
    let mut alpha = Alpha::new();
    alpha.generate(1);
    alpha.exchange.published(1, at(0));
    alpha.see(&[key(1)]);
    alpha.apply();
    let asks_by = |alpha: &Alpha| alpha.exchange.asks_by(&beta(), at(alpha.now));
    assert_eq!(asks_by(&alpha), Some(epoch(1, 1)));
    alpha.exchange.answered(&beta(), epoch(1, 1));
    alpha.now = 99;
    alpha.observe();
    alpha.now = 100;
    alpha.count(Direction::Receive, epoch(1, 1));
    alpha.observe();
    alpha.now += 4 * FOLLOW;
    alpha.observe();
    alpha.see(&[key(2)]);
    alpha.apply();
    assert_eq!(asks_by(&alpha), Some(epoch(1, 2)), "it is silent");
}

#[test]
fn an_epoch_goes_when_the_next_outlives_it() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    alpha.exchange.answered(&beta(), epoch(1, 2));
    alpha.now = 10;
    alpha.count(Direction::Receive, epoch(1, 1));
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    alpha.now = 10 + 3 * IDLE;
    alpha.observe();
    let both = BTreeSet::from([epoch(1, 1), epoch(1, 2)]);
    assert_eq!(alpha.epochs(), both, "the next one is idle too");
    alpha.now += 1;
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    assert_eq!(alpha.epochs(), BTreeSet::from([epoch(1, 2)]));
    assert_eq!(alpha.exchange.due(at(alpha.now)), None);
}

#[test]
fn epochs_go_though_none_is_used_for_as_long_as_it_takes() {
    let mut alpha = settled();
    for generation in 2..20 {
        alpha.see(&[key(generation)]);
        alpha.apply();
        for _ in 0..10 {
            alpha.now += IDLE / 15;
            alpha.count(Direction::Receive, epoch(1, generation));
            alpha.observe();
        }
        alpha.apply();
        assert!(alpha.epochs().len() <= 4, "{:?}", alpha.epochs());
        assert_eq!(alpha.sends(), Some(epoch(1, generation)));
    }
}

#[test]
fn one_probe_after_a_long_silence_does_not_outlive_an_epoch() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    alpha.now = 10 * IDLE;
    alpha.observe();
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.now += 1;
    alpha.observe();
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
    assert!(
        alpha.epochs().contains(&epoch(1, 1)),
        "the peer may send by it"
    );
}

#[test]
fn a_lost_association_is_not_made_again() {
    let mut alpha = settled();
    let lost = *alpha.kernel.keys().next().unwrap();
    alpha.kernel.remove(&lost);
    alpha.observe();
    assert_eq!(alpha.exchange.due(at(0)), Some(Due::Lost));
    assert_eq!(alpha.epochs(), BTreeSet::new());
    alpha.see(&[key(1)]);
    assert_eq!(alpha.apply(), 0);
    alpha.generate(2);
    assert_eq!(alpha.sends(), Some(epoch(2, 1)));
    assert_eq!(alpha.exchange.due(at(0)), None);
}

#[test]
fn a_peer_that_went_and_is_back_needs_another_generation() {
    let mut alpha = settled();
    alpha.see(&[]);
    assert_eq!(alpha.epochs(), BTreeSet::new());
    alpha.see(&[key(1)]);
    assert_eq!(alpha.apply(), 0);
    assert_eq!(alpha.exchange.due(at(0)), Some(Due::Lost));
    alpha.generate(2);
    assert_eq!(alpha.epochs(), BTreeSet::from([epoch(2, 1)]));
}

#[test]
fn another_member_under_the_name_or_the_index_waits_for_the_kernel() {
    let mut alpha = settled();
    let other = PeerKey {
        member: "another".to_owned(),
        ..key(1)
    };
    alpha.see(&[other]);
    assert_eq!(
        alpha.epochs(),
        BTreeSet::new(),
        "the kernel has the earlier one's"
    );
    assert_eq!(alpha.sends(), None);
    alpha.apply();
    assert_eq!(alpha.apply(), 4);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert!(!alpha.exchange.path(&beta()).confirmed);
}

#[test]
fn a_record_that_was_put_back_is_refused() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    let older = RefusedKey::Older {
        known: 2,
        offered: 1,
    };
    assert_eq!(alpha.see(&[key(1)]), [older]);
    let changed = PeerKey {
        public: key(3).public,
        ..key(2)
    };
    assert_eq!(alpha.see(&[changed]), [RefusedKey::Changed(2)]);
    let low = PeerKey {
        public: PublicKey::from_bytes([0; 32]),
        ..key(3)
    };
    assert!(matches!(alpha.see(&[low])[..], [RefusedKey::LowOrder(_)]));
    let both = BTreeSet::from([epoch(1, 1), epoch(1, 2)]);
    assert_eq!(alpha.epochs(), both, "what was there stays");
    let twice = [
        key(2),
        PeerKey {
            member: "gamma".to_owned(),
            ..key(9)
        },
    ];
    assert_eq!(alpha.see(&twice), [RefusedKey::Index(index(2))]);
}

#[test]
fn rotation_is_due_by_time_and_by_bytes() {
    let mut alpha = settled();
    assert_eq!(alpha.exchange.next(), Some(at(3600)));
    assert_eq!(alpha.exchange.due(at(3599)), None);
    assert_eq!(alpha.exchange.due(at(3600)), Some(Due::Schedule));
    for _ in 0..2 {
        assert_eq!(alpha.exchange.due(at(1)), None);
        alpha.count(Direction::Send, epoch(1, 1));
        alpha.observe();
    }
    assert_eq!(alpha.exchange.due(at(1)), Some(Due::Bytes));
    alpha.generate(2);
    assert_eq!(
        alpha.exchange.due(at(1)),
        None,
        "once, though the peer is slow"
    );
    alpha.exchange.rotate();
    assert_eq!(alpha.exchange.due(at(1)), Some(Due::Asked));
    assert!(alpha.exchange.generate(2, &seed(9), at(1)).is_err());
}

#[test]
fn an_earlier_private_key_lives_a_minute_more() {
    for (seconds, known) in [(59, true), (60, false)] {
        let mut alpha = settled();
        alpha.generate(2);
        assert_eq!(alpha.exchange.next(), Some(at(60)));
        alpha.exchange.wipe(at(seconds));
        alpha.see(&[key(2)]);
        assert_eq!(alpha.epochs().contains(&epoch(1, 2)), known);
        assert!(alpha.epochs().contains(&epoch(2, 2)));
    }
}

#[test]
fn what_an_earlier_process_left_is_kept_and_never_made() {
    let earlier = settled();
    let ids: BTreeSet<(Direction, Spi)> = earlier
        .kernel
        .keys()
        .map(|id| (id.direction, id.spi))
        .collect();
    let adopted = |member: &str| Adopted {
        member: member.to_owned(),
        index: index(2),
        associations: ids.clone(),
        send: Some(epoch(1, 1)),
    };
    let mut alpha = Alpha::new();
    alpha.kernel = earlier.kernel;
    alpha
        .exchange
        .adopt(&beta(), adopted("member of beta"), at(0));
    alpha.observe();
    alpha.see(&[key(1)]);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert!(alpha.exchange.path(&beta()).confirmed);
    alpha.generate(2);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    alpha.exchange.answered(&beta(), epoch(2, 1));
    assert_eq!(alpha.sends(), Some(epoch(2, 1)));

    let mut other = Alpha::new();
    other.kernel = alpha.kernel;
    other.exchange.adopt(&beta(), adopted("another"), at(0));
    other.observe();
    other.see(&[key(1)]);
    assert_eq!(other.epochs(), BTreeSet::new());
}

#[test]
fn generations_that_nobody_sees_do_not_pile_up() {
    let mut alpha = settled();
    for number in 2..=64 {
        alpha.now += 3600;
        alpha.generate(number);
        alpha.exchange.wipe(at(alpha.now));
    }
    let mut expected: BTreeSet<Epoch> = (61..=64).map(|own| epoch(own, 1)).collect();
    expected.insert(epoch(1, 1));
    assert_eq!(alpha.epochs(), expected);
    assert_eq!(alpha.exchange.due(at(alpha.now)), None);
    // The tag of the generation that is sent by comes again: there is no epoch of that one with this peer.
    alpha.generate(65);
    assert_eq!(alpha.epochs(), expected);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert_eq!(alpha.exchange.due(at(alpha.now)), Some(Due::Lost));
    alpha.generate(66);
    assert!(alpha.epochs().contains(&epoch(66, 1)));
}
