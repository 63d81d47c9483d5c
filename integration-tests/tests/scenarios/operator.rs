//! What an operator sees and does: tables, doctor, reset.

use anyhow::{Result, ensure};
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "operator_tables_show_what_there_is",
        setup: Setup::Cluster,
        needs: &[],
        run: tables,
    },
    Scenario {
        name: "operator_doctor_names_what_is_wrong",
        setup: Setup::Cluster,
        needs: &[],
        run: doctor,
    },
    Scenario {
        name: "operator_reset_leaves_docker_healthy",
        setup: Setup::Engines(2),
        needs: &[],
        run: reset,
    },
    Scenario {
        name: "operator_reset_of_a_host_where_drover_is_down",
        setup: Setup::Engines(1),
        needs: &[],
        run: reset_down,
    },
];

fn tables(lab: &mut Lab) -> Result<()> {
    let (a, _) = lab.two_sleepers("app")?;
    let (one, _) = lab.pair()?;
    let subnet = one.subnet_of("app")?;
    for (command, expected) in [
        (
            "status",
            vec!["host1", "host2", "etcd", lab.release.version()],
        ),
        ("peers", vec!["host2", "192.0.2.2", "direct"]),
        ("ipam", vec![subnet.trim(), "host1", "host2"]),
        ("networks", vec!["app", "host1", "host2"]),
    ] {
        wait::until(&format!("drover {command}"), wait::seconds(10), || {
            let (person, machine) = (
                one.run(&format!("drover {command}"))?,
                one.drover_json(command)?.to_string(),
            );
            for word in &expected {
                ensure!(person.contains(word), "no {word} in: {person}");
                ensure!(machine.contains(word), "no {word} in: {machine}");
            }
            Ok(())
        })?;
    }
    ensure!(!a.is_empty(), "a has no address");
    lab.doctor_is_clean()?;
    lab.hosts[0].drover_json("doctor")?;
    let unknown = lab.hosts[0].attempt("drover frobnicate")?;
    ensure!(
        unknown.code == Some(64),
        "an unknown command ends with {:?}",
        unknown.code
    );
    Ok(())
}

fn doctor(lab: &mut Lab) -> Result<()> {
    let _addresses = lab.two_sleepers("app")?;
    lab.doctor_is_clean()?;
    let (one, two) = lab.pair_mut()?;
    // A dead socket in the plugin folder stalls every engine call that lists plugins.
    two.run("socat UNIX-LISTEN:/run/docker/plugins/drover-old.sock,unlink-close=0 /dev/null & p=$!; sleep 0.3; kill -9 $p")?;
    let said = two.refused("drover doctor")?;
    ensure!(said.contains("drover-old.sock"), "doctor says: {said}");
    two.run("rm -f /run/docker/plugins/drover-old.sock")?;
    // The engine is away.
    two.stop_engine("TERM")?;
    wait::until(
        "doctor on an engine that is away",
        wait::seconds(20),
        || {
            let said = two.refused("drover doctor")?;
            ensure!(
                said.to_lowercase().contains("engine"),
                "doctor says: {said}"
            );
            Ok(())
        },
    )?;
    two.start_engine("")?;
    // Drover is away.
    one.drover_down()?;
    let said = one.refused("drover doctor")?;
    ensure!(said.contains("drover up"), "doctor says: {said}");
    one.drover_up("")?;
    lab.doctor_is_clean()
}

/// What is left of Drover on a host; empty when nothing is.
const TRACES: &str = "ip -o link | grep -i -E 'drover|dv' ; nft list tables 2>/dev/null | grep -i drover; ls /run/docker/plugins 2>/dev/null | grep drover; \
     ls -d /run/drover /var/lib/drover 2>/dev/null; docker network ls --format '{{.Driver}}' | grep drover; grep -i drover /proc/mounts | grep -v -E 'lab|upper'; true";

fn docker_is_healthy(host: &integration_tests::host::Host) -> Result<()> {
    host.web("healthy", "-p 8088:80")?;
    wait::until("a page of a plain container", wait::seconds(3), || {
        host.fetch("http://127.0.0.1:8088")
    })?;
    host.reaches("healthy", integration_tests::network::OUTSIDE, 2)?;
    host.run("docker network create plain && docker run --rm --network plain lab true && docker network rm plain")?;
    for call in [
        "docker volume ls",
        "docker network ls",
        "docker info",
        "docker system prune -f",
    ] {
        let done = host.attempt(call)?;
        ensure!(done.took.as_secs() < 2, "`{call}` took {:?}", done.took);
        done.succeeded()?;
    }
    let left = host.run(TRACES)?;
    ensure!(left.is_empty(), "traces of Drover: {left}");
    Ok(())
}

fn reset(lab: &mut Lab) -> Result<()> {
    lab.form_cluster()?;
    let (_, b) = lab.two_sleepers("app")?;
    let one = lab.host(0)?;
    one.reaches("ann", &b, 0)?;
    let two = lab.host(1)?;
    let refusal = two.refused("drover reset --yes")?;
    ensure!(
        refusal.contains("bob"),
        "the container is not named: {refusal}"
    );
    two.run("docker rm -f bob && drover reset --yes")?;
    docker_is_healthy(two)?;
    // It can be had again.
    let invitation = lab.hosts[0].invite()?;
    let two = lab.host(1)?;
    two.drover_up("")?;
    let joined = two.attempt(&format!("drover join {invitation}"))?;
    if joined.code != Some(0) {
        // Its name may be taken until it is removed by the others.
        lab.hosts[0].run("drover host rm host2")?;
        let invitation = lab.hosts[0].invite()?;
        lab.hosts[1].join(&invitation)?;
    }
    lab.hosts[1].wait_for_network("app", 5)?;
    lab.hosts[1].sleeper("again", "--network app")?;
    let a = lab.hosts[0].address_of("ann", "app")?;
    lab.hosts[1].reaches("again", &a, 2)
}

fn reset_down(lab: &mut Lab) -> Result<()> {
    let one = lab.host(0)?;
    one.drover_up("")?;
    one.run(&format!("{} app", integration_tests::drover::CREATE))?;
    one.sleeper("ann", "--network app")?;
    one.drover_down()?;
    one.run("docker rm -f ann && drover reset --yes")?;
    docker_is_healthy(one)
}
