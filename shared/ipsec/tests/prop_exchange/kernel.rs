//! The kernel of a host, which lives on when the process dies: associations with their sequence numbers, and routes.

use std::collections::BTreeMap;

use drover_ipsec::{AssociationId, Counted, Direction, Epoch, Lane, Spi};
use drover_model::HostIndex;

pub(crate) type Key = [u8; 36];

#[derive(Debug, Clone)]
pub(crate) struct Association {
    pub(crate) key: Key,
    pub(crate) member: String,
    pub(crate) epoch: Epoch,
    sequence: u64,
    pub(crate) counted: Counted,
}

/// How packets to a host are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) index: HostIndex,
    pub(crate) send: Option<(Epoch, u8)>,
    pub(crate) candidate: Option<Epoch>,
}

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) own: Option<HostIndex>,
    pub(crate) associations: BTreeMap<AssociationId, Association>,
    pub(crate) routes: BTreeMap<usize, Route>,
}

/// A packet on its way.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) spi: Spi,
    pub(crate) key: Key,
    pub(crate) sequence: u64,
}

impl Kernel {
    pub(crate) fn make(&mut self, id: AssociationId, epoch: Epoch, member: &str, key: Key) {
        let association = Association {
            key,
            member: member.to_owned(),
            epoch,
            sequence: 0,
            counted: Counted::default(),
        };
        let before = self.associations.insert(id, association);
        assert!(before.is_none(), "{id:?} is there already");
    }

    pub(crate) fn counters(&self) -> BTreeMap<AssociationId, Counted> {
        let all = self.associations.iter();
        all.map(|(id, association)| (*id, association.counted))
            .collect()
    }

    /// A packet to a host by the epoch its policy names, or by the candidate; `None` when it is dropped.
    pub(crate) fn send(&mut self, to: usize, lane: u8, candidate: bool) -> Option<Packet> {
        let route = self.routes.get(&to)?;
        let (epoch, lanes) = if candidate {
            (route.candidate?, 1)
        } else {
            route.send?
        };
        let spi = Spi::new(self.own?, Lane::new(lane % lanes)?, epoch.own, epoch.peer);
        let association = self.associations.get_mut(&AssociationId {
            peer: route.index,
            direction: Direction::Send,
            spi,
        })?;
        association.sequence += 1;
        association.counted.packets += 1;
        association.counted.bytes += 1;
        Some(Packet {
            spi,
            key: association.key,
            sequence: association.sequence,
        })
    }

    /// Whether a packet is for this host and from whom it says.
    pub(crate) fn receive(&mut self, packet: &Packet) -> bool {
        let id = AssociationId {
            peer: packet.spi.sender().unwrap(),
            direction: Direction::Receive,
            spi: packet.spi,
        };
        let association = self.associations.get_mut(&id);
        let Some(association) = association.filter(|found| found.key == packet.key) else {
            return false;
        };
        association.counted.packets += 1;
        true
    }
}
