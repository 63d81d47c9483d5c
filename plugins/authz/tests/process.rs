//! The process behind its socket: monitor mode and what is learned from it, the log, policies that change, and
//! roles' sockets.
#![cfg(test)]

#[path = "support/plugin.rs"]
mod plugin;
#[path = "process/role_sockets.rs"]
mod role_sockets;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use plugin::{Plugin, until};

/// What Ann does in monitor mode, with no role at all: method, URI, body.
const WORK: &[(&str, &str, Option<&str>)] = &[
    ("GET", "/v1.47/containers/json?all=1", None),
    (
        "POST",
        "/v1.47/containers/create?name=web",
        Some(
            r#"{"Image":"nginx","Env":["PASSWORD=hunter2"],"HostConfig":{"Binds":["/srv/web:/www:ro"],"CapAdd":["NET_ADMIN"]}}"#,
        ),
    ),
    ("POST", "/v1.47/containers/anns/start", None),
    ("POST", "/v1.47/containers/anns/stop?t=3", None),
    ("GET", "/v1.47/containers/nobodys/json", None),
];

/// What she has not done, but could by a rule that is wider than her work.
const BEYOND: &[(&str, &str, &str, Option<&str>)] = &[
    ("ann", "GET", "/v1.47/images/json", None),
    ("ann", "POST", "/v1.47/containers/nobodys/start", None),
    ("ann", "DELETE", "/v1.47/containers/anns", None),
    (
        "ann",
        "POST",
        "/v1.47/containers/create?name=web",
        Some(r#"{"Image":"nginx","HostConfig":{"Binds":["/srv:/www"]}}"#),
    ),
    (
        "ann",
        "POST",
        "/v1.47/containers/create?name=web",
        Some(r#"{"Image":"other"}"#),
    ),
    (
        "ann",
        "POST",
        "/v1.47/containers/create?name=web",
        Some(r#"{"Image":"nginx","HostConfig":{"CapAdd":["SYS_ADMIN"]}}"#),
    ),
    ("bob", "GET", "/v1.47/containers/json?all=1", None),
];

/// What no rule can permit, and bears a secret where it is broken.
const BROKEN: &[(&str, &str, Option<&str>)] = &[
    (
        "POST",
        "/v1.47/containers/create?name=two",
        Some(r#"{"Image":"a","image":"hunter2"}"#),
    ),
    (
        "POST",
        "/v1.47/containers/create?name=type",
        Some(r#"{"Image":"a","HostConfig":"hunter2"}"#),
    ),
    (
        "POST",
        "/v1.47/containers/create?name=flag",
        Some(r#"{"Image":"a","HostConfig":{"Privileged":"hunter2"}}"#),
    ),
    (
        "POST",
        "/v1.47/containers/create?name=end",
        Some(r#"{"Image":"a"} hunter2"#),
    ),
    (
        "POST",
        "/v1.47/auth?password=hunter2&password=hunter2",
        None,
    ),
];

#[test]
fn what_monitor_mode_lets_through_teaches_the_smallest_policy() {
    let plugin = Plugin::start("mode = \"monitor\"\n");
    for (method, uri, body) in WORK {
        plugin.ask("ann", method, uri, *body).unwrap();
    }
    let lines = plugin.decisions(WORK.len());
    assert!(
        lines
            .iter()
            .all(|line| line["decision"] == "monitor" && line["user"] == "ann"),
        "{lines:?}"
    );
    let learned = plugin.command(&["learn"]);
    let text = String::from_utf8(learned.stdout).unwrap();
    assert!(learned.status.success(), "{text}");

    plugin.write_policy("learned.cedar", &text);
    plugin.write_policy("authorization.toml", "mode = \"enforce\"\n");
    until("the policy", || {
        plugin.ask("bob", "GET", "/v1.47/info", None).is_err()
    });
    for (method, uri, body) in WORK {
        plugin.ask("ann", method, uri, *body).unwrap();
    }
    for (user, method, uri, body) in BEYOND {
        let denial = plugin.ask(user, method, uri, *body).unwrap_err();
        assert!(denial.contains("no rule permits"), "{uri}: {denial}");
    }
}

#[test]
fn the_log_says_what_was_decided_and_nothing_secret() {
    let plugin = Plugin::start("mode = \"monitor\"\n");
    for (method, uri, body) in BROKEN.iter().chain(WORK) {
        plugin.ask("ann", method, uri, *body).unwrap();
    }
    let build = "/v1.47/build?t=a&buildargs=%7B%22TOKEN%22%3A%22hunter2%22%7D";
    plugin.ask("ann", "POST", build, None).unwrap();
    let pull = "/v1.47/images/create?fromImage=nginx&tag=1";
    plugin.ask("ann", "POST", pull, None).unwrap();
    let lines = plugin.decisions(BROKEN.len() + WORK.len() + 2);
    for line in &lines {
        assert!(
            line["micros"].is_u64() && line["time"].is_string(),
            "{line}"
        );
        assert!(!line["reason"].as_str().unwrap().is_empty(), "{line}");
        assert!(!line.to_string().contains("hunter2"), "{line}");
    }
    let told = fs::read_to_string(plugin.at("stderr")).unwrap();
    assert!(!told.contains("hunter2"), "{told}");
    let mode = fs::metadata(plugin.at("state/authz/decisions.log")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let learned = plugin.command(&["learn"]);
    let learned = String::from_utf8(learned.stdout).unwrap();
    let broken = learned
        .lines()
        .filter(|line| line.contains("no rule can permit"));
    assert_eq!(broken.count(), BROKEN.len(), "{learned}");
}

#[test]
fn a_full_log_is_rotated() {
    let old = format!(
        "{{\"decision\":\"monitor\",\"pad\":\"{}\"}}\n",
        "x".repeat(10 << 20)
    );
    let plugin = Plugin::start_after("mode = \"monitor\"\n", |folder| {
        fs::create_dir_all(folder.join("state/authz")).unwrap();
        fs::write(folder.join("state/authz/decisions.log"), &old).unwrap();
    });
    plugin.ask("ann", "GET", "/_ping", None).unwrap();
    let rotated = plugin.at("state/authz/decisions.log.1");
    until("the older file", || rotated.exists());
    assert_eq!(fs::metadata(rotated).unwrap().len(), old.len() as u64);
    let lines = plugin.decisions(1);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["operation"], "SystemPing");
}

#[test]
fn a_changed_folder_is_in_force_soon_and_a_bad_one_changes_nothing() {
    let plugin = Plugin::start("[roles]\nreader = [\"ann\"]\n");
    let list = || plugin.ask("ann", "GET", "/v1.47/containers/json", None);
    let start = || plugin.ask("ann", "POST", "/v1.47/containers/nobodys/start", None);
    list().unwrap();
    start().unwrap_err();
    for (setup, may_start) in [
        ("[roles]\nadmin = [\"ann\"]\n", true),
        ("[roles]\nreader = [\"ann\"]\n", false),
    ] {
        plugin.write_policy("authorization.toml", setup);
        until("the policy", || start().is_ok() == may_start);
    }
    plugin.write_policy(
        "site.cedar",
        "permit (principal, action == Action::\"ContainerStrat\", resource);",
    );
    let told = || fs::read_to_string(plugin.at("stderr")).unwrap();
    until("the complaint", || told().contains("ContainerStrat"));
    list().unwrap();
    start().unwrap_err();
}
