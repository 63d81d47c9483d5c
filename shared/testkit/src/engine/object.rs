//! Networks, pools and endpoints, and the single calls that make and remove them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{FakeEngine, prefix, random, random_id};
use crate::Fault;

const MAC_OPTION: &str = "com.docker.network.endpoint.macaddress";
const NAME_OPTION: &str = "com.docker.network.endpoint.name";
const GATEWAY: &str = "com.docker.network.gateway";

/// A pool as the user asks for it.
#[derive(Debug, Clone, Default)]
pub struct PoolSpec {
    /// Whether it is IPv6.
    pub v6: bool,
    /// `--subnet`.
    pub subnet: Option<String>,
    /// `--ip-range`.
    pub ip_range: Option<String>,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// `--aux-address`.
    pub auxiliary: BTreeMap<String, String>,
    /// Whether the options are `null`, as Compose leaves them.
    pub null_options: bool,
}

/// A network as the user asks for it.
#[derive(Debug, Clone)]
pub struct NetworkSpec {
    /// Its pools.
    pub pools: Vec<PoolSpec>,
    /// `--internal`.
    pub internal: bool,
    /// `-o`.
    pub options: BTreeMap<String, String>,
}

impl Default for NetworkSpec {
    /// `docker network create NAME`.
    fn default() -> Self {
        Self {
            pools: vec![PoolSpec::default()],
            internal: false,
            options: BTreeMap::new(),
        }
    }
}

impl NetworkSpec {
    /// `docker network create --subnet SUBNET NAME`.
    #[must_use]
    pub fn with_subnet(subnet: &str) -> Self {
        let pool = PoolSpec {
            v6: subnet.contains(':'),
            subnet: Some(subnet.to_owned()),
            ..PoolSpec::default()
        };
        Self {
            pools: vec![pool],
            ..Self::default()
        }
    }

    /// The same with an option.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same, internal.
    #[must_use]
    pub fn internal(self) -> Self {
        Self {
            internal: true,
            ..self
        }
    }
}

/// A pool that the IPAM driver has given.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The driver's name for it.
    pub id: String,
    /// The address space it was asked for in.
    pub space: String,
    /// Its prefix.
    pub prefix: IpNet,
    /// Its gateway.
    pub gateway: Option<IpNet>,
    /// Its auxiliary addresses.
    pub auxiliary: BTreeMap<String, IpNet>,
}

impl Pool {
    fn wire(&self) -> Value {
        let mut data = Map::new();
        data.insert("AddressSpace".to_owned(), json!(self.space));
        data.insert("Pool".to_owned(), json!(self.prefix.to_string()));
        if let Some(gateway) = self.gateway {
            data.insert("Gateway".to_owned(), json!(gateway.to_string()));
        }
        if !self.auxiliary.is_empty() {
            data.insert("AuxAddresses".to_owned(), json!(self.auxiliary));
        }
        data.into()
    }
}

/// A network that both drivers have agreed to.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its pools.
    pub pools: Vec<Pool>,
    /// Whether it is internal.
    pub internal: bool,
}

/// The addresses of an endpoint that is about to be.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// An address of each pool, with the pool's id.
    pub addresses: Vec<(String, IpNet)>,
    /// The link address, if the engine made one.
    pub mac: Option<String>,
}

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// Its network's id.
    pub network: String,
    /// Its addresses.
    pub allocation: Allocation,
    /// Its link address, made by the engine or answered by the driver.
    pub mac: String,
    /// Where its container's namespace is or will be.
    pub sandbox: String,
}

/// What a driver answered to Join.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The link that goes into the container.
    pub link: String,
    /// The prefix of its name there.
    pub prefix: String,
    /// The gateways.
    pub gateways: Vec<IpAddr>,
    /// The routes: where to, and by way of what.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
    /// Whether the container is left without `docker_gwbridge`.
    pub gateway_service_disabled: bool,
}

impl FakeEngine {
    /// The options of `CreateNetwork` and `GwAllocCheck`.
    pub(super) fn wire_options(&self, spec: &NetworkSpec) -> Value {
        let mut generic = self.options.clone();
        generic.extend(spec.options.clone());
        let has = |v6: bool| spec.pools.iter().any(|pool| pool.v6 == v6);
        let mut options = json!({
            "com.docker.network.enable_ipv6": has(true),
            "com.docker.network.generic": generic,
        });
        if let Some(options) = options.as_object_mut() {
            if self.version.checks_gateways {
                options.insert(
                    "com.docker.network.enable_ipv4".to_owned(),
                    has(false).into(),
                );
            }
            if spec.internal {
                options.insert("com.docker.network.internal".to_owned(), true.into());
            }
        }
        options
    }

