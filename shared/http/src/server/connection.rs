//! One connection: its requests one after the other, and its end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::body::{self, Outgoing};
use super::stream::{Phase, Progress, ReadingEnd, Watched};
use super::{DRAIN, Limits, Service};
use crate::{PeerIdentity, Request, Response};

/// The longest header, and how many fields it may have.
const HEADER_BYTES: usize = 64 << 10;
const HEADER_FIELDS: usize = 64;

/// What a connection is served with.
pub(super) struct Connection<S> {
    pub(super) service: Arc<S>,
    pub(super) limits: Limits,
    pub(super) stop: watch::Receiver<bool>,
    /// Held by every call for as long as it runs.
    pub(super) calls: mpsc::Sender<()>,
    pub(super) peer: PeerIdentity,
}

impl<S: Service> Connection<S> {
    /// Serves until the peer is done, or until a stop and what it had sent by then is answered.
    pub(super) async fn run<IO>(self, io: IO, reading_end: Option<ReadingEnd>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let progress = Progress::default();
        let io = TokioIo::new(Watched::new(io, progress.clone(), &self.limits));
        let mut stop = self.stop.clone();
        let connection = Arc::new(self);
        let service = service_fn(|request| exchange(connection.clone(), request, progress.clone()));
        let mut served = pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                // The stream watches the header; hyper's time-out closes idle connections too.
                .header_read_timeout(None)
                .max_buf_size(HEADER_BYTES)
                .max_headers(HEADER_FIELDS)
                // A peer that has said all may close its side and wait for the answer.
                .half_close(true)
                .serve_connection(io, service)
        );
        let ended = tokio::select! {
            ended = served.as_mut() => Some(ended),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let ended = match ended {
            Some(ended) => Ok(ended),
            None => {
                match (progress.phase(), reading_end) {
                    (Phase::Idle, Some(end)) if end.close().is_ok() => {}
                    (Phase::Idle | Phase::Busy, _) => served.as_mut().graceful_shutdown(),
                    // Hyper would close a connection that it had begun to read from; `exchange`
                    // ends it with the response.
                    (Phase::Header, _) => {}
                }
                tokio::time::timeout(DRAIN, served).await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "a connection ended early"),
            Err(_) => debug!("a connection was cut at the stop"),
        }
    }
}

/// One request and its response.
async fn exchange<S: Service>(
    connection: Arc<Connection<S>>,
    request: hyper::Request<Incoming>,
    progress: Progress,
) -> Result<hyper::Response<Outgoing>, Infallible> {
    progress.set(Phase::Busy);
    let (head, body) = request.into_parts();
    let service = &connection.service;
    let mut close = false;
    let response = match body::read(body, &connection.limits).await {
        Ok(body) => {
            let request = Request {
                method: head.method,
                path: head.uri.path().to_owned(),
                query: head.uri.query().map(ToOwned::to_owned),
                body,
                peer: connection.peer,
            };
            call(&connection, request).await
        }
        Err(refusal) => {
            close = true;
            service.refuse(refusal.status(), &refusal.reason(&connection.limits))
        }
    };
    let body = Outgoing::new(response.body, progress, &connection.stop);
    let mut wire = hyper::Response::new(body);
    *wire.status_mut() =
        StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_static(response.content_type);
    wire.headers_mut().insert(CONTENT_TYPE, content_type);
    if close || *connection.stop.borrow() {
        wire.headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(wire)
}

/// Calls the service in a task of its own: the peer's going away drops only the wait.
async fn call<S: Service>(connection: &Connection<S>, request: Request) -> Response {
    let (service, running) = (connection.service.clone(), connection.calls.clone());
    let path = request.path.clone();
    let call = tokio::spawn(async move {
        let response = service.call(request).await;
        drop(running);
        response
    });
    call.await.unwrap_or_else(|ended| {
        error!(%path, error = %ended, "a call ended without an answer");
        connection
            .service
            .refuse(500, "the call ended in a bug; the log has the details")
    })
}
