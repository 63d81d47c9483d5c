//! The encrypted paths: for each peer an interface, its associations and its policies.

use drover_ipsec::{Association, Direction, Epoch, Lane};
use drover_model::{Encapsulation, Family};
use ipnet::IpNet;

use crate::desired::{Desired, IpsecPath, Peer, ThisHost};
use crate::name;
use crate::state::{
    AssociationId, Ipsec, Link, PolicyDirection, PolicyKey, PolicyTemplate, SecurityAssociation,
    State, Target,
};

impl Desired {
    /// The encrypted path to a peer, if there is one.
    pub(crate) fn ipsec<'a>(&self, peer: &'a Peer) -> Option<&'a IpsecPath> {
        let host = self.host.as_ref()?;
        let possible = host.encrypts && peer.advertise.is_ipv6() == host.advertise.is_ipv6();
        peer.ipsec.as_ref().filter(|_| possible)
    }
}

/// Adds the interface of a peer, and what it encrypts with.
pub(super) fn lower_ipsec(host: &ThisHost, peer: &Peer, path: &IpsecPath, state: &mut State) {
    let device = name::ipsec(peer.index);
    let link = Link::Ipsec(Ipsec {
        if_id: name::interface_id(peer.index),
        mtu: peer
            .underlay_mtu
            .inside(Encapsulation::Ipsec, host.advertise.is_ipv6()),
    });
    state.links.insert(device.clone(), link);
    // An IPv4 address may be on many devices: each route to a peer finds its source on its own.
    let own = IpNet::from(std::net::IpAddr::from(name::ipsec_probe(host.index)));
    state.addresses.insert((device.clone(), own));
    let probe = IpNet::from(std::net::IpAddr::from(name::ipsec_probe(peer.index)));
    state.routes.insert(probe, Target::Link(device));
    for association in &path.associations {
        let (id, association) = lower_association(host, peer, path, association);
        state.associations.insert(id, association);
    }
    lower_policies(host, peer, path, state);
}

fn lower_association(
    host: &ThisHost,
    peer: &Peer,
    path: &IpsecPath,
    association: &Association,
) -> (AssociationId, SecurityAssociation) {
    let lane = u16::from(association.lane.get());
    let (source, destination, udp) = match association.direction {
        Direction::Receive => (peer.advertise, host.advertise, None),
        Direction::Send => {
            let of_lane = |first: u16| first.saturating_add(lane);
            let udp = path
                .udp
                .map(|ports| (of_lane(ports.source), of_lane(ports.destination)));
            (host.advertise, peer.advertise, udp)
        }
    };
    let id = AssociationId {
        spi: association.spi,
        destination,
    };
    let lowered = SecurityAssociation {
        if_id: name::interface_id(peer.index),
        source,
        udp,
        key: association.key.clone(),
    };
    (id, lowered)
}

/// Whatever came by an association of the interface is let in. What is to leave has a policy for its mark, or is
/// dropped: each mark below [`name::CANDIDATE_MARK`] has a lane.
fn lower_policies(host: &ThisHost, peer: &Peer, path: &IpsecPath, state: &mut State) {
    let ends = PolicyTemplate {
        local: host.advertise,
        remote: peer.advertise,
        spi: None,
    };
    let by = |epoch: Option<Epoch>, lane: Lane| {
        let sending = path.associations.iter().find(|association| {
            association.direction == Direction::Send
                && Some(association.epoch) == epoch
                && association.lane == lane
        });
        sending.map(|association| association.spi)
    };
    let lanes: Vec<_> = Lane::first(path.lanes).collect();
    let marks = (0..name::CANDIDATE_MARK).zip(lanes.iter().copied().cycle());
    let sent = marks.map(|(mark, lane)| (mark, by(path.send, lane)));
    let tried = (name::CANDIDATE_MARK, by(path.candidate, Lane::FIRST));
    let out: Vec<_> = sent
        .chain([tried])
        .filter_map(|(mark, spi)| Some((mark, spi?)))
        .collect();
    for family in [Family::V4, Family::V6] {
        let key = |direction, mark| PolicyKey {
            if_id: name::interface_id(peer.index),
            direction,
            family,
            mark,
        };
        state.policies.insert(key(PolicyDirection::In, None), ends);
        for (mark, spi) in &out {
            let template = PolicyTemplate {
                spi: Some(*spi),
                ..ends
            };
            let key = key(PolicyDirection::Out, Some(*mark));
            state.policies.insert(key, template);
        }
    }
}
