//! One call through a role's socket: judged, sent to the engine, and its answer passed on.

mod headers;
mod read;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_daemon::AUTHORIZATION_HEADER;
use drover_policy::{Mode, Principal};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::answer::{self, Passed, Refusal, refusal};
use super::configuration::SocketSettings;
use super::{events, list, tunnel};
use crate::judge::{Judge, Sight};
use headers::remove_hop_by_hop;
use read::{Read, read};

/// The longest list that is filtered.
const LONGEST_LIST: usize = 256 << 20;
/// How long the engine may take to take a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Operations that go on as a stream of bytes in both directions. Others are not upgraded: what a client says then would
/// reach the engine unread.
const UPGRADED: &[&str] = &[
    "ContainerAttach",
    "ContainerAttachWebsocket",
    "ExecStart",
    "Session",
    "Grpc",
];
/// What a socket's calls go through.
#[derive(Debug)]
pub(super) struct Door {
    judge: Arc<Judge>,
    engine: PathBuf,
    token: String,
    principal: Principal,
    mode: Mode,
}

/// The task that moves a connection's bytes, ended when its answer is not wanted any more.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Door {
    pub(super) fn new(
        judge: Arc<Judge>,
        engine: PathBuf,
        token: String,
        settings: &SocketSettings,
    ) -> Self {
        Self {
            judge,
            engine,
            token,
            principal: Principal {
                name: settings.user_name(),
                role: Some(settings.role.clone()),
            },
            mode: if settings.monitor {
                Mode::Monitor
            } else {
                Mode::Enforce
            },
        }
    }

    /// A call and its answer.
    pub(super) async fn pass(
        self: Arc<Self>,
        request: Request<Incoming>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Response<Passed>, Infallible> {
        Ok(self
            .answer(request, stopped)
            .await
            .unwrap_or_else(Response::from))
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Response<Passed>, Refusal> {
        let client = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        let mut body = Some(body);
        let read = read(&head, &mut body).await?;
        let call = read.call(&head);
        let judgement = self
            .judge
            .judge(&self.principal, &call, Some(self.mode))
            .await;
        if !judgement.allow {
            return Err(refusal(StatusCode::FORBIDDEN, judgement.message));
        }
        let sent = self.request(&head, &read, body)?;
        let _making = read
            .operation
            .filter(|operation| Judge::notes(operation))
            .map(|_| self.judge.making());
        let (mut answer, driver) = self.send(sent).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let engine = hyper::upgrade::on(&mut answer);
            let (mut head, _) = answer.into_parts();
            let upgrade = head.headers.get(UPGRADE).cloned();
            remove_hop_by_hop(&mut head.headers);
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            if let Some(upgrade) = upgrade {
                head.headers.insert(UPGRADE, upgrade);
            }
            drop(drover_daemon::task::spawn("a stream", async move {
                tunnel::join(client, engine, stopped).await;
                drop(driver);
            }));
            return Ok(Response::from_parts(head, answer::whole(Bytes::new())));
        }
        self.pass_back(&head, &read, answer, driver).await
    }

    /// What goes to the engine in the place of what came.
    fn request(
        &self,
        head: &hyper::http::request::Parts,
        read: &Read,
        body: Option<Incoming>,
    ) -> Result<Request<Passed>, Refusal> {
        let mut headers = head.headers.clone();
        let is_upgraded = read
            .operation
            .is_some_and(|operation| UPGRADED.contains(&operation));
        let upgrade = headers.get(UPGRADE).filter(|_| is_upgraded).cloned();
        remove_hop_by_hop(&mut headers);
        for name in [EXPECT, HOST] {
            headers.remove(name);
        }
        if let Some(upgrade) = upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, upgrade);
        }
        if read.body.is_some() {
            headers.remove(CONTENT_LENGTH);
        }
        if read.operation.is_some_and(|operation| {
            operation == events::OPERATION || list::Shape::of(operation).is_some()
        }) {
            // As plain JSON, which is read here.
            headers.remove(ACCEPT);
            headers.remove(ACCEPT_ENCODING);
        }
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        let bug = |_: hyper::http::Error| {
            refusal(
                StatusCode::BAD_REQUEST,
                "drover: the call cannot be passed on",
            )
        };
        let token = HeaderValue::from_str(&self.token).map_err(|error| bug(error.into()))?;
        let name = HeaderName::from_bytes(AUTHORIZATION_HEADER.as_bytes());
        // In the place of any that the client has sent.
        headers.insert(name.map_err(|error| bug(error.into()))?, token);
        let body = match (&read.body, body) {
            (Some(bytes), _) => answer::whole(bytes.clone()),
            (None, Some(body)) => answer::incoming(body),
            (None, None) => answer::whole(Bytes::new()),
        };
        let mut request = Request::builder()
            .method(head.method.clone())
            .uri(read.uri.as_str())
            .body(body)
            .map_err(bug)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn send(
        &self,
        request: Request<Passed>,
    ) -> Result<(Response<Incoming>, Driver), Refusal> {
        let gone = |fault: String| {
            warn!(engine = %self.engine.display(), %fault, "a call through a role's socket did not reach the engine");
            let message = format!("drover: the engine does not answer: {fault}");
            refusal(StatusCode::BAD_GATEWAY, message)
        };
        let connected = tokio::time::timeout(CONNECT_TIME, UnixStream::connect(&self.engine)).await;
        let stream = connected
            .map_err(|elapsed| gone(elapsed.to_string()))?
            .map_err(|error| gone(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| gone(error.to_string()))?;
        // Its failure is that of the request or of the body, which tell it.
        let driver = Driver(tokio::spawn(async move {
            drop(connection.with_upgrades().await);
        }));
        let answer = sender.send_request(request).await;
        Ok((answer.map_err(|error| gone(error.to_string()))?, driver))
    }

    /// The engine's answer: filtered, noted, or as it comes.
    async fn pass_back(
        &self,
        head: &hyper::http::request::Parts,
        read: &Read,
        answer: Response<Incoming>,
        driver: Driver,
    ) -> Result<Response<Passed>, Refusal> {
        let (mut answer_head, body) = answer.into_parts();
        remove_hop_by_hop(&mut answer_head.headers);
        let operation = read.operation.unwrap_or_default();
        let well = answer_head.status == StatusCode::OK;
        let is_filtered = well && head.method != hyper::Method::HEAD && self.mode == Mode::Enforce;
        if is_filtered && operation == events::OPERATION {
            let sight = self.judge.clone().sight(&self.principal);
            answer_head.headers.remove(CONTENT_LENGTH);
            let body = events::filtered(body, driver, sight);
            return Ok(Response::from_parts(answer_head, body));
        }
        if is_filtered && let Some(shape) = list::Shape::of(operation) {
            let sight = self.judge.clone().sight(&self.principal);
            let text = collect(body).await?;
            let text = filtered(shape, &answer_head.headers, &text, &sight)?;
            answer_head.headers.remove(CONTENT_LENGTH);
            return Ok(Response::from_parts(answer_head, answer::whole(text)));
        }
        if Judge::notes(operation) {
            let text = collect(body).await?;
            let status = answer_head.status.as_u16();
            let call = read.call(head);
            self.judge.note(&self.principal, &call, status, &text);
            return Ok(Response::from_parts(answer_head, answer::whole(text)));
        }
        // The connection lives as long as what comes by it is wanted.
        let body = body.map_frame(move |frame| {
            let _keep = &driver;
            frame
        });
        Ok(Response::from_parts(answer_head, body.boxed_unsync()))
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, LONGEST_LIST).collect().await;
    let collected = collected.map_err(|error| {
        let message = format!("drover: the engine's answer was cut off: {error}");
        refusal(StatusCode::BAD_GATEWAY, message)
    })?;
    Ok(collected.to_bytes())
}

/// What of a list may be seen. What is not understood is not shown.
fn filtered(
    shape: list::Shape,
    headers: &HeaderMap,
    text: &[u8],
    sight: &Sight,
) -> Result<Bytes, Refusal> {
    let shown = if headers.contains_key(CONTENT_ENCODING) {
        Err("it is encoded".to_owned())
    } else {
        list::filtered(shape, text, sight)
    };
    shown.map(Bytes::from).map_err(|fault| {
        warn!(%fault, "a list of the engine was not understood, and is not shown");
        let message = format!("drover: the engine's list was not understood: {fault}");
        refusal(StatusCode::BAD_GATEWAY, message)
    })
}
