//! When the engine is asked: whenever a call waits for it, and a moment after something has come or gone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_authorization::Kind;
use serde::Deserialize;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Inventory;
use crate::owners::Owners;

/// How long to wait before asking again when the engine did not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(200);
/// What makes names mean something else: things that come, go and are renamed, also without a call.
const EVENTS: &str = "/events?filters=%7B%22event%22%3A%5B%22create%22%2C%22destroy%22%2C%22rename%22%2C%22remove%22%5D%7D";

/// Asks the engine whenever somebody wants it asked, and follows its events, as long as the process runs. What it says to be gone is
/// nobody's.
pub(crate) async fn follow(inventory: Arc<Inventory>, owners: Arc<Owners>) {
    tokio::join!(
        look_when_wanted(&inventory, &owners),
        follow_events(&inventory, &owners),
        look_after_changes(&inventory),
    );
}

async fn look_when_wanted(inventory: &Inventory, owners: &Owners) {
    let mut quiet = false;
    loop {
        match inventory.look().await {
            Ok(()) if quiet => {
                info!("the engine answers again");
                quiet = false;
            }
            Ok(()) => {}
            Err(fault) => {
                if quiet {
                    debug!(%fault, "the engine does not answer");
                } else {
                    warn!(%fault, "the engine does not answer: what is not known is nobody's");
                    quiet = true;
                }
                sleep(AGAIN).await;
                continue;
            }
        }
        inventory.attribute_anonymous_volumes(owners);
        inventory.forget_owners_of_gone(owners);
        // A wish that came meanwhile is there at once.
        inventory.wanted.notified().await;
    }
}

/// An event of the engine.
#[derive(Deserialize)]
struct Event {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default, rename = "Action")]
    action: String,
    #[serde(default, rename = "Actor")]
    actor: Actor,
    #[serde(default, rename = "timeNano")]
    time: u64,
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(default, rename = "ID")]
    id: String,
}

async fn follow_events(inventory: &Inventory, owners: &Owners) {
    let mut seen = owners.written();
    loop {
        if let Ok(mut lines) = inventory.engine.lines(&events_since(seen)).await {
            inventory.look_soon();
            while let Ok(Some(line)) = lines.next().await {
                if let Some(told) = told(&line) {
                    seen = told.at;
                    take_note(&told, inventory, owners);
                }
                inventory.look_soon();
            }
        }
        sleep(AGAIN).await;
    }
}

/// Events behind a time. An engine remembers the last 256 as long as it runs: what has happened while nobody listened.
fn events_since(seen: SystemTime) -> String {
    let since = seen.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default() + Duration::from_nanos(1);
    let (seconds, rest) = (since.as_secs(), since.subsec_nanos());
    format!("{EVENTS}&since={seconds}.{rest:09}")
}

fn take_note(told: &Told, inventory: &Inventory, owners: &Owners) {
    match told.what {
        What::Gone => {
            owners.forget_gone(told.kind, &told.id, told.at);
            inventory.forget(told.kind, &told.id);
        }
        What::Made if told.kind == Kind::Volume => owners.forget_earlier(&told.id, told.at),
        What::Made => {}
    }
}

/// What an event tells.
struct Told {
    what: What,
    kind: Kind,
    id: String,
    at: SystemTime,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Made,
    Gone,
}

fn told(line: &str) -> Option<Told> {
    let event: Event = serde_json::from_str(line).ok()?;
    let kind = match event.kind.as_str() {
        "container" => Kind::Container,
        "network" => Kind::Network,
        "volume" => Kind::Volume,
        _ => return None,
    };
    let what = match event.action.as_str() {
        "create" => What::Made,
        "destroy" => What::Gone,
        _ => return None,
    };
    Some(Told {
        what,
        kind,
        id: event.actor.id,
        at: SystemTime::UNIX_EPOCH + Duration::from_nanos(event.time),
    })
}

async fn look_after_changes(inventory: &Inventory) {
    loop {
        inventory.changed.notified().await;
        sleep(TOGETHER).await;
        inventory.look_at_once();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_what_is_gone_and_made() {
        let told = |line: &str| told(line).map(|told| (told.what, told.kind, told.id));
        let line = r#"{"Type":"volume","Action":"destroy","Actor":{"ID":"data","Attributes":{"driver":"local"}},"timeNano":1}"#;
        let data = || "data".to_owned();
        assert_eq!(told(line), Some((What::Gone, Kind::Volume, data())));
        let made = line.replace("destroy", "create");
        assert_eq!(told(&made), Some((What::Made, Kind::Volume, data())));
        assert_eq!(told(&line.replace("destroy", "mount")), None);
        assert_eq!(told(&line.replace("volume", "image")), None);
        assert_eq!(told("{"), None);
    }

    #[test]
    fn an_event_that_was_seen_is_not_asked_for_again() {
        let seen = SystemTime::UNIX_EPOCH + Duration::from_nanos(7_000_000_041);
        assert!(events_since(seen).ends_with("&since=7.000000042"));
    }
}
