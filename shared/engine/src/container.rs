//! Containers: what they are, how they are, and their place on networks.

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
    /// What is mounted in it.
    #[serde(default, deserialize_with = "or_default")]
    pub mounts: Vec<ContainerMount>,
}

/// Something that is mounted in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerMount {
    /// The volume's name; empty for what is no volume.
    #[serde(default)]
    pub name: String,
    /// Where, in the container.
    #[serde(default)]
    pub destination: String,
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
    /// What it was made with.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    /// Its place on networks.
    #[serde(default, deserialize_with = "or_default")]
    pub network_settings: NetworkSettings,
}

/// What a container was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// The image as it was asked for.
    #[serde(default)]
    pub image: String,
    /// Its labels, those of the image included.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// What it exposes, as `80/tcp`.
    #[serde(default, deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, Nothing>,
}

/// An object of the engine that has no fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    #[serde(default)]
    pub status: String,
    /// Whether it runs, paused included.
    #[serde(default)]
    pub running: bool,
    /// Its first process in the host's process namespace; 0 when it does not run.
    #[serde(default)]
    pub pid: u32,
    /// When it was started last, as RFC 3339; the year 1 for never.
    #[serde(default)]
    pub started_at: String,
    /// What its health check says; `None` without one.
    #[serde(default)]
    pub health: Option<ContainerHealth>,
}

/// What a health check says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerHealth {
    /// `none`, `starting`, `healthy` or `unhealthy`.
    #[serde(default)]
    pub status: String,
}

/// The networks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By the network's name.
    #[serde(default, deserialize_with = "or_default")]
    pub networks: BTreeMap<String, ContainerEndpoint>,
    /// The file of its network namespace; empty when there is none now. In a list always empty.
    #[serde(default)]
    pub sandbox_key: String,
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
    /// Its link address; empty when the container does not run.
    #[serde(default)]
    pub mac_address: String,
    /// Other names of the container on the network. Engines before 26 put the beginning of its id among them;
    /// see [`Self::given_aliases`].
    #[serde(default, deserialize_with = "or_default")]
    pub aliases: Vec<String>,
    /// Every name that Docker's own resolver knows it by; empty on engines before 25.
    #[serde(rename = "DNSNames", default, deserialize_with = "or_default")]
    pub dns_names: Vec<String>,
}

/// How much of its id the engine makes a name of.
const SHORT_ID: usize = 12;

impl ContainerEndpoint {
    /// The names that a user gave the container besides its own, on every engine, perhaps more than once: aliases, and
    /// its host name, which engines before 25 put among them.
    pub fn given_aliases<'a>(
        &'a self,
        container: &'a ContainerDetail,
    ) -> impl Iterator<Item = &'a str> {
        let short = container.id.get(..SHORT_ID);
        let own = container.name.trim_start_matches('/');
        let names = self.aliases.iter().chain(&self.dns_names);
        names
            .map(String::as_str)
            .filter(move |name| Some(*name) != short && *name != own)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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

    /// What engines say of a container with `--network-alias web --hostname called-so`, cut to the fields that matter.
    const RECORDED: [&str; 3] = [
        // 20.10
        r#"{"Id":"0dd0c0ffee112233","Name":"/app-web-1","State":{"Status":"running","Running":true,"Paused":false,
            "Pid":71,"StartedAt":"2026-11-22T10:00:00.123456789Z","Health":{"Status":"healthy","Log":[]}},
            "Config":{"Image":"web:1","ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b"}},
            "NetworkSettings":{"SandboxKey":"/var/run/docker/netns/1","Networks":{"app":{"IPAMConfig":null,
            "Links":null,"Aliases":["web","called-so","0dd0c0ffee11"],"NetworkID":"9a98","EndpointID":"0123",
            "IPAddress":"10.64.1.2","GlobalIPv6Address":"","MacAddress":"02:42:0a:40:01:02"}}}}"#,
        // 26.1
        r#"{"Id":"0dd0c0ffee112233","Name":"/app-web-1","State":{"Status":"running","Running":true,"Pid":71,
            "StartedAt":"2026-11-22T10:00:00.123456789Z","Health":{"Status":"healthy"}},
            "Config":{"Image":"web:1","ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b"}},
            "NetworkSettings":{"SandboxKey":"/var/run/docker/netns/1","Networks":{"app":{"Aliases":["web"],
            "DNSNames":["app-web-1","web","0dd0c0ffee11","called-so"],"NetworkID":"9a98","EndpointID":"0123",
            "IPAddress":"10.64.1.2","GlobalIPv6Address":"","MacAddress":"02:42:0a:40:01:02"}}}}"#,
        // 28.5
        r#"{"Id":"0dd0c0ffee112233","Name":"/app-web-1","State":{"Status":"running","Running":true,"Pid":71,
            "StartedAt":"2026-11-22T10:00:00.123456789Z","Health":{"Status":"healthy"}},
            "Config":{"Image":"web:1","ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b"}},
            "NetworkSettings":{"SandboxKey":"/var/run/docker/netns/1","Networks":{"app":{"Aliases":["web"],
            "DNSNames":["app-web-1","web","0dd0c0ffee11","called-so"],"GwPriority":0,"NetworkID":"9a98","EndpointID":"0123",
            "IPAddress":"10.64.1.2","GlobalIPv6Address":"","MacAddress":"02:42:0a:40:01:02"}}}}"#,
    ];

    #[test]
    fn every_engine_tells_the_same_of_a_container() {
        for text in RECORDED {
            let container: ContainerDetail = serde_json::from_str(text).unwrap();
            let endpoint = &container.network_settings.networks["app"];
            let aliases: BTreeSet<_> = endpoint.given_aliases(&container).collect();
            assert_eq!(aliases, BTreeSet::from(["called-so", "web"]));
            assert_eq!(endpoint.mac_address, "02:42:0a:40:01:02");
            assert_eq!(container.state.health.as_ref().unwrap().status, "healthy");
            assert_eq!(container.config.labels["a"], "b");
            assert!(container.config.exposed_ports.contains_key("80/tcp"));
        }
    }

    #[test]
    fn what_never_ran_has_no_ports_no_health_and_no_labels() {
        let text = r#"{"Id":"a","State":{"Status":"created","Pid":0,"StartedAt":"0001-01-01T00:00:00Z"},
            "Config":{"Image":"x","Labels":null},"NetworkSettings":{"SandboxKey":"","Networks":{"app":{
            "Aliases":null,"NetworkID":"","EndpointID":"","MacAddress":""}}}}"#;
        let container: ContainerDetail = serde_json::from_str(text).unwrap();
        assert_eq!(container.state.health, None);
        assert!(container.config.exposed_ports.is_empty() && container.config.labels.is_empty());
    }
}
