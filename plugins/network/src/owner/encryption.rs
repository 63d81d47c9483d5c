//! Keys of this host and associations with the others: hands what happens to the exchange, which decides, and
//! carries out what it says.
//!
//! ```text
//! due --NextGeneration--> coordinator --number--> generate --plan--> kernel --counters--> publishable
//!     --PublishKey--> coordinator --> published --> candidate --probe--> answered --> sent by
//! ```
//! The private keys are here and nowhere else.

mod clock;
mod mtu;
mod probe;
mod renewal;
mod report;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_control_api::fabric::PeerKey;
use drover_control_api::record::HostRecord;
use drover_daemon::EncryptionSettings;
use drover_ipsec::{
    Adopted, AssociationId, Counted, Direction, Epoch, Exchange, Identity, Lane, Moment, PublicKey,
    Schedule,
};
use drover_kernel::AssociationCounters;
use drover_model::HostName;
use drover_overlay::{IpsecPath, PathMtu, State, Step, UdpPorts, name};
use drover_plugin_host::DriverError;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Owner;
use clock::Clocks;

/// How often associations are looked at while nothing changes.
const CALM: Duration = Duration::from_secs(5);
/// How soon again while a new epoch is on its way.
const UNSURE: Duration = Duration::from_secs(1);
/// A private key is wiped so long after the next was published.
const WIPE_AFTER: Duration = Duration::from_secs(60);
/// An epoch goes when nothing came by it for so long.
const IDLE: Duration = Duration::from_secs(30);
/// A key is read from the store, and its associations are made, within so long.
const FOLLOW: Duration = Duration::from_secs(5);

/// What this host has for encryption, beside the kernel.
pub(crate) struct Encryption {
    began: Instant,
    lanes: u8,
    schedule: Schedule,
    /// Why this kernel cannot encrypt; `None` until it was tried.
    capability: Option<Result<(), String>>,
    /// Why its packet filter cannot tell whether a packet's source is its sender's; `None` until it was tried.
    source_checks: Option<Result<(), String>>,
    /// The first of the UDP ports that ESP is sent from, and taken at if the kernel can.
    port: Option<u16>,
    /// The same, once the kernel takes it there.
    receives: Option<u16>,
    exchange: Option<Exchange>,
    /// The public half of the newest generation.
    public: Option<(u64, PublicKey)>,
    /// The coordinator is asked one thing at a time.
    asking: bool,
    /// Not before this is it asked again.
    patience: Instant,
    next: Instant,
    /// When each peer last answered by its encrypted path.
    answered: BTreeMap<HostName, Instant>,
    /// By which ways peers are reached.
    ways: way::AllWays,
    /// How large packets may be that are sent to each peer.
    sizes: BTreeMap<HostName, PathMtu>,
    /// The clocks, when associations were looked at last.
    clocks: Clocks,
    /// Keys that are not used, a sentence each.
    refused: Vec<String>,
}

impl Encryption {
    /// Nothing is known and nobody is met.
    pub(super) fn new(settings: &EncryptionSettings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let lanes = settings
            .lanes
            .unwrap_or_else(|| u8::try_from(cores).unwrap_or(Lane::MAX));
        Self {
            began: Instant::now(),
            lanes: lanes.clamp(1, Lane::MAX),
            schedule: Schedule {
                rotate_after: spread(settings.rotate_after),
                rotate_bytes: settings.rotate_bytes,
                wipe_after: WIPE_AFTER,
                idle_before_removal: IDLE,
                follow_within: FOLLOW,
            },
            capability: None,
            source_checks: None,
            port: settings.port,
            receives: None,
            exchange: None,
            public: None,
            asking: false,
            patience: Instant::now(),
            next: Instant::now(),
            answered: BTreeMap::new(),
            ways: way::AllWays::default(),
            sizes: BTreeMap::new(),
            clocks: Clocks::now(),
            refused: Vec::new(),
        }
    }

    /// When associations are to be looked at next.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Whether this kernel encrypts.
    pub(crate) const fn is_possible(&self) -> bool {
        matches!(self.capability, Some(Ok(())))
    }

    /// Whether this kernel tells if a packet's source is its sender's.
    pub(crate) const fn checks_sources(&self) -> bool {
        matches!(self.source_checks, Some(Ok(())))
    }

