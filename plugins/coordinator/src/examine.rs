//! What is wrong, for `drover doctor`: each finding with its cause and remedy.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_control_api::coordinator::{Examination, Finding, HostStatus, NetworkStatus, Severity};
use drover_control_api::plugin::{LeaseTable, Leases};
use drover_control_api::record::{BlockRecord, NetworkState, PoolRecord};
use drover_http::control;
use drover_model::Pool;

use crate::Coordinator;
use crate::confirm::addresses_in_use;
use crate::context::now;
use crate::registry::State;
use crate::{membership, status};

/// How far clocks may be apart, in seconds, before somebody should know.
const CLOCK_WARNING: u64 = 10;
/// From here on certificates and leases are misjudged.
const CLOCK_ERROR: u64 = 120;
/// Which part of a pool may be in use, in percent.
const FULL: u64 = 80;
/// A lease that is not in use is a leak when it is as old as this, in seconds.
const LEAK: u64 = 600;
/// From here on what waits to be written is worth telling, in seconds.
const BEHIND: u64 = 5;
/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(3);

/// See [`drover_control_api::coordinator::Examine`].
pub async fn examine(coordinator: &Coordinator) -> Examination {
    let context = &coordinator.context;
    let snapshot = context.cluster.borrow().clone();
    let hosts = status::hosts(coordinator, &snapshot);
    let table = status::networks(&snapshot);
    let pools = status::pools(&snapshot);
    let mut findings = Vec::new();
    findings.extend(cluster(coordinator));
    findings.extend(engine(coordinator).await);
    findings.extend(
        hosts
            .iter()
            .flat_map(|host| look_at_host(context.host().as_str(), host)),
    );
    findings.extend(look_at_pools(&pools.pools, &pools.blocks));
    findings.extend(
        table
            .networks
            .iter()
            .flat_map(|network| look_at_network(network, &hosts)),
    );
    findings.extend(table.conflicts.into_iter().map(conflict));
    findings.extend(context.keys.findings());
    findings.extend(snapshot.takeovers().findings(now()));
    findings.extend(registry(&coordinator.registry.state(), now()));
    findings.extend(addresses(coordinator).await);
    findings.extend(
        membership::certificate_expires_at(&context.settings).and_then(|end| {
            certificate(
                end,
                now(),
                context.settings.cluster.certificate_lifetime.as_secs(),
            )
        }),
    );
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Examination { findings }
}

fn finding(severity: Severity, problem: String, remedy: impl Into<String>) -> Finding {
    Finding {
        severity,
        problem,
        remedy: remedy.into(),
    }
}

/// A conflict is one sentence: what is wrong, a colon, what to do.
fn conflict(sentence: String) -> Finding {
    match sentence.rsplit_once(": ") {
        Some((problem, remedy)) => finding(Severity::Error, problem.to_owned(), remedy),
        None => finding(
            Severity::Warning,
            sentence,
            "look at it with `drover networks`",
        ),
    }
}

fn cluster(coordinator: &Coordinator) -> Vec<Finding> {
    let context = &coordinator.context;
    let snapshot = context.cluster.borrow();
    let mut findings = Vec::new();
    if let Some(problem) = &snapshot.problem {
        findings.push(finding(
            Severity::Error,
            format!("the cluster's store does not answer: {problem}"),
            "containers and their traffic go on; new networks and address blocks wait: start the hosts that run etcd, and check that its port is open",
        ));
    }
    if context.is_fenced() {
        findings.push(finding(
            Severity::Error,
            format!("host `{}` was removed from its cluster", context.host()),
            "run `drover leave` here, and `drover join` to come back",
        ));
    }
    findings
}

async fn engine(coordinator: &Coordinator) -> Option<Finding> {
    let status = status::engine(coordinator).await;
    let problem = status
        .problem
        .or(coordinator.networks.state().engine_problem)?;
    Some(finding(
        Severity::Error,
        format!(
            "the engine at {} does not answer: {problem}",
            status.address
        ),
        "start it, or set docker_host to where it is",
    ))
}

