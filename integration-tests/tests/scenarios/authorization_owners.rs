//! Whose is what: by the record of each host and the cluster's registry, without any label.
//!
//! What is denied must not have happened: that is looked at on the engine, not in the answer.

use anyhow::{Context as _, Result, ensure};
use integration_tests::drover::CREATE;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_owners_are_known_without_labels_and_on_other_hosts",
    setup: Setup::Engines(2),
    needs: &[],
    run: owners,
}];

/// Networks of the lab are not encrypted.
const RULE: &str = r#"permit (principal in Role::"developer", action == Action::"SetOption", resource)
when { resource.name == "network.encryption" };"#;

fn by(name: &str, command: &str) -> String {
    format!("DOCKER_HOST=unix:///run/drover-sockets/{name}/docker.sock {command}")
}

fn owners(lab: &mut Lab) -> Result<()> {
    // It runs where there is a policy folder, from the start.
    for host in &lab.hosts {
        for name in ["ann", "bob"] {
            host.run(&format!(
                "drover authz socket --role developer --user {name} /run/drover-sockets/{name}/docker.sock"
            ))?;
        }
        host.write("/etc/drover/policy/site.cedar", RULE)?;
    }
    lab.form_cluster()?;
    for host in &lab.hosts {
        for name in ["ann", "bob"] {
            wait::until("a role's socket", wait::seconds(20), || {
                host.run(&by(name, "docker version"))
            })?;
        }
    }
    let (one, two) = lab.pair_mut()?;
    make(one)?;
    everything_is_anns(one).context("as it was made")?;
    the_network_is_anns_elsewhere(two)?;
    the_record_is_lost(one)?;
    the_coordinator_is_away(one)?;
    names_come_again(one)?;
    volumes_are_told(one)
}

/// Things of Ann's, none with a label.
fn make(host: &Host) -> Result<()> {
    host.run(&by("ann", &format!("{CREATE} anns-network")))?;
    host.run(&by("ann", "docker volume create anns-volume"))?;
    host.run(&by(
        "ann",
        "docker run -d --name anns --network anns-network -v anns-volume:/data -v made-with-it:/more -v /unnamed lab sh -c 'echo said; exec sleep 600'",
    ))?;
    host.run("printf 'FROM lab\\nVOLUME /declared\\n' | DOCKER_BUILDKIT=0 docker build -q -t declaring -")?;
    host.run(&by(
        "ann",
        "docker run -d --name declares declaring sleep 600",
    ))?;
    let labels = host.run(
        "docker inspect anns -f '{{.Config.Labels}}'; docker volume inspect anns-volume -f '{{.Labels}}'; docker network inspect anns-network -f '{{.Labels}}'",
    )?;
    ensure!(!labels.contains("ann"), "a label names the owner: {labels}");
    Ok(())
}

/// What Ann may do with hers, and Bob may not.
fn everything_is_anns(host: &Host) -> Result<()> {
    for command in [
        "docker exec anns true",
        "docker logs anns",
        "docker inspect --type container anns",
        "docker cp anns:/etc/hostname /tmp/copied",
        "timeout -s KILL 2 docker attach --no-stdin anns || test $? = 137",
        "docker volume inspect anns-volume made-with-it",
        "docker run --rm --network anns-network -v anns-volume:/data lab true",
    ] {
        host.run(&by("ann", command))
            .with_context(|| format!("ann: {command}"))?;
    }
    for command in [
        "docker exec anns touch /evil",
        "docker logs anns",
        "docker inspect --type container anns",
        "docker cp anns:/etc/hostname /tmp/stolen",
        "docker attach --no-stdin anns",
        "docker kill anns",
        "docker rm -f anns",
        "docker volume inspect anns-volume",
        "docker volume rm made-with-it",
        "docker network rm anns-network",
        "docker run --rm --name evil --network anns-network lab true",
        "docker run --rm --name evil -v anns-volume:/data lab true",
        "docker volume create anns-volume",
    ] {
        let said = host
            .refused(&by("bob", command))
            .with_context(|| format!("bob: {command}"))?;
        ensure!(said.contains("drover: "), "bob: {command}: {said}");
    }
    let said = host.run("docker inspect -f '{{.State.Running}}' anns; docker exec anns ls /evil /tmp/stolen 2>/dev/null || echo clean; docker ps -aqf name=evil")?;
    ensure!(said == "true\nclean", "bob was there: {said}");
    let volumes = |name: &str| -> Result<Vec<String>> {
        let said = host.run(&by(name, "docker volume ls -q"))?;
        Ok(said.lines().map(str::to_owned).collect())
    };
    wait::until("the volumes that ann sees", wait::seconds(10), || {
        let (ann, bob) = (volumes("ann")?, volumes("bob")?);
        // The one without a name is hers, too, and the one that an image declares.
        ensure!(ann.len() == 4 && bob.is_empty(), "ann {ann:?}, bob {bob:?}");
        Ok(())
    })?;
    Ok(())
}

