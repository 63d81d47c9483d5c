//! The smallest policy that permits what was seen: from the decisions of monitor mode.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// A question that was denied, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Seen {
    /// Who asked.
    pub user: String,
    /// The action.
    pub action: String,
    /// The type of its resource.
    pub kind: String,
    /// Its resource.
    pub id: String,
    /// Whether the resource was the user's own.
    #[serde(default)]
    pub own: bool,
}

/// How many resources are named one by one before a rule covers the kind.
const NAMED: usize = 8;

/// Rules that permit what was seen, and nothing that they can do without.
#[must_use]
pub fn propose(seen: &[Seen]) -> String {
    let mut own: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut others: BTreeMap<(&str, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for each in seen {
        if each.own {
            own.entry((&each.user, &each.kind))
                .or_default()
                .insert(&each.action);
        } else {
            others
                .entry((&each.user, &each.action, &each.kind))
                .or_default()
                .insert(&each.id);
        }
    }
    let mut rules = Vec::new();
    for ((user, kind), actions) in own {
        let actions: Vec<String> = actions
            .iter()
            .map(|action| entity("Action", action))
            .collect();
        rules.push(format!(
            "permit (principal == {}, action in [{}], resource is {kind})\nwhen {{ resource has owner && resource.owner == principal }};",
            entity("User", user),
            actions.join(", ")
        ));
    }
    // Actions that were done to the same resources are one rule.
    let mut merged: BTreeMap<(&str, &str, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for ((user, action, kind), ids) in others {
        let ids: Vec<&str> = ids.into_iter().collect();
        merged.entry((user, kind, ids)).or_default().push(action);
    }
    for ((user, kind, ids), actions) in merged {
        let actions: Vec<String> = actions
            .iter()
            .map(|action| entity("Action", action))
            .collect();
        let head = format!(
            "permit (principal == {}, action in [{}]",
            entity("User", user),
            actions.join(", ")
        );
        rules.push(match ids.as_slice() {
            [only] => format!("{head}, resource == {});", entity(kind, only)),
            some if some.len() <= NAMED => {
                let names: Vec<String> = some.iter().map(|id| entity(kind, id)).collect();
                format!(
                    "{head}, resource is {kind})\nwhen {{ [{}].contains(resource) }};",
                    names.join(", ")
                )
            }
            many => format!("// {} of them\n{head}, resource is {kind});", many.len()),
        });
    }
    rules.join("\n\n")
}

fn entity(kind: &str, id: &str) -> String {
    // Cedar's texts are escaped as Rust's.
    let escaped: String = id.chars().flat_map(char::escape_debug).collect();
    format!("{kind}::\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, Source};

    fn seen(user: &str, action: &str, kind: &str, id: &str, own: bool) -> Seen {
        Seen {
            user: user.to_owned(),
            action: action.to_owned(),
            kind: kind.to_owned(),
            id: id.to_owned(),
            own,
        }
    }

    #[test]
    fn what_was_seen_becomes_few_rules_that_load() {
        let log = [
            seen("ann", "ContainerStart", "Container", "a", true),
            seen("ann", "ContainerStop", "Container", "b", true),
            seen("ann", "ContainerList", "Engine", "", false),
            seen("ann", "SystemInfo", "Engine", "", false),
            seen("ann", "MountHostPath", "HostPath", "/a\"b", false),
            seen("ann", "MountHostPath", "HostPath", "/c", false),
        ];
        let text = propose(&log);
        assert_eq!(text.matches("permit").count(), 3, "{text}");
        let source = Source {
            name: "learned".to_owned(),
            text,
        };
        Policy::load("", &[source]).unwrap();
    }
}
