//! A joining host's, and a member's, connection to the first host.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_control_api::Failure;
use drover_pki::tls;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::{denied, internal, invalid, unavailable};
use crate::mirror::chain;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
const ANSWER_BYTES: usize = 4 << 20;

/// A connection to the first host; for one request.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    address: String,
    local: IpAddr,
}

impl Connection {
    /// Connects to `HOST:PORT`, and makes sure that it is whom `config` trusts.
    pub(super) async fn open(address: &str, config: ClientConfig) -> Result<Self, Failure> {
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(invalid(format!(
                "`{address}` is not HOST:PORT, such as 192.0.2.10:4748; copy it from the output of `drover init`"
            )));
        }
        let away = |why: String| {
            unavailable(format!(
                "the first host does not answer at {address} ({why}): check the address, that Drover runs \
                 there, and that no firewall is between"
            ))
        };
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_elapsed| away("time is out".to_owned()))?;
        let stream = stream.map_err(|error| away(error.to_string()))?;
        let local = stream
            .local_addr()
            .map_err(|error| internal(&error))?
            .ip()
            .to_canonical();
        let name = tls::authority_name().map_err(|error| internal(&error))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = tokio::time::timeout(CONNECT, connector.connect(name, stream)).await;
        let stream =
            stream.map_err(|_elapsed| away("time is out in the TLS handshake".to_owned()))?;
        let stream = stream.map_err(|error| distrusted(address, &error))?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            local,
        })
    }

    /// The address that this host reaches the first host from.
    pub(super) const fn local(&self) -> IpAddr {
        self.local
    }

    /// Posts a request; the failure is the first host's own where it gave one.
    pub(super) async fn post<T: Serialize, A: DeserializeOwned>(
        self,
        path: &str,
        request: &T,
    ) -> Result<A, Failure> {
        let address = self.address.clone();
        let away =
            |why: String| unavailable(format!("the first host, {address}, gave no answer: {why}"));
        let body = serde_json::to_vec(request).map_err(|error| internal(&error))?;
        let (status, body) = tokio::time::timeout(ANSWER, self.exchange(path, body))
            .await
            .map_err(|_elapsed| away("time is out".to_owned()))?
            .map_err(|error| away(error.to_string()))?;
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|error| away(error.to_string()));
        }
        let failure = serde_json::from_slice::<Failure>(&body);
        Err(failure.unwrap_or_else(|_other| away(format!("status {status}"))))
    }

    async fn exchange(
        self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.stream)).await?;
        let driver = tokio::spawn(connection);
        let request = hyper::Request::post(path)
            .header("Host", tls::AUTHORITY_NAME)
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await?
            .to_bytes();
        driver.abort();
        Ok((status, body))
    }
}

/// Why the other side is not trusted, or does not trust us.
fn distrusted(address: &str, error: &std::io::Error) -> Failure {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    let source = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    match source {
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => denied(format!(
            "the certificate of the host at {address} is not valid at this host's time: check the clocks \
             of both"
        )),
        Some(rustls::Error::InvalidCertificate(
            NotValidForName | NotValidForNameContext { .. },
        )) => denied(format!(
            "the host at {address} is in the cluster, but is not its first host: take the address \
                 from the output of `drover init`"
        )),
        Some(rustls::Error::InvalidCertificate(_)) => denied(format!(
            "the host at {address} is not of the cluster of the token: its authority has another \
             fingerprint; check the address, and make a token on that cluster's first host"
        )),
        _ => unavailable(format!(
            "the host at {address} does not speak Drover's join protocol: {}",
            chain(error)
        )),
    }
}