/// The copy of a network on another host has another id, and no label.
fn the_network_is_anns_elsewhere(host: &Host) -> Result<()> {
    wait::until("the copy", wait::seconds(30), || {
        host.run(&by(
            "ann",
            "docker run --rm --network anns-network lab true",
        ))
    })?;
    let said = host.refused(&by(
        "bob",
        "docker run --rm --network anns-network lab true",
    ))?;
    ensure!(said.contains("UseNetwork"), "{said}");
    host.refused(&by("bob", "docker network inspect anns-network"))
        .map(drop)
}

/// The disk forgets, the registry does not.
fn the_record_is_lost(host: &Host) -> Result<()> {
    host.run("rm /var/lib/drover/authz/owners.json")?;
    host.kill("drover-authz", "KILL")?;
    wait::until("the owner from the registry", wait::seconds(20), || {
        host.run(&by("ann", "docker exec anns true"))
    })?;
    everything_is_anns(host).context("from the registry")
}

/// Without a coordinator the record on the disk counts; what was made meanwhile is in the registry afterwards.
fn the_coordinator_is_away(host: &Host) -> Result<()> {
    let pid = host.processes("drover-coordinator")?;
    let pid = pid.first().context("the coordinator")?;
    host.run(&format!("kill -STOP {pid}"))?;
    let made = host.run(&by("ann", "docker run -d --name meanwhile lab sleep 600"));
    let exec = host.run(&by("ann", "docker exec meanwhile true"));
    let refused = host.refused(&by("bob", "docker exec meanwhile true"));
    host.run(&format!("kill -CONT {pid}"))?;
    made?;
    exec?;
    refused?;
    // Removed by root, beside any plugin: it is nobody's afterwards.
    host.run("sleep 8; rm /var/lib/drover/authz/owners.json")?;
    host.kill("drover-authz", "KILL")?;
    wait::until("the owner from the registry", wait::seconds(20), || {
        host.run(&by("ann", "docker exec meanwhile true"))
    })?;
    host.refused(&by("bob", "docker exec meanwhile true"))
        .map(drop)
}

/// A name that is free again is its next maker's.
fn names_come_again(host: &Host) -> Result<()> {
    host.run(&by(
        "ann",
        "docker volume create again && docker volume rm again",
    ))?;
    // It is free when the removal is answered, unless a list of the engine's from before comes in behind: then a moment later.
    wait::until("a name that ann has freed", wait::seconds(10), || {
        host.run(&by(
            "bob",
            "docker run --rm -v again:/data lab touch /data/bobs",
        ))
    })?;
    host.refused(&by("ann", "docker run --rm -v again:/data lab true"))?;
    // Removed by root, who does not pass the plugin.
    host.run("docker volume rm again")?;
    wait::until("a free name", wait::seconds(10), || {
        host.run(&by("ann", "docker volume create again"))
    })?;
    host.run(&by("ann", "docker run --rm -v again:/data lab true"))?;
    host.refused(&by("bob", "docker run --rm -v again:/data lab true"))
        .map(drop)
}

/// Events of volumes without a label are told to their owner, and to nobody else.
fn volumes_are_told(host: &mut Host) -> Result<()> {
    for name in ["ann", "bob"] {
        let log = format!("events-{name}");
        host.start(
            &by(
                name,
                "timeout 120 docker events --format '{{.Type}} {{.Action}} {{.Actor.ID}}'",
            ),
            &log,
        )?;
        wait::until(&format!("events of {name}"), wait::seconds(20), || {
            host.run(&by(
                name,
                &format!("docker volume create {name}s && docker volume rm {name}s"),
            ))?;
            let said = host.tail(&log, 50);
            ensure!(said.contains(&format!("volume destroy {name}s")), "{said}");
            Ok(())
        })?;
    }
    host.run(&by("ann", "docker volume create told"))?;
    host.run(&by(
        "ann",
        "docker run --rm -v told:/data -v with-it:/more lab true",
    ))?;
    host.run(&by("ann", "docker volume rm told with-it"))?;
    wait::until("events of ann", wait::seconds(20), || {
        let (ann, bob) = (host.tail("events-ann", 200), host.tail("events-bob", 200));
        for event in [
            "volume create told",
            "volume mount told",
            "volume create with-it",
            "volume destroy told",
            "volume destroy with-it",
        ] {
            ensure!(ann.contains(event), "{event} is missing: {ann}");
            ensure!(!bob.contains(event), "bob is told of {event}: {bob}");
        }
        ensure!(!ann.contains("bobs"), "ann is told of bob's: {ann}");
        Ok(())
    })?;
    Ok(())
}
