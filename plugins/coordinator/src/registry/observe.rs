//! From what the engine says of a container to its record. Pure.
//!
//! A record is bounded, since every host holds all of them: see [`LABEL_BYTES`], [`ALIASES`] and [`PORTS`].

use std::collections::{BTreeMap, BTreeSet};

use drover_control_api::registry::{
    Attachment, ContainerRecord, ContainerState, ExposedPort, Health, ServiceName,
};
use drover_engine::{ContainerConfig, ContainerDetail, ContainerEndpoint};
use drover_model::{HostName, LogicalNetworkId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How many bytes the labels of a record have at most, keys and values together. Those of Compose and of Drover
/// come first, then the others in alphabetical order; one that does not fit is left out.
pub const LABEL_BYTES: usize = 16 << 10;
/// How many aliases a record has on a network at most.
pub const ALIASES: usize = 64;
/// How long an alias is at most, in bytes; a longer one is no DNS name.
const ALIAS_BYTES: usize = 255;
/// How many exposed ports a record has at most.
pub const PORTS: usize = 256;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// Labels that are kept first.
const FIRST: [&str; 2] = ["com.docker.compose.", "drover."];

/// A network of the cluster that this engine has a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id in the cluster.
    pub id: LogicalNetworkId,
    /// Its name in Docker.
    pub name: String,
}

/// Whose containers are observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The host.
    pub host: HostName,
    /// Its member id.
    pub member: String,
    /// The networks of the cluster, by the engine's id of this host's copy.
    pub networks: BTreeMap<String, Place>,
}

impl Owner {
    /// The network that an endpoint is on, if it is one of the cluster's. A container that never ran may have its
    /// network by name alone, or by id in the place of the name.
    fn place(&self, key: &str, endpoint: &ContainerEndpoint) -> Option<&Place> {
        if !endpoint.network_id.is_empty() {
            return self.networks.get(&endpoint.network_id);
        }
        let by_name = || self.networks.values().find(|place| place.name == key);
        self.networks.get(key).or_else(by_name)
    }

    /// Whether one of these endpoints is on a network of the cluster.
    #[must_use]
    pub fn concerns(&self, endpoints: &BTreeMap<String, ContainerEndpoint>) -> bool {
        let mut endpoints = endpoints.iter();
        endpoints.any(|(key, endpoint)| self.place(key, endpoint).is_some())
    }

    /// The container's record; `None` when it is on no network of the cluster.
    #[must_use]
    pub fn record(&self, container: &ContainerDetail) -> Option<ContainerRecord> {
        let endpoints = container.network_settings.networks.iter();
        let attachments: BTreeMap<_, _> = endpoints
            .filter_map(|(key, endpoint)| {
                let place = self.place(key, endpoint)?;
                Some((place.id.clone(), attachment(place, container, endpoint)))
            })
            .collect();
        if attachments.is_empty() {
            return None;
        }
        Some(ContainerRecord {
            version: 1,
            id: container.id.clone(),
            host: self.host.clone(),
            member: self.member.clone(),
            name: container.name.trim_start_matches('/').to_owned(),
            service: service(&container.config.labels),
            image: container.config.image.clone(),
            labels: labels(&container.config.labels).0,
            state: state(&container.state.status),
            health: container
                .state
                .health
                .as_ref()
                .and_then(|health| self::health(&health.status)),
            started_at: seconds(&container.state.started_at),
            attachments,
            ports: ports(&container.config),
        })
    }
}

fn attachment(
    place: &Place,
    container: &ContainerDetail,
    endpoint: &ContainerEndpoint,
) -> Attachment {
    let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
    let aliases = endpoint.given_aliases(container);
    let aliases: BTreeSet<_> = aliases
        .filter(|alias| alias.len() <= ALIAS_BYTES)
        .map(str::to_owned)
        .collect();
    Attachment {
        network: place.name.clone(),
        endpoint: endpoint.endpoint_id.parse().ok(),
        addresses: addresses
            .into_iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
        mac: endpoint.mac_address.parse().ok(),
        aliases: aliases.into_iter().take(ALIASES).collect(),
    }
}

fn service(labels: &BTreeMap<String, String>) -> Option<ServiceName> {
    Some(ServiceName {
        project: labels.get(PROJECT)?.clone(),
        service: labels.get(SERVICE)?.clone(),
    })
}

/// The labels that fit, and how many do not.
#[must_use]
pub fn labels(all: &BTreeMap<String, String>) -> (BTreeMap<String, String>, usize) {
    let is_first = |key: &str| FIRST.iter().any(|prefix| key.starts_with(prefix));
    let (first, others): (Vec<_>, Vec<_>) = all.iter().partition(|(key, _)| is_first(key));
    let mut room = LABEL_BYTES;
    let mut kept = BTreeMap::new();
    for (key, value) in first.into_iter().chain(others) {
        let size = key.len().saturating_add(value.len());
        if let Some(left) = room.checked_sub(size) {
            room = left;
            kept.insert(key.clone(), value.clone());
        }
    }
    let left_out = all.len().saturating_sub(kept.len());
    (kept, left_out)
}

fn state(status: &str) -> ContainerState {
    match status {
        "created" => ContainerState::Created,
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "restarting" => ContainerState::Restarting,
        "dead" => ContainerState::Dead,
        // `exited`, `removing`, and what a later engine may say of one that does not run.
        _ => ContainerState::Exited,
    }
}

fn health(status: &str) -> Option<Health> {
    match status {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

fn seconds(text: &str) -> u64 {
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.map_or(0, |time| u64::try_from(time.unix_timestamp()).unwrap_or(0))
}

fn ports(config: &ContainerConfig) -> BTreeSet<ExposedPort> {
    let ports = config.exposed_ports.keys().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        let protocol = protocol.to_owned();
        matches!(protocol.as_str(), "tcp" | "udp" | "sctp")
            .then_some(ExposedPort { port, protocol })
    });
    let all: BTreeSet<_> = ports.collect();
    all.into_iter().take(PORTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_compose_stay_when_there_are_too_many() {
        let mut all: BTreeMap<String, String> = (0..64)
            .map(|number| (format!("a{number:02}"), "x".repeat(1000)))
            .collect();
        all.insert(PROJECT.to_owned(), "shop".to_owned());
        let (kept, left_out) = labels(&all);
        assert_eq!(kept[PROJECT], "shop");
        assert!(left_out > 0);
        assert_eq!(kept.len() + left_out, 65);
        let size: usize = kept
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        assert!(size <= LABEL_BYTES);
    }

    #[test]
    fn never_started_is_zero() {
        assert_eq!(seconds("0001-01-01T00:00:00Z"), 0);
        assert_eq!(seconds("1970-01-01T00:01:00.5Z"), 60);
        assert_eq!(seconds(""), 0);
    }

    #[test]
    fn ports_are_numbers_with_a_protocol() {
        let text =
            r#"{"ExposedPorts":{"80/tcp":{},"53/udp":{},"0/tcp":{},"7/x":{},"90000/tcp":{}}}"#;
        let ports = ports(&serde_json::from_str(text).unwrap());
        let ports: Vec<_> = ports.iter().map(|port| port.port).collect();
        assert_eq!(ports, [53, 80]);
    }
}
