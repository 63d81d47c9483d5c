//! Rules that permit what monitor mode has let through, from the log of decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use drover_authorization::action;
use drover_daemon::{Overrides, Settings};
use drover_policy::{Policy, Seen, Source, propose};
use serde::Deserialize;
use serde_json::Value;

use super::{Said, read};
use crate::paths;

/// A line of the log, as far as it is read here.
#[derive(Deserialize)]
struct Logged {
    user: String,
    decision: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    denied: Vec<Value>,
}

/// Proposes rules, by the logs that are named, else by that of this host.
pub(super) fn learn(logs: &[&str]) -> Said {
    let mut paths: Vec<PathBuf> = logs.iter().map(PathBuf::from).collect();
    if paths.is_empty() {
        let settings = Settings::load(&Overrides::default()).map_err(|error| error.to_string())?;
        let log = settings.state_dir.join("authz/decisions.log");
        let shown = log.display().to_string();
        if !log.exists() {
            return Err(format!(
                "there is no log of decisions at `{shown}`: has drover-authz run on this host, in monitor mode?"
            ));
        }
        let older = (1..10).map(|number| PathBuf::from(format!("{shown}.{number}")));
        paths.push(log);
        paths.extend(older.filter(|path| path.exists()));
    }
    let mut seen = BTreeSet::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        for line in read(&path)?.lines() {
            let Ok(logged) = serde_json::from_str::<Logged>(line) else {
                continue;
            };
            if logged.decision != "monitor" {
                continue;
            }
            if logged.denied.is_empty() {
                *refused.entry(logged.reason).or_default() += 1;
            }
            for mut question in logged.denied {
                if let Some(question) = question.as_object_mut() {
                    question.insert("user".to_owned(), Value::from(logged.user.clone()));
                }
                let Ok(question) = serde_json::from_value::<Seen>(question) else {
                    continue;
                };
                if paths::is_uncertain(&question.id) && question.action == action::MOUNT_HOST_PATH {
                    let path = question.id.trim_start_matches('?');
                    let reason = format!("the path `{path}` leads nowhere certain");
                    *refused.entry(reason).or_default() += 1;
                    continue;
                }
                seen.insert(question);
            }
        }
    }
    let mut parts: Vec<String> = refused
        .iter()
        .map(|(reason, count)| {
            format!(
                "// {count} calls that no rule can permit: {}",
                reason.escape_debug()
            )
        })
        .collect();
    if seen.is_empty() {
        parts.push("// nothing was let through that a rule could permit".to_owned());
        return Ok((parts.join("\n"), true));
    }
    let seen: Vec<Seen> = seen.into_iter().collect();
    parts.push(propose(&seen));
    let text = parts.join("\n");
    let source = Source {
        name: "learned".to_owned(),
        text: text.clone(),
    };
    Policy::load("", &[source])
        .map_err(|error| format!("what was learned is no policy: {error}"))?;
    Ok((text, true))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn monitor_mode_teaches() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("decisions.log");
        let line = |decision: &str, id: &str| {
            format!(
                r#"{{"user":"ann","decision":"{decision}","denied":[{{"action":"MountHostPath","kind":"HostPath","id":"{id}","own":false}}]}}"#
            )
        };
        let text = [
            line("monitor", "/a"),
            line("deny", "/b"),
            "garbage".to_owned(),
        ]
        .join("\n");
        fs::write(&log, text).unwrap();
        let (said, well) = learn(&[log.to_str().unwrap()]).unwrap();
        assert!(
            well && said.contains("/a") && !said.contains("/b"),
            "{said}"
        );
    }
}
