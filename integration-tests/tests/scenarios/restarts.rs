//! The engine restarts, the host reboots; containers that are to come back do, on their networks.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "restart_of_the_engine",
        setup: Setup::Cluster,
        needs: &[],
        run: in_order,
    },
    Scenario {
        name: "restart_of_the_engine_after_kill_9",
        setup: Setup::Cluster,
        needs: &[],
        run: killed,
    },
    Scenario {
        name: "restart_of_the_engine_with_live_restore",
        setup: Setup::Cluster,
        needs: &[],
        run: live_restore,
    },
    Scenario {
        name: "restart_of_the_engine_with_live_restore_after_kill_9",
        setup: Setup::Cluster,
        needs: &[],
        run: live_restore_killed,
    },
    Scenario {
        name: "reboot_of_a_host",
        setup: Setup::Cluster,
        needs: &[],
        run: reboot,
    },
    Scenario {
        name: "reboot_of_both_hosts",
        setup: Setup::Cluster,
        needs: &[],
        run: reboot_both,
    },
];

/// A container on each host that comes back by itself, and one that does not.
fn begin(lab: &Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    one.web("web", "--network app --restart always -p 8080:80")?;
    one.sleeper("once", "--network app")?;
    two.sleeper("bob", "--network app --restart always")?;
    two.reaches("bob", &one.address_of("web", "app")?, 0)
}

/// Everything is as before: the container is back, reaches and is reached, and nothing is left over.
fn is_well(lab: &Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    for (host, container) in [(one, "web"), (two, "bob")] {
        wait::until(&format!("{container} is back"), wait::seconds(20), || {
            host.pid_of(container)
        })?;
    }
    let (web, b) = (one.address_of("web", "app")?, two.address_of("bob", "app")?);
    two.reaches("bob", &web, 2)?;
    one.reaches("web", &b, 2)?;
    wait::until("the published port", wait::seconds(5), || {
        let said = two.fetch(&format!("http://{}:8080", one.address()))?;
        ensure!(said == "this is web", "it says {said}");
        Ok(())
    })?;
    one.sleeper("new", "--network app")?;
    let new = one.address_of("new", "app")?;
    ensure!(new != web, "{new} was given twice");
    two.reaches("bob", &new, 0)?;
    lab.doctor_is_clean()?;
    endpoints_are(one, 2)
}

/// Drover knows as many endpoints as there are containers, and as many ports are in the kernel.
fn endpoints_are(host: &Host, count: usize) -> Result<()> {
    wait::until("no leftover port", wait::seconds(20), || {
        let links = host.run(
            "nsenter --net=/run/drover/netns/overlay ip -o link show type veth | grep -c master || true",
        )?;
        ensure!(
            links == count.to_string(),
            "{} has {links} ports for {count} containers",
            host.name
        );
        Ok(())
    })?;
    Ok(())
}

fn in_order(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    let one = lab.host(0)?;
    one.stop_engine("TERM")?;
    one.start_engine("")?;
    is_well(lab)
}

fn killed(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    let one = lab.host(0)?;
    one.stop_engine("KILL")?;
    one.start_engine("")?;
    is_well(lab)
}

fn live_restore(lab: &mut Lab) -> Result<()> {
    with_live_restore(lab, "TERM")
}

fn live_restore_killed(lab: &mut Lab) -> Result<()> {
    with_live_restore(lab, "KILL")
}

fn with_live_restore(lab: &mut Lab, signal: &str) -> Result<()> {
    let one = lab.host(0)?;
    one.stop_engine("TERM")?;
    one.start_engine("--live-restore")?;
    begin(lab)?;
    let b = lab.pair()?.1.address_of("bob", "app")?;
    let one = lab.host(0)?;
    let flow = one.flow("web", &b)?;
    let pid = one.pid_of("web")?;
    one.stop_engine(signal)?;
    one.start_engine("--live-restore")?;
    ensure!(
        one.pid_of("web")? == pid,
        "live-restore has restarted the container"
    );
    one.end_flow(&flow)?.at_most(0)?;
    one.run("docker rm -f once")?;
    is_well(lab)?;
    let one = lab.host(0)?;
    one.run("docker rm -f web new")?;
    endpoints_are(one, 0)?;
    one.stop_engine("TERM")?;
    one.start_engine("")?;
    lab.doctor_is_clean()
}

fn reboot(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    lab.reboot(0)?;
    is_well(lab)?;
    lab.host(0)?.run("docker rm -f new")?;
    lab.reboot(1)?;
    is_well(lab)
}

fn reboot_both(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    for host in &mut lab.hosts {
        host.switch_off();
    }
    for place in [1, 0] {
        lab.reboot(place)?;
    }
    is_well(lab)
}