fn look_at_host(this_host: &str, status: &HostStatus) -> Vec<Finding> {
    let name = status.host.name.as_str();
    let mut findings = Vec::new();
    if !status.alive {
        findings.push(finding(
            Severity::Warning,
            format!("host `{name}` gives no sign of life"),
            format!("start Drover there; if it does not come back, `drover host rm {name}` frees what it held"),
        ));
    }
    let offset = status.clock_offset.unwrap_or(0);
    let apart = offset.unsigned_abs();
    if name != this_host && apart >= CLOCK_WARNING {
        let severity = if apart >= CLOCK_ERROR {
            Severity::Error
        } else {
            Severity::Warning
        };
        let direction = if offset > 0 { "ahead of" } else { "behind" };
        findings.push(finding(
            severity,
            format!("the clock of host `{name}` is {apart} s {direction} this host's"),
            "set both by NTP (chrony, systemd-timesyncd)",
        ));
    }
    findings
}

fn look_at_pools(pools: &[PoolRecord], blocks: &[BlockRecord]) -> Vec<Finding> {
    let mut taken: BTreeMap<Pool, u64> = BTreeMap::new();
    for block in blocks.iter().filter(|block| block.owner.is_some()) {
        let count = taken.entry(block.pool).or_default();
        *count = count.saturating_add(1);
    }
    let full = pools.iter().filter_map(|record| {
        let within = record.sub_pool.unwrap_or(record.pool.prefix());
        let bits = record.block_prefix.saturating_sub(within.prefix_len());
        let total = 1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
        let taken = taken.get(&record.pool).copied().unwrap_or(0);
        // One block of one is a small pool, not a full one; its addresses are counted by their host.
        let is_full = total > 1 && taken.saturating_mul(100) > total.saturating_mul(FULL);
        is_full.then(|| {
            finding(
                Severity::Warning,
                format!("{taken} of {total} blocks of pool {} are taken", record.pool),
                "hosts that need another block will soon get none: make a network with a larger subnet",
            )
        })
    });
    full.collect()
}

fn look_at_network(status: &NetworkStatus, hosts: &[HostStatus]) -> Vec<Finding> {
    if status.network.state == NetworkState::Removing {
        return Vec::new();
    }
    // A copy takes a moment; one that could not be made is reported by its host.
    let is_new = status.network.created_at.saturating_add(10) > now();
    let missing = hosts
        .iter()
        .filter(|host| host.alive && !is_new && !status.copies.contains_key(&host.host.name));
    let name = &status.network.name;
    missing
        .map(|host| {
            finding(
                Severity::Warning,
                format!("host `{}` has no copy of network `{name}`", host.host.name),
                "see what Drover says there: `drover doctor` and its log",
            )
        })
        .collect()
}

/// Whether this host's containers are written down, and in full.
fn registry(state: &State, now: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(since) = state
        .behind_since
        .filter(|since| since.saturating_add(BEHIND) < now)
    {
        let age = now.saturating_sub(since);
        findings.push(finding(
            Severity::Warning,
            format!("what happened to containers of this host in the last {age} s is not known to other hosts"),
            "the cluster's store must answer: start the hosts that run etcd, and check that its port is open",
        ));
    }
    if state.labels_left_out > 0 {
        findings.push(finding(
            Severity::Warning,
            format!(
                "{} labels of containers of this host are too long for the registry and were left out",
                state.labels_left_out
            ),
            "keep the labels of a container under 16 KiB together",
        ));
    }
    findings
}

async fn addresses(coordinator: &Coordinator) -> Vec<Finding> {
    let context = &coordinator.context;
    let Ok(table) = control::call(&context.ipam, &Leases {}, LIMIT).await else {
        // That its socket does not answer is found by whoever looks at the sockets.
        return Vec::new();
    };
    let mut findings = full_blocks(&table, &status::pools(&context.cluster.borrow()).blocks);
    let Ok(in_use) = addresses_in_use(&context.engine).await else {
        return findings;
    };
    let old = now().saturating_sub(LEAK);
    let leases = table.pools.iter().flat_map(|pool| &pool.leases);
    for lease in leases.filter(|lease| lease.given_at < old && !in_use.contains(&lease.address)) {
        findings.push(finding(
            Severity::Warning,
            format!("address {} is given out and no container has it", lease.address),
            "it is released within five minutes, when the engine has answered; if not, restart drover-ipam",
        ));
    }
    findings
}

