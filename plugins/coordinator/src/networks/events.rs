//! Listens to the engine. An event says no more than "look again"; only that a network was removed
//! is remembered, as it tells a removal that is done from one that is under way.

use drover_engine::{Engine, Event, EventFilter};

use super::Networks;
use super::record::NETWORK_DRIVER;
use crate::context::now;
use crate::mirror::chain;

/// How long to wait before an engine that went away is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Listens for ever.
pub(super) async fn listen(engine: &Engine, networks: &Networks) {
    let mut told = false;
    loop {
        match follow(engine, networks).await {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                tracing::warn!(
                    error = chain(&error),
                    "the engine tells no events; it is tried again"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(engine: &Engine, networks: &Networks) -> Result<(), drover_engine::Error> {
    let mut events = engine.events(EventFilter::Networks, now()).await?;
    tracing::info!("the engine tells its events");
    networks.engine_started();
    while let Some(event) = events.next().await? {
        note(networks, &event);
    }
    Ok(())
}

fn note(networks: &Networks, event: &Event) {
    let driver = event.actor.attributes.get("type");
    let ours = driver.is_some_and(|driver| driver == NETWORK_DRIVER);
    // A network of another driver can have a name that one of ours needs.
    let is_gone = matches!(event.action.as_str(), "destroy" | "remove");
    if ours || is_gone {
        tracing::debug!(
            action = event.action,
            network = event.actor.id,
            "the engine tells"
        );
        if let (true, true, Ok(id)) = (ours, is_gone, event.actor.id.parse()) {
            networks.note_removed(id);
        }
        networks.look_again();
    }
}
