//! A host: its kernel, and the process that does what its exchange says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_ipsec::{
    AssociationId, Exchange, Identity, KeyMaterial, PeerAssociations, PeerKey, PublicKey, Schedule,
};
use drover_model::{HostIndex, HostName};

use crate::kernel::{Kernel, Route};

pub(crate) const HOSTS: usize = 3;

/// What the store has of a host.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) member: String,
    pub(crate) index: HostIndex,
    pub(crate) key: Option<(u64, PublicKey)>,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kernel: Kernel,
    /// The process, while it lives, and how many lived before.
    pub(crate) exchange: Option<Exchange>,
    pub(crate) incarnation: u64,
    /// Which members the associations in the kernel were made with.
    pub(crate) disk: BTreeMap<usize, (String, HostIndex)>,
    /// As whom.
    pub(crate) disk_own: Option<(String, HostIndex)>,
    pub(crate) connected: bool,
    pub(crate) view: BTreeMap<usize, Joined>,
    /// The newest generation it has made or heard of.
    pub(crate) number: u64,
    pub(crate) public: Option<PublicKey>,
}

pub(crate) fn name(host: usize) -> HostName {
    format!("host-{host}").parse().unwrap()
}

pub(crate) fn lanes(host: usize) -> u8 {
    [1, 2, 3][host]
}

/// The end of a process that dies after so many changes of the kernel.
pub(crate) struct Died;

pub(crate) struct Budget(pub(crate) usize);

impl Budget {
    fn spend(&mut self) -> Result<(), Died> {
        self.0 = self.0.checked_sub(1).ok_or(Died)?;
        Ok(())
    }
}

/// How long a host has for the key of another, in seconds: each looks once a second when all is quiet.
const FOLLOWS: u64 = 2;

impl Host {
    pub(crate) fn exchange(at: usize, own: &Joined) -> Exchange {
        let identity = Identity {
            cluster: "cluster".to_owned(),
            member: own.member.clone(),
            index: own.index,
            lanes: lanes(at),
        };
        // Short, that rotations by schedule and by bytes happen; the idle time is that of the product.
        let schedule = Schedule {
            rotate_after: Duration::from_secs(400 + 7 * u64::try_from(at).unwrap()),
            rotate_bytes: 150,
            wipe_after: Duration::from_secs(60),
            idle_before_removal: Duration::from_secs(30),
            follow_within: Duration::from_secs(FOLLOWS),
        };
        Exchange::new(identity, schedule)
    }

    pub(crate) fn peers(&self, at: usize) -> BTreeMap<HostName, PeerKey> {
        let others = self.view.iter().filter(|(host, _)| **host != at);
        let keys = others.filter_map(|(host, joined)| {
            let (generation, public) = joined.key?;
            let key = PeerKey {
                member: joined.member.clone(),
                index: joined.index,
                generation,
                public,
                lanes: lanes(*host),
            };
            Some((name(*host), key))
        });
        keys.collect()
    }

    /// What a caller does with the paths, in the order that leaves no gap wherever it dies.
    pub(crate) fn apply(
        &mut self,
        own: &Joined,
        paths: &BTreeMap<usize, PeerAssociations>,
        mut budget: Budget,
    ) -> Result<(), Died> {
        let view = self.view.clone();
        self.forget_who_went(own, &view, &mut budget)?;
        self.disk_own = Some((own.member.clone(), own.index));
        self.kernel.own = Some(own.index);
        for (peer, path) in paths {
            let Some(joined) = view.get(peer) else {
                continue;
            };
            self.disk
                .insert(*peer, (joined.member.clone(), joined.index));
            for association in &path.associations {
                let id = AssociationId {
                    peer: joined.index,
                    direction: association.direction,
                    spi: association.spi,
                };
                if let Some(key) = association.key.as_ref().map(KeyMaterial::expose)
                    && !self.kernel.associations.contains_key(&id)
                {
                    budget.spend()?;
                    self.kernel
                        .make(id, association.epoch, &joined.member, *key);
                }
            }
            let route = Route {
                index: joined.index,
                send: path.send.map(|epoch| (epoch, path.lanes)),
                candidate: path.candidate,
            };
            if self.kernel.routes.get(peer) != Some(&route) {
                budget.spend()?;
                self.kernel.routes.insert(*peer, route);
            }
        }
        let wanted: BTreeSet<AssociationId> = paths
            .iter()
            .filter_map(|(peer, path)| Some((view.get(peer)?.index, path)))
            .flat_map(|(index, path)| {
                path.associations
                    .iter()
                    .map(move |association| AssociationId {
                        peer: index,
                        direction: association.direction,
                        spi: association.spi,
                    })
            })
            .collect();
        let all: Vec<AssociationId> = self.kernel.associations.keys().copied().collect();
        for id in all.into_iter().filter(|id| !wanted.contains(id)) {
            budget.spend()?;
            self.kernel.associations.remove(&id);
        }
        Ok(())
    }

    /// The associations of a member that went are removed before its name or index is noted for another.
    fn forget_who_went(
        &mut self,
        own: &Joined,
        view: &BTreeMap<usize, Joined>,
        budget: &mut Budget,
    ) -> Result<(), Died> {
        let same_own = self.disk_own == Some((own.member.clone(), own.index));
        let gone = self.disk.clone().into_iter().filter(|(peer, known)| {
            let now = view
                .get(peer)
                .map(|joined| (joined.member.clone(), joined.index));
            !same_own || now.as_ref() != Some(known)
        });
        for (peer, (_, index)) in gone {
            let all: Vec<AssociationId> = self.kernel.associations.keys().copied().collect();
            for id in all.into_iter().filter(|id| id.peer == index) {
                budget.spend()?;
                self.kernel.associations.remove(&id);
            }
            self.kernel.routes.remove(&peer);
            self.disk.remove(&peer);
        }
        Ok(())
    }
}
