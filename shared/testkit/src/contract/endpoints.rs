//! Endpoints: their making, joining, and every way of their end.

use std::time::Duration;

use serde_json::json;

use super::{activate, refused, within};
use crate::{Endpoint, FakeEngine, Fault, Network, NetworkSpec};

fn network(engine: &FakeEngine, spec: &NetworkSpec) -> Result<Network, Fault> {
    activate(engine)?;
    engine.create_network(spec)
}

/// Trap 9: after a crash an old endpoint still holds the address that a new one claims: the newer wins.
///
/// # Errors
/// When the new one is refused.
pub fn a_newer_endpoint_takes_the_address(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::with_subnet("10.211.0.0/24"))?;
    let address = Some("10.211.0.50");
    let allocation = engine.request_addresses(&network, address, "c1")?;
    let old = engine.create_endpoint(&network, allocation.clone(), json!({}))?;
    let before = engine.join(&old)?;
    // kill -9 of the engine: it releases the address when it is back, and forgets the endpoint.
    activate(engine)?;
    engine.release_addresses(&allocation)?;
    let allocation = engine.request_addresses(&network, address, "c1")?;
    let new = engine.create_endpoint(&network, allocation, json!({}))?;
    let joined = engine.join(&new)?;
    Fault::unless(
        joined.link != before.link,
        "the new endpoint has the old link",
    )?;
    engine.information(&new)?;
    engine.detach(&new)?;
    engine.remove_network(&network)
}

/// Trap 10: after a failed CreateEndpoint nothing comes; after a failed Join only DeleteEndpoint, or Leave too.
///
/// # Errors
/// When a failure leaves something in the way.
pub fn a_failed_call_leaves_nothing(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::with_subnet("10.212.0.0/24"))?;
    let unknown = Network {
        id: "0123456789abcdef".repeat(4),
        ..network.clone()
    };
    let address = Some("10.212.0.50");
    let allocation = engine.request_addresses(&network, address, "c1")?;
    let failed = engine.create_endpoint(&unknown, allocation.clone(), json!({}));
    refused("an endpoint in an unknown network", failed)?;
    engine.release_addresses(&allocation)?;

    let allocation = engine.request_addresses(&network, address, "c1")?;
    let endpoint = engine.create_endpoint(&network, allocation, json!({}))?;
    let stranger = Endpoint {
        id: "f".repeat(64),
        ..endpoint.clone()
    };
    refused("a Join of an unknown endpoint", engine.join(&stranger))?;
    if engine.version.leaves_after_failed_join {
        engine.leave(&stranger)?;
        engine.leave(&stranger)?;
    }
    engine.delete_endpoint(&stranger)?;
    engine.join(&endpoint)?;
    engine.detach(&endpoint)?;
    engine.remove_network(&network)
}

/// Trap 11: what engines log and never repeat succeeds for what is unknown.
///
/// # Errors
/// When it fails.
pub fn removing_the_unknown_succeeds(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let unknown = "0123456789abcdef".repeat(4);
    let endpoint = json!({ "NetworkID": unknown, "EndpointID": unknown });
    for method in ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"] {
        engine.network(method, Some(&endpoint))?;
    }
    engine
        .network("DeleteNetwork", Some(&json!({ "NetworkID": unknown })))
        .map(drop)
}

/// Trap 12: Revoke without Program, Program twice, Leave twice, Leave without Join.
///
/// # Errors
/// When one of them fails.
pub fn teardown_may_come_twice(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default())?;
    let allocation = engine.request_addresses(&network, None, "c1")?;
    let endpoint = engine.create_endpoint(&network, allocation, json!({}))?;
    engine.leave(&endpoint)?;
    engine.revoke(&endpoint)?;
    engine.join(&endpoint)?;
    engine.program(&endpoint)?;
    engine.program(&endpoint)?;
    for _ in 0..2 {
        engine.revoke(&endpoint)?;
        engine.leave(&endpoint)?;
    }
    engine.delete_endpoint(&endpoint)?;
    engine.delete_endpoint(&endpoint)?;
    engine.release_addresses(&endpoint.allocation)?;
    engine.remove_network(&network)
}

/// Trap 13: up to 27.x the sandbox does not exist at Join; later, the container's start waits.
///
/// # Errors
/// When Join needs it, or is slow.
pub fn join_needs_no_sandbox(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default())?;
    let allocation = engine.request_addresses(&network, None, "c1")?;
    let endpoint = engine.create_endpoint(&network, allocation, json!({}))?;
    let nowhere = Endpoint {
        sandbox: "/nonexistent/sandbox".to_owned(),
        ..endpoint
    };
    within(Duration::from_secs(2), "Join", || engine.join(&nowhere))?;
    engine.detach(&nowhere)?;
    engine.remove_network(&network)
}

/// Trap 14: Program comes for internal networks, too.
///
/// # Errors
/// When it fails.
pub fn internal_networks_may_be_programmed(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default().internal())?;
    let (endpoint, _) = engine.attach(&network, "c1")?;
    engine.program(&endpoint)?;
    engine.detach(&endpoint)?;
    engine.remove_network(&network)
}

