//! Checks of the cluster as this host sees it.

use std::collections::BTreeSet;

use drover_daemon::VERSION;

use super::{Outcome, error, no_answer, warning};
use crate::cluster::ETCD;
use crate::doctor::facts::Facts;
use crate::doctor::port::PortState;

const COORDINATOR: &str = "drover-coordinator";
/// From this many seconds on, a clock is worth a word.
const CLOCK_WARNING: u64 = 2;
/// From this many on, certificates and leases suffer.
const CLOCK_ERROR: u64 = 30;

/// The store answers, and its program is there where this host runs it.
pub(super) fn etcd(facts: &Facts) -> Outcome {
    let Some(status) = &facts.status else {
        return no_answer(COORDINATOR);
    };
    let mut findings = Vec::new();
    let store = &status.store;
    if !store.reachable {
        let reason = store.problem.as_deref().unwrap_or("no reason is known");
        findings.push(error(
            format!("the cluster store ({}) does not answer: {reason}", store.kind),
            "what runs goes on; see that a majority of the etcd members runs and that their ports are reachable",
        ));
    }
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

/// Every host holds its lease, and this one is a member.
pub(super) fn hosts(facts: &Facts) -> Outcome {
    let Some(status) = &facts.status else {
        return no_answer(COORDINATOR);
    };
    let mut findings = Vec::new();
    if status.fenced {
        findings.push(error(
            format!(
                "host `{}` was removed from its cluster: it gives out nothing new",
                status.host
            ),
            "run `drover leave`, then join again with a new token",
        ));
    }
    for host in status.hosts.iter().filter(|host| !host.alive) {
        let name = &host.host.name;
        findings.push(error(
            format!("host `{name}` ({}) gives no sign of life", host.host.advertise),
            format!("see to it that it runs and is reachable; if it will not come back: drover host rm {name}"),
        ));
    }
    Outcome::Checked(findings)
}

/// The clocks agree.
pub(super) fn clocks(facts: &Facts) -> Outcome {
    let Some(status) = &facts.status else {
        return no_answer(COORDINATOR);
    };
    let findings = status.hosts.iter().filter_map(|host| {
        let offset = host.clock_offset?;
        let problem = || {
            format!(
                "the clock of host `{}` is off by {offset:+} s",
                host.host.name
            )
        };
        let remedy = "keep the clocks of all hosts by NTP: apt install systemd-timesyncd";
        match offset.unsigned_abs() {
            0..=CLOCK_WARNING => None,
            off if off < CLOCK_ERROR => Some(warning(problem(), remedy)),
            _ => Some(error(problem(), remedy)),
        }
    });
    Outcome::Checked(findings.collect())
}

/// The TCP ports of other hosts can be reached.
pub(super) fn ports(facts: &Facts) -> Outcome {
    let Some(status) = &facts.status else {
        return no_answer(COORDINATOR);
    };
    let alone: BTreeSet<_> = status.hosts.iter().map(|host| &host.host.name).collect();
    if facts.ports.is_empty() && alone.len() > 1 {
        return Outcome::Skipped("no ports are known".to_owned());
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
