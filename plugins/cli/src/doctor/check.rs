//! The checks: pure functions of the facts. Each names the object, the cause and the remedy.

mod authorization;
mod cluster;
mod host;
mod names;
mod traffic;

use drover_control_api::coordinator::{Finding, Severity};

use super::facts::Facts;

/// What a check has come to.
pub(crate) enum Outcome {
    /// What was found; nothing when all is well.
    Checked(Vec<Finding>),
    /// It could not be made, and why.
    Skipped(String),
}

/// A check.
type Check = fn(&Facts) -> Outcome;

/// Every check, in the order in which a fault leads to the next.
pub(crate) const CHECKS: [(&str, Check); 16] = [
    ("processes", host::processes),
    ("boot", host::boot),
    ("sockets", host::sockets),
    ("engine", host::engine),
    ("authorization", authorization::authorization),
    ("kernel", host::kernel),
    ("forwarding", host::forwarding),
    ("etcd", cluster::etcd),
    ("versions", cluster::versions),
    ("ports", cluster::ports),
    ("MTU", traffic::mtu),
    ("paths", traffic::paths),
    ("endpoints", traffic::endpoints),
    ("leases", traffic::leases),
    ("names", names::names),
    // The coordinator sees the whole cluster, and judges what is cluster state.
    (
        "hosts, clocks, store, pools, keys, conflicts",
        cluster::examination,
    ),
];

fn error(problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Error,
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

fn warning(problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

fn no_answer(process: &str) -> Outcome {
    Outcome::Skipped(format!("{process} does not answer"))
}
