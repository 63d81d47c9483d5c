//! `NetworkDriver.*`: what an engine asks of a network plugin.
//!
//! What never reaches a network plugin: the names of networks and containers, labels, aliases, and
//! `--ip-range`.

mod answer;
mod option;

use std::collections::BTreeMap;

use drover_model::{EndpointId, MacAddress, NetworkId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::methods;
use crate::wire::{empty_is_none, null_is_default};

pub use answer::{
    Capabilities, CreateEndpointAnswer, EndpointInformation, InterfaceName, JoinAnswer, RouteType,
    Scope, SkipGateways, StaticRoute,
};
pub use option::{CreateNetworkOptions, EndpointOptions, ExposedPort, PortBinding, Protocol, key};

/// The interface in [`crate::Activation`].
pub const INTERFACE: &str = "NetworkDriver";

methods! {
    /// The calls of a network plugin. Those of a swarm (`AllocateNetwork`, `FreeNetwork`,
    /// `DiscoverNew`, `DiscoverDelete`) are not sent to a driver of scope `local`.
    "NetworkDriver":
    /// Asked once, at activation.
    GetCapabilities,
    /// Before `CreateNetwork`, from 28.0 on, where the driver's capabilities announce it.
    GwAllocCheck,
    /// A network is made on this host.
    CreateNetwork,
    /// A network is gone; its addresses were released before.
    DeleteNetwork,
    /// A container, about to start, gets an endpoint.
    CreateEndpoint,
    /// The endpoint is gone.
    DeleteEndpoint,
    /// The endpoint's link goes into the container.
    Join,
    /// The endpoint's link comes back.
    Leave,
    /// The endpoint is the container's way out: publish its ports.
    ProgramExternalConnectivity,
    /// It is no longer.
    RevokeExternalConnectivity,
    /// What there is to say of an endpoint.
    EndpointOperInfo,
}

/// The request of [`Method::GwAllocCheck`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GwAllocCheck {
    /// As in [`CreateNetwork`].
    #[serde(rename = "Options", deserialize_with = "null_is_default")]
    pub options: CreateNetworkOptions,
}

/// The request of [`Method::CreateNetwork`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateNetwork {
    /// The id of the network on this host.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// The options.
    #[serde(rename = "Options", default, deserialize_with = "null_is_default")]
    pub options: CreateNetworkOptions,
    /// The IPv4 pools, in the order the user named them.
    #[serde(rename = "IPv4Data", default, deserialize_with = "null_is_default")]
    pub ipv4_data: Vec<IpamData>,
    /// The IPv6 pools.
    #[serde(rename = "IPv6Data", default, deserialize_with = "null_is_default")]
    pub ipv6_data: Vec<IpamData>,
}

impl CreateNetwork {
    /// The pools of both families.
    pub fn pools(&self) -> impl Iterator<Item = &IpamData> {
        self.ipv4_data.iter().chain(&self.ipv6_data)
    }
}

/// A pool of a network that is being created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamData {
    /// The address space: what the IPAM plugin calls its own, or `LocalDefault` for Docker's.
    #[serde(rename = "AddressSpace", default, deserialize_with = "null_is_default")]
    pub address_space: String,
    /// The pool; `0.0.0.0/0` with `--ipam-driver null`.
    #[serde(rename = "Pool")]
    pub pool: IpNet,
    /// The gateway with the pool's prefix length; missing when none was reserved.
    #[serde(rename = "Gateway", default, with = "empty_is_none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpNet>,
    /// The `--aux-address` pairs.
    #[serde(rename = "AuxAddresses", default, deserialize_with = "null_is_default")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, IpNet>,
}

/// The request of [`Method::DeleteNetwork`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteNetwork {
    /// Which.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
}

/// The request of [`Method::CreateEndpoint`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateEndpoint {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// The endpoint's id, new at every start of a container.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: EndpointId,
    /// What the engine has settled of its interface.
    #[serde(rename = "Interface", default, deserialize_with = "null_is_default")]
    pub interface: EndpointInterface,
    /// The options.
    #[serde(rename = "Options", default, deserialize_with = "null_is_default")]
    pub options: EndpointOptions,
}

/// The interface of an endpoint. In an answer, only what was empty in the request may be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInterface {
    /// The IPv4 address with its prefix length.
    #[serde(rename = "Address", default, with = "empty_is_none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// The IPv6 address with its prefix length.
    #[serde(rename = "AddressIPv6", default, with = "empty_is_none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_ipv6: Option<IpNet>,
    /// The link address.
    #[serde(rename = "MacAddress", default, with = "empty_is_none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
}

/// The request of [`Method::DeleteEndpoint`], [`Method::Leave`],
/// [`Method::RevokeExternalConnectivity`] and [`Method::EndpointOperInfo`]: which endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointReference {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: EndpointId,
}

/// The request of [`Method::Join`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: EndpointId,
    /// The path of the container's network namespace. Up to 27.x nothing is there yet at a start.
    #[serde(rename = "SandboxKey")]
    pub sandbox_key: String,
    /// The ports, for all networks of the container, internal ones included.
    #[serde(rename = "Options", default, deserialize_with = "null_is_default")]
    pub options: EndpointOptions,
}

/// The request of [`Method::ProgramExternalConnectivity`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramExternalConnectivity {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: EndpointId,
    /// The ports to publish. It can come for internal networks, too; nothing is to be published then.
    #[serde(rename = "Options", default, deserialize_with = "null_is_default")]
    pub options: EndpointOptions,
}
