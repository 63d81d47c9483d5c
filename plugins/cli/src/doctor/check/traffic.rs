//! Checks of what carries packets: MTU, paths, endpoints, leases, pools.

use std::collections::BTreeSet;
use std::net::IpAddr;

use drover_control_api::coordinator::{Finding, StatusAnswer};
use drover_control_api::plugin::PathEntry;
use drover_model::{Encapsulation, HostName};

use super::{Outcome, error, no_answer, warning};
use crate::doctor::facts::Facts;

const NETWORK: &str = "drover-net";
const IPAM: &str = "drover-ipam";
/// So many packets without an answer are no chance.
const UNANSWERED: u64 = 20;
/// A lease this young may belong to a container that is starting, seconds.
const YOUNG: u64 = 120;

/// Hosts on one link have one MTU, and no network is wider than a path.
pub(super) fn mtu(facts: &Facts) -> Outcome {
    let Some(status) = &facts.status else {
        return no_answer("drover-coordinator");
    };
    let mut findings = links(status);
    let paths = facts.paths.iter().flat_map(|table| &table.paths);
    for path in paths {
        let networks = facts.endpoints.iter().flat_map(|table| &table.networks);
        for network in networks.filter(|network| network.mtu > path.mtu) {
            findings.push(error(
                format!(
                    "network {} has MTU {}, the path to host `{}` carries {}: large packets are lost",
                    network.network.short(), network.mtu, path.host, path.mtu
                ),
                format!(
                    "make the network again with `-o com.docker.network.driver.mtu={}` or without that option",
                    path.mtu
                ),
            ));
        }
    }
    Outcome::Checked(findings)
}

fn links(status: &StatusAnswer) -> Vec<Finding> {
    let Some(own) = status
        .hosts
        .iter()
        .find(|host| host.host.name == status.host)
    else {
        return Vec::new();
    };
    let own = &own.host;
    let neighbours = status.hosts.iter().map(|host| &host.host).filter(|host| {
        host.link.is_some() && host.link == own.link && host.underlay_mtu != own.underlay_mtu
    });
    let finding = |host: &drover_control_api::record::HostRecord| {
        error(
            format!(
                "hosts `{}` and `{}` share a link, and have MTU {} and {} on it: large packets are lost",
                own.name, host.name, own.underlay_mtu, host.underlay_mtu
            ),
            "give both interfaces the same MTU: ip link set dev DEVICE mtu BYTES",
        )
    };
    neighbours.map(finding).collect()
}

/// There is a path to every living host, and what is sent is answered.
pub(super) fn paths(facts: &Facts) -> Outcome {
    let (Some(status), Some(table)) = (&facts.status, &facts.paths) else {
        return no_answer(NETWORK);
    };
    let alive = |name: &HostName| {
        status
            .hosts
            .iter()
            .any(|host| host.alive && host.host.name == *name && status.host != *name)
    };
    let mut findings = Vec::new();
    for host in status
        .hosts
        .iter()
        .map(|host| &host.host.name)
        .filter(|name| alive(name))
    {
        if !table.paths.iter().any(|path| path.host == *host) {
            findings.push(error(
                format!("there is no path to host `{host}`"),
                format!("see the log of `{NETWORK}` for why it was not made"),
            ));
        }
    }
    let silent = table
        .paths
        .iter()
        .filter(|path| alive(&path.host) && is_silent(path));
    findings.extend(silent.map(|path| silent_path(path, facts.vxlan_port)));
    let encrypted = table.paths.iter().filter(|path| alive(&path.host));
    findings.extend(encrypted.filter_map(degraded_path));
    Outcome::Checked(findings)
}

/// What encrypted networks suffer from.
fn degraded_path(path: &PathEntry) -> Option<Finding> {
    let encryption = path.encryption.as_ref()?;
    let reason = encryption.degraded.as_ref()?;
    Some(warning(
        format!("encrypted networks and host `{}`: {reason}", path.host),
        format!(
            "allow {} from and to {}, and ESP (IP protocol 50) in from there, in the firewalls of both hosts and between them; `drover peers` shows what was dropped and why",
            encryption.transport, path.address
        ),
    ))
}

fn is_silent(path: &PathEntry) -> bool {
    path.packets.sent >= UNANSWERED && path.packets.received == 0
}

fn silent_path(path: &PathEntry, vxlan_port: u16) -> Finding {
    let problem = format!(
        "{} packets were sent to host `{}` by {} and none came back",
        path.packets.sent, path.host, path.encapsulation
    );
    let remedy = match path.encapsulation {
        Encapsulation::Vxlan => format!(
            "allow UDP port {vxlan_port} from and to {} in the firewalls of both hosts and between them", path.address
        ),
        Encapsulation::Direct => {
            "the link drops packets whose source is not the host's (most clouds do): set `overlay.encapsulation = \"vxlan\"` on both hosts"
                .to_owned()
        }
        Encapsulation::Ipsec => format!(
            "allow ESP and its UDP ports from and to {} in the firewalls of both hosts and between them", path.address
        ),
    };
    warning(problem, remedy)
}

/// Every endpoint is in the kernel, and belongs to a container that runs.
pub(super) fn endpoints(facts: &Facts) -> Outcome {
    let Some(table) = &facts.endpoints else {
        return no_answer(NETWORK);
    };
    let mut findings = Vec::new();
    for endpoint in table
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.sandbox.is_some())
    {
        let (id, network) = (endpoint.endpoint.short(), endpoint.network.short());
        let known = facts.engine_endpoints.as_ref();
        if known.is_some_and(|known| !known.contains(endpoint.endpoint.as_str())) {
            findings.push(error(
                format!("endpoint {id} of network {network} is stale: no running container has it"),
                format!("restart Docker, which makes `{NETWORK}` compare; if it stays, stop the network's containers and remove the network"),
            ));
        } else if !endpoint.present {
            findings.push(error(
                format!("endpoint {id} of network {network} has no port in the kernel: its container is cut off"),
                "restart the container",
            ));
        }
    }
    Outcome::Checked(findings)
}

/// Every address that was given out belongs to an endpoint. The coordinator says so itself while it
/// runs.
pub(super) fn leases(facts: &Facts) -> Outcome {
    if facts.examination.is_some() {
        return Outcome::Checked(Vec::new());
    }
    let (Some(leases), Some(endpoints)) = (&facts.leases, &facts.endpoints) else {
        return no_answer(IPAM);
    };
    let addresses = endpoints
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses);
    let in_use: BTreeSet<IpAddr> = addresses.map(|address| address.addr()).collect();
    let mut findings = Vec::new();
    for pool in &leases.pools {
        let old = pool
            .leases
            .iter()
            .filter(|lease| facts.now.saturating_sub(lease.given_at) >= YOUNG);
        for lease in old.filter(|lease| !in_use.contains(&lease.address)) {
            findings.push(warning(
                format!("lease {} of pool {} has leaked: no endpoint has the address", lease.address, pool.pool),
                "the coordinator releases it within minutes, while it and the engine run; if it stays, see its log",
            ));
        }
    }
    Outcome::Checked(findings)
}