    /// `RequestPool`.
    ///
    /// # Errors
    /// When the driver refuses, or the answer is not the pool that was asked for.
    pub fn request_pool(&self, spec: &PoolSpec) -> Result<Pool, Fault> {
        let space = self.address_space()?;
        let body = json!({
            "AddressSpace": space,
            "Pool": spec.subnet.clone().unwrap_or_default(),
            "SubPool": spec.ip_range.clone().unwrap_or_default(),
            "Options": if spec.null_options { Value::Null } else { json!({}) },
            "V6": spec.v6,
        });
        let answer = self.ipam("RequestPool", Some(&body))?;
        let given = prefix("RequestPool", &answer, "Pool")?;
        let asked = spec
            .subnet
            .as_ref()
            .and_then(|subnet| subnet.parse::<IpNet>().ok());
        let text = |field: &str| {
            answer
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (id, asked) = (text("PoolID").to_owned(), asked.unwrap_or(given));
        if id.is_empty() || asked != given || given.addr().is_ipv6() != spec.v6 {
            let problem = format!("pool `{id}` {given} is not what was asked for");
            return Err(Fault::unusable("RequestPool", problem));
        }
        let gateway = answer.get("Data").and_then(|data| data.get(GATEWAY));
        let gateway = gateway
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        Ok(Pool {
            id,
            space,
            prefix: given,
            gateway,
            auxiliary: BTreeMap::new(),
        })
    }

    /// `RequestAddress` for a gateway, unless it came with the pool.
    ///
    /// # Errors
    /// When the driver refuses, or the address is not in the pool.
    pub fn request_gateway(&self, pool: &mut Pool, address: Option<&str>) -> Result<(), Fault> {
        if pool.gateway.is_none() {
            let options = json!({ "RequestAddressType": GATEWAY });
            pool.gateway = Some(self.request_address(pool, address, options)?);
        }
        Ok(())
    }

    /// `RequestAddress` for an auxiliary address.
    ///
    /// # Errors
    /// When the driver refuses, or the address is not in the pool.
    pub fn request_auxiliary(
        &self,
        pool: &mut Pool,
        name: &str,
        address: &str,
    ) -> Result<(), Fault> {
        let given = self.request_address(pool, Some(address), Value::Null)?;
        pool.auxiliary.insert(name.to_owned(), given);
        Ok(())
    }

    fn request_address(
        &self,
        pool: &Pool,
        address: Option<&str>,
        options: Value,
    ) -> Result<IpNet, Fault> {
        let asked = address.unwrap_or_default();
        let body = json!({ "PoolID": pool.id, "Address": asked, "Options": options });
        let answer = self.ipam("RequestAddress", Some(&body))?;
        let given = prefix("RequestAddress", &answer, "Address")?;
        let wanted = asked.parse::<IpAddr>().unwrap_or(given.addr());
        if !pool.prefix.contains(&given.addr()) || given.addr() != wanted {
            let problem = format!("{given} is not what was asked for of {}", pool.prefix);
            return Err(Fault::unusable("RequestAddress", problem));
        }
        Ok(given)
    }

    /// `RequestAddress` for an endpoint, of the first pool of each family.
    ///
    /// # Errors
    /// When the driver refuses, or an address is not in its pool.
    pub fn request_addresses(
        &self,
        network: &Network,
        address: Option<&str>,
        name: &str,
    ) -> Result<Allocation, Fault> {
        let mac = self.sends_mac().then(|| self.new_mac());
        let mut options = Map::new();
        if let Some(mac) = &mac {
            options.insert(MAC_OPTION.to_owned(), json!(mac));
        }
        if self.version.names_endpoints {
            options.insert(NAME_OPTION.to_owned(), json!(name));
        }
        let options = if options.is_empty() {
            Value::Null
        } else {
            options.into()
        };
        let mut addresses = Vec::new();
        for v6 in [false, true] {
            let of_family = |pool: &&Pool| pool.prefix.addr().is_ipv6() == v6;
            let fits = |pool: &&Pool| {
                let asked = address.and_then(|text| text.parse::<IpAddr>().ok());
                asked.is_none_or(|asked| asked.is_ipv6() != v6 || pool.prefix.contains(&asked))
            };
            if let Some(pool) = network.pools.iter().filter(of_family).find(fits) {
                let asked = address.filter(|text| text.contains(':') == v6);
                let given = self.request_address(pool, asked, options.clone())?;
                addresses.push((pool.id.clone(), given));
            }
        }
        Ok(Allocation { addresses, mac })
    }

    /// `ReleaseAddress` for what an endpoint had.
    ///
    /// # Errors
    /// When an answer is unusable. Engines only log it.
    pub fn release_addresses(&self, allocation: &Allocation) -> Result<(), Fault> {
        for (pool, address) in &allocation.addresses {
            self.release_address(pool, address.addr())?;
        }
        Ok(())
    }

    /// `ReleaseAddress`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn release_address(&self, pool: &str, address: IpAddr) -> Result<(), Fault> {
        let body = json!({ "PoolID": pool, "Address": address.to_string() });
        self.ipam("ReleaseAddress", Some(&body)).map(drop)
    }

