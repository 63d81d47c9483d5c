//! By which way each lane to a peer goes: what packets came from, what is tried, and what follows from answers; and at which
//! addresses of this host packets are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};

use drover_control_api::record::HostRecord;
use drover_ipsec::{Direction, Lane, Spi};
use drover_kernel::{Probed, Receiver, Source, Target};
use drover_model::HostName;
use drover_overlay::{Way, Ways, name};
use tracing::{debug, info, warn};

use super::super::Owner;
use super::Encryption;

/// The bit of the mark of a probe that tries another way.
const TRIAL: u8 = name::TRIAL_MARK.to_le_bytes()[0];

/// One for each lane.
type OfLanes<T> = BTreeMap<Lane, T>;

/// What is known of the ways to all peers.
#[derive(Debug, Default)]
pub(super) struct AllWays {
    ways: BTreeMap<HostName, OfLanes<Ways>>,
    /// Where packets came from, when that was looked at last.
    sources: BTreeMap<(Spi, String), Source>,
    /// Where packets are taken.
    devices: BTreeSet<String>,
    /// Counts rounds of probes.
    round: u8,
}

impl AllWays {
    fn of(&self, host: &HostName) -> impl Iterator<Item = (Lane, &Ways)> {
        let lanes = self.ways.get(host).into_iter().flatten();
        lanes.map(|(lane, ways)| (*lane, ways))
    }

    /// The lanes to ask a peer by in this round: all, if anything about one is in doubt; else every other one, and the rest
    /// the next time. So each is heard of every 20 s, as RFC 3948 (section 4) has it for firewalls and NATs, which forget.
    fn due(&self, host: &HostName) -> impl Iterator<Item = Lane> {
        let calm = self.of(host).all(|(_, ways)| ways.is_calm());
        let lanes = self.of(host).map(|(lane, _)| lane);
        lanes.filter(move |lane| !calm || lane.get() & 1 == self.round & 1)
    }

    /// The lanes that take another way than to where the peer says it is.
    pub(super) fn detours(&self, host: &HostName) -> BTreeMap<Lane, Way> {
        let detours = self.of(host);
        detours
            .filter_map(|(lane, ways)| Some((lane, ways.detour()?)))
            .collect()
    }

    /// What is tried.
    pub(super) fn trials(&self, host: &HostName) -> BTreeMap<Lane, Way> {
        let trials = self.of(host);
        trials
            .filter_map(|(lane, ways)| Some((lane, ways.trial()?.0)))
            .collect()
    }

    /// Where the first lane leads, and whether that, or where any other leads, was learned from packets alone.
    pub(super) fn endpoint(&self, host: &HostName) -> Option<(Way, bool)> {
        let (_, first) = self.of(host).next()?;
        let learned = self.of(host).any(|(_, ways)| ways.is_learned());
        Some((first.taken(), learned))
    }

    /// Whether a packet with this index has come.
    pub(super) fn has_come(&self, spi: Spi) -> bool {
        self.sources.keys().any(|(known, _)| *known == spi)
    }

    /// Whether something that is for an address is for a peer.
    pub(super) fn leads_to(&self, host: &HostName, address: IpAddr) -> bool {
        self.of(host)
            .any(|(_, ways)| ways.taken().remote == address)
    }

    fn is_unsettled(&self) -> bool {
        let mut all = self.ways.values().flat_map(BTreeMap::values);
        all.any(Ways::is_unsettled)
    }
}

impl Encryption {
    /// What to ask a peer to learn of its ways: by the lanes whose turn it is, and by what is tried.
    pub(super) fn way_targets(&self, host: &HostName, target: Target) -> BTreeSet<Target> {
        let present = self.ways.due(host).map(|lane| Target {
            mark: lane.get(),
            ..target
        });
        let mut targets: BTreeSet<_> = present.collect();
        for (lane, ways) in self.ways.of(host) {
            if let Some((_, attempt)) = ways.trial() {
                targets.insert(Target {
                    mark: TRIAL | lane.get(),
                    attempt,
                    ..target
                });
            }
        }
        targets
    }
}

