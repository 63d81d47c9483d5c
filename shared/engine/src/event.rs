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
    /// Networks, and the life of containers: what changes whether and where a container can be reached. What
    /// health checks do all the time (`exec_create` and so on) is not among it.
    NetworksAndContainers,
}

impl EventFilter {
    /// The value of the `filters` parameter, percent-encoded.
    pub(crate) const fn query(self) -> &'static str {
        match self {
            Self::Networks => "%7B%22type%22%3A%5B%22network%22%5D%7D",
            Self::NetworksAndContainers => NETWORKS_AND_CONTAINERS,
        }
    }
}

const NETWORKS_AND_CONTAINERS: &str = concat!(
    "%7B%22type%22%3A%5B%22network%22%2C%22container%22%5D%2C%22event%22%3A%5B",
    "%22create%22",
    "%2C",
    "%22connect%22",
    "%2C",
    "%22disconnect%22",
    "%2C",
    "%22destroy%22",
    "%2C",
    "%22remove%22",
    "%2C",
    "%22start%22",
    "%2C",
    "%22die%22",
    "%2C",
    "%22restart%22",
    "%2C",
    "%22stop%22",
    "%2C",
    "%22pause%22",
    "%2C",
    "%22unpause%22",
    "%2C",
    "%22rename%22",
    "%2C",
    "%22health_status%22",
    "%5D%7D",
);

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

impl Event {
    /// The container that it happened to, if it was one.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match self.kind.as_str() {
            "container" => Some(&self.actor.id),
            "network" => self.actor.attributes.get("container").map(String::as_str),
            _ => None,
        }
    }
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
        assert_eq!(event.container(), None);
    }

    #[test]
    fn what_happens_to_a_container_names_it() {
        for text in [
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"9a98","Attributes":
                {"container":"0dd0","name":"app","type":"drover-net"}}}"#,
            r#"{"status":"start","id":"0dd0","from":"web:1","Type":"container","Action":"start","Actor":
                {"ID":"0dd0","Attributes":{"image":"web:1","name":"web"}}}"#,
            r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"0dd0","Attributes":{}}}"#,
        ] {
            let event: Event = serde_json::from_str(text).unwrap();
            assert_eq!(event.container(), Some("0dd0"));
        }
    }

    #[test]
    fn the_filter_is_the_json_that_the_engine_wants() {
        let query = EventFilter::NetworksAndContainers.query();
        let json = [("%7B", "{"), ("%7D", "}"), ("%22", "\""), ("%3A", ":")];
        let json = json
            .into_iter()
            .chain([("%5B", "["), ("%5D", "]"), ("%2C", ",")]);
        let text = json.fold(query.to_owned(), |text, (from, to)| text.replace(from, to));
        let filter: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
        assert_eq!(filter["type"], ["network", "container"]);
        assert!(filter["event"].contains(&"health_status".to_owned()));
    }
}
