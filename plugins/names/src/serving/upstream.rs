//! Docker's resolver, asked by datagram for what is not ours.
//!
//! One socket for all queries of a sandbox, with ids of our own. After a restart of the engine its resolver is at another
//! port, and packets of an old socket go on to the old one for as long as they come: a socket that is refused, or not
//! answered, is replaced, and what waits is asked again.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::{Duration, Instant};

use drover_kernel::MARK;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::net::UdpSocket;
use tracing::debug;

use super::{DOMAIN, Shared};
use crate::counters::count;

/// How many queries may wait for Docker's resolver.
const MOST: usize = 512;
/// How long: it asks its own servers several times, 4 s each.
const LIMIT: Duration = Duration::from_secs(15);
/// A socket that was not answered for so long is replaced, and no sooner again.
const SILENCE: Duration = Duration::from_secs(1);
/// A socket that was refused is replaced no sooner than this again.
const REFUSED: Duration = Duration::from_millis(100);

/// A query that was passed on.
#[derive(Debug)]
struct Waiting {
    client: SocketAddr,
    id: [u8; 2],
    query: Vec<u8>,
    asked: Instant,
}

/// The resolver, as one sandbox asks it.
#[derive(Debug)]
pub(super) struct Upstream {
    socket: UdpSocket,
    shared: Shared,
    waiting: HashMap<u16, Waiting>,
    random: fastrand::Rng,
    opened: Instant,
    heard: Instant,
    /// Whether the socket was refused, and is not replaced yet.
    refused: bool,
}

/// A socket whose packets go to Docker's resolver; to be called in the namespace.
pub(super) fn open() -> io::Result<StdSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::Mark, &MARK)?;
    let socket = StdSocket::from(socket);
    socket.connect(DOMAIN)?;
    Ok(socket)
}

impl Upstream {
    pub(super) fn new(socket: StdSocket, shared: Shared) -> io::Result<Self> {
        let seed = getrandom::u64().unwrap_or_default();
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            shared,
            waiting: HashMap::new(),
            random: fastrand::Rng::with_seed(seed),
            opened: Instant::now(),
            heard: Instant::now(),
            refused: false,
        })
    }

    /// Passes a query on; says whether it was, or too many wait already.
    pub(super) fn ask(&mut self, query: &[u8], client: SocketAddr) -> bool {
        let Some(id) = query
            .first_chunk()
            .copied()
            .filter(|_| self.waiting.len() < MOST)
        else {
            return false;
        };
        let mut own = self.random.u16(..);
        while self.waiting.contains_key(&own) {
            own = own.wrapping_add(1);
        }
        let asked = Instant::now();
        if self.waiting.is_empty() {
            self.heard = asked;
        }
        let query = with_id(query, own.to_be_bytes());
        self.send(&query);
        let waiting = Waiting {
            client,
            id,
            query,
            asked,
        };
        self.waiting.insert(own, waiting);
        count(&self.shared.sandbox.counters.passed_on);
        true
    }

    /// Waits for something to come. Cancel-safe.
    pub(super) async fn readable(&self) {
        if self.socket.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The next answer that has come, for whom it is; `None` when there is none.
    pub(super) async fn take(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            match self.socket.try_recv(buffer) {
                Ok(length) => {
                    self.heard = Instant::now();
                    let id = buffer.first_chunk().copied().map(u16::from_be_bytes);
                    let Some(waiting) = id.and_then(|id| self.waiting.remove(&id)) else {
                        continue;
                    };
                    if let Some(place) = buffer.first_chunk_mut() {
                        *place = waiting.id;
                    }
                    let latency = &self.shared.sandbox.counters.passed_on_latency;
                    latency.took(waiting.asked.elapsed());
                    return Some((length, waiting.client));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    // Nobody listens where packets of this socket go.
                    debug!(%error, "Docker's resolver refuses");
                    self.refused = true;
                    if self.opened.elapsed() >= REFUSED {
                        self.replace().await;
                    }
                    return None;
                }
            }
        }
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives up what nobody answers, and replaces a socket that nobody answers.
    pub(super) async fn look(&mut self) {
        let before = self.waiting.len();
        self.waiting
            .retain(|_, waiting| waiting.asked.elapsed() < LIMIT);
        for _ in self.waiting.len()..before {
            count(&self.shared.sandbox.counters.unanswered);
        }
        let silent = self.heard.elapsed().min(self.opened.elapsed()) >= SILENCE;
        if (silent || self.refused) && !self.waiting.is_empty() {
            self.replace().await;
        }
    }

    async fn replace(&mut self) {
        self.opened = Instant::now();
        self.refused = false;
        let opened = self
            .shared
            .namespace
            .run(open)
            .await
            .and_then(|opened| opened);
        match opened.and_then(UdpSocket::from_std) {
            Ok(socket) => self.socket = socket,
            Err(error) => {
                debug!(%error, "no socket to Docker's resolver");
                return;
            }
        }
        for waiting in self.waiting.values() {
            // A query that cannot be sent is asked again by whoever waits for it.
            drop(self.socket.try_send(&waiting.query));
        }
    }

    fn send(&mut self, query: &[u8]) {
        if let Err(error) = self.socket.try_send(query) {
            // The next look asks again, from another socket.
            self.refused = true;
            debug!(%error, "cannot ask Docker's resolver");
        }
    }
}

fn with_id(query: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut query = query.to_vec();
    if let Some(place) = query.first_chunk_mut() {
        *place = id;
    }
    query
}
