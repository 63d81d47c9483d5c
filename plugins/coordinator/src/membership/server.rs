//! The join server: a TLS listener on the first host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::Failure;
use drover_daemon::Backoff;
use drover_http::{Limits, Request, Response, Service};
use drover_model::HostName;
use drover_pki::Certificate;
use drover_store::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::admission::Admission;
use super::failure::{denied, internal, invalid, unavailable};
use super::home::{ClusterFile, Home, Role};
use super::protocol::{JOIN, RENEW, RenewRequest, WITHDRAW, WithdrawRequest};
use crate::context::now;

/// How many strangers are listened to at a time.
const CONNECTIONS: usize = 64;
/// How long a stranger may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long one connection is kept.
const CONNECTION: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    body: 256 * 1024,
    header_read: Duration::from_secs(10),
    connections: 1,
    idle: Some(Duration::from_secs(10)),
};

/// Lets hosts in until the stop, where this is the first host; elsewhere it does nothing.
pub(super) async fn serve(
    home: &Home,
    cluster: &ClusterFile,
    store: &Store,
    stop: watch::Receiver<bool>,
) {
    if cluster.role != Role::First {
        return;
    }
    let address = SocketAddr::new(cluster.advertise, home.settings.join_port);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        let failure = match TcpListener::bind(address).await {
            Ok(listener) => match admission(home, cluster, store) {
                Ok(admission) => {
                    tracing::info!(%address, "hosts can join");
                    return accept(listener, home, Arc::new(admission), stop).await;
                }
                Err(failure) => failure,
            },
            Err(error) => unavailable(format!("{address} cannot be listened on: {error}")),
        };
        tracing::error!(%failure, "no host can join");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

pub(super) fn admission(
    home: &Home,
    cluster: &ClusterFile,
    store: &Store,
) -> Result<Admission, Failure> {
    Ok(Admission {
        store: store.clone(),
        authority: home.authority()?,
        cluster: cluster.clone(),
        certificate_lifetime: home.settings.certificate_lifetime,
        turn: Mutex::new(()),
    })
}

async fn accept(
    listener: TcpListener,
    home: &Home,
    admission: Arc<Admission>,
    stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the join server failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Read each time: the certificate is renewed while this runs.
        let config = home.read_identity().and_then(|identity| {
            drover_pki::tls::server(identity.tls()).map_err(|error| internal(&error))
        });
        let acceptor = match config {
            Ok(config) => TlsAcceptor::from(Arc::new(config)),
            Err(failure) => {
                tracing::error!(%failure, "the join server has no certificate");
                continue;
            }
        };
        let (admission, stop) = (Arc::clone(&admission), stop.clone());
        tokio::spawn(async move {
            let work = tokio::time::timeout(CONNECTION, talk(acceptor, stream, admission, stop));
            if let Ok(Err(error)) = work.await {
                tracing::info!(%peer, %error, "a connection to the join server was not TLS as it should be");
            }
            drop(slot);
        });
    }
}

async fn talk(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    admission: Arc<Admission>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let shown = shown.and_then(|shown| Certificate::from_der(shown).ok());
    let desk = Arc::new(Desk { admission, shown });
    drover_http::serve_connection(stream, desk, LIMITS, stop).await;
    Ok(())
}

/// Serves one connection.
struct Desk {
    admission: Arc<Admission>,
    /// The certificate that was shown, if one was.
    shown: Option<Certificate>,
}

impl Service for Desk {
    async fn call(&self, request: Request) -> Response {
        let answered = match (request.method.as_str(), request.path.as_str()) {
            ("POST", JOIN) => self.join(&request.body).await,
            ("POST", RENEW) => self.renew(&request.body).await,
            ("POST", WITHDRAW) => self.withdraw(&request.body).await,
            (_, path) => return Response::not_found(path),
        };
        answered.unwrap_or_else(|failure| {
            tracing::warn!(%failure, path = request.path, "refused");
            Response::failure(&failure)
        })
    }
}

impl Desk {
    async fn join(&self, body: &[u8]) -> Result<Response, Failure> {
        answer(&self.admission.join(&decode(body)?, now()).await?)
    }

    async fn renew(&self, body: &[u8]) -> Result<Response, Failure> {
        let request: RenewRequest = decode(body)?;
        let name = self.asker(&request.member)?;
        answer(&self.admission.renew(&name, &request, now()).await?)
    }

    async fn withdraw(&self, body: &[u8]) -> Result<Response, Failure> {
        let request: WithdrawRequest = decode(body)?;
        let name = self.asker(&request.member)?;
        answer(&self.admission.withdraw(&name, &request).await?)
    }

    /// The name of the host that has shown its certificate. A host that was removed still has one, and may
    /// not speak for the host that has its name now.
    fn asker(&self, member: &str) -> Result<HostName, Failure> {
        let missing = || denied("this needs the certificate of a host of the cluster");
        let shown = self.shown.as_ref().ok_or_else(missing)?;
        if shown.member().is_some_and(|shown| shown != member) {
            return Err(denied(format!(
                "the certificate is of an earlier membership of host `{}`: run `drover leave` there, then join \
                 again",
                shown.name()
            )));
        }
        shown.name().parse().map_err(|_invalid| missing())
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the last step of methods that can fail"
)]
fn answer<T: Serialize>(answer: &T) -> Result<Response, Failure> {
    Ok(Response::json(200, answer))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    // What serde says could quote the secret.
    serde_json::from_slice(body).map_err(|_quotes| {
        invalid("the request is not one that this version of Drover understands; use the same version on all hosts")
    })
}