    /// `ReleaseAddress` for gateway and auxiliary addresses, then `ReleasePool`.
    ///
    /// # Errors
    /// When an answer is unusable. Engines only log it.
    pub fn release_pool_and_gateway(&self, pool: &Pool) -> Result<(), Fault> {
        for address in pool.gateway.iter().chain(pool.auxiliary.values()) {
            self.release_address(&pool.id, address.addr())?;
        }
        self.ipam("ReleasePool", Some(&json!({ "PoolID": pool.id })))
            .map(drop)
    }

    /// `CreateNetwork`.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn announce_network(&self, spec: &NetworkSpec, pools: Vec<Pool>) -> Result<Network, Fault> {
        let network = Network {
            id: random_id(),
            pools,
            internal: spec.internal,
        };
        let data = |v6: bool| {
            let pools = network
                .pools
                .iter()
                .filter(|pool| pool.prefix.addr().is_ipv6() == v6);
            pools.map(Pool::wire).collect::<Vec<_>>()
        };
        let body = json!({
            "NetworkID": network.id,
            "Options": self.wire_options(spec),
            "IPv4Data": data(false),
            "IPv6Data": data(true),
        });
        self.network("CreateNetwork", Some(&body))?;
        Ok(network)
    }

    /// `DeleteNetwork`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn delete_network(&self, network: &Network) -> Result<(), Fault> {
        self.network("DeleteNetwork", Some(&json!({ "NetworkID": network.id })))
            .map(drop)
    }

    /// `CreateEndpoint`, with these options beside the ports.
    ///
    /// # Errors
    /// When the driver refuses, or changes what was settled.
    pub fn create_endpoint(
        &self,
        network: &Network,
        allocation: Allocation,
        options: Value,
    ) -> Result<Endpoint, Fault> {
        let (id, network) = (random_id(), network.id.clone());
        let address = |v6: bool| {
            let mut of_family = allocation
                .addresses
                .iter()
                .filter(|it| it.1.addr().is_ipv6() == v6);
            of_family
                .next()
                .map(|(_, address)| address.to_string())
                .unwrap_or_default()
        };
        let given = allocation.mac.clone().unwrap_or_default();
        let body = json!({
            "NetworkID": network,
            "EndpointID": id,
            "Interface": {
                "Address": address(false), "AddressIPv6": address(true), "MacAddress": given,
            },
            "Options": with_ports(options),
        });
        let answer = self.network("CreateEndpoint", Some(&body))?;
        let interface = answer.get("Interface").cloned().unwrap_or_default();
        let field = |name: &str| {
            interface
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        for (name, settled) in [
            ("Address", !address(false).is_empty()),
            ("MacAddress", !given.is_empty()),
        ] {
            if settled && !field(name).is_empty() {
                let problem = format!("{name} is present and cannot be modified");
                return Err(Fault::unusable("CreateEndpoint", problem));
            }
        }
        let mac = if given.is_empty() {
            field("MacAddress").to_owned()
        } else {
            given
        };
        let sandbox = format!("/var/run/docker/netns/{:012x}", random() >> 16);
        Ok(Endpoint {
            id,
            network,
            allocation,
            mac,
            sandbox,
        })
    }

    /// `Join`.
    ///
    /// # Errors
    /// When the driver refuses, or answers what would break the container's start.
    pub fn join(&self, endpoint: &Endpoint) -> Result<Joined, Fault> {
        let mut body = endpoint.wire();
        body.insert("SandboxKey".to_owned(), json!(endpoint.sandbox));
        body.insert("Options".to_owned(), with_ports(json!({})));
        let answer = self.network("Join", Some(&body.into()))?;
        joined(&answer, endpoint)
    }

    /// `ProgramExternalConnectivity`.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn program(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        let mut options = json!({});
        if self.version.sends_no_proxy {
            options = json!({ "com.docker.network.driver.private.no_proxy_6to4": false });
        }
        let mut body = endpoint.wire();
        body.insert("Options".to_owned(), with_ports(options));
        self.network("ProgramExternalConnectivity", Some(&body.into()))
            .map(drop)
    }

    /// `RevokeExternalConnectivity`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn revoke(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        self.network("RevokeExternalConnectivity", Some(&endpoint.wire().into()))
            .map(drop)
    }

    /// `Leave`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn leave(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        self.network("Leave", Some(&endpoint.wire().into()))
            .map(drop)
    }

    /// `DeleteEndpoint`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn delete_endpoint(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        self.network("DeleteEndpoint", Some(&endpoint.wire().into()))
            .map(drop)
    }

    /// `EndpointOperInfo`.
    ///
    /// # Errors
    /// When the driver refuses: up to 27.x the start fails then.
    pub fn information(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        let answer = self.network("EndpointOperInfo", Some(&endpoint.wire().into()))?;
        match answer.get("Value") {
            None | Some(Value::Object(_) | Value::Null) => Ok(()),
            Some(other) => Err(Fault::unusable(
                "EndpointOperInfo",
                format!("Value is {other}"),
            )),
        }
    }

    fn new_mac(&self) -> String {
        let [a, b, c, d, e, f, ..] = random().to_be_bytes();
        let (a, b) = if self.version.macs_begin_with_0242 {
            (2, 0x42)
        } else {
            (a & 0xfe | 2, b)
        };
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl Endpoint {
    fn wire(&self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("NetworkID".to_owned(), json!(self.network));
        body.insert("EndpointID".to_owned(), json!(self.id));
        body
    }
}

fn with_ports(mut options: Value) -> Value {
    if let Some(options) = options.as_object_mut() {
        for name in [
            "com.docker.network.endpoint.exposedports",
            "com.docker.network.portmap",
        ] {
            options.entry(name).or_insert_with(|| json!([]));
        }
    }
    options
}

/// Reads an answer to Join as the engine applies it.
fn joined(answer: &Map<String, Value>, endpoint: &Endpoint) -> Result<Joined, Fault> {
    let unusable = |problem: String| Fault::unusable("Join", problem);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = answer.get("InterfaceName");
    let link = text(name.and_then(|name| name.get("SrcName")));
    let prefix = text(name.and_then(|name| name.get("DstPrefix")));
    if link.is_empty() || link.len() > 15 || prefix.is_empty() {
        return Err(unusable(format!("link `{link}`, prefix `{prefix}`")));
    }
    let mut gateways = Vec::new();
    for field in ["Gateway", "GatewayIPv6"] {
        let address = text(answer.get(field));
        if !address.is_empty() {
            let gateway: IpAddr = address
                .parse()
                .map_err(|error| unusable(format!("{field} `{address}`: {error}")))?;
            let on_link = |it: &(String, IpNet)| it.1.contains(&gateway);
            if !endpoint.allocation.addresses.iter().any(on_link) {
                return Err(unusable(format!(
                    "{field} {gateway} is not on the endpoint's link"
                )));
            }
            gateways.push(gateway);
        }
    }
    let mut routes = Vec::new();
    for route in answer
        .get("StaticRoutes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let destination = text(route.get("Destination"));
        let destination: IpNet = destination
            .parse()
            .map_err(|error| unusable(format!("route to `{destination}`: {error}")))?;
        let hop = text(route.get("NextHop"));
        let hop = (!hop.is_empty()).then(|| hop.parse::<IpAddr>()).transpose();
        let hop = hop.map_err(|error| unusable(format!("route to {destination}: {error}")))?;
        let by_hop = route.get("RouteType").and_then(Value::as_u64) == Some(0);
        if by_hop != hop.is_some() || (by_hop && destination.prefix_len() == 0) {
            return Err(unusable(format!("route {route}")));
        }
        routes.push((destination, hop));
    }
    let disabled = answer.get("DisableGatewayService").and_then(Value::as_bool);
    let gateway_service_disabled = disabled.unwrap_or_default();
    Ok(Joined {
        link,
        prefix,
        gateways,
        routes,
        gateway_service_disabled,
    })
}
