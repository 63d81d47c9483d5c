//! Bodies on the wire: reading a request's within its limit, writing a response's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::{mpsc, watch};

use super::Limits;
use super::stream::{Phase, Progress};
use crate::Body;

/// How much of a body that is too long is read and thrown away, so that its sender, who may not read
/// before it has written all, gets to see the refusal.
const SWALLOW: usize = 16 << 20;
/// How long that may take.
const SWALLOW_TIME: Duration = Duration::from_secs(2);

/// Why there is no body to hand on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Longer than the limit.
    TooLong,
    /// Not there in time.
    TooSlow,
    /// The peer went away in the middle, or sent something that is no body.
    Cut,
}

impl Refusal {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::TooLong => 413,
            Self::TooSlow => 408,
            Self::Cut => 400,
        }
    }

    pub(super) fn reason(&self, limits: &Limits) -> String {
        match self {
            Self::TooLong => format!("the request body is longer than {} bytes", limits.body),
            Self::TooSlow => {
                format!(
                    "the request body did not arrive within {:?}",
                    limits.header_read
                )
            }
            Self::Cut => "the request body is not whole".to_owned(),
        }
    }
}

/// Reads a body whole, or says why not; after [`Refusal::TooLong`] what was sent has been read away.
pub(super) async fn read(mut body: Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).is_ok_and(|length| length <= limits.body) {
        let collect = Limited::new(&mut body, limits.body).collect();
        match tokio::time::timeout(limits.header_read, collect).await {
            Ok(Ok(collected)) => return Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {}
            Ok(Err(_)) => return Err(Refusal::Cut),
            Err(_) => return Err(Refusal::TooSlow),
        }
    }
    let swallow = async {
        let mut left = SWALLOW;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Too slow or too long to be thrown away: the refusal goes out all the same.
    drop(tokio::time::timeout(SWALLOW_TIME, swallow).await);
    Err(Refusal::TooLong)
}

type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Content {
    Full(Bytes),
    Stream {
        pieces: mpsc::Receiver<Bytes>,
        stopped: Stopped,
    },
}

/// The body of a response on its way out. The connection is idle again when it is dropped.
pub(super) struct Outgoing {
    content: Content,
    progress: Progress,
}

impl Outgoing {
    pub(super) fn new(body: Body, progress: Progress, stop: &watch::Receiver<bool>) -> Self {
        let content = match body {
            Body::Full(bytes) => Content::Full(bytes),
            Body::Stream(pieces) => {
                let mut stop = stop.clone();
                let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
                Content::Stream {
                    pieces,
                    stopped: Box::pin(stopped),
                }
            }
        };
        Self { content, progress }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.progress.set(Phase::Idle);
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Stream { pieces, stopped } => {
                if let Poll::Ready(piece) = pieces.poll_recv(context) {
                    return Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))));
                }
                stopped.as_mut().poll(context).map(|()| None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream { .. } => SizeHint::default(),
        }
    }
}
