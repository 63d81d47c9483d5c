//! This host and one peer: the epochs that live, and which of them is sent by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_model::HostIndex;

use super::epoch::{Dump, LiveEpoch, Rank};
use super::input::{Adopted, AssociationId, Identity, Moment, PeerAssociations, PeerKey};
use crate::association::{Association, Direction};
use crate::spi::{Epoch, Lane, Spi, Tag};

/// How many epochs are kept that nothing has come by yet: a peer that has not seen as many generations of
/// this host uses an earlier epoch, or needs the newest.
const UNTRIED: usize = 4;

/// How many are kept at most, of those that a peer was probed by and nothing is heard from.
const PROBED: usize = 16;

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) member: String,
    pub(super) index: HostIndex,
    /// The peer's newest generation.
    pub(super) newest: Option<PeerKey>,
    pub(super) epochs: Vec<LiveEpoch>,
}

impl Pair {
    pub(super) fn new(key: &PeerKey) -> Self {
        Self {
            member: key.member.clone(),
            index: key.index,
            newest: None,
            epochs: Vec::new(),
        }
    }

    /// What an earlier process has left; associations that are not of this pair are left out.
    pub(super) fn adopt(identity: &Identity, adopted: Adopted, now: Moment) -> Self {
        let mut epochs: BTreeMap<Epoch, Vec<Association>> = BTreeMap::new();
        for (direction, spi) in adopted.associations {
            if let Some(epoch) = epoch_of(identity.index, adopted.index, direction, spi) {
                epochs.entry(epoch).or_default().push(Association {
                    spi,
                    direction,
                    lane: spi.lane(),
                    epoch,
                    key: None,
                });
            }
        }
        let epochs = epochs.into_iter().filter_map(|(epoch, associations)| {
            // Without the first lane nobody was told that it can be received by, or it was being removed.
            let first = (Direction::Receive, Lane::FIRST);
            associations
                .iter()
                .find(|one| (one.direction, one.lane) == first)?;
            let sending = adopted.send == Some(epoch);
            LiveEpoch::new(
                adopted.index,
                Rank::Adopted { sending },
                None,
                associations,
                now,
            )
        });
        Self {
            member: adopted.member,
            index: adopted.index,
            newest: None,
            epochs: epochs.collect(),
        }
    }

    pub(super) fn is(&self, key: &PeerKey) -> bool {
        self.member == key.member && self.index == key.index
    }

