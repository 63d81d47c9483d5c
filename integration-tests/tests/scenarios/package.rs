//! The Debian package: installed with one command, back after a loss of power with everything that ran, replaced while containers
//! run, and gone without a trace that hinders the engine.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use integration_tests::boot::Machine;
use integration_tests::cache;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "package_brings_a_host_back_after_a_loss_of_power",
    setup: Setup::Engines(1),
    needs: &[],
    run: comes_back,
}];

/// The engine without systemd's bus, which has the control groups else.
const SETTINGS: &str = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;
/// What an operator has on a host.
const APP: &str = "
    docker network create -d drover-net --ipam-driver drover-ipam -o encryption=off app
    docker volume create -d drover-vol data
    docker run -d --name web --network app --restart always -v data:/data lab sh -c 'date >> /data/starts; exec sleep 3600'";

fn comes_back(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    let package = build(host)?;
    host.stop_engine("TERM")?;
    host.write("/etc/docker/daemon.json", SETTINGS)?;
    // In a container's image nothing may be started by what is installed; this is a host.
    host.run("rm -f /usr/sbin/policy-rc.d && systemctl set-default multi-user.target")?;
    let machine = Machine::boot(host)?;
    machine.engine_answers()?;
    machine.run(&format!("dpkg -i {package}"))?;
    machine.run("systemctl is-active drover.service && systemctl is-enabled drover.service")?;
    machine.run(APP)?;
    found_by_name(&machine)?;
    doctor_looks_at_the_boot(&machine)?;

    let machine = machine.reboot()?;
    machine.engine_answers()?;
    wait::until("the container, started again", wait::seconds(30), || {
        let starts = machine.run("docker exec web wc -l /data/starts")?;
        ensure!(starts.starts_with("2 "), "{starts}");
        Ok(())
    })?;
    found_by_name(&machine)?;
    machine.came_before_the_engine("drover.service")?;

    // What is killed is back, and a new version takes the place of the old one; the container runs on through both.
    machine.run("kill -9 $(systemctl show --value -p MainPID drover.service)")?;
    is_up_again(&machine)?;
    machine.run(&format!("dpkg -i {package}"))?;
    is_up_again(&machine)?;
    let starts = machine.run("docker exec web wc -l /data/starts")?;
    ensure!(starts.starts_with("2 "), "it was started again: {starts}");

    is_gone(&machine)?;
    machine.power_off()
}

/// The package, built of the programs that are tested; where it is on the host.
fn build(host: &Host) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let built = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb/build"))
        .arg(folder.path())
        .env("DROVER_PROGRAMS", cache::binaries()?)
        .env("DROVER_DEB_COMPRESSION", "none")
        .output()?;
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    ensure!(built.status.success(), "{said}");
    let lent = host.lend(Path::new(String::from_utf8(built.stdout)?.trim()))?;
    // Out of /tmp, which is another after the boot.
    host.run(&format!("mv {lent} /root/drover.deb"))?;
    Ok("/root/drover.deb".to_owned())
}

fn doctor_looks_at_the_boot(machine: &Machine<'_>) -> Result<()> {
    let said = |expected: &str| -> Result<()> {
        let said = machine.attempt("drover doctor")?.stdout;
        ensure!(said.contains(expected), "{said}");
        Ok(())
    };
    said("checked: processes, boot,")?;
    machine.run("systemctl disable drover.service")?;
    said("`drover.service`, which runs `drover up`, is not started at boot")?;
    machine.run("systemctl enable drover.service").map(drop)
}

fn found_by_name(machine: &Machine<'_>) -> Result<()> {
    let asked = wait::until("the name of the container", wait::seconds(20), || {
        machine.run("docker run --rm --network app lab ping -c 1 -W 2 web")
    });
    asked.map(drop)
}

fn is_up_again(machine: &Machine<'_>) -> Result<()> {
    wait::until("Drover", wait::seconds(30), || {
        machine.run("systemctl is-active drover.service && drover status")
    })?;
    found_by_name(machine)
}

/// Drover is taken off, then its package; the engine does not miss either.
fn is_gone(machine: &Machine<'_>) -> Result<()> {
    machine.run("docker rm -f web && docker volume rm data && docker network rm app")?;
    machine.run("systemctl stop drover.service && drover reset --yes")?;
    machine.run("dpkg --purge drover")?;
    machine.refused(
        "command -v drover || ls /usr/lib/systemd/system/drover* || ls -A /var/lib/drover /run/drover",
    )?;
    let left =
        machine.run("ls -A /run/docker/plugins /etc/systemd/system | grep drover || true")?;
    ensure!(left.is_empty(), "left: {left}");
    machine.run(
        "docker run --rm lab true && systemctl restart docker.service && docker run --rm lab true",
    )?;
    machine.nothing_failed()
}
