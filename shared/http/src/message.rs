//! Requests and responses as a service sees them: bodies in memory, or a stream of pieces.

use bytes::Bytes;
use drover_control_api::{Failure, FailureKind};
use hyper::Method;
use serde::Serialize;
use tokio::sync::mpsc;

/// The content type of JSON.
const JSON: &str = "application/json";

/// The process at the other end of a unix socket, as the kernel vouches for it (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its effective user id when it connected; `None` over TCP.
    pub uid: Option<u32>,
    /// Its process id in this process's namespace; `None` over TCP and from a foreign namespace.
    pub pid: Option<i32>,
}

/// A request, its body read whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, with its leading slash, without the query.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// The body; empty when there was none.
    pub body: Bytes,
    /// Who asks.
    pub peer: PeerIdentity,
}

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Full(Bytes),
    /// Pieces, each sent as it comes; the response ends when every sender is gone, or at a stop.
    Stream(mpsc::Receiver<Bytes>),
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A JSON body.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self {
                status,
                content_type: JSON,
                body: Body::Full(bytes.into()),
            },
            Err(error) => Self::text(500, format!("the answer is not representable: {error}")),
        }
    }

    /// A line of plain text.
    #[must_use]
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let body = Body::Full(Bytes::from(text.into()));
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }

    /// A failure of the control API, with the status that goes with it.
    #[must_use]
    pub fn failure(failure: &Failure) -> Self {
        Self::json(failure.status(), failure)
    }

    /// `404`, in the form of the control API.
    #[must_use]
    pub fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let message = format!("there is no method `{path}`");
        Self::failure(&Failure::new(FailureKind::NotFound, message))
    }

    /// A `200` whose body is sent piece by piece, and the sender of the pieces.
    ///
    /// The sender learns from [`mpsc::Sender::closed`] that nobody listens any more.
    #[must_use]
    pub fn stream(content_type: &'static str, queue: usize) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        (
            sender,
            Self {
                status: 200,
                content_type,
                body: Body::Stream(receiver),
            },
        )
    }

    /// The same response under another content type.
    #[must_use]
    pub fn with_content_type(self, content_type: &'static str) -> Self {
        Self {
            content_type,
            ..self
        }
    }
}
