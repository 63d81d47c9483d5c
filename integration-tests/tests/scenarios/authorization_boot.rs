//! A host that boots with systemd: the units order the plugin before the engine and keep it there, nobody is locked out, and nobody
//! let in.

use anyhow::{Result, ensure};
use integration_tests::boot::Machine;
use integration_tests::engine;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_boots_with_systemd_before_the_engine",
    setup: Setup::Engines(1),
    needs: &[],
    run: boots,
}];

/// The units, as they are installed.
const UNITS: &[(&str, &str)] = &[
    (
        "drover-authz.service",
        include_str!("../../../packaging/systemd/drover-authz.service"),
    ),
    (
        "drover-authz.socket",
        include_str!("../../../packaging/systemd/drover-authz.socket"),
    ),
];
const SETUP: &str = "/etc/drover/policy/authorization.toml";
const SETTINGS: &str = "/etc/docker/daemon.json";
/// The engine asks the plugin. The rest is for want of systemd's bus, which has the control groups else.
const ASKS: &str =
    r#"{"authorization-plugins": ["drover-authz"], "exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;
const ASKS_NOBODY: &str = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;

fn boots(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    no_engine_without_its_plugin(host)?;
    install(host)?;
    let machine = Machine::boot(host)?;
    machine.engine_answers()?;
    machine.run("docker rm $(docker create --privileged -v /:/host lab true)")?;
    wait::until("the decision in the log", wait::seconds(10), || {
        machine.run("grep ContainerCreate /var/lib/drover/authz/decisions.log")
    })?;
    machine.came_before_the_engine("drover-authz.socket")?;

    // The plugin is killed: the next question has it started, and the engine is the same.
    let before = machine.run("pidof dockerd")?;
    machine.run("kill -9 $(pidof drover-authz)")?;
    machine.run("docker ps")?;
    ensure!(machine.run("pidof dockerd")? == before, "another engine");

    without_its_socket(&machine)?;

    // A policy that became bad while the host was off lets nobody in, root neither.
    machine.host.write(SETUP, "nonsense")?;
    let machine = machine.reboot()?;
    is_denied(&machine)?;
    // Both ways back in, as they are documented.
    machine.host.write(SETUP, "mode = \"monitor\"\n")?;
    wait::until("monitor mode", wait::seconds(20), || {
        machine.run("docker rm $(docker create --privileged lab true)")
    })?;
    machine.host.write(SETUP, "mode = \"enforce\"\n")?;
    is_denied(&machine)?;
    machine.host.write(SETTINGS, ASKS_NOBODY)?;
    machine.run("systemctl restart docker.service")?;
    machine.engine_answers()?;
    machine.run("docker rm $(docker create --privileged lab true)")?;
    machine.power_off()
}

/// An engine that names the plugin ends when nobody is at its socket: nobody is let in.
fn no_engine_without_its_plugin(host: &mut Host) -> Result<()> {
    host.stop_engine("TERM")?;
    host.begin_engine("--authorization-plugin=drover-authz")?;
    wait::until("the end of the engine", wait::seconds(60), || {
        let said = host.tail(engine::LOG, 3);
        ensure!(said.contains("authorization plugin"), "{said}");
        let left = host.processes("dockerd")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    host.refused("docker ps").map(drop)
}

/// The engine is not started without the unit, and with it the socket comes with the engine, whoever calls for that.
fn without_its_socket(machine: &Machine<'_>) -> Result<()> {
    let unit = "/etc/systemd/system/drover-authz.socket";
    machine.run(
        "systemctl stop docker.socket docker.service drover-authz.socket drover-authz.service",
    )?;
    machine.run(&format!("mv {unit} /root/ && systemctl daemon-reload"))?;
    machine.refused("systemctl start docker.service")?;
    machine.refused("pidof dockerd")?;
    machine.run(&format!(
        "mv /root/drover-authz.socket {unit} && systemctl daemon-reload && systemctl start docker.socket"
    ))?;
    machine.engine_answers()?;
    machine
        .run("systemctl is-active drover-authz.socket && pidof drover-authz")
        .map(drop)
}

/// The units and programs, as a package would have them.
fn install(host: &Host) -> Result<()> {
    host.run("mkdir -p /etc/drover/policy && cp $(command -v drover-authz) $(command -v drover) /usr/bin/")?;
    host.write(SETUP, "[roles]\nadmin = [\"local\"]\n")?;
    host.write(SETTINGS, ASKS)?;
    for (name, text) in UNITS {
        host.write(&format!("/etc/systemd/system/{name}"), text)?;
    }
    let said = host.attempt(
        "cd /etc/systemd/system && systemd-analyze verify ./drover-authz.service ./drover-authz.socket",
    )?;
    // It looks at the units of the system, too, which are not ours to mend.
    let faults = said.stderr.contains("drover-authz");
    ensure!(said.code == Some(0) && !faults, "{said:?}");
    host.run("systemctl enable drover-authz.socket drover-authz.service")
        .map(drop)
}

fn is_denied(machine: &Machine<'_>) -> Result<()> {
    wait::until("a denial", wait::seconds(60), || {
        let said = machine.refused("docker create lab true")?;
        ensure!(said.contains("authorization denied"), "{said}");
        Ok(())
    })?;
    Ok(())
}
