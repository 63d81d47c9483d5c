//! What is behind an upgrade: bytes in both directions, unread, until both ends are done or the socket goes.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::watch;
use tracing::debug;

/// Bytes that are moved at once, in each direction.
const PIECE: usize = 64 << 10;

/// Joins the client's connection and the engine's. An end that is closed for writing is passed on: the other direction stays.
pub(super) async fn join(client: OnUpgrade, engine: OnUpgrade, mut stopped: watch::Receiver<bool>) {
    let passed = async {
        let (client, engine) = tokio::try_join!(client, engine)?;
        let (mut client, mut engine) = (TokioIo::new(client), TokioIo::new(engine));
        let moved = copy_bidirectional_with_sizes(&mut client, &mut engine, PIECE, PIECE).await;
        Ok::<_, hyper::Error>(moved)
    };
    let ended = tokio::select! {
        ended = passed => ended,
        _ = stopped.wait_for(|stop| *stop) => return,
    };
    match ended {
        Ok(Ok((sent, received))) => debug!(sent, received, "a stream has ended"),
        Ok(Err(error)) => debug!(%error, "a stream was cut"),
        Err(error) => debug!(%error, "a connection was not upgraded"),
    }
}
