//! Containers, as far as their place on networks goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// A container in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Its names, each with a slash before it.
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// `running`, `exited` and so on.
    #[serde(default)]
    pub state: String,
    /// Its labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its place on networks.
    #[serde(default)]
    pub network_settings: NetworkSettings,
}

impl Container {
    /// Its endpoints by the name of the network.
    #[must_use]
    pub const fn endpoints(&self) -> &BTreeMap<String, ContainerEndpoint> {
        &self.network_settings.networks
    }
}

/// A container in full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDetail {
    /// The engine's id.
    pub id: String,
    /// Its name, with a slash before it.
    #[serde(default)]
    pub name: String,
    /// How it is.
    #[serde(default)]
    pub state: ContainerState,
    /// Its place on networks.
    #[serde(default)]
    pub network_settings: NetworkSettings,
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// Whether it runs, paused included.
    #[serde(default)]
    pub running: bool,
    /// Its first process in the host's process namespace; 0 when it does not run.
    #[serde(default)]
    pub pid: u32,
}

/// The networks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By the network's name.
    #[serde(default, deserialize_with = "or_default")]
    pub networks: BTreeMap<String, ContainerEndpoint>,
}

/// A container's endpoint on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerEndpoint {
    /// The engine's id of the network.
    #[serde(rename = "NetworkID", default)]
    pub network_id: String,
    /// The engine's id of the endpoint; empty when the container does not run.
    #[serde(rename = "EndpointID", default)]
    pub endpoint_id: String,
    /// Its IPv4 address; may be empty.
    #[serde(rename = "IPAddress", default)]
    pub ip_address: String,
    /// Its IPv6 address; may be empty.
    #[serde(rename = "GlobalIPv6Address", default)]
    pub global_ipv6_address: String,
    /// Other names of the container on the network.
    #[serde(default, deserialize_with = "or_default")]
    pub aliases: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_container_tells_its_addresses() {
        let text = r#"{"Id":"abc","Names":["/web"],"State":"running","Labels":null,"NetworkSettings":
            {"Networks":{"app":{"NetworkID":"9a98","EndpointID":"0123","IPAddress":"10.64.1.2",
            "GlobalIPv6Address":"","Aliases":null,"IPAMConfig":null}}}}"#;
        let container: Container = serde_json::from_str(text).unwrap();
        assert_eq!(container.endpoints()["app"].ip_address, "10.64.1.2");
        assert!(container.endpoints()["app"].aliases.is_empty());
    }
}
