//! A connection's stream, watched: when a request began, and how long its header takes.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};

use super::Limits;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Between requests: nothing of the next one was read.
    Idle = 0,
    /// A part of a header was read.
    Header = 1,
    /// From the end of the header to the end of the response.
    Busy = 2,
}

/// The phase of a connection, shared by its stream, its calls and its stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::SeqCst);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Idle,
            1 => Phase::Header,
            _ => Phase::Busy,
        }
    }
}

/// A second handle on a unix socket, to close it for reading while the first is owned elsewhere.
#[derive(Debug)]
pub(super) struct ReadingEnd(StdUnixStream);

impl ReadingEnd {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        Ok(Self(stream.as_fd().try_clone_to_owned()?.into()))
    }

    /// From now on the peer cannot send: its next write fails whole, so it knows that nothing of it was
    /// read and may send it elsewhere. What it has sent before is still read.
    pub(super) fn close(&self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Read)
    }
}

/// A stream that sets the phase when a request begins, and fails when a header takes too long.
///
/// Hyper's own header time-out would also close connections that are idle.
pub(super) struct Watched<IO> {
    io: IO,
    progress: Progress,
    header_read: Duration,
    idle: Option<Duration>,
    deadline: Pin<Box<Sleep>>,
    armed_for: Phase,
}

impl<IO> Watched<IO> {
    pub(super) fn new(io: IO, progress: Progress, limits: &Limits) -> Self {
        Self {
            io,
            progress,
            header_read: limits.header_read,
            idle: limits.idle,
            deadline: Box::pin(sleep(limits.header_read)),
            // Arms the deadline at the first poll.
            armed_for: Phase::Busy,
        }
    }

    /// Whether the phase has lasted longer than it may. Polled only when there is nothing to read.
    fn overdue(&mut self, context: &mut Context<'_>) -> bool {
        let phase = self.progress.phase();
        let limit = match phase {
            Phase::Idle => self.idle,
            Phase::Header => Some(self.header_read),
            Phase::Busy => None,
        };
        let rearm = phase != self.armed_for;
        self.armed_for = phase;
        let Some(limit) = limit else { return false };
        if rearm {
            self.deadline.as_mut().reset(Instant::now() + limit);
        }
        self.deadline.as_mut().poll(context).is_ready()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Pending if self.overdue(context) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no whole header in the time a peer has for it",
            ))),
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before && self.progress.phase() == Phase::Idle {
                    self.progress.set(Phase::Header);
                    // The deadline may still be that of an earlier header.
                    self.armed_for = Phase::Busy;
                }
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
