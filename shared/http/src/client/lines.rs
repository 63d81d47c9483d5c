//! A response read line by line, as the server sends it.

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{ClientError, Driver};

/// The longest line.
const LONGEST_LINE: usize = 4 << 20;

/// The lines of a response that goes on and on. Dropping it closes the connection.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to have no end of line.
    searched: usize,
    address: String,
    path: String,
    _driver: Driver,
}

impl Lines {
    pub(super) fn new(body: Incoming, address: String, path: &str, driver: Driver) -> Self {
        let buffer = BytesMut::new();
        Self {
            body,
            buffer,
            searched: 0,
            address,
            path: path.to_owned(),
            _driver: driver,
        }
    }

    /// The next line without its end, or `None` when the server has ended the stream in good order.
    ///
    /// An empty line is handed on: it is a sign of life. Cancel-safe: nothing that was read is lost.
    ///
    /// # Errors
    /// When the stream is cut, or a line is too long.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > LONGEST_LINE {
                let (address, path) = (self.address.clone(), self.path.clone());
                return Err(ClientError::TooLong {
                    address,
                    path,
                    limit: LONGEST_LINE,
                });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(source)) => {
                    let (address, path) = (self.address.clone(), self.path.clone());
                    return Err(ClientError::Exchange {
                        address,
                        path,
                        source,
                    });
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(text(&self.buffer.split())));
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let unsearched = self.buffer.get(self.searched..)?;
        let Some(length) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + length + 1);
        self.searched = 0;
        Some(text(&line))
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}
