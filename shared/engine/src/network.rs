//! Networks, as the engine lists, shows and takes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// A network of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// The engine's id.
    pub id: String,
    /// Its name; the engine does not promise that it is unique.
    pub name: String,
    /// The name of its driver.
    #[serde(default)]
    pub driver: String,
    /// `local`, `global` or `swarm`.
    #[serde(default)]
    pub scope: String,
    /// Its subnets and who gives out addresses.
    #[serde(rename = "IPAM", default)]
    pub ipam: Ipam,
    /// Whether it has IPv6.
    #[serde(rename = "EnableIPv6", default)]
    pub enable_ipv6: bool,
    /// `--internal`.
    #[serde(default)]
    pub internal: bool,
    /// `--attachable`.
    #[serde(default)]
    pub attachable: bool,
    /// The `-o` pairs.
    #[serde(default, deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
    /// The labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its endpoints by container id, or by `ep-` and the endpoint id while a container starts.
    /// Filled by an inspection, not by a list.
    #[serde(default, deserialize_with = "or_default")]
    pub containers: BTreeMap<String, NetworkEndpoint>,
}

/// An endpoint of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkEndpoint {
    /// The container's name.
    #[serde(default)]
    pub name: String,
    /// The engine's id of the endpoint.
    #[serde(rename = "EndpointID", default)]
    pub endpoint_id: String,
    /// Its link address.
    #[serde(default)]
    pub mac_address: String,
    /// Its IPv4 address with prefix length; may be empty.
    #[serde(rename = "IPv4Address", default)]
    pub ipv4_address: String,
    /// Its IPv6 address with prefix length; may be empty.
    #[serde(rename = "IPv6Address", default)]
    pub ipv6_address: String,
}

/// The addresses of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// The name of the IPAM driver.
    #[serde(default)]
    pub driver: String,
    /// `--ipam-opt`.
    #[serde(default, deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
    /// One entry a subnet.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Vec<IpamConfig>,
}

/// A subnet of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamConfig {
    /// Address and prefix length.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// The part that addresses are chosen from.
    #[serde(rename = "IPRange", default, skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The gateway; some engines print a prefix length with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// `--aux-address`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// A network to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// Whether a second network of the name is refused; [`crate::Engine::create_network`] sets it
    /// where the engine needs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check_duplicate: bool,
    /// The name of its driver.
    pub driver: String,
    /// `--internal`.
    pub internal: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--ipv6`.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its subnets and who gives out addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// The `-o` pairs.
    pub options: BTreeMap<String, String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSPECTED: &str = r#"{
        "Name":"app","Id":"9a98742c67fdc73b9bea863a7c1ea9dc0221c26f819b5c58b6d9e1d82c1b32a6",
        "Created":"2026-11-22T10:00:00Z","Scope":"local","Driver":"drover-net","EnableIPv6":false,
        "IPAM":{"Driver":"drover-ipam","Options":null,"Config":[{"Subnet":"10.64.0.0/16","Gateway":"10.64.0.1",
          "AuxiliaryAddresses":{"printer":"10.64.0.9"}}]},
        "Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,
        "Containers":{"ep-0123":{"Name":"one","EndpointID":"0123","MacAddress":"02:42:0a:40:01:02",
          "IPv4Address":"10.64.1.2/24","IPv6Address":""}},
        "Options":{"encryption":"off"},"Labels":null}"#;

    #[test]
    fn an_inspection_is_read_and_null_is_empty() {
        let network: Network = serde_json::from_str(INSPECTED).unwrap();
        assert_eq!(network.ipam.config[0].subnet, "10.64.0.0/16");
        assert_eq!(
            network.ipam.config[0].auxiliary_addresses["printer"],
            "10.64.0.9"
        );
        assert!(network.labels.is_empty() && network.ipam.options.is_empty());
        assert_eq!(network.containers["ep-0123"].ipv4_address, "10.64.1.2/24");
    }

    #[test]
    fn a_creation_leaves_out_what_was_not_said() {
        let config = IpamConfig {
            subnet: "10.64.0.0/16".to_owned(),
            ..IpamConfig::default()
        };
        let create = CreateNetwork {
            name: "app".to_owned(),
            ipam: Ipam {
                config: vec![config],
                ..Ipam::default()
            },
            ..CreateNetwork::default()
        };
        let text = serde_json::to_string(&create).unwrap();
        assert!(
            text.contains(r#""Config":[{"Subnet":"10.64.0.0/16"}]"#),
            "{text}"
        );
        assert!(!text.contains("CheckDuplicate"), "{text}");
        assert!(text.contains("EnableIPv6"), "{text}");
    }
}
