//! The options of network calls.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_model::MacAddress;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::{empty_is_none, null_is_default, octets_in_base64};

/// The engine's option keys.
pub mod key {
    /// Whether the network has IPv4 (28.0 and later).
    pub const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
    /// Whether the network has IPv6.
    pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
    /// Whether the network is `--internal`.
    pub const INTERNAL: &str = "com.docker.network.internal";
    /// The `-o` pairs.
    pub const GENERIC: &str = "com.docker.network.generic";
    /// Among the `-o` pairs: the MTU. The engine leaves it to the driver.
    pub const DRIVER_MTU: &str = "com.docker.network.driver.mtu";
    /// The ports that a container exposes.
    pub const EXPOSED_PORTS: &str = "com.docker.network.endpoint.exposedports";
    /// The ports that a container publishes.
    pub const PORT_MAP: &str = "com.docker.network.portmap";
    /// The link address: six octets in base64 here, text in an IPAM request.
    pub const MAC_ADDRESS: &str = "com.docker.network.endpoint.macaddress";
    /// The `--dns` servers.
    pub const DNS_SERVERS: &str = "com.docker.network.endpoint.dnsservers";
    /// The `sysctls` of an endpoint (28.0 and later). The engine applies them itself.
    pub const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
    /// The interface name that was asked for (28.0 and later). Ignored for plugins.
    pub const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
    /// Another endpoint is the IPv6 gateway: serve IPv4 host addresses only (28.0 and later).
    pub const NO_PROXY_6TO4: &str = "com.docker.network.driver.private.no_proxy_6to4";
}

/// The options of `CreateNetwork`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateNetworkOptions {
    /// Whether the network has IPv4; `None` before 28.0, where every network has.
    #[serde(rename = "com.docker.network.enable_ipv4", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// Whether the network has IPv6.
    #[serde(rename = "com.docker.network.enable_ipv6", default)]
    #[serde(deserialize_with = "null_is_default")]
    pub enable_ipv6: bool,
    /// Whether the network is internal.
    #[serde(rename = "com.docker.network.internal", default)]
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub internal: bool,
    /// The `-o` pairs.
    #[serde(rename = "com.docker.network.generic", default)]
    #[serde(deserialize_with = "null_is_default")]
    pub generic: BTreeMap<String, String>,
    /// What else the engine sent.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The options of `CreateEndpoint`, `Join` and `ProgramExternalConnectivity`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointOptions {
    /// The ports the container exposes, in no order.
    #[serde(rename = "com.docker.network.endpoint.exposedports", default)]
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub exposed_ports: Vec<ExposedPort>,
    /// The ports the container publishes, in no order. Bind them in `ProgramExternalConnectivity` only.
    #[serde(rename = "com.docker.network.portmap", default)]
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub port_map: Vec<PortBinding>,
    /// The link address that the user asked for.
    #[serde(
        rename = "com.docker.network.endpoint.macaddress",
        default,
        with = "octets_in_base64"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    /// The DNS servers that the user asked for.
    #[serde(rename = "com.docker.network.endpoint.dnsservers", default)]
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub dns_servers: Vec<String>,
    /// Whether another endpoint is the IPv6 gateway of the container.
    #[serde(rename = "com.docker.network.driver.private.no_proxy_6to4", default)]
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub no_proxy_6to4: bool,
    /// What else there is: every `--driver-opt` under its own name, and options of later engines.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl EndpointOptions {
    /// The `--driver-opt` pairs: what is text, and not under Docker's own prefix.
    pub fn driver_options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.other
            .iter()
            .filter(|(name, _)| !name.starts_with("com.docker.network."))
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }
}

/// A transport protocol, by its IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

/// A port that a container exposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The protocol.
    #[serde(rename = "Proto")]
    pub protocol: Protocol,
    /// The port in the container.
    #[serde(rename = "Port")]
    pub port: u16,
}

/// A port that a container publishes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// The protocol.
    #[serde(rename = "Proto")]
    pub protocol: Protocol,
    /// The container's address; the engine leaves it out.
    #[serde(rename = "IP", default, with = "empty_is_none")]
    pub address: Option<IpAddr>,
    /// The port in the container.
    #[serde(rename = "Port")]
    pub port: u16,
    /// The address on the host; `None` for all of them.
    #[serde(rename = "HostIP", default, with = "empty_is_none")]
    pub host_address: Option<IpAddr>,
    /// The first port on the host that will do; 0 for any.
    #[serde(rename = "HostPort", default)]
    pub host_port: u16,
    /// The last port on the host that will do.
    #[serde(rename = "HostPortEnd", default)]
    pub host_port_end: u16,
}
