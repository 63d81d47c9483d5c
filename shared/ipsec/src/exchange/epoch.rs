//! One epoch of a pair as it lives: its associations, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_model::HostIndex;

use super::input::{AssociationId, Counted, Moment};
use crate::association::{Association, Direction};
use crate::spi::{Epoch, Lane, Spi};

/// Which of two epochs of a pair is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Left by an earlier process.
    Adopted {
        /// Whether it was being sent by: what else there is was being tried, or left.
        sending: bool,
    },
    Derived {
        /// Both generations added up: an epoch with a later generation of one host, or of both, is newer.
        sum: u128,
        /// Of those that both hosts have made at the same time: the generation of the host with the lower index.
        lower: u64,
    },
}

impl Rank {
    /// Whether it is newer than another for the peer as well. Of epochs that were adopted nobody knows here.
    pub(super) fn is_newer_than(self, other: Self) -> bool {
        matches!(self, Self::Derived { .. }) && self > other
    }
}

#[derive(Debug)]
struct Held {
    association: Association,
    /// The kernel has it, or has had it.
    installed: bool,
}

#[derive(Debug)]
pub(super) struct LiveEpoch {
    pub(super) epoch: Epoch,
    pub(super) rank: Rank,
    /// This host's generation; `None` for one that was adopted.
    pub(super) generation: Option<u64>,
    /// The kernel may still have another association of the same index: nothing is to be made yet.
    pub(super) withheld: bool,
    /// It is to go: nothing of it is told any more.
    pub(super) leaving: bool,
    /// The peer receives by it.
    pub(super) confirmed: bool,
    pub(super) since: Moment,
    peer: HostIndex,
    held: Vec<Held>,
    /// As many as there are receiving associations, if each has a sending one; otherwise 0.
    lanes: u8,
    received: u64,
    /// A moment by which the last packet had come.
    pub(super) moved_by: Moment,
    /// A moment by which the first packet had come, if one has, and one after which the last has.
    pub(super) moved: Option<(Moment, Moment)>,
    /// What one association has sent, at most, in bytes.
    sent: u64,
    /// How many packets were sent, and a moment by which the last was.
    sent_packets: u64,
    sent_by: Option<Moment>,
}

/// When a dump was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dump {
    /// When the one before was, if there was one.
    pub(super) before: Option<Moment>,
    pub(super) now: Moment,
    /// [`Schedule::idle_before_removal`](super::input::Schedule::idle_before_removal).
    pub(super) idle: Duration,
}

/// What a dump says of an epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Whole,
    /// An association is missing that was there.
    Broken,
    /// It was to go and does.
    Left,
}

impl LiveEpoch {
    pub(super) fn new(
        peer: HostIndex,
        rank: Rank,
        generation: Option<u64>,
        associations: Vec<Association>,
        now: Moment,
    ) -> Option<Self> {
        let epoch = associations.first()?.epoch;
        let adopted = generation.is_none();
        let lanes = whole_lanes(&associations);
        Some(Self {
            epoch,
            rank,
            generation,
            withheld: false,
            leaving: false,
            confirmed: rank == Rank::Adopted { sending: true } && lanes > 0,
            since: now,
            peer,
            held: associations
                .into_iter()
                .map(|association| Held {
                    association,
                    installed: adopted,
                })
                .collect(),
            lanes,
            received: 0,
            moved_by: now,
            moved: None,
            sent: 0,
            sent_packets: 0,
            sent_by: None,
        })
    }

    pub(super) const fn lanes(&self) -> u8 {
        self.lanes
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether anything ever came by it, or the peer is known to receive by it.
    pub(super) const fn tried(&self) -> bool {
        self.confirmed || self.moved.is_some()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = AssociationId> + '_ {
        self.held.iter().map(|held| self.id(held))
    }

    fn id(&self, held: &Held) -> AssociationId {
        AssociationId {
            peer: self.peer,
            direction: held.association.direction,
            spi: held.association.spi,
        }
    }

    /// What is to be in the kernel.
    pub(super) fn associations(&self) -> impl Iterator<Item = Association> + '_ {
        let offered = if self.withheld || self.leaving {
            &[]
        } else {
            self.held.as_slice()
        };
        offered.iter().map(|held| held.association.clone())
    }