    /// Why this kernel does not, if that is known.
    pub(super) fn impossible(&self) -> Option<&str> {
        match &self.capability {
            Some(Err(reason)) => Some(reason),
            Some(Ok(())) | None => None,
        }
    }

    /// How packets of encrypted networks get to a peer; `None` while nothing is agreed on with it.
    pub(crate) fn path(&self, host: &HostName, key: Option<&PeerKey>) -> Option<IpsecPath> {
        let path = self.exchange.as_ref()?.path(host);
        if path.associations.is_empty() && path.send.is_none() {
            return None;
        }
        let destination = key.and_then(|key| key.udp_port);
        Some(IpsecPath {
            lanes: path.lanes,
            udp: destination.map(|destination| UdpPorts {
                source: self.port.unwrap_or(destination),
                destination,
            }),
            associations: path.associations,
            send: path.send,
            candidate: path.candidate,
            mtu: self.sizes.get(host).and_then(PathMtu::limit),
            ways: self.ways.detours(host),
            trials: self.ways.trials(host),
        })
    }

    fn now(&self) -> Moment {
        Moment::new(self.began.elapsed())
    }

    fn soon(&mut self) {
        self.next = self.next.min(Instant::now() + UNSURE);
    }
}

/// Up to a tenth less, so that hosts that were started together do not all take new keys at once.
fn spread(time: Duration) -> Duration {
    let mut byte = [0];
    // Without it they do: nothing depends on it.
    if getrandom::fill(&mut byte).is_err() {
        return time;
    }
    let [byte] = byte;
    time.saturating_sub(time.mul_f64(f64::from(byte) / 2550.0))
}

impl Owner {
    /// Finds out whether the kernel can encrypt, until it can: what it lacks may be a module that somebody installs.
    pub(super) async fn try_encryption(&mut self) {
        if self.encryption.is_possible() {
            return;
        }
        let Some(kernel) = &self.kernel else { return };
        let tried = kernel.source_checks().await;
        let said = |error| DriverError::chain(&error).to_string();
        self.encryption.source_checks = Some(tried.map_err(said));
        let capability = kernel.encryption().await.map_err(said);
        let before = self.encryption.capability.replace(capability);
        match self.encryption.impossible() {
            Some(reason) if before.as_ref() != self.encryption.capability.as_ref() => {
                warn!(%reason, "this host cannot encrypt");
            }
            Some(_) => {}
            None => {
                if before.is_some() {
                    info!("this host can encrypt now");
                }
                self.listen_to_routers().await;
                self.meet();
            }
        }
    }

    /// Brings the exchange up to the cluster: who this host is, and whose keys there are. The first time, it takes
    /// over what an earlier process has left in the kernel.
    pub(super) fn meet(&mut self) {
        if !self.encryption.is_possible() {
            return;
        }
        let now = self.encryption.now();
        let Some(identity) = self.identity() else {
            return;
        };
        let known = self.encryption.exchange.as_ref();
        if known.is_none_or(|known| *known.identity() != identity) {
            let found = self.known.as_ref().filter(|_| known.is_none());
            let mut exchange = Exchange::new(identity, self.encryption.schedule);
            for host in self.cluster.others() {
                if let Some(adopted) = found.and_then(|found| adopted(host, found)) {
                    exchange.adopt(&host.name, adopted, now);
                }
            }
            self.encryption.exchange = Some(exchange);
            self.encryption.public = None;
        }
        let peers = self.peer_keys();
        if let Some(exchange) = &mut self.encryption.exchange {
            let refused = exchange.set_peers(&peers, now);
            self.encryption.refused = refused
                .iter()
                .map(|it| format!("the key of host `{}` is not used: {}", it.host, it.reason))
                .collect();
        }
        self.encryption.soon();
    }

    fn identity(&self) -> Option<Identity> {
        let own = self.cluster.own()?;
        let cluster = &self.cluster.this_host.as_ref()?.cluster;
        (!cluster.is_empty()).then(|| Identity {
            cluster: cluster.clone(),
            member: own.member.clone(),
            index: own.index,
            lanes: self.encryption.lanes,
        })
    }

    fn peer_keys(&self) -> BTreeMap<HostName, drover_ipsec::PeerKey> {
        let others = self.cluster.others();
        let keys = others.filter_map(|host| {
            let key = self.cluster.keys.get(&host.name)?;
            let six = self.cluster.own()?.advertise.is_ipv6();
            let reachable = host.advertise.is_ipv6() == six && key.member == host.member;
            reachable.then(|| {
                let key = drover_ipsec::PeerKey {
                    member: key.member.clone(),
                    index: host.index,
                    generation: key.generation,
                    public: PublicKey::from_bytes(key.public),
                    lanes: key.lanes,
                };
                (host.name.clone(), key)
            })
        });
        keys.collect()
    }

