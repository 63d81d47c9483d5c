//! Listens to the engine: which containers are to be looked at again.

use std::time::Duration;

use drover_engine::{Engine, EventFilter};
use tokio::sync::mpsc;

use crate::context::now;
use crate::mirror::chain;

/// How long to wait before an engine that went away is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What the engine tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Something happened to this container.
    Container(String),
    /// The stream has begun; what happened before it is not known.
    Everything,
}

/// Listens until nobody wants to be told.
pub(super) async fn listen(engine: &Engine, told: mpsc::Sender<Told>) {
    while !told.is_closed() {
        // That the engine does not answer is told by those who need its answers.
        if let Err(error) = follow(engine, &told).await {
            tracing::debug!(error = chain(&error), "the engine's events have ended");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(engine: &Engine, told: &mpsc::Sender<Told>) -> Result<(), drover_engine::Error> {
    let filter = EventFilter::NetworksAndContainers;
    let mut events = engine.events(filter, now()).await?;
    if told.send(Told::Everything).await.is_err() {
        return Ok(());
    }
    while let Some(event) = events.next().await? {
        let Some(container) = event.container() else {
            continue;
        };
        tracing::debug!(action = event.action, container, "the engine tells");
        if told
            .send(Told::Container(container.to_owned()))
            .await
            .is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}
