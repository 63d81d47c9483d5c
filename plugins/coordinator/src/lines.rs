//! Streams of JSON lines, gathered into pieces, as the fabric and the registry send them.

use std::time::Duration;

use drover_http::Response;
use serde::Serialize;
use tokio::sync::mpsc;

/// How often an empty line is sent when there is nothing to say.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How many pieces wait for a slow watcher.
const QUEUE: usize = 16;
/// How long a piece gets before it is sent.
const PIECE: usize = 64 << 10;

/// Nobody listens any more.
#[derive(Debug)]
pub struct Gone;

/// Lines, gathered into pieces.
pub struct Pieces {
    sender: mpsc::Sender<bytes::Bytes>,
    piece: Vec<u8>,
}

impl Pieces {
    /// A response, and what fills it. The response ends when this is dropped.
    #[must_use]
    pub fn stream() -> (Self, Response) {
        let (sender, response) = Response::stream("application/x-ndjson", QUEUE);
        let pieces = Self {
            sender,
            piece: Vec::new(),
        };
        (pieces, response)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn event(&mut self, event: &impl Serialize) -> Result<(), Gone> {
        if serde_json::to_writer(&mut self.piece, event).is_ok() {
            self.piece.push(b'\n');
        }
        if self.piece.len() >= PIECE {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.send(piece.into()).await.map_err(|_closed| Gone)
    }

    /// Sends an empty line.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn sign_of_life(&mut self) -> Result<(), Gone> {
        self.piece.push(b'\n');
        self.flush().await
    }

    /// Waits until nobody listens any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// What was gathered and not sent yet.
    #[cfg(test)]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.piece)
    }

    /// Lines that a test reads.
    #[cfg(test)]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<bytes::Bytes>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let piece = Vec::new();
        (Self { sender, piece }, receiver)
    }
}
