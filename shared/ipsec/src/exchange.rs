//! The epochs of this host with all its peers: which there are, which is sent by, when a new one is due.
//!
//! ```text
//! due -> generate -> its epochs with every peer are in path -> the caller makes the associations, observes
//!     -> publishable -> the caller publishes -> published -> the new epoch is the candidate
//!     -> a probe is answered, or something comes by it -> it is sent by
//!     -> nothing came by the earlier epoch for a while -> that is gone from path
//! ```
//!
//! What it keeps:
//! - Nobody can send by an epoch of a published generation before its receiver can receive by it.
//! - An epoch that the peer is known to receive by is sent by until a newer one is known to be.
//! - A key is told until the kernel has it and never again: an association that is lost takes its epoch
//!   with it, and a generation never makes a second epoch with one key of a peer.
//! - No association is told while the kernel may have another of the same index.
//!
//! The caller observes every few seconds, before it applies paths, and after each change it has made; a dump is of a time
//! after the last change. It probes by the candidate when it is time ([`Exchange::asks_by`]), and sends something by
//! the sending epoch as well every few seconds; an answer goes by the sending epoch of who answers.

mod epoch;
mod generation;
mod input;
mod pair;

use std::collections::{BTreeMap, BTreeSet};

use drover_model::{HostIndex, HostName};
use zeroize::Zeroizing;

use crate::association::Direction;
use crate::derive::{PrivateKey, PublicKey};
use crate::spi::{Epoch, Spi};
use epoch::{Dump, LiveEpoch, Rank, Seen};
use generation::OwnGeneration;
pub use input::{
    Adopted, AssociationId, Counted, Due, Identity, Moment, PeerAssociations, PeerKey, Refusal,
    RefusedKey, Schedule, StaleGeneration,
};
use pair::Pair;

/// A peer is silent when nothing has come from it for so many times what it takes to follow.
const SILENT: u32 = 4;

/// The epochs of this host with all its peers.
#[derive(Debug)]
pub struct Exchange {
    identity: Identity,
    schedule: Schedule,
    /// Those whose private key is still there, the oldest first.
    generations: Vec<OwnGeneration>,
    /// Generations the store is not known to have.
    unpublished: BTreeSet<u64>,
    pairs: BTreeMap<HostName, Pair>,
    /// What the kernel has, or may have, and is not to have: nothing of the same name is made.
    occupied: BTreeSet<AssociationId>,
    observed: Option<Moment>,
    wanted: Option<Due>,
}

impl Exchange {
    /// An exchange that knows nobody.
    #[must_use]
    pub fn new(identity: Identity, schedule: Schedule) -> Self {
        Self {
            identity,
            schedule,
            generations: Vec::new(),
            unpublished: BTreeSet::new(),
            pairs: BTreeMap::new(),
            occupied: BTreeSet::new(),
            observed: None,
            wanted: None,
        }
    }

    /// Who this host is in it. For another identity another exchange is made, that adopts nothing.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes over what an earlier process of the same identity has left in the kernel for a peer, before
    /// anything else is told. What is not adopted, or turns out to be another member's, is in no path.
    pub fn adopt(&mut self, peer: &HostName, adopted: Adopted, now: Moment) {
        if !self.pairs.contains_key(peer) {
            let pair = Pair::adopt(&self.identity, adopted, now);
            self.pairs.insert(peer.clone(), pair);
        }
    }

    /// Makes a generation. Its associations with every peer are in the paths now.
    ///
    /// # Errors
    /// When the number is not higher than that of an earlier one.
    pub fn generate(
        &mut self,
        number: u64,
        seed: &Zeroizing<[u8; 32]>,
        now: Moment,
    ) -> Result<PublicKey, StaleGeneration> {
        if let Some(newest) = self.newest().map(|newest| newest.number)
            && newest >= number
        {
            return Err(StaleGeneration { number, newest });
        }
        let generation = OwnGeneration::new(number, PrivateKey::from_seed(seed));
        let public = generation.public;
        self.generations.push(generation);
        self.unpublished.insert(number);
        self.wanted = None;
        self.meet(now);
        Ok(public)
    }

    /// The generation that may be published: the newest, not published yet, once the kernel has every association that
    /// a peer could send by.
    #[must_use]
    pub fn publishable(&self) -> Option<u64> {
        let newest = self.newest().filter(|newest| newest.published.is_none())?;
        let ready = self
            .pairs
            .values()
            .flat_map(|pair| &pair.epochs)
            .filter(|live| live.generation == Some(newest.number))
            .all(LiveEpoch::receives);
        (ready && self.observed.is_some()).then_some(newest.number)
    }

    /// The store has the generation.
    pub fn published(&mut self, number: u64, now: Moment) {
        self.unpublished.remove(&number);
        for generation in &mut self.generations {
            if generation.number == number {
                generation.published.get_or_insert(now);
            } else if generation.number < number {
                generation.followed.get_or_insert(now);
            }
        }
    }

