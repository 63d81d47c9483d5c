//! Drover's own calls to engines that ask its plugin: they pass whatever the policy says of others, also while engine and plugins start.
//!
//! Nobody has a role here but one socket's callers: what happens on the hosts beside them is Drover's own doing.

use anyhow::{Result, ensure};
use integration_tests::drover::CREATE;
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_lets_drovers_own_calls_through",
    setup: Setup::Engines(2),
    needs: &[],
    run: own_calls,
}];

const FLAGS: &str = "--authorization-plugin=drover-authz";
const SOCKET: &str = "/run/drover-sockets/root/docker.sock";

fn by_root(command: &str) -> String {
    format!("export DOCKER_HOST=unix://{SOCKET}; {command}")
}

fn own_calls(lab: &mut Lab) -> Result<()> {
    for host in &lab.hosts {
        host.run("mkdir -p /etc/drover/policy")?;
        host.write("/etc/drover/policy/authorization.toml", "[roles]\n")?;
        host.run(&format!("drover authz socket --role admin {SOCKET}"))?;
    }
    lab.form_cluster()?;
    for host in &mut lab.hosts {
        host.stop_engine("TERM")?;
        start_engine(host)?;
    }
    let (one, two) = lab.pair()?;
    one.run(&by_root(&format!("{CREATE} app")))?;
    one.run(&by_root(&format!(
        "docker run -d --name web --restart always --network app -v data:/data --volume-driver drover-vol {IMAGE} \
         sh -c 'date >> /data/starts; exec sleep 1000000'"
    )))?;
    // The coordinator makes the copy of the network there.
    wait::until("the network on the other host", wait::seconds(20), || {
        two.run(&by_root("docker network inspect app"))
    })?;
    two.run(&by_root(&format!(
        "docker run -d --name client --network app {IMAGE} sleep 1000000"
    )))?;
    works(lab, 1)?;
    // The engine starts what is to be restarted while it asks its plugins for networks and volumes, and they ask it.
    let one = lab.host(0)?;
    one.stop_engine("KILL")?;
    start_engine(one)?;
    works(lab, 2)?;
    // As after a power cut.
    lab.reboot_to_engine(0)?;
    start_engine(lab.host(0)?)?;
    works(lab, 3)?;
    let (one, two) = lab.pair()?;
    two.run(&by_root("docker rm -f client"))?;
    one.run(&by_root(
        "docker rm -f web && docker volume rm data && docker network rm app",
    ))?;
    wait::until("the end of the copy", wait::seconds(20), || {
        two.refused(&by_root("docker network inspect app"))
    })?;
    Ok(())
}

/// Starts the engine, and waits until it answers those who may ask it.
fn start_engine(host: &mut Host) -> Result<()> {
    host.begin_engine(FLAGS)?;
    wait::until("an engine that asks", wait::seconds(60), || {
        host.run(&by_root("docker version"))
    })?;
    Ok(())
}

/// The container has started so often, it is reached by its name from the other host, and nobody else is let in.
fn works(lab: &Lab, starts: usize) -> Result<()> {
    let (one, two) = lab.pair()?;
    wait::until("the container", wait::seconds(60), || {
        let said = one.run(&by_root("docker exec web wc -l /data/starts"))?;
        ensure!(said.starts_with(&starts.to_string()), "{said}");
        Ok(())
    })?;
    wait::until("the container by its name", wait::seconds(30), || {
        two.run(&by_root("docker exec client ping -c 1 -W 2 web"))
    })?;
    for host in &lab.hosts {
        for command in ["docker ps", "docker run --rm --name evil lab true"] {
            let said = host.refused(command)?;
            ensure!(
                said.contains("drover: no rule permits"),
                "{command}: {said}"
            );
        }
        let said = host.run(&by_root("docker ps -aqf name=evil"))?;
        ensure!(said.is_empty(), "there is what was denied: {said}");
    }
    Ok(())
}
