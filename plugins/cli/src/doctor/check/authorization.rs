//! Who may call the engine: whether the plugin is there that the engine asks, and whether the engine shows it everything.

use super::{Outcome, error, warning};
use crate::authorization::PLUGIN;
use crate::doctor::facts::Facts;
use crate::doctor::socket::SocketState;

/// The engine's plugin answers, and sees what it decides about.
pub(super) fn authorization(facts: &Facts) -> Outcome {
    let authorization = &facts.authorization;
    let mut findings = Vec::new();
    if authorization.engine_is_told && authorization.state != SocketState::Listening {
        findings.push(error(
            format!("the engine is told to ask `{PLUGIN}`, and nobody answers: it denies every call, and does not start"),
            format!("run `drover up`, or enable drover-authz.socket; or take `{PLUGIN}` out of `authorization-plugins` in /etc/docker/daemon.json and restart the engine"),
        ));
    }
    if authorization.is_set_up
        && let Ok(version) = &facts.engine
        && hides_bodies(version)
    {
        findings.push(warning(
            format!("engine {version} shows its authorization plugins no body of 1 MiB and more (CVE-2026-34040), unless its distribution has mended that: calls that need one are denied then"),
            "use engine 29.3.1, 25.0.16 or later, or a package in which it is mended",
        ));
    }
    Outcome::Checked(findings)
}

/// Whether an engine of this version hides long bodies: upstream's was mended in 25.0.16 and 29.3.1, Debian's 28.5.2 in `+dfsg4`.
fn hides_bodies(version: &str) -> bool {
    let (number, package) = version.split_once('+').unwrap_or((version, ""));
    let number = number.split('-').next().unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0_u32));
    let mut part = || parts.next().unwrap_or(0);
    let number = (part(), part(), part());
    let debian: u32 = package
        .strip_prefix("dfsg")
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0);
    let mended = number >= (29, 3, 1)
        || ((25, 0, 16)..(25, 1, 0)).contains(&number)
        || (number == (28, 5, 2) && debian >= 4);
    !mended
}

#[cfg(test)]
mod tests {
    use super::hides_bodies;

    #[test]
    fn versions_that_hide_bodies_are_known() {
        for version in [
            "20.10.24+dfsg1",
            "25.0.15",
            "26.1.5+dfsg1",
            "27.5.1",
            "28.5.2",
            "28.5.2+dfsg3",
            "29.3.0",
        ] {
            assert!(hides_bodies(version), "{version}");
        }
        for version in ["25.0.16", "28.5.2+dfsg4", "29.3.1", "29.7.2", "30.0.0-rc.1"] {
            assert!(!hides_bodies(version), "{version}");
        }
    }
}
