//! Queries by connection.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_kernel::MARK;
use drover_names::{Reply, Transport, answer, refusal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{DOMAIN, Shared};
use crate::counters::count;

/// How many connections a container may have open at a time; more are closed at once.
const MOST: usize = 64;
/// How long a connection may say nothing, and how long a message may take from its first byte to its last.
const IDLE: Duration = Duration::from_secs(10);
/// How long Docker's resolver may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long to wait when the kernel gives no connection (out of descriptors, mostly).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Accepts for ever.
pub(super) async fn run(listener: TcpListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: a connection that was not taken waits in the listener.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        count(&shared.sandbox.counters.over_limit);
                        continue;
                    };
                    let connection = Connection::new(stream, shared.clone());
                    connections.spawn(async move {
                        // A connection that is cut is nobody's fault but the asker's.
                        drop(connection.run().await);
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Docker's resolver, once something was passed on.
    upstream: Option<TcpStream>,
    shared: Shared,
    random: fastrand::Rng,
}

impl Connection {
    fn new(stream: TcpStream, shared: Shared) -> Self {
        let seed = getrandom::u64().unwrap_or_default();
        Self {
            stream,
            upstream: None,
            shared,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            let query = tokio::time::timeout(IDLE, read(&mut self.stream)).await;
            let query = query.map_err(io::Error::from)??;
            count(&self.shared.sandbox.counters.tcp);
            let Some(answer) = self.query(&query).await else {
                return Ok(());
            };
            let written = tokio::time::timeout(IDLE, write(&mut self.stream, &answer)).await;
            written.map_err(io::Error::from)??;
        }
    }

    /// The answer; `None` when there is none, and the connection is closed.
    async fn query(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let view = self.shared.view().await;
        let (begun, seed) = (Instant::now(), self.random.u64(..));
        let known = &self.shared.known;
        let reply = known.read(|directory| answer(directory, &view, query, Transport::Tcp, seed));
        let counters = &self.shared.sandbox.counters;
        match reply {
            Reply::Answer(answer) => {
                counters.answered(&answer);
                counters.own_latency.took(begun.elapsed());
                Some(answer.bytes)
            }
            Reply::PassOn => {
                count(&counters.passed_on);
                if let Ok(answer) = self.pass_on(query).await {
                    let latency = &self.shared.sandbox.counters.passed_on_latency;
                    latency.took(begun.elapsed());
                    return Some(answer);
                }
                count(&self.shared.sandbox.counters.unanswered);
                refusal(query)
            }
            Reply::Drop => {
                count(&counters.malformed);
                None
            }
        }
    }

    async fn pass_on(&mut self, query: &[u8]) -> io::Result<Vec<u8>> {
        let asked = tokio::time::timeout(LIMIT, self.exchange(query)).await;
        let asked = asked.map_err(io::Error::from).and_then(|asked| asked);
        if asked.is_err() {
            self.upstream = None;
        }
        asked
    }

    async fn exchange(&mut self, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut upstream = match self.upstream.take() {
            Some(upstream) => upstream,
            None => self.connect().await?,
        };
        write(&mut upstream, query).await?;
        let answer = read(&mut upstream).await?;
        self.upstream = Some(upstream);
        Ok(answer)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let opened = self.shared.namespace.run(open).await?;
        let socket = TcpSocket::from_std_stream(opened?);
        socket.connect(DOMAIN).await
    }
}

/// A socket whose packets go to Docker's resolver; to be called in the namespace.
fn open() -> io::Result<StdStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::Mark, &MARK)?;
    Ok(StdStream::from(socket))
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    // What is announced is not reserved before it comes.
    let mut message = Vec::new();
    let length = u64::from(length);
    if stream.take(length).read_to_end(&mut message).await? as u64 == length {
        Ok(message)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}
