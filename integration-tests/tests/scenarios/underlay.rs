//! The lab itself: what the other scenarios take for granted.

use anyhow::{Result, ensure};
use integration_tests::lab::Lab;
use integration_tests::network::{OUTSIDE, OUTSIDE_V6, Site};
use integration_tests::scenario::{Scenario, Setup};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "lab_engines_run_and_hosts_reach_each_other",
    setup: Setup::Engines(2),
    needs: &[],
    run: engines_run,
}];

fn engines_run(lab: &mut Lab) -> Result<()> {
    let version = lab.release.version();
    let other = lab.host(1)?.address();
    let far = lab.add_host(Site::Far)?;
    let (far, far_v6) = (lab.host(far)?.address(), lab.host(far)?.address_v6());
    for host in &lab.hosts {
        let engine = host.run("docker version --format '{{.Server.Version}}'")?;
        ensure!(
            engine.starts_with(version),
            "{} has engine {engine}",
            host.name
        );
        host.run("docker compose version || docker-compose version")?;
        host.run("etcd --version")?;
        for address in [OUTSIDE, OUTSIDE_V6, &other, &far, &far_v6] {
            host.run(&format!("ping -c 1 -W 2 {address}"))?;
        }
    }
    let host = lab.host(0)?;
    host.web("before", "-p 8080:80 --restart always")?;
    ensure!(
        host.fetch("http://127.0.0.1:8080")? == "this is before",
        "the page is wrong"
    );
    host.reaches("before", OUTSIDE, 2)?;
    host.switch_off();
    ensure!(host.init().is_err(), "a host that is off has a process");
    let first = &mut lab.hosts[0];
    first.switch_on(&lab.underlay)?;
    first.start_engine("")?;
    integration_tests::wait::until(
        "a container after a reboot",
        integration_tests::wait::seconds(20),
        || first.fetch("http://127.0.0.1:8080"),
    )?;
    Ok(())
}
