//! A server under test, in a directory of its own.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_http::{Client, Limits, Request, Response, Service, serve};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A service for tests: a path a behaviour.
pub(crate) struct Behaviours {
    /// A permit for every `/wait` that has begun, and for every one that has ended.
    pub(crate) began: Semaphore,
    pub(crate) ended: Semaphore,
    /// A permit lets one `/wait` go on.
    pub(crate) go: Semaphore,
    /// The senders of streams that were asked for.
    pub(crate) streams: std::sync::Mutex<Vec<mpsc::Sender<Bytes>>>,
}

impl Service for Behaviours {
    async fn call(&self, request: Request) -> Response {
        match request.path.as_str() {
            "/echo" => Response::text(200, String::from_utf8_lossy(&request.body).into_owned()),
            "/who" => Response::text(200, format!("{:?}", request.peer)),
            "/query" => Response::text(200, request.query.unwrap_or_default()),
            "/wait" => {
                self.began.add_permits(1);
                self.go.acquire().await.unwrap().forget();
                self.ended.add_permits(1);
                Response::text(200, "waited")
            }
            "/bug" => panic!("a bug"),
            "/stream" => {
                let (sender, response) = Response::stream("application/json", 4);
                self.streams.lock().unwrap().push(sender);
                response
            }
            path => Response::not_found(path),
        }
    }
}

pub(crate) struct Serving {
    pub(crate) service: Arc<Behaviours>,
    pub(crate) socket: PathBuf,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) server: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Serving {
    pub(crate) fn start(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("test.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let none = || Semaphore::new(0);
        let (began, ended, go) = (none(), none(), none());
        let service = Arc::new(Behaviours {
            began,
            ended,
            go,
            streams: Default::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, service.clone(), limits, stopped));
        Self {
            service,
            socket,
            stop,
            server,
            _directory: directory,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::unix(&self.socket)
    }

    pub(crate) fn raw(&self) -> StdStream {
        let stream = StdStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Waits until the server has ended, and fails when it does not.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(10), self.server)
            .await
            .unwrap()
            .unwrap();
    }
}

/// A request as an engine writes it.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: \r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Reads one response with a Content-Length, on a thread where it may block.
pub(crate) async fn response(mut stream: StdStream) -> (String, StdStream) {
    tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            text.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&text).to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|it| it.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |it| it.parse().unwrap())];
        stream.read_exact(&mut body).unwrap();
        text.extend(body);
        (String::from_utf8(text).unwrap(), stream)
    })
    .await
    .unwrap()
}

/// Whether the peer has closed in good order.
pub(crate) async fn at_end(mut stream: StdStream) -> bool {
    let read = move || matches!(stream.read(&mut [0]), Ok(0));
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Writes all on a thread where it may block.
pub(crate) async fn write(mut stream: StdStream, bytes: Vec<u8>) -> std::io::Result<StdStream> {
    let write = move || stream.write_all(&bytes).map(|()| stream);
    tokio::task::spawn_blocking(write).await.unwrap()
}

/// Waits until this many things have happened.
pub(crate) async fn happened(count: u32, what: &Semaphore) {
    tokio::time::timeout(SOON, what.acquire_many(count))
        .await
        .unwrap()
        .unwrap()
        .forget();
}
