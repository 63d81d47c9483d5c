//! Keys of this host and associations with the others: hands what happens to the exchange, which decides, and
//! carries out what it says.
//!
//! ```text
//! due --NextGeneration--> coordinator --number--> generate --plan--> kernel --counters--> publishable
//!     --PublishKey--> coordinator --> published --> candidate --probe--> answered --> sent by
//! ```
//! The private keys are here and nowhere else. The coordinator is asked beside the owner, whose commands go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use drover_control_api::FailureKind;
use drover_control_api::coordinator::{NextGeneration, PublishKey};
use drover_control_api::fabric::PeerKey;
use drover_control_api::plugin::{EncryptedPath, RefusedPackets};
use drover_control_api::record::HostRecord;
use drover_daemon::{EncryptionSettings, task};
use drover_http::control::{self, CallError};
use drover_ipsec::{
    Adopted, AssociationId, Counted, Direction, Epoch, Exchange, Identity, Lane, Moment, PublicKey,
    Schedule,
};
use drover_kernel::{AssociationCounters, Counters, Receiver, Target};
use drover_model::{Encapsulation, Encryption as NetworkEncryption, HostName};
use drover_overlay::{IpsecPath, Peer, State, Step, UdpPorts, name};
use drover_plugin_host::DriverError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::status::packets;
use super::{Command, Owner};

/// How often associations are looked at while nothing changes.
const CALM: Duration = Duration::from_secs(10);
/// How soon again while a new epoch is on its way.
const UNSURE: Duration = Duration::from_secs(1);
/// How long the coordinator may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A private key is wiped so long after the next was published.
const WIPE_AFTER: Duration = Duration::from_secs(60);
/// An epoch goes when nothing came by it for so long.
const IDLE: Duration = Duration::from_secs(30);
/// The mark of a probe by the candidate epoch.
const CANDIDATE: u8 = name::CANDIDATE_MARK.to_le_bytes()[0];
/// A path that has not answered for so long is degraded.
const SILENT: Duration = Duration::from_secs(30);

