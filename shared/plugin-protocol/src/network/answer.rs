//! What a network plugin answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EndpointInterface;
use crate::wire::{empty_is_none, null_is_default};

/// How far a driver's networks reach, in Docker's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A network is made on each host.
    Local,
    /// A swarm makes the networks.
    Global,
}

/// The answer to `GetCapabilities`. A wrong one keeps the driver unusable until the engine restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Who makes the networks.
    #[serde(rename = "Scope")]
    pub scope: Scope,
    /// How far their containers reach.
    #[serde(rename = "ConnectivityScope")]
    pub connectivity_scope: Scope,
    /// Whether `GwAllocCheck` is to be sent.
    #[serde(rename = "GwAllocChecker", default)]
    pub gw_alloc_checker: bool,
}

/// The answer to `GwAllocCheck`: for which families no gateway is to be reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipGateways {
    /// None for IPv4.
    #[serde(rename = "SkipIPv4", default)]
    pub skip_ipv4: bool,
    /// None for IPv6.
    #[serde(rename = "SkipIPv6", default)]
    pub skip_ipv6: bool,
}

/// The answer to `CreateEndpoint`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateEndpointAnswer {
    /// What the engine had left empty. Anything else makes the call fail.
    #[serde(rename = "Interface", default, deserialize_with = "null_is_default")]
    pub interface: EndpointInterface,
}

/// Which link goes into the container, and under which name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceName {
    /// The link in the engine's own network namespace.
    #[serde(rename = "SrcName")]
    pub src_name: String,
    /// What its name in the container begins with; the engine adds the first free number.
    #[serde(rename = "DstPrefix")]
    pub dst_prefix: String,
}

/// How a destination is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum RouteType {
    /// By way of the next hop.
    NextHop,
    /// On the link itself.
    Connected,
}

impl From<RouteType> for u8 {
    fn from(route: RouteType) -> Self {
        match route {
            RouteType::NextHop => 0,
            RouteType::Connected => 1,
        }
    }
}

impl TryFrom<u8> for RouteType {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Self::NextHop),
            1 => Ok(Self::Connected),
            _ => Err(format!(
                "{number} is not a route type: 0 is next hop, 1 is connected"
            )),
        }
    }
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where to.
    #[serde(rename = "Destination")]
    pub destination: IpNet,
    /// How.
    #[serde(rename = "RouteType")]
    pub route_type: RouteType,
    /// By way of what, for [`RouteType::NextHop`].
    #[serde(rename = "NextHop", default, with = "empty_is_none")]
    pub next_hop: Option<IpAddr>,
}

impl StaticRoute {
    /// A route by way of a neighbour.
    #[must_use]
    pub const fn via(destination: IpNet, next_hop: IpAddr) -> Self {
        Self {
            destination,
            route_type: RouteType::NextHop,
            next_hop: Some(next_hop),
        }
    }

    /// A route to what is on the link.
    #[must_use]
    pub const fn connected(destination: IpNet) -> Self {
        Self {
            destination,
            route_type: RouteType::Connected,
            next_hop: None,
        }
    }
}

/// The answer to `Join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The link.
    #[serde(rename = "InterfaceName")]
    pub interface_name: InterfaceName,
    /// The IPv4 gateway, on link for the endpoint's address.
    #[serde(rename = "Gateway", default, with = "empty_is_none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The IPv6 gateway.
    #[serde(rename = "GatewayIPv6", default, with = "empty_is_none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_ipv6: Option<IpAddr>,
    /// Further routes. A default route by way of a neighbour fails from 28.0 on: use the gateways.
    #[serde(rename = "StaticRoutes", default, deserialize_with = "null_is_default")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub static_routes: Vec<StaticRoute>,
    /// Whether the engine leaves the container without `docker_gwbridge`, though there is no gateway.
    #[serde(rename = "DisableGatewayService", default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_gateway_service: bool,
}

/// The answer to `EndpointOperInfo`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointInformation {
    /// Any values. The engine shows them nowhere that a user looks.
    #[serde(rename = "Value", default, deserialize_with = "null_is_default")]
    pub value: BTreeMap<String, Value>,
}
