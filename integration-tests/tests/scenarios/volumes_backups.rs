//! Backups of volumes: made by a schedule on one host, and a volume of their content on another.

use std::process::Command;

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::process;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;
use serde_json::Value;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_volume_is_backed_up_and_made_anew_on_another_host",
    setup: Setup::Engines(2),
    needs: &[],
    run: moved,
}];

/// Where the backups are, on each host.
const REPOSITORY: &str = "/var/lib/repository";
const PLACE: &str = "-o backup-to=/var/lib/repository -o backup-password-file=/root/password";

fn moved(lab: &mut Lab) -> Result<()> {
    let one = lab.host(0)?;
    one.drover_up("")?;
    one.run("umask 077; echo correct horse > /root/password")?;
    let schedule = "-o backup-schedule=1min -o verify-schedule=1min -o owner=7:8 -o mode=0750";
    one.run(&format!(
        "docker volume create -d drover-vol {PLACE} {schedule} pg"
    ))?;
    one.run(&format!(
        "docker run --rm -v pg:/data {IMAGE} sh -c 'echo one > /data/rows; ln -s rows /data/link; chown 9:9 /data/rows'"
    ))?;
    asked_for(one)?;
    several_at_once(one)?;
    on_a_terminal(one)?;
    rehearsed(one)?;
    backed_up(one)?;
    let from = format!("/proc/{}/root{REPOSITORY}", one.init()?);
    let two = lab.host(1)?;
    let to = format!("/proc/{}/root{REPOSITORY}", two.init()?);
    // As a disk that is carried over: the second host has the repository and its password, and nothing else.
    process::output(Command::new("cp").args(["-a", &from, &to]), "cp")?.succeeded()?;
    verified(lab.host(0)?)?;
    let two = lab.host(1)?;
    two.run("umask 077; echo wrong > /root/password")?;
    two.drover_up("")?;
    made_anew(two)
}

/// A volume is backed up by its name, and its snapshot does not stay.
fn asked_for(host: &Host) -> Result<()> {
    host.run("docker volume create -d drover-vol plain")?;
    host.run(&format!(
        "docker run --rm -v plain:/data {IMAGE} dd if=/dev/urandom of=/data/rows bs=1M count=4"
    ))?;
    let place = "--to /var/lib/asked --password-file /root/password --bandwidth 2M";
    let told = host.run(&format!(
        "drover backup create plain {place} --init --tag by-hand --json"
    ))?;
    let events = told.lines().map(serde_json::from_str);
    let mut events: Vec<Value> = events.collect::<Result<_, _>>()?;
    let made = events.pop().unwrap_or_default();
    let kind = &made["outcome"]["kind"];
    ensure!(made["event"] == "done" && kind == "created", "{told}");
    let saving = |it: &Value| it["event"] == "progress" && it["phase"] == "saving";
    ensure!(events.iter().any(saving), "no progress: {told}");
    let status = host.run("docker volume inspect -f '{{json .Status}}' plain")?;
    ensure!(status.contains("\"to\":\"/var/lib/asked\""), "{status}");
    let left = host.drover_json("volume snapshot ls")?;
    let none = left["snapshots"].as_array().is_some_and(Vec::is_empty);
    ensure!(none, "{left}");
    Ok(())
}

/// Several volumes go to one repository at the same time; meanwhile the password is in no list of processes.
fn several_at_once(host: &Host) -> Result<()> {
    let names = ["first", "second", "third"];
    for name in names {
        host.run(&format!(
            "docker volume create -d drover-vol {name}; \
             docker run --rm -v {name}:/data {IMAGE} dd if=/dev/urandom of=/data/rows bs=1M count=8"
        ))?;
    }
    let place = "--to /var/lib/several --password-file /root/password";
    host.run(&format!("drover backup init {place}"))?;
    let [first, second, third] =
        names.map(|name| format!("drover backup create {name} {place} --bandwidth 1M"));
    let ended = "/root/ended";
    // They go on when nobody listens; the last one that has ended says so.
    host.run(&format!(
        "({first} & {second} & {third} & wait; echo all > {ended}) > /dev/null 2>&1 &"
    ))?;
    wait::until("workers beside each other", wait::seconds(20), || {
        let workers = host.processes("drover-backup")?.len();
        // One of a schedule may be there as well.
        ensure!(workers >= names.len(), "{workers}");
        Ok(())
    })?;
    let told = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -ac 'correct [h]orse' || true";
    let told = host.run(told)?;
    ensure!(told == "0", "the password is told {told} times");
    wait::until("all to be backed up", wait::seconds(60), || {
        host.run(&format!("cat {ended}"))
    })?;
    let listed = host.run(&format!("drover backup ls {place} | tail -n 1"))?;
    let listed: Value = serde_json::from_str(&listed)?;
    let backups = listed["outcome"]["backups"].as_array();
    ensure!(
        backups.map(Vec::len) == Some(names.len()),
        "no lines of JSON, or not all: {listed}"
    );
    let checked = host.run(&format!(
        "drover backup check --read-data {place} | tail -n 1"
    ))?;
    ensure!(checked.contains("\"problems\":[]"), "{checked}");
    let inspected = host.run("docker volume inspect pg; drover volume inspect pg")?;
    ensure!(!inspected.contains("correct"), "{inspected}");
    Ok(())
}