impl Owner {
    /// Whose ways there are to find, and what to try in this round.
    pub(in crate::owner) async fn meet_ways(&mut self) {
        let before = self.shown_ways();
        let known = self.known_ways();
        let all = &mut self.encryption.ways.ways;
        all.retain(|host, _| known.contains_key(host));
        for (host, lanes) in known {
            let ways = all.entry(host).or_default();
            ways.retain(|lane, _| lanes.contains_key(lane));
            for (lane, (home, further)) in lanes {
                let ways = ways.entry(lane).or_insert_with(|| Ways::new(home));
                ways.set_known(home, further);
            }
        }
        self.hear();
        let all = &mut self.encryption.ways;
        all.round = all.round.wrapping_add(1);
        for ways in all.ways.values_mut() {
            ways.values_mut().for_each(Ways::choose);
        }
        if self.shown_ways() != before {
            self.settle().await;
        }
    }

    /// What the kernel has to know of it.
    fn shown_ways(&self) -> BTreeMap<HostName, [OfLanes<Way>; 2]> {
        let ways = &self.encryption.ways;
        let hosts = ways.ways.keys();
        hosts
            .map(|host| (host.clone(), [ways.detours(host), ways.trials(host)]))
            .collect()
    }

    /// The ways that follow from what hosts say of themselves, for each lane that is sent by.
    fn known_ways(&self) -> BTreeMap<HostName, OfLanes<(Way, BTreeSet<Way>)>> {
        let (Some(own), Some(exchange)) = (self.cluster.own(), &self.encryption.exchange) else {
            return BTreeMap::new();
        };
        let mut known = BTreeMap::new();
        for host in self.cluster.others() {
            let key = self.cluster.keys.get(&host.name);
            let path = exchange.path(&host.name);
            let Some(first) = key
                .and_then(|key| key.udp_port)
                .filter(|_| path.send.is_some())
            else {
                continue;
            };
            let further: Vec<_> = further(host)
                .filter_map(|remote| Some((source_to(remote)?, remote)))
                .collect();
            let lanes = Lane::first(path.lanes).map(|lane| {
                let port = first.saturating_add(lane.get().into());
                let way = |local, remote| Way {
                    local,
                    remote,
                    port,
                };
                let home = way(own.advertise, host.advertise);
                let further = further.iter().map(|(local, remote)| way(*local, *remote));
                (lane, (home, further.collect()))
            });
            known.insert(host.name.clone(), lanes.collect());
        }
        known
    }

    /// Looks where packets came from. Somebody who sends from elsewhere than before is tried there soon.
    pub(super) fn hear(&mut self) {
        let Some(kernel) = &self.kernel else { return };
        let sources = match kernel.sources() {
            Ok(sources) => sources,
            Err(error) => {
                warn!(%error, "moved peers are not followed");
                return;
            }
        };
        let Some(exchange) = &self.encryption.exchange else {
            return;
        };
        let all = &mut self.encryption.ways;
        let before = std::mem::take(&mut all.sources);
        for host in self.cluster.others() {
            let Some(lanes) = all.ways.get_mut(&host.name) else {
                continue;
            };
            let mut hints: OfLanes<BTreeSet<Way>> = BTreeMap::new();
            let associations = exchange.path(&host.name).associations;
            let received = associations
                .iter()
                .filter(|it| it.direction == Direction::Receive);
            let received: BTreeSet<_> = received.map(|it| it.spi).collect();
            let mine = sources
                .iter()
                .filter(|((spi, _), _)| received.contains(spi));
            for (key, source) in mine {
                let (lane, way) = (key.0.lane(), back_to(source));
                hints.entry(lane).or_default().insert(way);
                let Some(ways) = lanes.get_mut(&lane) else {
                    continue;
                };
                if before.get(key) != Some(source) {
                    debug!(host = %host.name, lane = lane.get(), from = %source.remote, port = source.port, "packets came from somewhere");
                    ways.hear(way);
                }
                all.sources.insert(key.clone(), *source);
            }
            for (lane, ways) in lanes {
                ways.set_hints(hints.remove(lane).unwrap_or_default());
            }
        }
        if all.is_unsettled() {
            self.watch.soon();
        }
    }

