//! What the engine reports as it happens. An event only says "look again".

use std::collections::BTreeMap;

use drover_http::Lines;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::nullable::or_default;

/// Which kinds of events a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFilter {
    /// Networks: create, connect, disconnect, destroy, remove.
    Networks,
    /// Networks, and the life of containers.
    NetworksAndContainers,
}

impl EventFilter {
    /// The value of the `filters` parameter, percent-encoded.
    pub(crate) const fn query(self) -> &'static str {
        match self {
            Self::Networks => "%7B%22type%22%3A%5B%22network%22%5D%7D",
            Self::NetworksAndContainers => {
                "%7B%22type%22%3A%5B%22network%22%2C%22container%22%5D%7D"
            }
        }
    }
}

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `network`, `container`.
    #[serde(rename = "Type", default)]
    pub kind: String,
    /// `create`, `connect`, `destroy` and so on.
    #[serde(rename = "Action", default)]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor", default)]
    pub actor: Actor,
}

/// What an event happened to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The engine's id.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// For a network: `name`, `type` (the driver) and, where one is concerned, `container`.
    #[serde(rename = "Attributes", default, deserialize_with = "or_default")]
    pub attributes: BTreeMap<String, String>,
}

/// A stream of events.
pub struct Events {
    pub(crate) call: String,
    pub(crate) lines: Lines,
}

impl Events {
    /// The next event; `None` when the engine has ended the stream.
    ///
    /// Cancelling loses no event.
    ///
    /// # Errors
    /// When the connection breaks or a line cannot be read.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let line = self
                .lines
                .next()
                .await
                .map_err(|source| Error::Unreachable {
                    call: self.call.clone(),
                    source,
                })?;
            match line.as_deref().map(str::trim) {
                None => return Ok(None),
                Some("") => {}
                Some(text) => {
                    let event = serde_json::from_str(text);
                    return event.map(Some).map_err(|source| Error::Unreadable {
                        call: self.call.clone(),
                        source,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_event_names_the_driver() {
        let text = r#"{"Type":"network","Action":"create","Actor":{"ID":"9a98","Attributes":
            {"name":"app","type":"drover-net"}},"scope":"local","time":1,"timeNano":1}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(event.actor.attributes["type"], "drover-net");
    }
}