/// Trap 15: every endpoint of a container is created with all of its ports.
///
/// # Errors
/// When creating two with the same port fails.
pub fn ports_are_not_bound_at_creation(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default())?;
    let ports = json!({
        "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
        "com.docker.network.portmap": [{
            "Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 18080, "HostPortEnd": 18080,
        }],
    });
    let mut endpoints = Vec::new();
    for name in ["c1", "c2"] {
        let allocation = engine.request_addresses(&network, None, name)?;
        endpoints.push(engine.create_endpoint(&network, allocation, ports.clone())?);
    }
    endpoints
        .iter()
        .try_for_each(|endpoint| engine.detach(endpoint))?;
    engine.remove_network(&network)
}

/// Trap 16: the link address is base64 in network options, text in IPAM options and in the interface.
///
/// # Errors
/// When either is not understood.
pub fn link_addresses_come_in_two_forms(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default())?;
    let mut allocation = engine.request_addresses(&network, None, "c1")?;
    allocation.mac = Some("02:11:22:33:44:55".to_owned());
    let options = json!({ "com.docker.network.endpoint.macaddress": "AhEiM0RV" });
    let endpoint = engine.create_endpoint(&network, allocation, options)?;
    engine.join(&endpoint)?;
    engine.detach(&endpoint)?;
    engine.remove_network(&network)
}

/// Trap 17: a gateway is on the endpoint's link, no default route is static, and there is a link address.
///
/// # Errors
/// When it is not so. `FakeEngine::join` checks the routes.
pub fn a_gateway_is_on_link_and_an_endpoint_has_a_mac(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default())?;
    let mut allocation = engine.request_addresses(&network, None, "c1")?;
    // `docker network connect` on some engines, and a driver that the IPAM plugin is not told of.
    allocation.mac = None;
    let endpoint = engine.create_endpoint(&network, allocation, json!({}))?;
    Fault::unless(
        endpoint.mac.len() == 17,
        format!("the link address is `{}`", endpoint.mac),
    )?;
    let joined = engine.join(&endpoint)?;
    for (destination, hop) in &joined.routes {
        let reachable = hop.is_none_or(|hop| {
            let on_link = |address: &(String, ipnet::IpNet)| address.1.contains(&hop);
            let connected =
                |route: &(ipnet::IpNet, Option<_>)| route.1.is_none() && route.0.contains(&hop);
            endpoint.allocation.addresses.iter().any(on_link) || joined.routes.iter().any(connected)
        });
        Fault::unless(
            reachable,
            format!("the next hop to {destination} is not on link"),
        )?;
    }
    engine.detach(&endpoint)?;
    engine.remove_network(&network)
}

/// Trap 18: without gateway and without `DisableGatewayService` the container gets `docker_gwbridge`.
///
/// # Errors
/// When an internal network lets that happen.
pub fn an_internal_network_brings_no_gateway_bridge(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default().internal())?;
    let (endpoint, joined) = engine.attach(&network, "c1")?;
    let alone = joined.gateway_service_disabled && joined.gateways.is_empty();
    Fault::unless(
        alone,
        format!("an internal network was joined with {joined:?}"),
    )?;
    engine.detach(&endpoint)?;
    engine.remove_network(&network)
}

/// Trap 30: the MTU is the driver's business. Options that nobody knows are refused by name.
///
/// # Errors
/// When the option is refused, or a wrong one accepted.
pub fn an_mtu_option_is_accepted(engine: &FakeEngine) -> Result<(), Fault> {
    let mtu = "com.docker.network.driver.mtu";
    let network = network(engine, &NetworkSpec::default().with_option(mtu, "1400"))?;
    engine.remove_network(&network)?;
    for wrong in ["many", "7", "-1", "99999"] {
        let spec = NetworkSpec::default().with_option(mtu, wrong);
        refused("a wrong MTU", engine.create_network(&spec))?;
    }
    let spec = NetworkSpec::default().with_option("com.docker.network.driver.mtuu", "1400");
    let sentence = refused("a mistyped option", engine.create_network(&spec))?;
    Fault::unless(
        sentence.contains("mtuu"),
        format!("the refusal is `{sentence}`"),
    )
}

/// Trap 31: every start of a container is a new endpoint, with the same `--ip` and `--mac-address`.
///
/// # Errors
/// When the second is refused.
pub fn a_restart_is_a_new_endpoint(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::with_subnet("10.213.0.0/24"))?;
    for _ in 0..3 {
        let allocation = engine.request_addresses(&network, Some("10.213.0.50"), "c1")?;
        let endpoint = engine.create_endpoint(&network, allocation, json!({}))?;
        engine.join(&endpoint)?;
        engine.program(&endpoint)?;
        engine.detach(&endpoint)?;
    }
    engine.remove_network(&network)
}

/// Trap 32: 29 with live-restore sends no Revoke; Leave and DeleteEndpoint must do.
///
/// # Errors
/// When the endpoint is not gone after them.
pub fn removal_needs_no_revocation(engine: &FakeEngine) -> Result<(), Fault> {
    let network = network(engine, &NetworkSpec::default())?;
    let (endpoint, _) = engine.attach(&network, "c1")?;
    engine.program(&endpoint)?;
    engine.leave(&endpoint)?;
    engine.delete_endpoint(&endpoint)?;
    engine.release_addresses(&endpoint.allocation)?;
    refused("a Join of a removed endpoint", engine.join(&endpoint))?;
    engine.remove_network(&network)
}
