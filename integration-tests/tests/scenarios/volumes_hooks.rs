//! Commands around snapshots that go wrong: one that takes too long, and kills between one and the other.

use std::time::Instant;

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

use crate::volumes::attached;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "what_follows_a_snapshot_in_a_container_is_always_run",
    setup: Setup::Engines(1),
    needs: &[],
    run: hooks,
}];

/// How long the command before a snapshot takes, seconds.
const SLOW: u64 = 60;

fn hooks(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    too_slow(host)?;
    killed_between(host)?;
    stopped_between(host)?;
    power_fails_between(lab)?;
    attached(lab.host(0)?, 0)
}

/// A container with a volume of its name, and commands that leave marks on it.
fn container(host: &Host, name: &str, pre: &str, seconds: u64) -> Result<()> {
    host.run(&format!("docker volume create -d drover-vol {name}"))?;
    host.sleeper(
        name,
        &format!(
            "-v {name}:/data --restart always --network none -l drover.snapshot.timeout={seconds} \
             -l 'drover.snapshot.pre=echo pre >> /data/marks; {pre}' -l 'drover.snapshot.post=echo post >> /data/marks'"
        ),
    )
}

fn marks(host: &Host, name: &str) -> Result<String> {
    let marks = host.run(&format!(
        "docker exec {name} sh -c 'cat /data/marks 2>/dev/null || true'"
    ))?;
    Ok(marks.replace('\n', " "))
}

fn has_marks(host: &Host, name: &str, wanted: &str) -> Result<()> {
    wait::until(&format!("`{wanted}` in {name}"), wait::seconds(60), || {
        let found = marks(host, name)?;
        ensure!(found == wanted, "{found}");
        Ok(())
    })?;
    Ok(())
}

/// Takes a snapshot in the background, and waits until the command before it runs.
fn begin(host: &mut Host, name: &str, marks: &str) -> Result<()> {
    host.start(
        &format!("drover volume snapshot create {name}@cut"),
        "cut.log",
    )?;
    has_marks(host, name, marks)
}

fn snapshots(host: &Host, name: &str) -> Result<usize> {
    let listed = host.drover_json(&format!("volume snapshot ls {name}"))?;
    Ok(listed["snapshots"].as_array().map_or(0, Vec::len))
}

/// It is not waited for; the snapshot is taken, and says that the program was not ready for it; the container is as it was.
fn too_slow(host: &Host) -> Result<()> {
    container(host, "slow", &format!("sleep {SLOW}"), 2)?;
    let before = host.pid_of("slow")?;
    let began = Instant::now();
    let taken = host.drover_json("volume snapshot create slow@one")?;
    ensure!(
        began.elapsed() < wait::seconds(SLOW / 2) * wait::patience(),
        "it was waited for: {:?}",
        began.elapsed()
    );
    let one = &taken["snapshots"][0];
    ensure!(one["application_consistent"] == false, "{taken}");
    let complaint = taken["complaints"][0].as_str().unwrap_or_default();
    for part in [
        "drover.snapshot.pre",
        "container `slow`",
        "not done within 2 s",
    ] {
        ensure!(complaint.contains(part), "no `{part}`: {complaint}");
    }
    ensure!(marks(host, "slow")? == "pre post");
    let at = host.run("drover volume snapshot mount slow@one")?;
    ensure!(host.run(&format!("cat {at}/marks"))? == "pre");
    host.run("drover volume snapshot umount slow@one")?;
    ensure!(
        host.pid_of("slow")? == before,
        "the container was restarted"
    );
    let told = host.run("drover volume snapshot create slow@two 2>&1")?;
    ensure!(told.contains("drover.snapshot.pre"), "{told}");
    ensure!(snapshots(host, "slow")? == 2);
    host.run("docker rm -f slow; docker volume rm slow")?;
    Ok(())
}

/// The process is killed while the command before a snapshot runs, twice: what follows is run, once for each, and nothing is left.
fn killed_between(host: &mut Host) -> Result<()> {
    container(host, "killed", &format!("sleep {SLOW}"), 2 * SLOW)?;
    let before = host.pid_of("killed")?;
    let mut wanted = String::from("pre");
    for _ in 0..2 {
        begin(host, "killed", &wanted)?;
        host.kill("drover-vol", "KILL")?;
        wanted.push_str(" post");
        has_marks(host, "killed", &wanted)?;
        ensure!(snapshots(host, "killed")? == 0, "one was left half made");
        wanted.push_str(" pre");
    }
    wanted = wanted.trim_end_matches(" pre").to_owned();
    // What was run is not owed any more.
    host.kill("drover-vol", "KILL")?;
    wait::until("the plugin is back", wait::seconds(10), || {
        host.run("docker volume inspect killed")
    })?;
    wait::throughout("nothing more is run", wait::seconds(3), || {
        let found = marks(host, "killed")?;
        ensure!(found == wanted, "{found}");
        Ok(())
    })?;
    ensure!(
        host.pid_of("killed")? == before,
        "the container was restarted"
    );
    // The next snapshot is as any other.
    host.run("docker rm -f killed")?;
    container(host, "killed", "true", 30)?;
    let taken = host.drover_json("volume snapshot create killed@cut")?;
    ensure!(
        taken["snapshots"][0]["application_consistent"] == true,
        "{taken}"
    );
    has_marks(host, "killed", &format!("{wanted} pre post"))?;
    host.run("docker rm -f killed; docker volume rm killed")?;
    Ok(())
}

/// The container is stopped before what follows can be run in it: it is run when the container is there again.
fn stopped_between(host: &mut Host) -> Result<()> {
    container(host, "stopped", "sleep 5", 30)?;
    begin(host, "stopped", "pre")?;
    host.run("docker stop -t 0 stopped")?;
    wait::until("the end of the snapshot", wait::seconds(30), || {
        let told = host.tail("cut.log", 5);
        ensure!(told.contains("drover.snapshot.post"), "{told}");
        Ok(())
    })?;
    ensure!(snapshots(host, "stopped")? == 1);
    // It has no shell to ask.
    let seen = format!("docker run --rm -v stopped:/data {IMAGE} cat /data/marks");
    ensure!(host.run(&seen)? == "pre");
    host.run("docker start stopped")?;
    has_marks(host, "stopped", "pre post")?;
    host.run("docker rm -f stopped; docker volume rm stopped")?;
    Ok(())
}

/// The power fails: what follows is run when the container is started again.
fn power_fails_between(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    container(host, "cut", &format!("sleep {SLOW}"), 2 * SLOW)?;
    begin(host, "cut", "pre")?;
    lab.reboot(0)?;
    let host = lab.host(0)?;
    has_marks(host, "cut", "pre post")?;
    ensure!(snapshots(host, "cut")? == 0, "one was left half made");
    host.run("docker rm -f cut; docker volume rm cut")?;
    Ok(())
}