    /// Whether the kernel has every association by which the peer could send.
    pub(super) fn receives(&self) -> bool {
        !self.withheld
            && self
                .held
                .iter()
                .filter(|held| held.association.direction == Direction::Receive)
                .all(|held| held.installed)
    }

    /// An association is in the kernel: from now on its key is the kernel's alone.
    pub(super) fn installed(&mut self, direction: Direction, spi: Spi) {
        for held in &mut self.held {
            if held.association.direction == direction && held.association.spi == spi {
                held.installed = true;
                held.association.key = None;
            }
        }
    }

    /// Whether the peer is not sending by it, as far as can be known: nothing was ever sent by it, so that the peer
    /// has not learned of it; or something came by other epochs, so long after the last that was sent by this one.
    pub(super) fn is_forgotten(&self, heard: Option<Moment>, time: Duration) -> bool {
        self.sent_by
            .is_none_or(|sent| heard.is_some_and(|heard| heard >= sent.after(time)))
    }

    /// A moment after which the last packet came, if one has.
    pub(super) fn heard(&self) -> Option<Moment> {
        self.moved.map(|(_, after)| after)
    }

    /// Takes a dump in.
    pub(super) fn observe(
        &mut self,
        counters: &BTreeMap<AssociationId, Counted>,
        dump: Dump,
    ) -> Seen {
        if self.leaving && !self.ids().all(|id| counters.contains_key(&id)) {
            return Seen::Left;
        }
        if self.withheld {
            let occupied = self.ids().any(|id| counters.contains_key(&id));
            self.withheld = occupied;
            return Seen::Whole;
        }
        let found: Vec<Option<Counted>> = self.ids().map(|id| counters.get(&id).copied()).collect();
        let (mut received, mut sent) = (0u64, 0u64);
        for (held, counted) in self.held.iter_mut().zip(found) {
            let Some(counted) = counted else {
                if held.installed {
                    return Seen::Broken;
                }
                continue;
            };
            held.installed = true;
            held.association.key = None;
            match held.association.direction {
                Direction::Receive => received = received.saturating_add(counted.packets),
                Direction::Send => {
                    self.sent = self.sent.max(counted.bytes);
                    sent = sent.saturating_add(counted.packets);
                }
            }
        }
        if sent > self.sent_packets {
            self.sent_packets = sent;
            self.sent_by = Some(dump.now);
        }
        if received > self.received {
            self.received = received;
            self.moved_by = dump.now;
            let first = self.moved.map_or(dump.now, |(first, _)| first);
            let after = dump
                .before
                .map_or(self.since, |before| before.max(self.since));
            self.moved = Some((first, after));
            // A sender makes its receiving associations before the sending ones. That it did so long ago says little.
            let recent = dump.before.is_some() && dump.now.since(after) < dump.idle;
            self.confirmed |= recent && self.lanes > 0;
        }
        Seen::Whole
    }
}

/// How many lanes are whole, when all there are are the first ones and each goes both ways.
fn whole_lanes(associations: &[Association]) -> u8 {
    let lanes = |direction| -> BTreeSet<Lane> {
        associations
            .iter()
            .filter(|association| association.direction == direction)
            .map(|association| association.lane)
            .collect()
    };
    let receive = lanes(Direction::Receive);
    let count = u8::try_from(receive.len()).unwrap_or(0);
    let whole = count > 0 && Lane::first(count).eq(receive.iter().copied());
    if whole && receive == lanes(Direction::Send) {
        count
    } else {
        0
    }
}