    /// Whether an epoch that lives has these tags: an index of its associations would be that of another.
    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.epochs.iter().any(|live| live.epoch == epoch)
    }

    /// Whether that epoch lives and is of this generation.
    pub(super) fn derived(&self, number: u64, epoch: Epoch) -> bool {
        self.epochs
            .iter()
            .any(|live| live.epoch == epoch && live.generation == Some(number))
    }

    /// The epoch to send by: the newest the peer is known to receive by, or else the newest.
    pub(super) fn sending(&self, unpublished: &BTreeSet<u64>) -> Option<&LiveEpoch> {
        self.usable(unpublished)
            .filter(|live| live.confirmed)
            .max_by_key(|live| live.rank)
            .or_else(|| self.newest_usable(unpublished))
    }

    fn newest_usable(&self, unpublished: &BTreeSet<u64>) -> Option<&LiveEpoch> {
        self.usable(unpublished).max_by_key(|live| live.rank)
    }

    /// The epochs the peer can have: it cannot before the generation is published, which may be unknown here when the
    /// answer was lost.
    fn usable(&self, unpublished: &BTreeSet<u64>) -> impl Iterator<Item = &LiveEpoch> {
        self.epochs.iter().filter(|live| {
            live.lanes() > 0
                && !live.withheld
                && (live.confirmed
                    || live
                        .generation
                        .is_none_or(|number| !unpublished.contains(&number)))
        })
    }

    pub(super) fn path(&self, unpublished: &BTreeSet<u64>) -> PeerAssociations {
        let sending = self.sending(unpublished);
        PeerAssociations {
            associations: self
                .epochs
                .iter()
                .flat_map(LiveEpoch::associations)
                .collect(),
            send: sending.map(|live| live.epoch),
            lanes: sending.map_or(0, LiveEpoch::lanes),
            confirmed: sending.is_some_and(|live| live.confirmed),
            since: sending.map(|live| live.since),
            candidate: self.candidate(unpublished).map(|live| live.epoch),
        }
    }

    /// The newest epoch, as long as the peer is not known to receive by it.
    pub(super) fn candidate(&self, unpublished: &BTreeSet<u64>) -> Option<&LiveEpoch> {
        self.newest_usable(unpublished)
            .filter(|live| !live.confirmed)
    }

    /// A moment after which the last packet of the peer came, by whatever epoch.
    pub(super) fn heard(&self) -> Option<Moment> {
        self.epochs.iter().filter_map(LiveEpoch::heard).max()
    }

    /// Says which epochs are to go, as far as is known now. What comes by one before the kernel has removed it keeps it.
    pub(super) fn review(&mut self, unpublished: &BTreeSet<u64>, newest: u64, dump: Dump) {
        let mut leaving = self.superfluous(newest, dump);
        leaving.extend(self.left(unpublished, dump.idle));
        for live in &mut self.epochs {
            live.leaving = leaving.contains(&live.epoch);
        }
    }

    /// Older than the epoch that is sent by, and nothing came by them for a while although something came by that one.
    fn left(&self, unpublished: &BTreeSet<u64>, idle: Duration) -> BTreeSet<Epoch> {
        let Some(sending) = self.sending(unpublished).filter(|live| live.confirmed) else {
            return BTreeSet::new();
        };
        let older = self
            .epochs
            .iter()
            .filter(|live| sending.rank.is_newer_than(live.rank));
        older
            .filter(|live| self.is_outlived(live, idle))
            .map(|live| live.epoch)
            .collect()
    }

    /// Whether something came by newer epochs so long after their first packet and after the last that came by this one. The
    /// first may have been a probe of a peer that sends by this one, and had nothing to send for long. They count together:
    /// where keys change often, none of them is used for so long.
    fn is_outlived(&self, older: &LiveEpoch, idle: Duration) -> bool {
        let newer = self.epochs.iter();
        let newer = newer.filter(|live| live.rank.is_newer_than(older.rank));
        let spans = newer.filter_map(|live| live.moved);
        let span = spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        span.is_some_and(|(first, last)| last >= first.max(older.moved_by).after(idle))
    }

    /// Of the epochs that nothing has come by, all but the newest, unless the peer may be sending by one.
    fn superfluous(&self, newest: u64, dump: Dump) -> BTreeSet<Epoch> {
        let age = |live: &LiveEpoch| (Tag::of(newest).get() + 64 - live.epoch.own.get()) % 64;
        let heard = self.heard();
        let mut untried: Vec<&LiveEpoch> =
            self.epochs.iter().filter(|live| !live.tried()).collect();
        untried.sort_by_key(|live| (std::cmp::Reverse(live.rank), age(live)));
        let untried = untried.into_iter().enumerate().skip(UNTRIED);
        untried
            .filter(|(at, live)| *at >= PROBED || live.is_forgotten(heard, 2 * dump.idle))
            .map(|(_, live)| live.epoch)
            .collect()
    }

    /// Takes epochs out.
    pub(super) fn take(&mut self, gone: &BTreeSet<Epoch>) -> Vec<LiveEpoch> {
        self.epochs
            .extract_if(.., |live| gone.contains(&live.epoch))
            .collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = AssociationId> + '_ {
        self.epochs.iter().flat_map(LiveEpoch::ids)
    }
}

/// The epoch that an index tells of, when it is of this pair.
fn epoch_of(own: HostIndex, peer: HostIndex, direction: Direction, spi: Spi) -> Option<Epoch> {
    let (sender, epoch) = match direction {
        Direction::Receive => (
            peer,
            Epoch {
                own: spi.receiver_tag(),
                peer: spi.sender_tag(),
            },
        ),
        Direction::Send => (
            own,
            Epoch {
                own: spi.sender_tag(),
                peer: spi.receiver_tag(),
            },
        ),
    };
    (spi.sender() == Some(sender)).then_some(epoch)
}
