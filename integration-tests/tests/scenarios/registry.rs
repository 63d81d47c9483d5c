//! The registry of containers follows the engines of all hosts.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;
use serde_json::Value;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "registry_follows_containers",
    setup: Setup::Cluster,
    needs: &[],
    run: follows,
}];

/// What a host's stream says of the containers, by name.
fn registry(host: &Host) -> Result<BTreeMap<String, Value>> {
    // The stream has no end; what is known comes at once.
    let stream = host.run(
        "curl -s -m 1 --unix-socket /run/drover/control.sock http://drover/v1/registry || test $? = 28",
    )?;
    let mut known = BTreeMap::new();
    let mut synced = false;
    for line in stream.lines().filter(|line| !line.is_empty()) {
        let event: Value = serde_json::from_str(line)?;
        match event["event"].as_str() {
            Some("container") => {
                let name = event["name"].as_str().unwrap_or_default().to_owned();
                known.insert(name, event);
            }
            Some("synced") => synced = true,
            _ => {}
        }
    }
    ensure!(synced, "the stream said not everything: {stream}");
    Ok(known)
}

/// Waits until every host knows a container as `is_right` says, or knows it not.
fn everywhere(
    lab: &Lab,
    what: &str,
    name: &str,
    is_right: impl Fn(Option<&Value>) -> bool,
) -> Result<()> {
    for host in &lab.hosts {
        wait::until(what, wait::seconds(10), || {
            let known = registry(host)?;
            let container = known.get(name);
            ensure!(is_right(container), "{name}: {container:?}");
            Ok(())
        })
        .with_context(|| format!("on {}, {}", host.name, engines_word(lab, name)))?;
    }
    Ok(())
}

/// What the engines say themselves, for whoever has to find out who is wrong.
fn engines_word(lab: &Lab, name: &str) -> String {
    let words = lab.hosts.iter().map(|host| {
        let asked = host.attempt(&format!("docker inspect -f '{{{{json .State}}}}' {name}"));
        let said = asked.map_or_else(|error| error.to_string(), |said| said.stdout);
        format!("{}: {}", host.name, said.trim())
    });
    words.collect::<Vec<_>>().join("; ")
}

fn attachment<'a>(container: &'a Value, network: &str) -> Option<&'a Value> {
    let attachments = container["attachments"].as_object()?;
    let mut attachments = attachments.values();
    attachments.find(|attachment| attachment["network"] == network)
}

fn is(container: Option<&Value>, field: &str, value: &str) -> bool {
    container.is_some_and(|container| container[field] == value)
}

/// Start, health, pause, rename, connect, disconnect, stop and removal are known on both hosts; what happened
/// while a coordinator or an engine was away, too.
fn follows(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    lab.network("side", "")?;
    let (one, _) = lab.pair()?;
    one.run("docker network create plain")?;
    one.sleeper("stranger", "--network plain")?;
    let health = "--health-cmd 'test -e /well' --health-interval 1s --health-retries 1";
    one.sleeper(
        "ann",
        &format!("--network app --network-alias web --expose 80 --label tier=front {health}"),
    )?;
    everywhere(lab, "ann runs", "ann", |ann| is(ann, "state", "running"))?;
    let Some(ann) = registry(one)?.remove("ann") else {
        bail!("ann is not known");
    };
    let app = attachment(&ann, "app").cloned().unwrap_or_default();
    ensure!(app["aliases"] == serde_json::json!(["web"]), "{ann}");
    ensure!(
        app["addresses"].as_array().map(Vec::len) == Some(1),
        "{ann}"
    );
    ensure!(ann["labels"]["tier"] == "front", "{ann}");
    ensure!(ann["ports"][0]["port"] == 80, "{ann}");
    ensure!(
        !registry(one)?.contains_key("stranger"),
        "not on a network of ours"
    );
    one.run("docker exec ann touch /well")?;
    everywhere(lab, "ann is well", "ann", |ann| {
        is(ann, "health", "healthy")
    })?;
    one.run("docker exec ann rm /well")?;
    everywhere(lab, "ann is not well", "ann", |ann| {
        is(ann, "health", "unhealthy")
    })?;
    one.run("docker pause ann")?;
    everywhere(lab, "ann is paused", "ann", |ann| {
        is(ann, "state", "paused")
    })?;
    one.run("docker unpause ann")?;
    one.run("docker network connect side ann")?;
    let is_on = |ann: Option<&Value>| ann.is_some_and(|ann| attachment(ann, "side").is_some());
    everywhere(lab, "ann is on side", "ann", is_on)?;
    one.run("docker network disconnect side ann")?;
    everywhere(lab, "ann is off side", "ann", |ann| {
        ann.is_some() && !is_on(ann)
    })?;
    one.run("docker rename ann eve")?;
    everywhere(lab, "eve is ann", "eve", |eve| eve.is_some())?;
    everywhere(lab, "ann is eve", "ann", |ann| ann.is_none())?;
    one.run("docker stop -t 0 eve")?;
    let has_stopped = |eve: Option<&Value>| {
        let app = eve.and_then(|eve| attachment(eve, "app"));
        is(eve, "state", "exited")
            && app.is_some_and(|app| app["addresses"] == serde_json::json!([]))
    };
    everywhere(lab, "eve has stopped", "eve", has_stopped)?;
    away(lab)?;
    let (one, _) = lab.pair()?;
    one.run("docker rm -f eve stranger; docker network rm plain side")?;
    everywhere(lab, "eve is gone", "eve", |eve| eve.is_none())
}

/// What happens while the coordinator is away is found when it is back.
fn away(lab: &Lab) -> Result<()> {
    let (one, _) = lab.pair()?;
    one.sleeper("bob", "--network app")?;
    everywhere(lab, "bob runs", "bob", |bob| is(bob, "state", "running"))?;
    one.kill("drover-coordinator", "KILL")?;
    one.run("docker rm -f bob")?;
    one.sleeper("cid", "--network app")?;
    everywhere(lab, "bob is gone", "bob", |bob| bob.is_none())?;
    everywhere(lab, "cid runs", "cid", |cid| is(cid, "state", "running"))?;
    one.run("docker rm -f cid")?;
    everywhere(lab, "cid is gone", "cid", |cid| cid.is_none())
}
