//! What was removed, and made anew by others, while `drover-authz` was down: it is nobody's, or the next maker's.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;
use serde_json::Value;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_owners_of_what_was_removed_meanwhile_are_forgotten",
    setup: Setup::Engines(1),
    needs: &[],
    run: meanwhile,
}];

const RECORD: &str = "/var/lib/drover/authz/owners.json";

fn by(name: &str, command: &str) -> String {
    format!("DOCKER_HOST=unix:///run/drover-sockets/{name}/docker.sock {command}")
}

fn meanwhile(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    for name in ["ann", "bob"] {
        host.run(&format!(
            "drover authz socket --role developer --user {name} /run/drover-sockets/{name}/docker.sock"
        ))?;
    }
    up(host)?;
    for command in [
        "docker volume create kept",
        "docker volume create -d drover-vol of-a-plugin",
    ] {
        host.run(&by("ann", command))?;
    }
    the_engine_tells_what_was_missed(host).context("by events")?;
    the_engine_has_forgotten(host).context("by lists")
}

fn up(host: &mut Host) -> Result<()> {
    host.drover_up("")?;
    for name in ["ann", "bob"] {
        wait::until("a role's socket", wait::seconds(20), || {
            host.run(&by(name, "docker version"))
        })?;
    }
    Ok(())
}

/// Things of Ann's that are removed.
fn make(host: &Host) -> Result<()> {
    for command in [
        "docker volume create gone",
        "docker volume create made-again",
        "docker network create plain",
        "docker run -d --name web -v data:/data lab sleep 600",
    ] {
        host.run(&by("ann", command))?;
    }
    wait::until(
        "whose is what, and of which driver",
        wait::seconds(20),
        || {
            let record = record(host)?;
            ensure!(record["owners"].as_object().context("owners")?.len() == 7);
            ensure!(record["drivers"].as_object().context("drivers")?.len() == 5);
            Ok(())
        },
    )
    .map(drop)
}

fn remove(host: &Host) -> Result<()> {
    host.run("docker rm -fv web && docker volume rm gone made-again data && docker network rm plain && docker volume create made-again")
        .map(drop)
}

/// The record as it was written, with the changes behind it.
fn record(host: &Host) -> Result<Value> {
    let text = host.run(&format!("cat {RECORD}"))?;
    let mut lines = text.lines().map(serde_json::from_str::<Value>);
    let mut record = lines.next().context("the record is empty")??;
    for change in lines {
        let change = change?;
        let Some(key) = change["key"].as_str() else {
            continue;
        };
        match change["change"].as_str() {
            Some("owner") => record["owners"][key] = change["owner"].clone(),
            Some("forget") => {
                for part in ["owners", "drivers"] {
                    record[part].as_object_mut().context(part)?.remove(key);
                }
            }
            _ => {}
        }
    }
    Ok(record)
}

/// Waits until these alone are somebody's.
fn are_anns(host: &Host, expected: &[&str]) -> Result<()> {
    wait::until("what is ann's", wait::seconds(20), || {
        let record = record(host)?;
        let owners = record["owners"].as_object().context("owners")?;
        let has: BTreeSet<&str> = owners.keys().map(String::as_str).collect();
        ensure!(has == expected.iter().copied().collect(), "{has:?}");
        Ok(())
    })?;
    for volume in ["kept", "of-a-plugin"] {
        host.run(&by("ann", &format!("docker volume inspect {volume}")))?;
        host.refused(&by("bob", &format!("docker volume inspect {volume}")))?;
    }
    Ok(())
}

fn the_engine_tells_what_was_missed(host: &mut Host) -> Result<()> {
    make(host)?;
    host.drover_down()?;
    remove(host)?;
    up(host)?;
    are_anns(host, &["Volume/kept", "Volume/of-a-plugin"])?;
    // It is root's now, and its name stands behind other data.
    for name in ["ann", "bob"] {
        let command = "docker run --rm -v made-again:/data lab true";
        let said = host.refused(&by(name, command))?;
        ensure!(said.contains("MountVolume"), "{name}: {said}");
    }
    host.run(&by("bob", "docker volume create gone"))?;
    host.refused(&by("ann", "docker volume inspect gone"))?;
    host.run(&by("bob", "docker volume rm gone"))?;
    host.run("docker volume rm made-again").map(drop)
}

/// More has happened than an engine remembers, so that its lists have to tell.
fn the_engine_has_forgotten(host: &mut Host) -> Result<()> {
    make(host)?;
    host.drover_down()?;
    remove(host)?;
    host.run(
        "for n in $(seq 130); do docker volume create other$n; done; \
         docker volume rm $(seq -f other%g 130); sleep 1",
    )?;
    let told = host.run(
        "docker events --since 1 --until $(date +%s) --filter event=destroy --format '{{.Actor.ID}}'",
    )?;
    ensure!(told.contains("other130"), "the engine tells nothing");
    ensure!(
        !told.lines().any(|line| line == "gone"),
        "the engine still tells"
    );
    // What was noted a moment ago may be on its way to be made.
    host.run(&format!("touch -d '1 hour ago' {RECORD}"))?;
    up(host)?;
    // Of a name that is there again nothing tells that another volume had it.
    are_anns(
        host,
        &["Volume/kept", "Volume/made-again", "Volume/of-a-plugin"],
    )
}
