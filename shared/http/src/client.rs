//! The client: one connection a call, over a unix socket or TCP, each call with its own time limit.

mod lines;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

pub use lines::Lines;

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 << 20;
/// How long a stream may take to begin.
const STREAM_BEGINS: Duration = Duration::from_secs(10);

/// Where a server is.
#[derive(Debug)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// A client of one server. Clones are cheap; nothing is kept open between calls.
#[derive(Debug, Clone)]
pub struct Client {
    address: Arc<Address>,
    header: Option<Arc<(&'static str, String)>>,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is in no form that is known.
    #[error("`{0}` is not an address: use unix:///PATH or tcp://HOST:PORT")]
    Address(String),
    /// Nobody listens there.
    #[error("cannot connect to `{address}`")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The request or its answer was cut, or was not HTTP.
    #[error("`{path}` on `{address}` was cut off")]
    Exchange {
        /// Where.
        address: String,
        /// What was asked.
        path: String,
        /// What happened.
        source: hyper::Error,
    },
    /// No answer within the limit.
    #[error("`{path}` on `{address}` was not answered within {limit:?}")]
    TimedOut {
        /// Where.
        address: String,
        /// What was asked.
        path: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer, or a line of it, is longer than is read.
    #[error("the answer of `{address}` to `{path}` is longer than {limit} bytes")]
    TooLong {
        /// Where.
        address: String,
        /// What was asked.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// A stream was asked for, and refused.
    #[error("`{path}` on `{address}` was refused with status {status}: {body}")]
    Refused {
        /// Where.
        address: String,
        /// What was asked.
        path: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The request cannot be put on the wire.
    #[error("`{path}` is not a request")]
    Request {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        source: hyper::http::Error,
    },
}

impl ClientError {
    /// Whether the server was not reached at all, so that nothing was done.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}

/// The task that moves a connection's bytes, ended when its owner is done.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Sender = SendRequest<Full<Bytes>>;

impl Client {
    /// A client of the server on this socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            address: Arc::new(Address::Unix(path.into())),
            header: None,
        }
    }

    /// A client of the engine at a `DOCKER_HOST`: `unix:///PATH` or `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// When the address has another form.
    pub fn tcp_docker_host(address: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(address.chars().take(200).collect());
        let address = if let Some(path) = address.strip_prefix("unix://") {
            Some(path)
                .filter(|path| path.starts_with('/'))
                .map(|path| Address::Unix(path.into()))
        } else {
            let authority = address
                .strip_prefix("tcp://")
                .map(|rest| rest.trim_end_matches('/'));
            authority
                .filter(|authority| is_authority(authority))
                .map(|authority| Address::Tcp(authority.to_owned()))
        };
        Ok(Self {
            address: Arc::new(address.ok_or_else(wrong)?),
            header: None,
        })
    }

    /// The same with a header that every request gets.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: &str) -> Self {
        Self {
            header: Some(Arc::new((name, value.to_owned()))),
            ..self
        }
    }

    /// Where the server is, as a person writes it.
    #[must_use]
    pub fn address(&self) -> String {
        match &*self.address {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(authority) => authority.clone(),
        }
    }

    /// Sends one request and waits at most `limit` for the whole answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        method: hyper::Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let exchange = async {
            let (response, _driver) = self.exchange(method, path, body).await?;
            let status = response.status().as_u16();
            let body = self.collect(response.into_body(), path).await?;
            Ok(Answer { status, body })
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(path, limit)))
    }

    /// Opens a stream of lines (`GET`), such as the engine's events or the fabric.
    ///
    /// # Errors
    /// When it does not begin within ten seconds, or with another status than 200.
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let begin = async {
            let (response, driver) = self.exchange(hyper::Method::GET, path, None).await?;
            let status = response.status().as_u16();
            if status == 200 {
                return Ok(Lines::new(
                    response.into_body(),
                    self.address(),
                    path,
                    driver,
                ));
            }
            let body = self.collect(response.into_body(), path).await?;
            let body = String::from_utf8_lossy(&body)
                .trim()
                .chars()
                .take(500)
                .collect();
            Err(ClientError::Refused {
                address: self.address(),
                path: path.to_owned(),
                status,
                body,
            })
        };
        tokio::time::timeout(STREAM_BEGINS, begin)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(path, STREAM_BEGINS)))
    }

    async fn exchange(
        &self,
        method: hyper::Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(hyper::Response<Incoming>, Driver), ClientError> {
        let (mut sender, driver) = self.connect(path).await?;
        let host = match &*self.address {
            Address::Unix(_) => "localhost",
            Address::Tcp(authority) => authority,
        };
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(header) = &self.header {
            request = request.header(header.0, header.1.as_str());
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|source| ClientError::Request {
                path: path.to_owned(),
                source,
            })?;
        let response = sender.send_request(request).await;
        Ok((response.map_err(|source| self.cut(path, source))?, driver))
    }

    async fn connect(&self, path: &str) -> Result<(Sender, Driver), ClientError> {
        let failed = |source| ClientError::Connect {
            address: self.address(),
            source,
        };
        match &*self.address {
            Address::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(failed)?;
                self.shake_hands(TokioIo::new(stream), path).await
            }
            Address::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(failed)?;
                self.shake_hands(TokioIo::new(stream), path).await
            }
        }
    }

    async fn shake_hands<IO>(&self, io: IO, path: &str) -> Result<(Sender, Driver), ClientError>
    where
        IO: Read + Write + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(io)
            .await
            .map_err(|source| self.cut(path, source))?;
        // Its failure is the failure of the request or of the body, which report it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok((sender, Driver(task)))
    }

    async fn collect(&self, body: Incoming, path: &str) -> Result<Bytes, ClientError> {
        match Limited::new(body, LONGEST_ANSWER).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(self.too_long(path)),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(source) => Err(self.cut(path, *source)),
                Err(_) => Err(self.too_long(path)),
            },
        }
    }

    fn cut(&self, path: &str, source: hyper::Error) -> ClientError {
        ClientError::Exchange {
            address: self.address(),
            path: path.to_owned(),
            source,
        }
    }

    fn timed_out(&self, path: &str, limit: Duration) -> ClientError {
        ClientError::TimedOut {
            address: self.address(),
            path: path.to_owned(),
            limit,
        }
    }

    fn too_long(&self, path: &str) -> ClientError {
        let (address, path) = (self.address(), path.to_owned());
        ClientError::TooLong {
            address,
            path,
            limit: LONGEST_ANSWER,
        }
    }
}

/// Whether this is `HOST:PORT`.
fn is_authority(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
