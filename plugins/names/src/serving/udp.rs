//! Queries by datagram.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use drover_names::{Reply, Transport, View, answer, refusal};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Shared;
use super::upstream::Upstream;
use crate::counters::count;
use crate::sandbox::Asker;

/// The longest query; longer ones have no place in a datagram that does not leave the host.
const LONGEST: usize = 4096;
/// The longest answer of Docker's resolver.
const LONGEST_ANSWER: usize = 65_535;
/// How many queries are answered before other sandboxes have their turn.
const AT_ONCE: usize = 64;
/// How many wait to be told whose they are.
const MOST_HELD: usize = 64;
const LOOK: Duration = Duration::from_millis(250);

/// The task of one sandbox.
pub(super) struct Server {
    socket: UdpSocket,
    upstream: Upstream,
    shared: Shared,
    asker: watch::Receiver<Asker>,
    /// What waits to be told whose it is.
    held: Vec<(Vec<u8>, SocketAddr)>,
    random: fastrand::Rng,
}

impl Server {
    pub(super) fn new(socket: UdpSocket, upstream: Upstream, shared: Shared) -> Self {
        let seed = getrandom::u64().unwrap_or_default();
        Self {
            socket,
            upstream,
            asker: shared.sandbox.asker(),
            shared,
            held: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Answers for ever.
    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; LONGEST_ANSWER];
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut view = self.view();
        loop {
            // Cancel-safe: each arm only says that there is something.
            tokio::select! {
                ready = self.socket.readable() => {
                    if ready.is_ok() {
                        self.queries(view.as_ref(), &mut buffer);
                        // Others have their turn.
                        tokio::task::yield_now().await;
                    }
                }
                () = self.upstream.readable() => {
                    while let Some((length, client)) = self.upstream.take(&mut buffer).await {
                        self.send(buffer.get(..length).unwrap_or_default(), client);
                    }
                }
                changed = self.asker.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    view = self.view();
                    self.release(view.as_ref());
                }
                _ = ticks.tick(), if !self.held.is_empty() || self.upstream.is_waiting() => {
                    view = self.view();
                    self.release(view.as_ref());
                    self.upstream.look().await;
                }
            }
        }
    }

    /// What the asker may see; `None` while that is worth waiting for.
    fn view(&mut self) -> Option<View> {
        let asker = self.asker.borrow_and_update();
        let waits = !asker.is_known
            && self.shared.known.may_tell()
            && (self.held.is_empty() || !self.shared.sandbox.patience().is_zero());
        (!waits).then(|| asker.view.clone())
    }

    fn release(&mut self, view: Option<&View>) {
        if let Some(view) = view {
            for (query, client) in std::mem::take(&mut self.held) {
                self.query(view, &query, client);
            }
        }
    }

    fn queries(&mut self, view: Option<&View>, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let Ok((length, client)) = self.socket.try_recv_from(buffer) else {
                return;
            };
            let counters = &self.shared.sandbox.counters;
            count(&counters.udp);
            let Some(query) = buffer.get(..length).filter(|_| length <= LONGEST) else {
                count(&counters.malformed);
                continue;
            };
            match view {
                Some(view) => self.query(view, query, client),
                None if self.held.len() < MOST_HELD => self.held.push((query.to_vec(), client)),
                None => self.refuse(query, client),
            }
        }
    }

    fn query(&mut self, view: &View, query: &[u8], client: SocketAddr) {
        let begun = Instant::now();
        let seed = self.random.u64(..);
        let known = &self.shared.known;
        let reply = known.read(|directory| answer(directory, view, query, Transport::Udp, seed));
        match reply {
            Reply::Answer(answer) => {
                self.send(&answer.bytes, client);
                let counters = &self.shared.sandbox.counters;
                counters.answered(&answer);
                counters.own_latency.took(begun.elapsed());
            }
            Reply::PassOn => {
                if !self.upstream.ask(query, client) {
                    self.refuse(query, client);
                }
            }
            Reply::Drop => count(&self.shared.sandbox.counters.malformed),
        }
    }

    /// Says "try again".
    fn refuse(&self, query: &[u8], client: SocketAddr) {
        let counter = &self.shared.sandbox.counters.over_limit;
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = refusal(query) {
            self.send(&refusal, client);
        }
    }

    fn send(&self, answer: &[u8], client: SocketAddr) {
        // Whoever does not get it asks again.
        drop(self.socket.try_send_to(answer, client));
    }
}
