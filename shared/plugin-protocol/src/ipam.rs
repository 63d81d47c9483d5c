//! `IpamDriver.*`: what an engine asks of an IPAM plugin.
//!
//! What never reaches an IPAM plugin: which network a pool is for, by id, name or label.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_model::MacAddress;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::methods;
use crate::wire::{empty_is_none, null_is_default};

/// The interface in [`crate::Activation`].
pub const INTERFACE: &str = "IpamDriver";

/// The engine's option keys.
pub mod key {
    /// In a request's options: what the address is for.
    pub const REQUEST_ADDRESS_TYPE: &str = "RequestAddressType";
    /// As the value of [`REQUEST_ADDRESS_TYPE`]: the pool's gateway. In the data of a pool: the gateway
    /// that was chosen with it.
    pub const GATEWAY: &str = "com.docker.network.gateway";
    /// The link address of the endpoint: text here, six octets in base64 in a network request.
    pub const MAC_ADDRESS: &str = "com.docker.network.endpoint.macaddress";
    /// The name of the container (29.0 and later).
    pub const ENDPOINT_NAME: &str = "com.docker.network.endpoint.name";
}

methods! {
    /// The calls of an IPAM plugin.
    "IpamDriver":
    /// Asked once, at activation.
    GetCapabilities,
    /// The names of the address spaces; asked once by 20.10, for every pool by later engines.
    GetDefaultAddressSpaces,
    /// A network is being created: a pool for it.
    RequestPool,
    /// The network is gone, or was not created.
    ReleasePool,
    /// An address: a gateway, an auxiliary one, or an endpoint's.
    RequestAddress,
    /// An address is not used any more.
    ReleaseAddress,
}

/// The answer to [`Method::GetCapabilities`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whether the engine makes the link address first and sends it along.
    #[serde(rename = "RequiresMACAddress")]
    pub requires_mac_address: bool,
    /// Whether the engine requests everything again when it starts.
    #[serde(rename = "RequiresRequestReplay")]
    pub requires_request_replay: bool,
}

/// The answer to [`Method::GetDefaultAddressSpaces`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSpaces {
    /// For networks of scope `local`.
    #[serde(rename = "LocalDefaultAddressSpace")]
    pub local_default: String,
    /// For networks of scope `global`.
    #[serde(rename = "GlobalDefaultAddressSpace")]
    pub global_default: String,
}

/// The request of [`Method::RequestPool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestPool {
    /// The address space.
    #[serde(rename = "AddressSpace")]
    pub address_space: String,
    /// `--subnet`; `None` to have one chosen. The engine checks an explicit one for nothing.
    #[serde(rename = "Pool", default, with = "empty_is_none")]
    pub pool: Option<IpNet>,
    /// `--ip-range`.
    #[serde(rename = "SubPool", default, with = "empty_is_none")]
    pub sub_pool: Option<IpNet>,
    /// The `--ipam-opt` pairs. Compose v2 drops them and sends `null`.
    #[serde(rename = "Options", default, deserialize_with = "null_is_default")]
    pub options: BTreeMap<String, String>,
    /// Whether an IPv6 pool is asked for.
    #[serde(rename = "V6")]
    pub v6: bool,
}

/// The answer to [`Method::RequestPool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolAnswer {
    /// What the engine calls the pool from now on: the same for the same pool, always.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// The pool.
    #[serde(rename = "Pool")]
    pub pool: IpNet,
    /// Under [`key::GATEWAY`], the gateway; the engine requests none then.
    #[serde(rename = "Data", default, deserialize_with = "null_is_default")]
    pub data: BTreeMap<String, String>,
}

/// The request of [`Method::ReleasePool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasePool {
    /// Which.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
}

/// The request of [`Method::RequestAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAddress {
    /// The pool.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// The address; `None` to have one chosen. The engine does not check that nobody has it.
    #[serde(rename = "Address", default, with = "empty_is_none")]
    pub address: Option<IpAddr>,
    /// What it is for.
    #[serde(rename = "Options", default, deserialize_with = "null_is_default")]
    pub options: AddressOptions,
}

impl RequestAddress {
    /// Whether the pool's gateway is asked for.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.options.request_type.as_deref() == Some(key::GATEWAY)
    }
}

/// The options of [`RequestAddress`]. All are missing for an auxiliary address, and for an endpoint's
/// too where the plugin does not ask for link addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressOptions {
    /// What the address is for: [`key::GATEWAY`] or nothing.
    #[serde(rename = "RequestAddressType", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_type: Option<String>,
    /// The link address of the endpoint.
    #[serde(
        rename = "com.docker.network.endpoint.macaddress",
        default,
        with = "empty_is_none"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    /// The name of the container (29.0 and later).
    #[serde(rename = "com.docker.network.endpoint.name", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_name: Option<String>,
    /// What else the engine sent.
    #[serde(flatten)]
    pub other: BTreeMap<String, String>,
}

/// The answer to [`Method::RequestAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAnswer {
    /// The address with the prefix length that the container's link gets.
    #[serde(rename = "Address")]
    pub address: IpNet,
    /// Anything more.
    #[serde(rename = "Data", default, deserialize_with = "null_is_default")]
    pub data: BTreeMap<String, String>,
}

/// The request of [`Method::ReleaseAddress`]. It may name an address that was never requested: the gateway
/// that came with the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAddress {
    /// The pool.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// The address.
    #[serde(rename = "Address")]
    pub address: IpAddr,
}