    /// The hosts of the cluster that have a key, without this one: all of them. Answers with the keys that are not used.
    pub fn set_peers(&mut self, peers: &BTreeMap<HostName, PeerKey>, now: Moment) -> Vec<Refusal> {
        self.forget(|host, pair| !peers.get(host).is_some_and(|key| pair.is(key)));
        let mut refused = Vec::new();
        let known = self.pairs.iter();
        let mut holders: BTreeMap<HostIndex, HostName> = known
            .map(|(host, pair)| (pair.index, host.clone()))
            .collect();
        for (host, key) in peers {
            let holder = holders.entry(key.index).or_insert_with(|| host.clone());
            let result = if holder == host && key.index != self.identity.index {
                self.set_peer(host, key)
            } else {
                Err(RefusedKey::Index(key.index))
            };
            if let Err(reason) = result {
                let host = host.clone();
                refused.push(Refusal { host, reason });
            }
        }
        // Adopted for a host whose key is refused: nothing vouches for it.
        self.forget(|_, pair| pair.newest.is_none());
        self.meet(now);
        refused
    }

    fn set_peer(&mut self, host: &HostName, key: &PeerKey) -> Result<(), RefusedKey> {
        if let Some(known) = self.pairs.get(host).and_then(|pair| pair.newest.as_ref()) {
            if key.generation < known.generation {
                return Err(RefusedKey::Older {
                    known: known.generation,
                    offered: key.generation,
                });
            }
            if key.generation == known.generation {
                let same = key.public == known.public && key.lanes == known.lanes;
                return if same {
                    Ok(())
                } else {
                    Err(RefusedKey::Changed(key.generation))
                };
            }
        }
        // Whether a point is of low order does not depend on the private key.
        PrivateKey::from_seed(&Zeroizing::new([0; 32]))
            .agree(&key.public)
            .map_err(RefusedKey::LowOrder)?;
        let pair = self.pairs.entry(host.clone());
        pair.or_insert_with(|| Pair::new(key)).newest = Some(key.clone());
        Ok(())
    }

    /// The kernel has an association, or may have: its key is not told again. What is never told here is learned from the
    /// next dump; between the two it must not be made again.
    pub fn installed(&mut self, peer: &HostName, direction: Direction, spi: Spi) {
        let pair = self.pairs.get_mut(peer);
        for live in pair.into_iter().flat_map(|pair| &mut pair.epochs) {
            live.installed(direction, spi);
        }
    }

    /// All associations with an index of ours ([`Spi::read`]) that the kernel has.
    pub fn observe(&mut self, counters: &BTreeMap<AssociationId, Counted>, now: Moment) {
        let dump = Dump {
            before: self.observed.replace(now),
            now,
            idle: self.schedule.idle_before_removal,
        };
        let newest = self.newest().map(|newest| newest.number);
        let pending = newest.filter(|number| self.unpublished.contains(number));
        let mut told = BTreeSet::new();
        for pair in self.pairs.values_mut() {
            let mut gone = BTreeSet::new();
            for live in &mut pair.epochs {
                let seen = live.observe(counters, dump);
                if seen != Seen::Whole {
                    gone.insert(live.epoch);
                }
                // A generation that is on its way replaces what is lost, unless it is that which is.
                if seen == Seen::Broken && (pending.is_none() || live.generation == pending) {
                    self.wanted = Some(Due::Lost);
                }
            }
            pair.take(&gone);
            pair.review(&self.unpublished, newest.unwrap_or(0), dump);
            let offered = pair.epochs.iter().filter(|live| !live.withheld);
            told.extend(offered.flat_map(LiveEpoch::ids));
        }
        self.occupied = counters
            .keys()
            .copied()
            .filter(|id| !told.contains(id))
            .collect();
        self.meet(now);
    }

    /// A probe by the candidate epoch came back. A probe is forgotten when the candidate changes: an epoch is told by
    /// its tags, which a later one may have again.
    pub fn answered(&mut self, peer: &HostName, epoch: Epoch) {
        let pair = self.pairs.get_mut(peer);
        for live in pair.into_iter().flat_map(|pair| &mut pair.epochs) {
            let published = |number| !self.unpublished.contains(&number);
            live.confirmed |= live.epoch == epoch
                && !live.withheld
                && live.lanes() > 0
                && live.generation.is_none_or(published);
        }
    }

