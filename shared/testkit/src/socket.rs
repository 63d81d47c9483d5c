//! A plugin's socket as an engine uses it: kept connections, and a retry that has lost the body.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::Fault;

/// Engines wait for ever. A test says "hung" after this.
const PATIENCE: Duration = Duration::from_secs(60);
/// The engine's pauses between tries, in units of [`PluginSocket::with_pause`].
const PAUSES: [u32; 4] = [1, 2, 4, 8];

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// How a try failed.
enum Failed {
    /// Nothing was sent: the body is still there for the next try.
    Unsent(io::Error),
    /// Something was sent: the engine's buffer is drained, and the next try has no body.
    Sent(io::Error),
}

/// A plugin's socket.
#[derive(Debug)]
pub struct PluginSocket {
    path: PathBuf,
    host: String,
    pause: Duration,
    idle: Mutex<Vec<UnixStream>>,
}

impl PluginSocket {
    /// A socket, called with this `Host` header.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, host: &str) -> Self {
        Self {
            path: path.into(),
            host: host.to_owned(),
            pause: Duration::from_secs(1),
            idle: Mutex::default(),
        }
    }

    /// Sets the unit of the pauses between tries; a second in an engine.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Posts a JSON body and a newline, or an empty body, as an engine does: five tries.
    ///
    /// # Errors
    /// When none of them was answered.
    pub fn post(&self, method: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let mut bytes = body
            .map(|body| format!("{body}\n").into_bytes())
            .unwrap_or_default();
        let mut pauses = PAUSES.iter();
        loop {
            let source = match self.attempt(method, &bytes) {
                Ok(reply) => return Ok(reply),
                Err(Failed::Unsent(error)) => error,
                Err(Failed::Sent(error)) => {
                    bytes.clear();
                    error
                }
            };
            let Some(pause) = pauses.next() else {
                let (method, socket) = (method.to_owned(), self.path.clone());
                return Err(Fault::Transport {
                    method,
                    socket,
                    source,
                });
            };
            thread::sleep(self.pause * *pause);
        }
    }

    /// Posts bytes once, and does not wait for the answer: the connection is in the caller's hands.
    ///
    /// # Errors
    /// When the plugin is not there.
    pub fn send_only(&self, method: &str, bytes: &[u8]) -> io::Result<UnixStream> {
        let mut stream = self.connect()?;
        stream.write_all(&self.request(method, bytes))?;
        Ok(stream)
    }

    /// Posts bytes on a connection of [`Self::send_only`] whose answer has been read.
    ///
    /// # Errors
    /// When the plugin has closed it.
    pub fn send_again(
        &self,
        mut stream: &UnixStream,
        method: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        stream.write_all(&self.request(method, bytes))
    }

    /// Reads the answer on a connection of [`Self::send_only`].
    ///
    /// # Errors
    /// When there is none.
    pub fn receive(&self, stream: &UnixStream) -> io::Result<Reply> {
        receive(stream).map(|(reply, _)| reply)
    }

    fn attempt(&self, method: &str, bytes: &[u8]) -> Result<Reply, Failed> {
        let request = self.request(method, bytes);
        let stream = match self.take_idle() {
            // A kept connection that takes nothing was closed: Go then dials anew, with the body.
            Some(kept) if (&kept).write_all(&request).is_ok() => kept,
            _ => {
                let mut stream = self.connect().map_err(Failed::Unsent)?;
                stream.write_all(&request).map_err(Failed::Sent)?;
                stream
            }
        };
        let (reply, keep) = receive(&stream).map_err(Failed::Sent)?;
        if keep {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(stream);
        }
        Ok(reply)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A kept connection whose other end is still open.
    fn take_idle(&self) -> Option<UnixStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(stream) = idle.pop() {
            stream.set_nonblocking(true).ok()?;
            let read = (&stream).read(&mut [0]);
            stream.set_nonblocking(false).ok()?;
            if read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
        None
    }

    /// The headers are those that were recorded: no `Content-Type`, and on 20.10 an empty `Host`.
    fn request(&self, method: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST {method} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
            self.host,
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

/// Reads a response, and says whether the connection is kept.
fn receive(stream: &UnixStream) -> io::Result<(Reply, bool)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| malformed("no status line"))?;
    let (mut length, mut chunked, mut keep) = (None, false, true);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        match line
            .split_once(':')
            .map(|(name, value)| (name, value.trim()))
        {
            Some(("content-length", value)) => length = value.parse::<usize>().ok(),
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(("connection", value)) => keep = value != "close",
            Some(_) => {}
            None => break,
        }
    }
    let body = match length {
        Some(length) => exactly(&mut reader, length)?,
        None if chunked => chunks(&mut reader)?,
        None => return Err(malformed("neither a length nor chunks")),
    };
    Ok((Reply { status, body }, keep))
}

fn exactly(reader: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        body.extend(exactly(reader, length)?);
        exactly(reader, 2)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
