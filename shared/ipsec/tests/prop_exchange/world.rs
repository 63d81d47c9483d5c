//! Hosts and the store that they all see, late; packets between them, and what is to be true of all this.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_ipsec::{Adopted, AssociationId, Epoch, Exchange, Moment, PeerAssociations};
use drover_model::HostIndex;
use zeroize::Zeroizing;

use crate::host::{Budget, HOSTS, Host, Joined, name};
use crate::kernel::{Kernel, Key};

/// By then all that are connected and alive reach each other, in seconds.
pub(crate) const CONVERGED: u64 = 8;

#[derive(Debug)]
struct Answer {
    prober: usize,
    incarnation: u64,
    peer: usize,
    epoch: Epoch,
}

#[derive(Debug)]
pub(crate) struct World {
    hosts: Vec<Host>,
    store: BTreeMap<usize, Joined>,
    now: u64,
    serial: u64,
    used: BTreeSet<(Key, u64)>,
    answers: Vec<Answer>,
}

impl World {
    /// All hosts have joined and reach each other.
    pub(crate) fn new() -> Self {
        let host = |_| Host {
            kernel: Kernel::default(),
            exchange: None,
            incarnation: 0,
            disk: BTreeMap::new(),
            disk_own: None,
            connected: true,
            view: BTreeMap::new(),
            number: 0,
            public: None,
        };
        let mut world = Self {
            hosts: (0..HOSTS).map(host).collect(),
            store: BTreeMap::new(),
            now: 0,
            serial: 0,
            used: BTreeSet::new(),
            answers: Vec::new(),
        };
        for host in 0..HOSTS {
            world.join(host);
        }
        world.settle();
        world
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn moment(&self) -> Moment {
        Moment::new(Duration::from_secs(self.now))
    }

    /// Time passes: what is answered at all has been answered by then, and a longer time has its keepalives.
    pub(crate) fn tick(&mut self, seconds: u64) {
        while !self.answers.is_empty() {
            self.answer(0);
        }
        self.now += seconds;
        if seconds >= 20 {
            // Every process sends something by the sending epoch every few seconds.
            for (from, to) in self.pairs() {
                if self.hosts[from].exchange.is_some() {
                    self.packet(from, to, 0, false);
                }
            }
        }
    }

    /// The lowest index that is free, as the cluster gives it: an index is soon another host's.
    pub(crate) fn join(&mut self, host: usize) {
        if self.store.contains_key(&host) {
            return;
        }
        let taken: BTreeSet<u16> = self.store.values().map(|host| host.index.get()).collect();
        let index = (1..).find(|index| !taken.contains(index)).unwrap();
        let joined = Joined {
            member: format!("member {}", self.serial()),
            index: HostIndex::try_from(index).unwrap(),
            key: None,
        };
        self.store.insert(host, joined);
    }

    pub(crate) fn remove(&mut self, host: usize) {
        self.store.remove(&host);
    }

    pub(crate) fn cut(&mut self, host: usize, connected: bool) {
        self.hosts[host].connected = connected;
    }

    pub(crate) fn see(&mut self, host: usize) {
        if self.hosts[host].connected {
            self.hosts[host].view = self.store.clone();
        }
    }

    pub(crate) fn crash(&mut self, host: usize) {
        self.hosts[host].exchange = None;
        self.hosts[host].incarnation += 1;
    }

    pub(crate) fn reboot(&mut self, host: usize) {
        self.crash(host);
        self.hosts[host].kernel = Kernel::default();
    }

    /// Somebody removes an association from the kernel.
    pub(crate) fn lose(&mut self, host: usize, which: usize) {
        let associations = &mut self.hosts[host].kernel.associations;
        let all: Vec<AssociationId> = associations.keys().copied().collect();
        if !all.is_empty() {
            associations.remove(&all[which % all.len()]);
        }
    }

    pub(crate) fn rotate(&mut self, host: usize) {
        if let Some(exchange) = &mut self.hosts[host].exchange {
            exchange.rotate();
        }
    }

    /// The process starts, and takes over what it finds.
    pub(crate) fn start(&mut self, at: usize) {
        let now = self.moment();
        let host = &mut self.hosts[at];
        let Some(own) = host.view.get(&at).filter(|_| host.exchange.is_none()) else {
            return;
        };
        let mut exchange = Host::exchange(at, own);
        host.number = 0;
        if host.disk_own == Some((own.member.clone(), own.index)) {
            for (peer, (member, index)) in &host.disk {
                let ids = host.kernel.associations.keys();
                let adopted = Adopted {
                    member: member.clone(),
                    index: *index,
                    associations: ids
                        .filter(|id| id.peer == *index)
                        .map(|id| (id.direction, id.spi))
                        .collect(),
                    send: host
                        .kernel
                        .routes
                        .get(peer)
                        .and_then(|route| route.send)
                        .map(|(epoch, _)| epoch),
                };
                exchange.adopt(&name(*peer), adopted, now);
            }
        }
        exchange.observe(&host.kernel.counters(), now);
        host.exchange = Some(exchange);
    }

    /// The process makes the kernel what it is to be, and publishes. It dies after so many changes, if it comes to that.
    pub(crate) fn step(&mut self, at: usize, changes: usize, answer_lost: bool) {
        let Some(mut exchange) = self.hosts[at].exchange.take() else {
            return;
        };
        let Some(own) = self.hosts[at].view.get(&at).cloned() else {
            // It is told that it was removed.
            self.hosts[at].kernel = Kernel::default();
            return self.crash(at);
        };
        let now = self.moment();
        if (&exchange.identity().member, exchange.identity().index) != (&own.member, own.index) {
            exchange = Host::exchange(at, &own);
            self.hosts[at].number = 0;
        }
        exchange.observe(&self.hosts[at].kernel.counters(), now);
        let peers = self.hosts[at].peers(at);
        exchange.set_peers(&peers, now);
        exchange.wipe(now);
        if exchange.due(now).is_some() {
            self.generate(at, &mut exchange, own.key.map_or(0, |(number, _)| number));
        }
        let paths: BTreeMap<usize, PeerAssociations> = (0..HOSTS)
            .map(|peer| (peer, exchange.path(&name(peer))))
            .collect();
        if self.hosts[at].apply(&own, &paths, Budget(changes)).is_err() {
            return self.crash(at);
        }
        exchange.observe(&self.hosts[at].kernel.counters(), now);
        if let Some(number) = exchange.publishable().filter(|_| self.hosts[at].connected) {
            self.publish(at, &mut exchange, number, answer_lost);
        }
        self.hosts[at].exchange = Some(exchange);
        self.nobody_who_went(at);
    }

    fn generate(&mut self, at: usize, exchange: &mut Exchange, known: u64) {
        let mut seed = Zeroizing::new([0; 32]);
        seed[..8].copy_from_slice(&self.serial().to_be_bytes());
        let number = self.hosts[at].number.max(known) + 1;
        let public = exchange.generate(number, &seed, self.moment()).unwrap();
        self.hosts[at].number = number;
        self.hosts[at].public = Some(public);
    }

    fn publish(&mut self, at: usize, exchange: &mut Exchange, number: u64, answer_lost: bool) {
        let now = self.moment();
        let public = self.hosts[at].public.unwrap();
        let Some(record) = self.store.get_mut(&at) else {
            return;
        };
        if record.member != exchange.identity().member {
            return;
        }
        let stored = record.key.map_or(0, |(number, _)| number);
        if record.key == Some((number, public)) {
            exchange.published(number, now);
        } else if stored + 1 == number {
            record.key = Some((number, public));
            if !answer_lost {
                exchange.published(number, now);
            }
        } else {
            self.generate(at, exchange, stored);
        }
    }

    /// A host that was told of another's end has nothing of it.
    fn nobody_who_went(&self, at: usize) {
        let host = &self.hosts[at];
        for (id, association) in &host.kernel.associations {
            let mut members = host.view.values().map(|joined| &joined.member);
            assert!(
                members.any(|member| *member == association.member),
                "host {at} has {id:?} of {}, who went",
                association.member
            );
        }
    }

    /// Sends a packet, and answers whether it arrived.
    pub(crate) fn packet(&mut self, from: usize, to: usize, lane: u8, candidate: bool) -> bool {
        let Some(packet) = self.hosts[from].kernel.send(to, lane, candidate) else {
            return false;
        };
        assert!(
            self.used.insert((packet.key, packet.sequence)),
            "host {from} sends twice by one key and sequence number to host {to}"
        );
        self.hosts[to].kernel.receive(&packet)
    }

    /// Sends a probe by the candidate epoch, if it is time. A process answers it, some time. Answers whether it was
    /// sent to somebody who could not receive it.
    pub(crate) fn probe(&mut self, from: usize, to: usize) -> bool {
        let host = &self.hosts[from];
        let told = host.exchange.as_ref();
        let told = told.and_then(|exchange| exchange.asks_by(&name(to), self.moment()));
        let route = host.kernel.routes.get(&to);
        // The policy may be that of the process before, which probes no more.
        let Some(epoch) = route
            .and_then(|route| route.candidate)
            .filter(|epoch| told == Some(*epoch))
        else {
            return false;
        };
        let incarnation = host.incarnation;
        let arrived = self.packet(from, to, 0, true);
        if arrived && self.hosts[to].exchange.is_some() {
            self.answers.push(Answer {
                prober: from,
                incarnation,
                peer: to,
                epoch,
            });
        }
        !arrived
    }

    /// One of the answers that are due is sent.
    pub(crate) fn answer(&mut self, which: usize) {
        if self.answers.is_empty() {
            return;
        }
        let answer = self.answers.swap_remove(which % self.answers.len());
        let alive = self.hosts[answer.peer].exchange.is_some();
        if alive && self.packet(answer.peer, answer.prober, 0, false) {
            let prober = &mut self.hosts[answer.prober];
            if prober.incarnation == answer.incarnation
                && let Some(exchange) = &mut prober.exchange
            {
                exchange.answered(&name(answer.peer), answer.epoch);
                self.step(answer.prober, usize::MAX, false);
            }
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let members: Vec<usize> = self.store.keys().copied().collect();
        let with_others = |from: usize| {
            let others = members.iter().copied().filter(move |to| *to != from);
            others.map(move |to| (from, to))
        };
        members.iter().flat_map(|from| with_others(*from)).collect()
    }

    /// A second in which all are connected and alive. Answers how many packets were lost.
    fn quiet_second(&mut self) -> usize {
        for host in 0..HOSTS {
            self.cut(host, true);
            self.see(host);
            self.start(host);
            self.step(host, usize::MAX, false);
        }
        let mut lost = 0;
        for (from, to) in self.pairs() {
            lost += usize::from(self.probe(from, to));
            self.answer(0);
            lost += (0..3)
                .filter(|lane| !self.packet(from, to, *lane, false))
                .count();
        }
        self.tick(1);
        lost
    }

    /// All is quiet: soon no packet is lost, and at last every pair has one epoch, the same on both sides.
    pub(crate) fn settle(&mut self) {
        self.answers.clear();
        for _ in 0..CONVERGED {
            self.quiet_second();
        }
        // Generations follow each other by bytes every 50 s, so that each pair is in one epoch at some time only.
        let mut one = BTreeSet::new();
        for _ in 0..200 {
            assert_eq!(
                self.quiet_second(),
                0,
                "a packet is lost though all is quiet"
            );
            one.extend(
                self.pairs()
                    .into_iter()
                    .filter(|pair| self.in_one_epoch(*pair)),
            );
            if self.pairs().iter().all(|pair| one.contains(pair)) {
                return;
            }
        }
        panic!("pairs never come to one epoch: {:?}", self.hosts);
    }

    fn in_one_epoch(&self, (one, other): (usize, usize)) -> bool {
        let epochs = |from: usize, to: usize| -> BTreeSet<Epoch> {
            let kernel = &self.hosts[from].kernel;
            let index = kernel.routes[&to].index;
            let mine = kernel
                .associations
                .iter()
                .filter(|(id, _)| id.peer == index);
            mine.map(|(_, association)| association.epoch).collect()
        };
        let mirrored = |epoch: &Epoch| Epoch {
            own: epoch.peer,
            peer: epoch.own,
        };
        let (mine, its) = (epochs(one, other), epochs(other, one));
        mine.len() == 1 && its.iter().map(mirrored).eq(mine.iter().copied())
    }
}