/// What this host has for encryption, beside the kernel.
pub(crate) struct Encryption {
    began: Instant,
    lanes: u8,
    schedule: Schedule,
    /// Why this kernel cannot encrypt; `None` until it was tried.
    capability: Option<Result<(), String>>,
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
            },
            capability: None,
            port: settings.port,
            receives: None,
            exchange: None,
            public: None,
            asking: false,
            patience: Instant::now(),
            next: Instant::now(),
            answered: BTreeMap::new(),
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
    /// Finds out whether the kernel can encrypt, once.
    pub(super) async fn try_encryption(&mut self) {
        if self.encryption.capability.is_some() {
            return;
        }
        let Some(kernel) = &self.kernel else { return };
        let tried = kernel.encryption().await;
        let capability = tried.map_err(|error| DriverError::chain(&error).to_string());
        if let Err(reason) = &capability {
            warn!(%reason, "this host cannot encrypt");
        }
        self.encryption.capability = Some(capability);
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
        self.keep_receiver().await;
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

    /// Has the kernel take ESP out of the UDP it comes in, on the device that has this host's address.
    async fn keep_receiver(&mut self) {
        let wanted = self.encryption.port.zip(self.underlay.clone());
        let (Some((first_port, device)), Some(own), Some(kernel)) =
            (wanted, self.cluster.own(), &self.kernel)
        else {
            return;
        };
        let receiver = Receiver {
            device,
            address: own.advertise,
            first_port,
        };
        let before = self.encryption.receives;
        match kernel.set_receiver(&receiver).await {
            Ok(_changed) => self.encryption.receives = Some(first_port),
            Err(error) => {
                self.encryption.receives = None;
                if before.is_some() || self.encryption.public.is_none() {
                    warn!(%error, "ESP is not taken out of UDP here: other hosts send it by itself");
                }
            }
        }
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

    /// What is asked on encrypted paths: whether the peer is there, and whether it has the candidate epoch.
    pub(super) fn encryption_targets(&self) -> BTreeSet<Target> {
        let mut targets = BTreeSet::new();
        let Some(exchange) = &self.encryption.exchange else {
            return targets;
        };
        for host in self.cluster.others() {
            let path = exchange.path(&host.name);
            let target = Target::routed(name::ipsec_probe(host.index).into());
            if path.send.is_some() {
                targets.insert(target);
            }
            if path.candidate.is_some() {
                targets.insert(Target {
                    mark: CANDIDATE,
                    ..target
                });
            }
        }
        targets
    }

    /// Who has answered.
    pub(super) async fn encryption_answered(&mut self, answers: &BTreeSet<Target>) {
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

    /// What there is to say of the encrypted path to a peer.
    pub(super) fn encrypted_path(
        &self,
        host: &HostName,
        peer: &Peer,
        devices: &BTreeMap<String, Counters>,
        associations: &[AssociationCounters],
    ) -> Option<EncryptedPath> {
        let path = peer.ipsec.as_ref()?;
        let agreed = self.encryption.exchange.as_ref()?.path(host);
        let device = name::ipsec(peer.index);
        let if_id = name::interface_id(peer.index);
        let mine: Vec<_> = associations.iter().filter(|it| it.if_id == if_id).collect();
        let counted = devices.get(&device).copied().unwrap_or_default();
        let last_answer = self.encryption.answered.get(host).map(Instant::elapsed);
        let transport = path.udp.map(|ports| {
            let last = ports
                .destination
                .saturating_add(u16::from(path.lanes.max(1)) - 1);
            format!("udp {}-{last}", ports.destination)
        });
        let now = self.encryption.now();
        Some(EncryptedPath {
            device,
            cipher: "AES-256-GCM".to_owned(),
            transport: transport.unwrap_or_else(|| "esp".to_owned()),
            mtu: peer
                .underlay_mtu
                .inside(Encapsulation::Ipsec, peer.advertise.is_ipv6()),
            lanes: path.lanes,
            associations: u32::try_from(mine.len()).unwrap_or(u32::MAX),
            epoch: path
                .send
                .map(|epoch| format!("{}/{}", epoch.own.get(), epoch.peer.get())),
            epoch_age: agreed.since.map(|since| now.since(since).as_secs()),
            last_answer: last_answer.map(|ago| ago.as_secs()),
            packets: packets(counted),
            refused: RefusedPackets {
                replayed: mine.iter().map(|it| it.replayed).sum(),
                forged: mine.iter().map(|it| it.forged).sum(),
            },
            degraded: degraded(path, last_answer),
        })
    }

    /// A sentence for each thing that keeps encrypted networks from being what they should.
    pub(super) fn encryption_complaints(&self) -> Vec<String> {
        let encrypted = self.records.networks().values();
        let mut encrypted =
            encrypted.filter(|it| it.options.encryption == NetworkEncryption::Ipsec);
        let mut complaints = self.encryption.refused.clone();
        if let (Some(reason), Some(_)) = (self.encryption.impossible(), encrypted.next()) {
            complaints.push(format!(
                "this host cannot encrypt, so encrypted networks reach no other host: {reason}"
            ));
        }
        complaints
    }

    fn has_candidates(&self) -> bool {
        let exchange = self.encryption.exchange.as_ref();
        exchange.is_some_and(|exchange| {
            let mut others = self.cluster.others();
            others.any(|host| exchange.path(&host.name).candidate.is_some())
        })
    }

    /// Asks for the number of a generation, or publishes one, if it is time.
    fn ask_coordinator(&mut self) {
        let now = self.encryption.now();
        let encryption = &mut self.encryption;
        let Some(exchange) = &encryption.exchange else {
            return;
        };
        if encryption.asking || Instant::now() < encryption.patience {
            return;
        }
        let publishable = exchange.publishable();
        let public = encryption
            .public
            .filter(|(number, _)| Some(*number) == publishable);
        let (coordinator, myself) = (self.coordinator.clone(), self.myself.clone());
        if let Some((generation, public)) = public {
            let request = PublishKey {
                generation,
                public: public.to_bytes(),
                lanes: encryption.lanes,
                udp_port: encryption.receives,
            };
            encryption.asking = true;
            task::spawn("publish", async move {
                let answer = control::call(&coordinator, &request, LIMIT).await;
                tell(&myself, Command::Published(generation, answer.map(drop)));
            });
        } else if let Some(due) = exchange.due(now) {
            debug!(?due, "a new key is due");
            encryption.asking = true;
            task::spawn("generation", async move {
                let answer = control::call(&coordinator, &NextGeneration {}, LIMIT).await;
                tell(&myself, Command::Generation(answer.map(|it| it.generation)));
            });
        }
    }

    /// The coordinator has told the number of the next generation: it is made.
    pub(super) async fn generation(&mut self, answer: Result<u64, CallError>) {
        self.encryption.asking = false;
        let number = match answer {
            Ok(number) => number,
            Err(error) => return self.be_patient(&error, "a new key has no number"),
        };
        let now = self.encryption.now();
        let mut seed = Zeroizing::new([0; 32]);
        if let Err(error) = getrandom::fill(seed.as_mut_slice()) {
            warn!(%error, "the system gives no random numbers: no new key");
            return;
        }
        let Some(exchange) = &mut self.encryption.exchange else {
            return;
        };
        match exchange.generate(number, &seed, now) {
            Ok(public) => self.encryption.public = Some((number, public)),
            Err(error) => {
                warn!(%error, "no new key");
                return;
            }
        }
        self.tend().await;
    }

    /// The store has the generation, or not.
    pub(super) async fn published(&mut self, number: u64, answer: Result<(), CallError>) {
        self.encryption.asking = false;
        if let Err(error) = answer {
            return self.be_patient(&error, "a new key is not published");
        }
        let now = self.encryption.now();
        if let Some(exchange) = &mut self.encryption.exchange {
            exchange.published(number, now);
        }
        info!(generation = number, "this host has a new key");
        self.settle().await;
        self.watch.soon();
        self.encryption.soon();
    }

    fn be_patient(&mut self, error: &CallError, what: &str) {
        let alone = matches!(error, CallError::Failure(it) if it.kind == FailureKind::NotFound);
        if alone {
            debug!("a host alone needs no key");
        } else {
            warn!(%error, "{what}");
        }
        self.encryption.patience = Instant::now() + UNSURE;
        if let (CallError::Failure(failure), Some(exchange)) =
            (error, &mut self.encryption.exchange)
            && failure.kind == FailureKind::Conflict
        {
            exchange.rotate();
        }
    }
}

/// Why a path is not as it should be.
fn degraded(path: &IpsecPath, last_answer: Option<Duration>) -> Option<String> {
    if path.send.is_none() {
        return Some("no key is agreed on yet: packets are dropped".to_owned());
    }
    match last_answer {
        None => Some("it has not answered by this path yet".to_owned()),
        Some(ago) if ago > SILENT => Some(format!(
            "it has not answered by this path for {} s",
            ago.as_secs()
        )),
        Some(_) => None,
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

/// Nobody waits for it when the owner has ended.
fn tell(owner: &mpsc::WeakUnboundedSender<Command>, command: Command) {
    let told = owner
        .upgrade()
        .is_some_and(|owner| owner.send(command).is_ok());
    debug!(told, "the coordinator has answered");
}
