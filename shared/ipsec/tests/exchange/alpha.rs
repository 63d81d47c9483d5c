//! A host whose kernel is a table of counters, and the peer that it has an exchange with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_ipsec::{
    AssociationId, Counted, Direction, Due, Epoch, Exchange, Identity, Moment, PeerKey, PrivateKey,
    RefusedKey, Schedule, Tag,
};
use drover_model::{HostIndex, HostName};
use zeroize::Zeroizing;

pub(crate) const IDLE: u64 = 30;
pub(crate) const FOLLOW: u64 = 5;

pub(crate) fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

pub(crate) fn index(number: u16) -> HostIndex {
    HostIndex::try_from(number).unwrap()
}

pub(crate) fn seed(number: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([number; 32])
}

pub(crate) fn beta() -> HostName {
    "beta".parse().unwrap()
}

pub(crate) fn key(generation: u64) -> PeerKey {
    PeerKey {
        member: "member of beta".to_owned(),
        index: index(2),
        generation,
        public: PrivateKey::from_seed(&seed(100 + u8::try_from(generation).unwrap())).public(),
        lanes: 1,
    }
}

pub(crate) fn epoch(own: u64, peer: u64) -> Epoch {
    Epoch {
        own: Tag::of(own),
        peer: Tag::of(peer),
    }
}

/// A host, alpha, whose kernel is a table of counters.
pub(crate) struct Alpha {
    pub(crate) exchange: Exchange,
    pub(crate) kernel: BTreeMap<AssociationId, Counted>,
    pub(crate) now: u64,
}

impl Alpha {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn observe(&mut self) {
        self.exchange.observe(&self.kernel, at(self.now));
    }

    pub(crate) fn see(&mut self, keys: &[PeerKey]) -> Vec<RefusedKey> {
        let names = ["beta", "gamma"].map(|name| name.parse().unwrap());
        let peers = names.into_iter().zip(keys.iter().cloned()).collect();
        let refused = self.exchange.set_peers(&peers, at(self.now));
        refused.into_iter().map(|refusal| refusal.reason).collect()
    }

    /// Makes the kernel what it is to be. Answers how many associations it made.
    pub(crate) fn apply(&mut self) -> usize {
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

    pub(crate) fn generate(&mut self, number: u64) {
        let seed = seed(u8::try_from(number).unwrap());
        self.exchange.generate(number, &seed, at(self.now)).unwrap();
        self.apply();
        assert_eq!(self.exchange.publishable(), Some(number));
        self.exchange.published(number, at(self.now));
    }

    pub(crate) fn count(&mut self, direction: Direction, epoch: Epoch) {
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

    pub(crate) fn sends(&self) -> Option<Epoch> {
        self.exchange.path(&beta()).send
    }

    pub(crate) fn epochs(&self) -> BTreeSet<Epoch> {
        let path = self.exchange.path(&beta());
        path.associations.iter().map(|one| one.epoch).collect()
    }
}

/// Both hosts have a generation and alpha knows that beta receives.
pub(crate) fn settled() -> Alpha {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.exchange.due(at(0)), Some(Due::First));
    alpha.see(&[key(1)]);
    alpha.generate(1);
    alpha.exchange.answered(&beta(), epoch(1, 1));
    alpha
}