    /// Draws the conclusions from answers by the ways that are taken, and by those that are tried.
    pub(super) async fn ways_answered(&mut self, probed: &Probed) {
        let mut changed = false;
        for host in self.cluster.others() {
            let target = Target::routed(name::ipsec_probe(host.index).into());
            let lanes = self.encryption.ways.ways.get_mut(&host.name);
            for (lane, ways) in lanes.into_iter().flatten() {
                let present = Target {
                    mark: lane.get(),
                    ..target
                };
                if !probed.asked.contains(&present) {
                    continue;
                }
                let mut answered = probed.answered.iter();
                let tried = answered
                    .find(|it| it.address == target.address && it.mark == (TRIAL | lane.get()));
                let before = ways.taken();
                let answered = probed.answered.contains(&present);
                if ways.conclude(answered, tried.map(|it| it.attempt)) {
                    let now = ways.taken();
                    info!(host = %host.name, lane = lane.get(), from = %before.remote, to = %now.remote, port = now.port, "a host is reached by another way");
                    changed = true;
                }
            }
        }
        if changed {
            self.settle().await;
            self.watch.soon();
        }
        if self.encryption.ways.is_unsettled() {
            self.watch.soon();
        }
    }

    /// Has the kernel take ESP out of the UDP it comes in, on the devices that have this host's addresses.
    pub(super) async fn keep_receivers(&mut self) {
        let wanted = self.encryption.port.zip(self.underlay.clone());
        let (Some((first_port, underlay)), Some(own), Some(kernel)) =
            (wanted, self.cluster.own(), &self.kernel)
        else {
            return;
        };
        let mut devices = BTreeMap::from([(underlay.clone(), BTreeSet::new())]);
        for address in further(own) {
            // One that has gone since the coordinator looked is on none.
            if let Ok(Some(device)) = kernel.device_with(address).await {
                devices.entry(device).or_default().insert(address);
            }
        }
        let before = self.encryption.receives;
        for (device, further) in &devices {
            let receiver = Receiver {
                device: device.clone(),
                address: own.advertise,
                further: further.clone(),
                first_port,
            };
            let set = kernel.set_receiver(&receiver).await;
            if *device != underlay {
                if let Err(error) = set {
                    debug!(%error, "packets to a further address are not taken");
                }
                continue;
            }
            match set {
                Ok(_changed) => self.encryption.receives = Some(first_port),
                Err(error) => {
                    self.encryption.receives = None;
                    if before.is_some() || self.encryption.public.is_none() {
                        warn!(%error, "ESP is not taken out of UDP here: other hosts send it by itself");
                    }
                }
            }
        }
        let now: BTreeSet<_> = devices.into_keys().collect();
        for gone in self.encryption.ways.devices.difference(&now) {
            if let Err(error) = kernel.remove_receiver(gone).await {
                debug!(%error, "what took packets stays");
            }
        }
        self.encryption.ways.devices = now;
    }
}

/// Addresses of a host beside the one that it advertises, of its family.
fn further(host: &HostRecord) -> impl Iterator<Item = IpAddr> + '_ {
    let advertise = host.advertise;
    let addresses = host.addresses.iter().copied();
    addresses.filter(move |it| *it != advertise && it.is_ipv6() == advertise.is_ipv6())
}

/// The way that an answer would take.
const fn back_to(source: &Source) -> Way {
    Way {
        local: source.local,
        remote: source.remote,
        port: source.port,
    }
}

/// The address of this host that the kernel sends from to another one; none when it has no route there. Nothing is
/// sent.
fn source_to(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if remote.is_ipv6() {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((remote, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_peer_is_asked_by_half_of_its_lanes_and_then_by_the_others() {
        let home = Way {
            local: "192.0.2.1".parse().unwrap(),
            remote: "192.0.2.2".parse().unwrap(),
            port: 4740,
        };
        let host: HostName = "there".parse().unwrap();
        let lanes = Lane::first(Lane::MAX).map(|lane| (lane, Ways::new(home)));
        let mut all = AllWays {
            ways: BTreeMap::from([(host.clone(), lanes.collect())]),
            ..AllWays::default()
        };
        let due = |all: &AllWays| all.due(&host).map(Lane::get).collect::<Vec<_>>();
        assert_eq!(due(&all).len(), 8, "nobody has answered yet");
        let answer = |all: &mut AllWays, answered: bool| {
            for ways in all.ways.values_mut().flat_map(BTreeMap::values_mut) {
                ways.choose();
                ways.conclude(answered, None);
            }
        };
        answer(&mut all, true);
        assert_eq!(due(&all), [0, 2, 4, 6]);
        all.round = 255;
        assert_eq!(due(&all), [1, 3, 5, 7]);
        answer(&mut all, false);
        assert_eq!(due(&all).len(), 8, "it is silent");
    }
}