    /// The plan that is about to be carried out makes these associations: their keys are not told again,
    /// whether that succeeds or not.
    pub(super) fn making(&mut self, steps: &[Step]) {
        let Some(exchange) = &mut self.encryption.exchange else {
            return;
        };
        for step in steps {
            let Step::AddAssociation { id, association } = step else {
                continue;
            };
            let peer = name::interface_peer(association.if_id);
            let mut others = self.cluster.others();
            if let Some(host) = others.find(|host| Some(host.index) == peer) {
                exchange.installed(&host.name, association.direction(id.spi), id.spi);
            }
        }
    }

    /// Looks at the associations, and does what is due.
    pub(super) async fn tend(&mut self) {
        self.encryption.next = Instant::now() + CALM;
        if self.torn_down || self.encryption.exchange.is_none() {
            return;
        }
        self.mistrust_clocks();
        self.keep_receivers().await;
        self.hear();
        self.observe_associations().await;
        self.settle().await;
        // What was made just now is to be seen before it is published.
        self.observe_associations().await;
        self.ask_coordinator();
        let now = self.encryption.now();
        if let Some(exchange) = &mut self.encryption.exchange {
            exchange.wipe(now);
        }
        let unsettled = self.encryption.asking || self.has_candidates();
        if unsettled {
            self.encryption.soon();
            self.watch.soon();
        }
    }

    /// Wants new keys when the time of day has jumped: sequence numbers may be those of before.
    fn mistrust_clocks(&mut self) {
        let now = Clocks::now();
        if now.have_parted(self.encryption.clocks) {
            warn!(
                "the time of day has jumped: keys are renewed, in case this machine was put back to an earlier state"
            );
            if let Some(exchange) = &mut self.encryption.exchange {
                exchange.rotate();
            }
        }
        self.encryption.clocks = now;
    }

    pub(super) async fn observe_associations(&mut self) {
        let now = self.encryption.now();
        let (Some(kernel), Some(exchange)) = (&self.kernel, &mut self.encryption.exchange) else {
            return;
        };
        match kernel.association_counters().await {
            Ok(counters) => exchange.observe(&counted(&counters), now),
            Err(error) => warn!(%error, "associations cannot be counted"),
        }
    }

    fn has_candidates(&self) -> bool {
        let exchange = self.encryption.exchange.as_ref();
        exchange.is_some_and(|exchange| {
            let mut others = self.cluster.others();
            others.any(|host| exchange.path(&host.name).candidate.is_some())
        })
    }
}

/// What was left in the kernel for a host.
fn adopted(host: &HostRecord, found: &State) -> Option<Adopted> {
    let if_id = name::interface_id(host.index);
    let mine = found.associations.iter().filter(|(id, it)| {
        it.if_id == if_id && (id.destination == host.advertise || it.source == host.advertise)
    });
    let associations: BTreeSet<_> = mine
        .map(|(id, it)| (it.direction(id.spi), id.spi))
        .collect();
    let first = Some(u32::from(Lane::FIRST.get()));
    let mut policies = found.policies.iter();
    let sent =
        policies.find(|(key, it)| key.if_id == if_id && key.mark == first && it.spi.is_some());
    let send = sent.and_then(|(_, template)| template.spi);
    (!associations.is_empty()).then(|| Adopted {
        member: host.member.clone(),
        index: host.index,
        associations,
        send: send.map(|spi| Epoch {
            own: spi.sender_tag(),
            peer: spi.receiver_tag(),
        }),
    })
}

fn counted(counters: &[AssociationCounters]) -> BTreeMap<AssociationId, Counted> {
    let ours = counters.iter().filter_map(|it| {
        let peer = name::interface_peer(it.if_id)?;
        let direction = if it.id.spi.sender() == Some(peer) {
            Direction::Receive
        } else {
            Direction::Send
        };
        let id = AssociationId {
            peer,
            direction,
            spi: it.id.spi,
        };
        let counted = Counted {
            packets: it.packets,
            bytes: it.bytes,
        };
        Some((id, counted))
    });
    ours.collect()
}
