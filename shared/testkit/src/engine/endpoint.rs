//! Endpoints, and the calls of a network driver from the start of a container to its end.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{Allocation, FakeEngine, Network, random, random_id};
use crate::Fault;

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
