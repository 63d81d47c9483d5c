//! The registry: which containers there are, on which host and networks, by which names, and how they are.
//!
//! Each host writes the records of its own containers, from what its engine says; everybody reads all of them.
//! A record is at `containers/<host>/<container id>` in the store. It is there from the first time a container
//! is seen on one of Drover's networks until the container is removed or has no such network any more, whether
//! it runs or not. Records of a host that is not alive stay: whether its containers count is for the reader to
//! decide, from [`RegistryEvent::Host`].
//!
//! `GET /v1/registry` answers with one JSON object a line, in the manner of the [fabric](crate::fabric): it begins with
//! [`RegistryEvent::Reset`], then everything that is known, then [`RegistryEvent::Synced`], then changes as they come.
//! An empty line is a sign of life.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_model::{EndpointId, HostName, LogicalNetworkId, MacAddress};
use serde::{Deserialize, Serialize};

use crate::record::UnixSeconds;

/// The path of the stream.
pub const PATH: &str = "/v1/registry";

/// A container that has a place on one of Drover's networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// The engine's id: 64 hexadecimal digits.
    pub id: String,
    /// The host it is on.
    pub host: HostName,
    /// The host's member id: records of a host that was removed and joined again are void.
    pub member: String,
    /// The name, without the slash.
    pub name: String,
    /// The Compose service it belongs to, by its labels.
    pub service: Option<ServiceName>,
    /// The image as it was asked for.
    pub image: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it runs.
    pub state: ContainerState,
    /// What its health check says; `None` when it has none.
    pub health: Option<Health>,
    /// When it was started last; 0 for never.
    pub started_at: UnixSeconds,
    /// Its places on Drover's networks. A container that does not run has no addresses on them.
    pub attachments: BTreeMap<LogicalNetworkId, Attachment>,
    /// What it exposes (`EXPOSE`, `--expose`), published or not.
    pub ports: BTreeSet<ExposedPort>,
}

/// A service of a Compose project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceName {
    /// The project (`com.docker.compose.project`).
    pub project: String,
    /// The service (`com.docker.compose.service`).
    pub service: String,
}

/// Whether a container runs, in the engine's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Made and never started.
    Created,
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// It ended, and the engine is about to start it again.
    Restarting,
    /// It ended.
    Exited,
    /// It ended, and could not be cleaned up.
    Dead,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It has not said anything yet.
    Starting,
    /// It is well.
    Healthy,
    /// It failed as often as the check allows.
    Unhealthy,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name in Docker.
    pub network: String,
    /// The endpoint; `None` while the container does not run.
    pub endpoint: Option<EndpointId>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its link address; `None` while the container does not run.
    pub mac: Option<MacAddress>,
    /// The names that its user gave it here (`--network-alias`, Compose's `aliases`); the service's among them, as
    /// Compose makes it one. As the engine has them: they may be no valid DNS names.
    pub aliases: BTreeSet<String>,
}

/// A port that a container exposes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The port, 1 to 65535.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RegistryEvent {
    /// What follows is complete; forget what is not in it once `Synced` has come.
    Reset {
        /// The name of the host this is.
        this_host: HostName,
    },
    /// A host is there, or has changed. The watcher's own host is among them.
    Host {
        /// Its name.
        name: HostName,
        /// Its member id: containers with another one do not count.
        member: String,
        /// Whether it gives signs of life. The watcher's own host always does.
        alive: bool,
    },
    /// A host was removed, and its containers with it.
    HostGone {
        /// Which.
        name: HostName,
    },
    /// A container is there, or has changed.
    Container(Box<ContainerRecord>),
    /// A container was removed.
    ContainerGone {
        /// The host it was on.
        host: HostName,
        /// The engine's id.
        id: String,
    },
    /// What was said last may be out of date since then, as the store does not answer; 0 when it is up to date
    /// again.
    Stale {
        /// Since when.
        since: UnixSeconds,
    },
    /// Everything has been said that was known when the stream began.
    Synced,
}
