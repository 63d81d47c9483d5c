//! A generation of this host: its private key, and with whom it has made an epoch.

use std::collections::{BTreeMap, BTreeSet};

use super::input::{Identity, Moment, PeerKey};
use crate::association::{Association, Direction};
use crate::derive::{Flow, LowOrderKey, Party, PrivateKey, PublicKey};
use crate::spi::{Epoch, Lane, Spi, Tag};

#[derive(Debug)]
pub(super) struct OwnGeneration {
    pub(super) number: u64,
    pub(super) public: PublicKey,
    pub(super) published: Option<Moment>,
    /// When the next one was published.
    pub(super) followed: Option<Moment>,
    private: PrivateKey,
    /// The keys of peers it has made an epoch with. It never does so twice, whatever became of the epoch: the
    /// sequence numbers of its associations would begin anew under the same keys.
    met: BTreeMap<String, BTreeSet<PublicKey>>,
}

impl OwnGeneration {
    pub(super) fn new(number: u64, private: PrivateKey) -> Self {
        Self {
            number,
            public: private.public(),
            published: None,
            followed: None,
            private,
            met: BTreeMap::new(),
        }
    }

    pub(super) fn has_met(&self, peer: &PeerKey) -> bool {
        self.met
            .get(&peer.member)
            .is_some_and(|keys| keys.contains(&peer.public))
    }

    pub(super) fn epoch_with(&self, peer: &PeerKey) -> Epoch {
        Epoch {
            own: Tag::of(self.number),
            peer: Tag::of(peer.generation),
        }
    }

    /// The associations of the epoch with a peer's generation, once: the receiving ones first, and of these the first lane
    /// last, which probes come by.
    pub(super) fn meet(
        &mut self,
        identity: &Identity,
        peer: &PeerKey,
    ) -> Result<Vec<Association>, LowOrderKey> {
        let keys = self.met.entry(peer.member.clone()).or_default();
        if !keys.insert(peer.public) {
            return Ok(Vec::new());
        }
        let secret = self.private.agree(&peer.public)?;
        let own = Party {
            member: &identity.member,
            public: self.public,
        };
        let other = Party {
            member: &peer.member,
            public: peer.public,
        };
        let epoch = self.epoch_with(peer);
        let mut associations = Vec::new();
        for direction in [Direction::Receive, Direction::Send] {
            let lanes: Vec<Lane> = Lane::first(identity.lanes.max(peer.lanes)).collect();
            for lane in lanes.into_iter().rev() {
                let (sender, receiver, spi) = match direction {
                    Direction::Receive => {
                        let spi = Spi::new(peer.index, lane, epoch.peer, epoch.own);
                        (other, own, spi)
                    }
                    Direction::Send => {
                        let spi = Spi::new(identity.index, lane, epoch.own, epoch.peer);
                        (own, other, spi)
                    }
                };
                let flow = Flow {
                    cluster: &identity.cluster,
                    sender,
                    receiver,
                    lane,
                };
                associations.push(Association {
                    spi,
                    direction,
                    lane,
                    epoch,
                    key: Some(secret.key(&flow)),
                });
            }
        }
        Ok(associations)
    }
}
