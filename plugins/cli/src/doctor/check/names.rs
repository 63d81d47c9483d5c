//! Checks of the name service: whether every container is served, and from what.

use drover_control_api::names::HookKind;

use super::{Outcome, error, no_answer, warning};
use crate::doctor::facts::Facts;
use crate::process::Process;
use crate::table::until;

/// The registry is followed, every container is served, and no name is refused.
pub(super) fn names(facts: &Facts) -> Outcome {
    let Some(report) = &facts.names else {
        return no_answer(Process::Names.name());
    };
    let mut findings = Vec::new();
    if let Some(since) = report.stale_since {
        let age = until(facts.now, since);
        findings.push(warning(
            format!("names may be out of date: the registry was last up to date {age}"),
            "see that `drover-coordinator` runs and that the cluster's store answers (`drover status`)",
        ));
    }
    for sandbox in &report.sandboxes {
        let name = sandbox.name.as_deref().unwrap_or(&sandbox.sandbox);
        if let Some(complaint) = &sandbox.complaint {
            findings.push(warning(
                format!("container `{name}` does not get all names: {complaint}"),
                "see the log of drover-names; `docker restart` of the container makes its sandbox anew",
            ));
        } else if sandbox.hook == HookKind::Absent {
            findings.push(error(
                format!("container `{name}` finds only the containers of this host: its queries do not reach Drover"),
                "see the log of drover-names; `docker restart` of the container makes its sandbox anew",
            ));
        }
    }
    let refused = report.refused.iter().map(|name| {
        warning(
            format!(
                "name `{}` of container `{}` on host `{}` is not given on network `{}`: {}",
                name.name, name.container, name.host, name.network, name.reason
            ),
            "give the container another name or network alias",
        )
    });
    findings.extend(refused);
    Outcome::Checked(findings)
}
