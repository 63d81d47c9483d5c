//! The plugin and the engine at the start of a host, by systemd's units: nobody is locked out, and nobody let in.
//!
//! The lab's hosts have no systemd as their first process. What is shown are its own checks of the units, and the plugin started by its
//! socket, as systemd does it.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "authorization_starts_by_its_socket_before_the_engine",
    setup: Setup::Engines(1),
    needs: &[],
    run: start,
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
const FLAGS: &str = "--authorization-plugin=drover-authz";
const SETUP: &str = "/etc/drover/policy/authorization.toml";

fn start(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.run("mkdir -p /etc/drover/policy /run/units && ln -sf $(command -v drover-authz) /usr/bin/drover-authz")?;
    host.write(SETUP, "[roles]\nadmin = [\"local\"]\n")?;
    for (name, text) in UNITS {
        host.write(&format!("/run/units/{name}"), text)?;
    }
    let said = host.attempt(
        "cd /run/units && systemd-analyze verify ./drover-authz.service ./drover-authz.socket",
    )?;
    // It looks at the units of the system, too, which are not ours to mend.
    let faults = said.stderr.contains("drover-authz");
    ensure!(said.code == Some(0) && !faults, "{said:?}");

    // Without its plugin the engine does not start: nobody is let in.
    host.stop_engine("TERM")?;
    host.begin_engine(FLAGS)?;
    wait::until(
        "the end of an engine without its plugin",
        wait::seconds(60),
        || {
            let left = host.processes("dockerd")?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        },
    )?;
    host.refused("docker ps")?;

    // As after a reboot: the socket is there, the plugin begins with the first question, and root is not locked out.
    by_its_socket(host)?;
    host.start_engine(FLAGS)?;
    ensure!(
        !host.processes("drover-authz")?.is_empty(),
        "who was asked?"
    );
    host.run("docker rm $(docker create --privileged lab true)")?;

    // A bad policy at the start lets nobody in, root neither; the way back is in the documentation.
    host.stop_engine("TERM")?;
    host.kill("drover-authz", "TERM")?;
    host.write(SETUP, "nonsense")?;
    by_its_socket(host)?;
    host.begin_engine(FLAGS)?;
    wait::until("a denial", wait::seconds(60), || {
        let said = host.refused("docker create lab true")?;
        ensure!(said.contains("no policy is in force"), "{said}");
        Ok(())
    })?;
    host.stop_engine("TERM")?;
    host.start_engine("")?;
    host.run("docker rm $(docker create lab true)")?;

    // The other way back: the policy itself, which is in force without a restart.
    host.stop_engine("TERM")?;
    host.begin_engine(FLAGS)?;
    wait::until("a denial", wait::seconds(60), || {
        host.refused("docker create lab true")
    })?;
    host.write(SETUP, "mode = \"monitor\"\n")?;
    wait::until("monitor mode", wait::seconds(20), || {
        host.run("docker rm $(docker create --privileged lab true)")
    })?;
    Ok(())
}

/// Listens in the plugin's place, and starts it with the first connection, as its socket unit has it.
fn by_its_socket(host: &mut Host) -> Result<()> {
    host.start(
        "mkdir -p /run/docker/plugins; rm -f /run/docker/plugins/drover-authz.sock; \
         exec systemd-socket-activate -l /run/docker/plugins/drover-authz.sock --fdname=drover-authz -E PATH -E HOME \
         /usr/bin/drover-authz",
        "authz-socket",
    )?;
    wait::until("the socket", wait::seconds(10), || {
        host.run("test -S /run/docker/plugins/drover-authz.sock")
    })?;
    let early = host.processes("drover-authz")?;
    ensure!(early.is_empty(), "it runs before it is asked: {early:?}");
    Ok(())
}
