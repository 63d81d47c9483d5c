//! Checks of this host alone: processes, sockets, engine, kernel.

use drover_control_api::coordinator::Finding;

use super::{Outcome, error, warning};
use crate::doctor::boot::Supervision;
use crate::doctor::facts::{Facts, ProcessFact};
use crate::doctor::socket::SocketState;
use crate::process::Process;

/// Every process answers, and has nothing to complain of.
pub(super) fn processes(facts: &Facts) -> Outcome {
    // What the coordinator complains of is in its examination, with the remedy.
    let examined = |fact: &ProcessFact| {
        fact.process == Process::Coordinator && fact.identity.is_ok() && facts.examination.is_some()
    };
    let processes = facts.processes.iter().filter(|fact| !examined(fact));
    Outcome::Checked(processes.flat_map(process).collect())
}

fn process(fact: &ProcessFact) -> Vec<Finding> {
    let (name, socket) = (fact.process.name(), fact.socket.display());
    let identity = match &fact.identity {
        Ok(identity) => identity,
        Err(reason) => {
            let finding = match fact.state {
                SocketState::Missing => error(
                    format!("`{name}` does not run: there is no socket `{socket}`"),
                    "run `drover up` on this host, with the same --run-dir and --plugin-dir as here",
                ),
                SocketState::Dead => error(
                    format!("`{name}` does not run: `{socket}` is a socket without a process"),
                    "run `drover up` on this host: it replaces the socket",
                ),
                SocketState::Forbidden => error(
                    format!("you may not use `{socket}`"),
                    "run `drover doctor` as root",
                ),
                SocketState::Listening => error(
                    reason.clone(),
                    format!("see why `{name}` does not answer in the log of `drover up`"),
                ),
            };
            return vec![finding];
        }
    };
    let complaint = |text: &String| {
        warning(
            format!("`{name}`: {text}"),
            "see the log of `drover up` and docs/operations.md",
        )
    };
    identity.complaints.iter().map(complaint).collect()
}

/// Drover is there again after a reboot, before the engine wants it.
pub(super) fn boot(facts: &Facts) -> Outcome {
    let lost =
        "after a reboot containers with a restart policy do not find their networks and volumes";
    let finding = match &facts.supervision {
        Supervision::Unknown(reason) => return Outcome::Skipped(reason.clone()),
        Supervision::Service { at_boot: true, .. } => None,
        Supervision::Service { unit, .. } => Some(warning(
            format!("`{unit}`, which runs `drover up`, is not started at boot: {lost}"),
            format!("systemctl enable {unit}"),
        )),
        Supervision::Session(unit) => Some(warning(
            format!("`drover up` runs in `{unit}` and is not started at boot: {lost}"),
            "install the package, or run `drover up` by a service of your own before docker.service",
        )),
    };
    Outcome::Checked(finding.into_iter().collect())
}

/// No plugin socket is without a process: each stalls the engine for seconds.
pub(super) fn sockets(facts: &Facts) -> Outcome {
    let ours = |path: &std::path::PathBuf| facts.processes.iter().any(|fact| fact.socket == *path);
    let foreign = facts.dead_sockets.iter().filter(|path| !ours(path));
    let findings = foreign.map(|path| {
        let path = path.display();
        error(
            format!("`{path}` is a plugin socket without a process: the engine waits up to 15 s for it, on calls that have nothing to do with it"),
            format!("start the plugin that it belongs to, or remove the file: rm {path}"),
        )
    });
    Outcome::Checked(findings.collect())
}

/// The engine answers. The coordinator says so itself while it runs.
pub(super) fn engine(facts: &Facts) -> Outcome {
    if facts.examination.is_some() {
        return Outcome::Checked(Vec::new());
    }
    let finding = facts.engine.as_ref().err().map(|reason| {
        error(
            format!(
                "the engine does not answer at `{}`: {reason}",
                facts.engine_address
            ),
            "start Docker, or name its address with --docker-host",
        )
    });
    Outcome::Checked(finding.into_iter().collect())
}

/// The kernel can do what Drover needs.
pub(super) fn kernel(facts: &Facts) -> Outcome {
    let kernel = match &facts.kernel {
        Ok(kernel) => kernel,
        Err(reason) => return Outcome::Skipped(reason.clone()),
    };
    let findings = kernel.features.iter().filter_map(|(feature, tried)| {
        let reason = tried.as_ref().err()?;
        let remedy = if reason.contains("`nft`") {
            "install it: apt install nftables".to_owned()
        } else {
            format!(
                "load the modules: modprobe -a {}; if they are not there, the kernel was built without them",
                feature.modules()
            )
        };
        Some(error(format!("the kernel lacks {}: {reason}", feature.name()), remedy))
    });
    Outcome::Checked(findings.collect())
}

/// The overlay forwards, and nobody else filters in it. Filters of the host's own namespace do not
/// matter: packets of the overlay do not pass them.
pub(super) fn forwarding(facts: &Facts) -> Outcome {
    let overlay = match &facts.overlay {
        Ok(overlay) => overlay,
        Err(reason) => return Outcome::Skipped(reason.clone()),
    };
    let mut findings = Vec::new();
    if !overlay.forwards_v4 || overlay.forwards_v6 == Some(false) {
        findings.push(error(
            "the overlay's namespace does not forward packets",
            "restart `drover up`: it turns forwarding on; if it is off again, look for what sets net.ipv4.ip_forward in every namespace",
        ));
    }
    for table in &overlay.foreign_filters {
        let also = if overlay.filters_bridged {
            ", and br_netfilter has bridged frames pass it too"
        } else {
            ""
        };
        findings.push(error(
            format!("the nftables table `{table}` in the overlay's namespace filters what is forwarded{also}"),
            format!("find what makes it; remove it there: nsenter --net=RUN_DIR/netns/overlay nft delete table {table}"),
        ));
    }
    Outcome::Checked(findings)
}
