//! Watches the direct paths that were chosen by address alone.
//!
//! Two hosts in one prefix do not always share a link that carries frames with other addresses than
//! the hosts' own: a cloud's virtual switch drops them. A path is probed with an address of its own, so
//! that the answer does not depend on which way containers' packets take at the moment; an answer
//! needs both directions, so that both hosts come to the same conclusion.
//!
//! ```text
//! direct --silent twice--> doubted (VXLAN device made) --VXLAN answers--> fallen back to VXLAN
//!    ^-------answers------------'                                             |
//!    '----------------------answers for five minutes--------------------------'
//! ```
//! A host that answers on neither path is down, and nothing is changed on its account.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use drover_control_api::record::HostRecord;
use drover_daemon::task;
use drover_kernel::{Probed, Target};
use drover_model::{Family, HostName};
use drover_overlay::name;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Command, Owner};

/// How often paths that answer are probed.
const CALM: Duration = Duration::from_secs(10);
/// How soon again when one is silent.
const UNSURE: Duration = Duration::from_secs(2);
/// How soon it is looked whether a round is over that is under way.
const AGAIN: Duration = Duration::from_millis(200);
/// A round that takes longer will not end any more.
const LOST: Duration = Duration::from_secs(60);
/// A path that is silent this often is doubted.
const SILENT: u32 = 2;
/// A path that answers this often in a row is trusted again: five minutes.
const TRUSTED: u32 = 30;

/// What the probes have shown.
#[derive(Debug)]
pub(super) struct Watch {
    next: Instant,
    /// Since when a round is under way. There is one at a time, so that an answer is never to an earlier question.
    asking: Option<Instant>,
    doubted: BTreeSet<HostName>,
    /// Answers in a row.
    answers: BTreeMap<HostName, u32>,
    /// Silences in a row.
    silences: BTreeMap<HostName, u32>,
}

impl Default for Watch {
    fn default() -> Self {
        let (answers, silences) = (BTreeMap::new(), BTreeMap::new());
        Self {
            next: Instant::now() + UNSURE,
            asking: None,
            doubted: BTreeSet::new(),
            answers,
            silences,
        }
    }
}

impl Watch {
    /// When to probe next.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Hosts whose VXLAN path is being tried.
    pub(super) const fn doubted(&self) -> &BTreeSet<HostName> {
        &self.doubted
    }

    /// Something has changed.
    pub(super) fn soon(&mut self) {
        self.next = self.next.min(Instant::now() + UNSURE);
    }

    /// An answer has raised another question.
    pub(super) fn at_once(&mut self) {
        self.next = Instant::now();
    }

    /// Counts an answer or a silence: how many there are in a row, of either.
    fn count(&mut self, host: &HostName, answered: bool) -> (u32, u32) {
        let (up, down) = if answered {
            (&mut self.answers, &mut self.silences)
        } else {
            (&mut self.silences, &mut self.answers)
        };
        down.remove(host);
        let count = up.entry(host.clone()).or_default();
        *count = count.saturating_add(1);
        let now = |counts: &BTreeMap<HostName, u32>| counts.get(host).copied().unwrap_or(0);
        (now(&self.answers), now(&self.silences))
    }
}

impl Owner {
    fn watched(&self) -> Vec<HostRecord> {
        let Some(own) = self.cluster.own() else {
            return Vec::new();
        };
        let sources = self.sources();
        let others = self.cluster.others();
        others
            .filter(|host| sources.is_watched(own, host))
            .cloned()
            .collect()
    }

