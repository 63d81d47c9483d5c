//! Checks of the cluster as this host sees it.

use drover_daemon::VERSION;

use super::{Outcome, error, no_answer, warning};
use crate::cluster::ETCD;
use crate::doctor::facts::Facts;
use crate::doctor::port::PortState;

const COORDINATOR: &str = "drover-coordinator";
/// The program of the store is there where this host runs it.
pub(super) fn etcd(facts: &Facts) -> Outcome {
    let Some(status) = &facts.status else {
        return no_answer(COORDINATOR);
    };
    let mut findings = Vec::new();
    let store = &status.store;
    let own = status
        .hosts
        .iter()
        .find(|host| host.host.name == status.host);
    let runs_member = own.is_some_and(|own| {
        let address = own.host.advertise.to_string();
        store
            .endpoints
            .iter()
            .any(|endpoint| endpoint.contains(&format!("//{address}:")))
    });
    if store.kind == ETCD && runs_member && !facts.has_etcd_program {
        findings.push(error(
            "this host is a member of the cluster store, and the program `etcd` is missing",
            "install it: apt install etcd-server",
        ));
    }
    Outcome::Checked(findings)
}

/// Every process of this host, and every host, runs the version of this command.
pub(super) fn versions(facts: &Facts) -> Outcome {
    let mut findings = Vec::new();
    for fact in &facts.processes {
        if let Ok(identity) = &fact.identity
            && identity.version != VERSION
        {
            let name = fact.process.name();
            findings.push(warning(
                format!(
                    "`{name}` runs version {}, this command is version {VERSION}",
                    identity.version
                ),
                "restart `drover up` with the programs of one version",
            ));
        }
    }
    let hosts = facts.status.iter().flat_map(|status| &status.hosts);
    for host in hosts.filter(|host| host.host.software != VERSION) {
        findings.push(warning(
            format!(
                "host `{}` runs version {}, this one runs {VERSION}",
                host.host.name, host.host.software
            ),
            "bring every host to the same version",
        ));
    }
    Outcome::Checked(findings)
}

/// The TCP ports of other hosts can be reached.
pub(super) fn ports(facts: &Facts) -> Outcome {
    if facts.status.is_none() {
        return no_answer(COORDINATOR);
    }
    let findings = facts.ports.iter().filter_map(|port| match &port.state {
        PortState::Open => None,
        PortState::Refused => Some(error(
            format!(
                "nobody listens at {} of host `{}` (TCP, {})",
                port.address, port.host, port.purpose
            ),
            format!(
                "see to it that `drover up` runs on `{}`, with the same ports in its settings",
                port.host
            ),
        )),
        PortState::Blocked(reason) => Some(error(
            format!(
                "{} of host `{}` (TCP, {}) cannot be reached: {reason}",
                port.address, port.host, port.purpose
            ),
            "allow the port in the firewalls of both hosts and between them",
        )),
    });
    Outcome::Checked(findings.collect())
}

/// What the coordinator has found.
pub(super) fn examination(facts: &Facts) -> Outcome {
    match &facts.examination {
        Some(examination) => Outcome::Checked(examination.findings.clone()),
        None => no_answer(COORDINATOR),
    }
}
