//! Whether `drover up` is there again after a reboot, as far as systemd can tell.

use std::fs;
use std::path::Path;
use std::process::Command;

use drover_daemon::Settings;

use crate::up;

/// systemd is the first process of a machine that has this folder (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What runs `drover up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Supervision {
    /// A service of the system, and whether that is started at boot.
    Service { unit: String, at_boot: bool },
    /// Something that ends with the machine, such as the session of a user.
    Session(String),
    /// It cannot be told, and why.
    Unknown(String),
}

/// Looks at the control group of the running `drover up`.
pub(crate) fn look(settings: &Settings) -> Supervision {
    if !Path::new(BOOTED).exists() {
        return Supervision::Unknown("systemd does not run here".to_owned());
    }
    let Some(pid) = up::holder(&settings.run_dir) else {
        return Supervision::Unknown("`drover up` does not run".to_owned());
    };
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    match unit(&group) {
        Some(unit) if unit.ends_with(".service") && !group.contains("/user.slice/") => {
            Supervision::Service {
                unit: unit.to_owned(),
                at_boot: is_enabled(unit),
            }
        }
        Some(unit) => Supervision::Session(unit.to_owned()),
        None => Supervision::Unknown("`drover up` is in no unit of systemd".to_owned()),
    }
}

/// The innermost unit in a process' control groups (`/proc/PID/cgroup`, cgroups(7)): systemd's own hierarchy, or the one of version 2.
fn unit(groups: &str) -> Option<&str> {
    let is_unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let systemds = controllers.is_empty() || controllers == "name=systemd";
        path.rsplit('/').find(is_unit).filter(|_| systemds)
    })
}

fn is_enabled(unit: &str) -> bool {
    let asked = Command::new("systemctl")
        .args(["is-enabled", "--quiet", unit])
        .output();
    asked.is_ok_and(|asked| asked.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_read() {
        assert_eq!(
            unit("0::/system.slice/drover.service\n"),
            Some("drover.service")
        );
        let hybrid =
            "4:memory:/x.service\n1:name=systemd:/user.slice/user-0.slice/session-3.scope\n0::/\n";
        assert_eq!(unit(hybrid), Some("session-3.scope"));
        // In a container, whose own systemd has the second version alone.
        assert_eq!(
            unit("1:name=systemd:/\n0::/system.slice/drover.service\n"),
            Some("drover.service")
        );
        assert_eq!(
            unit("0::/system.slice/drover.service/inner\n"),
            Some("drover.service")
        );
        assert_eq!(unit("0::/\n"), None);
        assert_eq!(unit(""), None);
    }
}
