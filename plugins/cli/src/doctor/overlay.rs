//! The overlay's network namespace: whether it forwards, and whether somebody filters in it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// The name of Drover's own tables.
const OURS: &str = "drover";

/// What is so in the overlay's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OverlayFacts {
    /// Whether IPv4 is forwarded.
    pub(crate) forwards_v4: bool,
    /// Whether IPv6 is forwarded; `None` on a kernel without it.
    pub(crate) forwards_v6: Option<bool>,
    /// Whether bridged frames meet the filters of the IP families.
    pub(crate) filters_bridged: bool,
    /// The tables of others that filter what is forwarded.
    pub(crate) foreign_filters: Vec<String>,
}

/// Looks into the namespace at `path`. The error says why that was not possible.
pub(crate) fn look(path: &Path) -> Result<OverlayFacts, String> {
    let file = File::open(path).map_err(|error| {
        format!(
            "cannot open the overlay's namespace `{}`: {error}",
            path.display()
        )
    })?;
    let looking = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("cannot enter the overlay's namespace: {}", errno.desc()))?;
        Ok(look_here())
    });
    looking
        .join()
        .unwrap_or_else(|_| Err("looking ended in a bug".to_owned()))
}

fn look_here() -> OverlayFacts {
    let listed = Command::new("nft").args(["list", "ruleset"]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    OverlayFacts {
        forwards_v4: is_on("net/ipv4/ip_forward").unwrap_or(false),
        forwards_v6: is_on("net/ipv6/conf/all/forwarding"),
        filters_bridged: is_on("net/bridge/bridge-nf-call-iptables").unwrap_or(false),
        foreign_filters: foreign_filters(&listed.unwrap_or_default()),
    }
}

fn is_on(key: &str) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/sys/{key}")).ok()?;
    Some(text.trim() != "0")
}

/// The tables in a listed ruleset, other than ours, with a chain at the forward hook.
fn foreign_filters(ruleset: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut table = "";
    for line in ruleset.lines() {
        if let Some(header) = line.strip_prefix("table ") {
            table = header.trim_end_matches('{').trim();
        }
        let filters = line.contains(" hook forward ") && table.split(' ').nth(1) != Some(OURS);
        if filters && found.last().is_none_or(|last| last != table) {
            found.push(table.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_tables_that_filter_what_is_forwarded_count() {
        let ruleset = "table bridge drover {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n\
            table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\
            \tchain INPUT {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n\
            table ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat;\n\t}\n}\n";
        assert_eq!(foreign_filters(ruleset), ["ip filter"]);
        assert!(foreign_filters("").is_empty());
    }
}