    /// Begins to probe; the answers come as a command.
    pub(super) async fn probe(&mut self) {
        let asking = self.watch.asking.filter(|since| since.elapsed() < LOST);
        if asking.is_some() {
            self.watch.next = Instant::now() + AGAIN;
            return;
        }
        self.watch.next = Instant::now() + CALM;
        self.meet_sizes();
        self.meet_ways().await;
        let targets = self.probe_targets().await;
        let (Some(kernel), false) = (&self.kernel, targets.is_empty() || self.torn_down) else {
            return;
        };
        let (prober, myself) = (kernel.prober(), self.myself.clone());
        self.watch.asking = Some(Instant::now());
        task::spawn("probe", async move {
            // Nothing was asked then, and nothing follows.
            let probed = prober.ask(targets).await.unwrap_or_else(|error| {
                warn!(%error, "paths cannot be probed");
                Probed::default()
            });
            let told = myself
                .upgrade()
                .is_some_and(|owner| owner.send(Command::Probed(probed)).is_ok());
            debug!(told, "paths were probed");
        });
    }

    async fn probe_targets(&self) -> BTreeSet<Target> {
        let mut targets = self.encryption_targets();
        for host in self.watched() {
            let family = Family::of(host.advertise);
            targets.insert(Target::routed(name::probe(host.index, family)));
            let device = name::vxlan(host.index);
            if let (true, Some(kernel)) = (self.watch.doubted.contains(&host.name), &self.kernel) {
                match kernel.overlay_index(&device).await {
                    Ok(link) => {
                        targets.insert(Target {
                            link,
                            ..Target::routed(vxlan_address(&host))
                        });
                    }
                    Err(error) => debug!(%error, "a path cannot be probed"),
                }
            }
        }
        targets
    }

    /// Draws the conclusions from answers.
    pub(super) async fn probed(&mut self, probed: &Probed) {
        self.watch.asking = None;
        if probed.asked.is_empty() {
            return;
        }
        self.encryption_answered(probed).await;
        let answers = probed.answered.iter().filter(|target| target.mark == 0);
        let answers: BTreeSet<_> = answers.map(|target| target.address).collect();
        let (doubted, fallbacks) = (self.watch.doubted.clone(), self.records.fallbacks().clone());
        for host in self.watched() {
            self.judge(&host, &answers);
        }
        if self.watch.doubted != doubted || *self.records.fallbacks() != fallbacks {
            self.settle().await;
        }
        let fallen = |host: &HostName| self.records.fallbacks().contains_key(host);
        if self.watch.silences.keys().any(|host| !fallen(host)) {
            self.watch.soon();
        }
    }

    fn judge(&mut self, host: &HostRecord, answers: &BTreeSet<IpAddr>) {
        let answered = answers.contains(&name::probe(host.index, Family::of(host.advertise)));
        let (in_a_row, silences) = self.watch.count(&host.name, answered);
        let fallen = self.sources().has_fallen_back(host);
        let by_vxlan = answers.contains(&vxlan_address(host));
        let changed = if answered {
            self.watch.doubted.remove(&host.name);
            (fallen && in_a_row >= TRUSTED).then_some(None)
        } else if !fallen && silences >= SILENT {
            self.watch.doubted.insert(host.name.clone());
            by_vxlan.then_some(Some(&host.member))
        } else {
            None
        };
        let Some(member) = changed else { return };
        self.watch.doubted.remove(&host.name);
        info!(host = %host.name, direct = member.is_none(), "the path to a host changes");
        if let Err(error) = self.records.set_fallback(&host.name, member) {
            warn!(%error, "the path to a host cannot be recorded");
        }
    }

    /// A sentence for each host that is reached by VXLAN for want of an answer.
    pub(super) fn fallback_complaints(&self) -> Vec<String> {
        let watched = self.watched();
        let fallen = watched
            .iter()
            .filter(|host| self.sources().has_fallen_back(host));
        fallen
            .map(|host| {
                format!(
                    "host `{}` shares a link with this one, but frames with containers' addresses do not get through; it is reached by VXLAN. Allow them (clouds: switch off the source/destination check), or set `overlay.encapsulation` to `vxlan` on every host",
                    host.name
                )
            })
            .collect()
    }
}

/// The address that a host's VXLAN devices give themselves.
fn vxlan_address(host: &HostRecord) -> IpAddr {
    IpAddr::V6(name::link_local(name::vxlan_mac(host.index)))
}