    /// The candidate, when it is time to ask a peer by it: at once if there is nothing else to send by or the peer is
    /// silent, and otherwise when it has had the time to make it too, and then less and less often: a peer that is cut off from
    /// the store cannot make it, drops what comes by it, and counts that. Both hosts ask, and what comes by it
    /// tells as much as an answer: a peer that has lost the other epochs, or can make this one at last, does not wait for this host.
    #[must_use]
    pub fn asks_by(&self, peer: &HostName, now: Moment) -> Option<Epoch> {
        let pair = self.pairs.get(peer)?;
        let candidate = pair.candidate(&self.unpublished)?;
        let serves = pair
            .sending(&self.unpublished)
            .is_some_and(|live| live.confirmed);
        let within = self.schedule.follow_within;
        let is_there = pair
            .heard()
            .is_some_and(|heard| now.since(heard) < SILENT * within);
        let own = self.generations.iter();
        let mut own = own.filter(|own| Some(own.number) == candidate.generation);
        let published = own.next().and_then(|own| own.published);
        let began = published.map_or(candidate.since, |published| published.max(candidate.since));
        // Each time for as long as it was waited for at first, after twice the time.
        let times = now.since(began).as_millis() / within.as_millis().max(1);
        let asks = !(serves && is_there) || times.is_power_of_two();
        asks.then_some(candidate.epoch)
    }

    /// Wants a new generation, as one that has to do with what the exchange does not know: a peer that has moved.
    pub fn rotate(&mut self) {
        self.wanted.get_or_insert(Due::Asked);
    }

    /// Whether a new generation is due, and why. None is while the newest is not published.
    #[must_use]
    pub fn due(&self, now: Moment) -> Option<Due> {
        let Some(newest) = self.newest() else {
            return Some(Due::First);
        };
        let published = newest.published?;
        let spent = |pair: &Pair| {
            pair.sending(&self.unpublished).is_some_and(|live| {
                live.generation == Some(newest.number) && live.sent() >= self.schedule.rotate_bytes
            })
        };
        if self.wanted.is_some() {
            self.wanted
        } else if now.since(published) >= self.schedule.rotate_after {
            Some(Due::Schedule)
        } else {
            self.pairs.values().any(spent).then_some(Due::Bytes)
        }
    }

    /// What is to be in the kernel for a peer; nothing for one that is not known.
    #[must_use]
    pub fn path(&self, peer: &HostName) -> PeerAssociations {
        self.pairs
            .get(peer)
            .map(|pair| pair.path(&self.unpublished))
            .unwrap_or_default()
    }

    /// Wipes the private keys whose time has come.
    pub fn wipe(&mut self, now: Moment) {
        let after = self.schedule.wipe_after;
        self.generations.retain(|own| {
            own.followed
                .is_none_or(|followed| now < followed.after(after))
        });
    }

    /// When to look again, by [`Exchange::wipe`] and [`Exchange::due`].
    #[must_use]
    pub fn next(&self) -> Option<Moment> {
        let wipes = self.generations.iter().filter_map(|own| own.followed);
        let rotation = self.newest().and_then(|newest| newest.published);
        wipes
            .map(|followed| followed.after(self.schedule.wipe_after))
            .chain(rotation.map(|published| published.after(self.schedule.rotate_after)))
            .min()
    }

    fn newest(&self) -> Option<&OwnGeneration> {
        self.generations.last()
    }

    /// Makes every epoch that can be made and was not.
    fn meet(&mut self, now: Moment) {
        let newest = self.newest().map(|newest| newest.number);
        for pair in self.pairs.values_mut() {
            let Some(key) = pair.newest.clone() else {
                continue;
            };
            for own in &mut self.generations {
                let epoch = own.epoch_with(&key);
                if own.has_met(&key) || pair.has(epoch) {
                    // The epoch is gone and is not made again; or it cannot be made, as another has its tags: of a
                    // generation 64 before, or of one of the same number that an earlier process did not come to
                    // publish. Only another generation brings the newest of both.
                    if Some(own.number) == newest && !pair.derived(own.number, epoch) {
                        self.wanted.get_or_insert(Due::Lost);
                    }
                    continue;
                }
                // A key of low order is no peer's newest.
                let associations = own.meet(&self.identity, &key).unwrap_or_default();
                let rank = rank(
                    (self.identity.index, own.number),
                    (key.index, key.generation),
                );
                let live = LiveEpoch::new(pair.index, rank, Some(own.number), associations, now);
                if let Some(mut live) = live {
                    live.withheld =
                        self.observed.is_none() || live.ids().any(|id| self.occupied.contains(&id));
                    pair.epochs.push(live);
                }
            }
        }
    }

    fn forget(&mut self, gone: impl Fn(&HostName, &Pair) -> bool) {
        for (_, pair) in self.pairs.extract_if(.., |host, pair| gone(host, pair)) {
            self.occupied.extend(pair.ids());
        }
    }
}

fn rank(own: (HostIndex, u64), peer: (HostIndex, u64)) -> Rank {
    Rank::Derived {
        sum: u128::from(own.1) + u128::from(peer.1),
        lower: own.min(peer).1,
    }
}