/// Where this host's blocks are nearly full and there is no further block.
fn full_blocks(table: &LeaseTable, blocks: &[BlockRecord]) -> Vec<Finding> {
    let full = table.pools.iter().filter_map(|pool| {
        let usable: u64 = pool.blocks.iter().map(|block| block.usable).sum();
        let used: u64 = pool.blocks.iter().map(|block| block.used).sum();
        let bits = pool.blocks.first()?.block.prefix().prefix_len();
        let total = 1_u64
            .checked_shl(u32::from(bits.saturating_sub(pool.pool.prefix().prefix_len())))
            .unwrap_or(u64::MAX);
        let taken = blocks.iter().filter(|b| b.pool == pool.pool && b.owner.is_some()).count();
        let no_more = u64::try_from(taken).unwrap_or(u64::MAX) >= total;
        (no_more && used.saturating_mul(100) > usable.saturating_mul(FULL)).then(|| {
            finding(
                Severity::Warning,
                format!("{used} of {usable} addresses of pool {} are in use here, and it has no free block", pool.pool),
                "make a network with a larger subnet",
            )
        })
    });
    full.collect()
}

fn certificate(end: u64, now: u64, lifetime: u64) -> Option<Finding> {
    let left = end.saturating_sub(now);
    if left == 0 {
        return Some(finding(
            Severity::Error,
            "the certificate of this host has expired".to_owned(),
            "run `drover leave` here, and join again with a new token",
        ));
    }
    // It is renewed after two thirds of its life.
    (left < lifetime / 6).then(|| {
        finding(
            Severity::Warning,
            format!(
                "the certificate of this host ends in {} hours and was not renewed",
                left / 3600
            ),
            "check that the host that was joined at can be reached, and see the coordinator's log",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_finding_when_it_was_not_renewed() {
        assert_eq!(certificate(3000, 1000, 3000), None);
        let found = certificate(1400, 1000, 3000).unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(
            certificate(900, 1000, 3000).unwrap().severity,
            Severity::Error
        );
    }

    #[test]
    fn a_pool_of_which_more_than_four_fifths_are_taken_is_a_finding() {
        let pool: PoolRecord = serde_json::from_str(
            r#"{"version":1,"pool":"10.42.0.0/24","sub_pool":null,"block_prefix":28,"reserved":[],
               "claimed_by":"a","claimed_at":1,"network":null}"#,
        )
        .unwrap();
        let block = |number: u8| -> BlockRecord {
            serde_json::from_str(&format!(
                r#"{{"version":1,"pool":"10.42.0.0/24","block":"10.42.0.{}/28","owner":"a",
                   "owner_member":"m","quarantined_until":0,"claims":{{}}}}"#,
                number * 16
            ))
            .unwrap()
        };
        let blocks: Vec<_> = (0..13).map(block).collect();
        assert_eq!(look_at_pools(std::slice::from_ref(&pool), &blocks).len(), 1);
        assert_eq!(
            look_at_pools(std::slice::from_ref(&pool), &blocks[..12]).len(),
            0
        );
    }

    #[test]
    fn a_registry_that_is_behind_or_cut_is_a_finding() {
        let mut state = State::default();
        assert!(registry(&state, 100).is_empty());
        state.behind_since = Some(98);
        assert!(registry(&state, 100).is_empty());
        assert!(registry(&state, 110)[0].problem.contains("12 s"));
        state.behind_since = None;
        state.labels_left_out = 3;
        assert!(registry(&state, 100)[0].problem.starts_with("3 labels"));
    }

    #[test]
    fn a_conflict_keeps_its_remedy_apart() {
        let found = conflict("host `a` has a network: remove it".to_owned());
        assert_eq!(
            (found.problem.as_str(), found.remedy.as_str()),
            ("host `a` has a network", "remove it")
        );
    }
}