/// A person sees how far it is, how fast, and how long it takes still.
fn on_a_terminal(host: &Host) -> Result<()> {
    let create = "drover backup create second --to /var/lib/terminal --password-file /root/password --init --bandwidth 2M";
    // A terminal that nobody looks at is 0 columns wide.
    let shown = host.run(&format!(
        "script -qec 'stty cols 120 rows 30; TERM=xterm {create}' /dev/null"
    ))?;
    for part in ["saving ", "/s ", " left", "second is backed up as"] {
        ensure!(shown.contains(part), "no `{part}`: {shown}");
    }
    ensure!(!shown.contains("\"event\""), "{shown}");
    Ok(())
}

/// A backup is restored beside its volume and compared; nothing of that stays, also when drover-vol is killed meanwhile.
fn rehearsed(host: &Host) -> Result<()> {
    let verify = "drover backup verify first --restore --from /var/lib/several --password-file /root/password";
    let told = host.run(&format!("{verify} | tail -n 1"))?;
    let told: Value = serde_json::from_str(&told)?;
    let (kind, bytes) = (&told["outcome"]["kind"], &told["outcome"]["bytes"]);
    ensure!(kind == "verified" && *bytes == 8 << 20, "{told}");
    let scratch = |is_there: bool| {
        // One of the schedule may be there as well, for a moment.
        let mounts = host.run("grep /volumes/restores/ /proc/mounts || true")?;
        ensure!(mounts.is_empty() != is_there, "{mounts}");
        Ok(())
    };
    wait::until("the scratch volume to go", wait::seconds(20), || {
        scratch(false)
    })?;
    host.run(&format!(
        "({verify} --bandwidth 1M > /root/rehearsal 2>&1 &) ; true"
    ))?;
    wait::until("a scratch volume", wait::seconds(20), || scratch(true))?;
    let shown = host.run("docker volume ls -q")?;
    ensure!(!shown.contains("verify-"), "the engine sees it: {shown}");
    host.kill("drover-vol", "KILL")?;
    wait::until("the scratch volume to go", wait::seconds(30), || {
        scratch(false)
    })?;
    let left = host.run("ls /var/lib/drover/volumes/restores")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

/// Waits for the schedule, and sees what is told of it.
fn backed_up(host: &Host) -> Result<()> {
    wait::until("a backup of the schedule", wait::seconds(120), || {
        let status = host.run("docker volume inspect -f '{{json .Status}}' pg")?;
        let made = status.contains("\"lastBackup\":{\"id\":");
        ensure!(made && !status.contains("backupFailure"), "{status}");
        Ok(())
    })?;
    let last = host.drover_json("volume inspect pg")?["last_backup"].as_u64();
    ensure!(last.is_some(), "no time of the last backup");
    wait::until(
        "the backup's snapshot to be gone",
        wait::seconds(20),
        || {
            let mounts = host.run("grep -c volumes/snapshots/ /proc/self/mountinfo || true")?;
            ensure!(mounts == "0", "{mounts}");
            Ok(())
        },
    )?;
    Ok(())
}

/// The schedule restores what was made and compares it; and tells of damage, with the backup that it is in.
fn verified(host: &Host) -> Result<()> {
    let told = |what: &str| {
        wait::until(what, wait::seconds(130), || {
            let status = host.run("docker volume inspect -f '{{json .Status.verification}}' pg")?;
            ensure!(status.contains(what), "{status}");
            Ok(status)
        })
    };
    let (found, _) = told("verifiedAt")?;
    ensure!(found.contains("\"restored\":true"), "{found}");
    host.run(&format!(
        "for f in $(find {REPOSITORY}/data -type f); do chmod u+w $f; printf X | dd of=$f bs=1 seek=40 conv=notrunc; done"
    ))?;
    told("failure")?;
    Ok(())
}

fn made_anew(host: &Host) -> Result<()> {
    let create = format!("docker volume create -d drover-vol -o from-backup=pg {PLACE} pg");
    let text = host.refused(&create)?;
    ensure!(text.contains("password"), "{text}");
    ensure!(host.run("docker volume ls -q")?.is_empty());
    host.run("echo correct horse > /root/password")?;
    host.run(&create)?;
    let seen = host.run(&format!(
        "docker run --rm -v pg:/data {IMAGE} sh -c 'cat /data/link; stat -c %u:%g /data/rows; stat -c %u:%g:%a /data'"
    ))?;
    ensure!(seen == "one\n9:9\n7:8:750", "{seen}");
    let inspected = host.run("docker volume inspect pg")?;
    ensure!(!inspected.contains("correct horse"), "{inspected}");
    Ok(())
}
