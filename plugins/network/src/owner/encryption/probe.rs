//! Whether peers answer on encrypted paths, and by which epoch.

use std::collections::BTreeSet;
use std::net::IpAddr;

use drover_kernel::{Probed, Target};
use drover_overlay::name;
use tokio::time::Instant;

use super::super::Owner;

/// The mark of a probe by the candidate epoch.
const CANDIDATE: u8 = name::CANDIDATE_MARK.to_le_bytes()[0];

impl Owner {
    /// What is asked on encrypted paths: whether the peer is there, and whether it has the candidate epoch.
    pub(in crate::owner) fn encryption_targets(&self) -> BTreeSet<Target> {
        let mut targets = BTreeSet::new();
        let Some(exchange) = &self.encryption.exchange else {
            return targets;
        };
        for host in self.cluster.others() {
            let path = exchange.path(&host.name);
            let target = Target::routed(name::ipsec_probe(host.index).into());
            if path.send.is_some() {
                targets.insert(target);
                targets.extend(self.encryption.sized_targets(&host.name, target));
                targets.extend(self.encryption.way_targets(&host.name, target));
            }
            if exchange
                .asks_by(&host.name, self.encryption.now())
                .is_some()
            {
                targets.insert(Target {
                    mark: CANDIDATE,
                    ..target
                });
            }
        }
        targets
    }

    /// Who has answered.
    pub(in crate::owner) async fn encryption_answered(&mut self, probed: &Probed) {
        self.sizes_answered(probed).await;
        self.ways_answered(probed).await;
        let answers = &probed.answered;
        let Some(exchange) = &mut self.encryption.exchange else {
            return;
        };
        let mut confirmed = false;
        for host in self.cluster.others() {
            let address = IpAddr::from(name::ipsec_probe(host.index));
            let mut mine = answers.iter().filter(|it| it.address == address);
            if mine.clone().next().is_some() {
                let now = Instant::now();
                self.encryption.answered.insert(host.name.clone(), now);
            }
            let candidate = exchange.path(&host.name).candidate;
            if let (Some(epoch), true) = (candidate, mine.any(|it| it.mark == CANDIDATE)) {
                exchange.answered(&host.name, epoch);
                confirmed = true;
            }
        }
        if confirmed {
            self.tend().await;
        }
    }
}
