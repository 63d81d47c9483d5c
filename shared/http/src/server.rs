//! The server: accepts, reads requests whole, calls the service, answers, and stops without loss.
//!
//! ```text
//! listener -> connection task (at most Limits::connections) -> request read (bounded) -> call task
//!                    ^ stop: nothing more is accepted, what was sent is answered, at most DRAIN
//! ```
//! A call runs in a task of its own, so that a peer that goes away does not cut it in the middle.

mod body;
mod connection;
mod stream;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::{Failure, FailureKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::{PeerIdentity, Request, Response};
use connection::Connection;

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when the kernel refused (out of descriptors, mostly).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. It is run to its end even if the asker goes away.
    fn call(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// The response to a request that is not handed to [`Service::call`]: its body is too long (413),
    /// did not arrive in time (408) or was cut (400), or the call ended in a bug (500).
    fn refuse(&self, status: u16, reason: &str) -> Response {
        let kind = if status >= 500 {
            FailureKind::Internal
        } else {
            FailureKind::InvalidInput
        };
        Response::json(status, &Failure::new(kind, reason))
    }
}

/// What a peer may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest body, bytes.
    pub body: usize,
    /// How long the header of a request may take from its first byte, and then its body.
    pub header_read: Duration,
    /// How many connections are served at a time; more wait in the listener's queue.
    pub connections: usize,
    /// How long a connection may stay without a request. `None`, for ever, is right where the peers are
    /// trusted: an engine keeps its connection, and closing it could cross a request.
    pub idle: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1 << 20,
            header_read: Duration::from_secs(10),
            connections: 512,
            idle: None,
        }
    }
}

/// Serves until `stop` is true (or its sender is gone) and everything under way has been answered.
pub async fn serve<S: Service>(
    listener: UnixListener,
    service: Arc<S>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (calls, mut calls_ended) = mpsc::channel::<()>(1);
    let mut connections = JoinSet::new();
    let mut stopped = stop.clone();
    let serve_unix =
        |stream| serve_unix(stream, service.clone(), limits, stop.clone(), calls.clone());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, slot)) = accepted else {
            continue;
        };
        let served = serve_unix(stream);
        connections.spawn(async move {
            served.await;
            drop(slot);
        });
    }
    for stream in waiting(listener) {
        connections.spawn(serve_unix(stream));
    }
    drop(calls);
    let drained = tokio::time::timeout(DRAIN, async {
        while connections.join_next().await.is_some() {}
        // Nothing is ever sent: this ends when the last call has dropped its sender.
        calls_ended.recv().await
    });
    if drained.await.is_err() {
        warn!("stopped with calls still under way after {DRAIN:?}");
    }
}

/// The connections that wait in the listener's queue, where a peer may have sent a request already: with
/// the listener they would be reset.
fn waiting(listener: UnixListener) -> Vec<UnixStream> {
    let Ok(listener) = listener.into_std() else {
        return Vec::new();
    };
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    accepted
        .filter_map(|(stream, _)| {
            stream.set_nonblocking(true).ok()?;
            UnixStream::from_std(stream).ok()
        })
        .collect()
}

/// Serves one connection that is not a unix socket, such as a TLS stream.
///
/// The peer is unknown to this crate ([`PeerIdentity::default`]); a caller that has authenticated it
/// gives each connection a service that knows.
pub async fn serve_connection<S, IO>(
    io: IO,
    service: Arc<S>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) where
    S: Service,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (calls, mut calls_ended) = mpsc::channel(1);
    let peer = PeerIdentity::default();
    let connection = Connection {
        service,
        limits,
        stop,
        calls,
        peer,
    };
    connection.run(io, None).await;
    calls_ended.recv().await;
}

type Accepted = Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)>;

/// Waits for a slot and then for a connection; `None` when there was none to be had.
///
/// Cancel-safe: what is lost is a permit, which goes back.
async fn accept(listener: &UnixListener, slots: &Arc<Semaphore>) -> Accepted {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            warn!(%error, "a connection was not accepted");
            tokio::time::sleep(ACCEPT_AGAIN).await;
            None
        }
    }
}

async fn serve_unix<S: Service>(
    stream: UnixStream,
    service: Arc<S>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    calls: mpsc::Sender<()>,
) {
    let peer = peer_identity(&stream);
    let reading_end = stream::ReadingEnd::of(&stream);
    if let Err(error) = &reading_end {
        debug!(%error, "a connection cannot be closed for reading alone");
    }
    let connection = Connection {
        service,
        limits,
        stop,
        calls,
        peer,
    };
    connection.run(stream, reading_end.ok()).await;
}

fn peer_identity(stream: &UnixStream) -> PeerIdentity {
    match stream.peer_cred() {
        // A peer in a namespace that this process cannot see has process id 0.
        Ok(peer) => PeerIdentity {
            uid: Some(peer.uid()),
            pid: peer.pid().filter(|pid| *pid > 0),
        },
        Err(error) => {
            warn!(%error, "the peer of a connection is unknown");
            PeerIdentity::default()
        }
    }
}
