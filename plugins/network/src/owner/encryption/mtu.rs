//! How large packets may be on encrypted paths: probes of several sizes, and what follows from their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use drover_daemon::task;
use drover_kernel::{Probed, Target};
use drover_model::{Encapsulation, HostName, Mtu};
use drover_overlay::{PathMtu, Peer, name};
use tracing::{debug, info, warn};

use super::super::{Command, Owner};
use super::Encryption;

/// The least between two hints.
const HEARD: Duration = Duration::from_millis(500);

/// What the device of a peer takes.
pub(super) fn ceiling(peer: &Peer) -> Mtu {
    let six = peer.advertise.is_ipv6();
    peer.underlay_mtu.inside(Encapsulation::Ipsec, six)
}

impl Encryption {
    /// The sizes to ask a peer for now.
    pub(super) fn sized_targets(&self, host: &HostName, target: Target) -> BTreeSet<Target> {
        let sizes = self.sizes.get(host).map(|path| path.sizes(self.now()));
        let sizes = sizes.into_iter().flatten();
        sizes
            .map(|size| Target {
                size: size.get(),
                ..target
            })
            .collect()
    }
}

impl Owner {
    /// Whose paths there are to learn the size of, and what their devices take.
    pub(in crate::owner) fn meet_sizes(&mut self) {
        let peers = self.sources().desired().peers;
        let ceilings = peers.iter().filter(|(_, peer)| peer.ipsec.is_some());
        let ceilings: BTreeMap<_, _> = ceilings
            .map(|(host, peer)| (host.clone(), ceiling(peer)))
            .collect();
        let known = &mut self.encryption.sizes;
        known.retain(|host, _| ceilings.contains_key(host));
        for (host, ceiling) in ceilings {
            let path = known.entry(host).or_insert_with(|| PathMtu::new(ceiling));
            path.set_ceiling(ceiling);
        }
    }

    /// Hears what routers say of packets that were too large for them, from now on.
    pub(super) async fn listen_to_routers(&self) {
        let Some(kernel) = &self.kernel else { return };
        let heard = match kernel.too_big().await {
            Ok(heard) => heard,
            Err(error) => {
                // Probes find it too, if later.
                warn!(%error, "routers of the underlay are not heard");
                return;
            }
        };
        let myself = self.myself.clone();
        task::spawn("routers", async move {
            loop {
                let destination = match heard.next().await {
                    Ok(destination) => destination,
                    Err(error) => {
                        warn!(%error, "routers of the underlay are not heard any more");
                        return;
                    }
                };
                let owner = myself.upgrade();
                if owner.is_none_or(|owner| owner.send(Command::TooBig(destination)).is_err()) {
                    return;
                }
                // Whoever says it often is not asked more often for it.
                tokio::time::sleep(HEARD).await;
            }
        });
    }

    /// A packet to an address was too large for somebody.
    pub(in crate::owner) fn too_big(&mut self, destination: IpAddr) {
        let mut others = self.cluster.others();
        let ways = &self.encryption.ways;
        let found = others
            .find(|host| host.advertise == destination || ways.leads_to(&host.name, destination));
        let Some(host) = found else {
            return;
        };
        if let Some(path) = self.encryption.sizes.get_mut(&host.name) {
            debug!(host = %host.name, "somebody says that a packet to a host was too large");
            path.doubt();
            self.watch.at_once();
        }
    }

    /// Draws the conclusions from answers to packets of several sizes.
    pub(super) async fn sizes_answered(&mut self, probed: &Probed) {
        let now = self.encryption.now();
        let (mut changed, mut unsettled) = (false, false);
        for host in self.cluster.others() {
            let Some(path) = self.encryption.sizes.get_mut(&host.name) else {
                continue;
            };
            let address = IpAddr::from(name::ipsec_probe(host.index));
            let of = |targets: &BTreeSet<Target>| {
                let mine = targets.iter();
                let mine = mine.filter(|it| it.address == address && it.mark == 0);
                mine.map(|it| it.size).collect::<BTreeSet<_>>()
            };
            let (asked, answered) = (of(&probed.asked), of(&probed.answered));
            let sized = |sizes: BTreeSet<u16>| sizes.into_iter().filter_map(Mtu::new).collect();
            let (before, alive) = (path.mtu(), !answered.is_empty());
            path.heard(&sized(asked), &sized(answered), alive, now);
            unsettled |= alive && !path.is_found();
            if path.mtu() != before {
                info!(host = %host.name, bytes = path.mtu().get(), was = before.get(), "the path to a host carries other packets");
                changed = true;
            }
        }
        if changed {
            self.settle().await;
        }
        if unsettled {
            self.watch.at_once();
        }
    }
}
