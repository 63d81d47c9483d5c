//! The catalogue: every host lists the volumes, snapshots and backups of all, and restores what another has backed up by its name.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::process;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;
use serde_json::Value;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "every_host_lists_and_restores_what_another_has_made",
    setup: Setup::Engines(2),
    needs: &[],
    run: catalogue,
}];

/// Where the first host's backups are.
const REPOSITORY: &str = "/var/lib/repository";
const PASSWORD: &str = "correct horse";

fn catalogue(lab: &mut Lab) -> Result<()> {
    lab.form_cluster()?;
    let (one, two) = lab.pair()?;
    make(one)?;
    listed(two)?;
    forgotten(one, two).context("backups that are forgotten")?;
    restored_by_name(one, two).context("restoring by name")?;
    the_coordinator_is_away(one, two).context("without a coordinator")?;
    of_two_hosts(two).context("of two hosts")?;
    removed(one, two).context("volumes that are removed")?;
    lab.host(1)?.switch_off();
    gone(lab.host(0)?).context("a host that is gone")
}

/// A volume with something on it, a snapshot, and a backup.
fn make(host: &Host) -> Result<()> {
    host.run(&format!("umask 077; echo {PASSWORD} > /root/password"))?;
    host.run("docker volume create -d drover-vol pg")?;
    host.run(&format!(
        "docker run --rm -v pg:/data {IMAGE} sh -c 'echo one > /data/rows'"
    ))?;
    host.run("drover volume snapshot create pg@before")?;
    host.run(&format!(
        "drover backup create pg --to {REPOSITORY} --password-file /root/password --init --json"
    ))?;
    // One without a name is nobody's to look for.
    host.run("docker volume create -d drover-vol")?;
    Ok(())
}

/// The rows of a table of all hosts, by volume: each as `host volume`.
fn rows(host: &Host, command: &str, table: &str) -> Result<Vec<String>> {
    let told = host.drover_json(command)?;
    let rows = told[table].as_array().context("no table")?;
    let text = |row: &Value| {
        let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let volume = if row["volume"].is_string() {
            word("volume")
        } else {
            word("name")
        };
        format!("{} {volume} {}", word("host"), word("presence"))
    };
    Ok(rows.iter().map(text).collect())
}

fn shows(host: &Host, command: &str, table: &str, expected: &[&str]) -> Result<()> {
    let what = format!("`drover {command}` to show {expected:?}");
    wait::until(&what, wait::seconds(30), || {
        let rows = rows(host, command, table)?;
        ensure!(rows == expected, "{rows:?}");
        Ok(())
    })?;
    Ok(())
}

fn listed(host: &Host) -> Result<()> {
    shows(host, "volume ls --all", "volumes", &["host1 pg present"])?;
    shows(
        host,
        "volume snapshot ls --all pg",
        "snapshots",
        &["host1 pg present"],
    )?;
    shows(host, "backup ls --all", "backups", &["host1 pg present"])?;
    let text = host.run("drover volume ls --all; drover volume snapshot ls --all; drover backup ls --all --json; drover backup ls --all pg")?;
    for part in ["host1", "pg@before", REPOSITORY, "ago"] {
        ensure!(text.contains(part), "no {part}: {text}");
    }
    ensure!(!text.contains(PASSWORD), "{text}");
    Ok(())
}

/// Backs `pg` up once more; gives the backup's id.
fn back_up(host: &Host) -> Result<String> {
    let told = host.run(&format!(
        "drover backup create pg --to {REPOSITORY} --password-file /root/password --json | tail -n 1"
    ))?;
    let done: Value = serde_json::from_str(&told)?;
    let id = done["outcome"]["backup"]["id"].as_str();
    id.map(ToOwned::to_owned).context(told.clone())
}

/// Which backup of `pg` is listed, and which its host takes for the last: `-` for none.
fn last_is(one: &Host, two: &Host, expected: &str) -> Result<()> {
    let what = format!("`{expected}` to be the last backup");
    wait::until(&what, wait::seconds(30), || {
        let all = two.drover_json("backup ls --all pg")?;
        let listed = all["backups"][0]["id"].as_str().unwrap_or("-");
        ensure!(listed == expected, "listed is {listed}");
        let status = one.run("docker volume inspect -f '{{json .Status.lastBackup}}' pg")?;
        let known: Value = serde_json::from_str(&status)?;
        let known = known["id"].as_str().unwrap_or("-");
        ensure!(known == expected, "its host knows {known}");
        Ok(())
    })?;
    Ok(())
}

/// What was forgotten, by Drover or by restic, is listed no longer, nor listed again by the host that had made it.
fn forgotten(one: &Host, two: &Host) -> Result<()> {
    let place = format!("--from {REPOSITORY} --password-file /root/password");
    let all = one.drover_json("backup ls --all pg")?;
    let first = all["backups"][0]["id"].as_str().context("no id")?;
    let second = back_up(one)?;
    last_is(one, two, &second)?;
    one.run(&format!("drover backup forget pg --keep 9 {place}"))?;
    one.run(&format!(
        "drover backup forget pg --id {second} --dry-run {place}"
    ))?;
    last_is(one, two, &second)?;
    one.run(&format!("drover backup forget pg --id {second} {place}"))?;
    last_is(one, two, first)?;
    // Its host hears of it at its next start, too.
    one.kill("drover-vol", "KILL")?;
    last_is(one, two, first)?;
    let (third, fourth) = (back_up(one)?, back_up(one)?);
    last_is(one, two, &fourth)?;
    let root = format!("/proc/{}/root", one.init()?);
    let mut restic = Command::new("restic");
    restic.args(["--no-cache", "-r", &format!("{root}{REPOSITORY}")]);
    restic.args(["--password-file", &format!("{root}/root/password")]);
    restic.args(["forget", first, &third, &fourth]);
    process::output(&mut restic, "restic forget")?.succeeded()?;
    one.run(&format!("drover backup prune {place}"))?;
    last_is(one, two, "-")?;
    one.kill("drover-vol", "KILL")?;
    let text = two.refused(&create("x", "-o from-backup=pg"))?;
    ensure!(text.contains("no host of the cluster"), "{text}");
    last_is(one, two, "-")?;
    let again = back_up(one)?;
    last_is(one, two, &again)
}

fn create(name: &str, options: &str) -> String {
    format!("docker volume create -d drover-vol {options} {name}")
}

fn content(host: &Host, volume: &str) -> Result<String> {
    host.run(&format!(
        "docker run --rm -v {volume}:/data {IMAGE} cat /data/rows"
    ))
}

/// A host that has the password is told where the backups are; what it misses is named.
fn restored_by_name(one: &Host, two: &Host) -> Result<()> {
    let text = two.refused(&create("pg", "-o from-backup=pg"))?;
    for part in ["host1", REPOSITORY, "backup-password-file"] {
        ensure!(text.contains(part), "no {part}: {text}");
    }
    let text = two.refused(&create("other", "-o from-backup=nothing"))?;
    ensure!(text.contains("no host of the cluster"), "{text}");
    two.run(&format!("umask 077; echo {PASSWORD} > /root/password"))?;
    let by_name = create(
        "pg",
        "-o from-backup=pg -o backup-password-file=/root/password",
    );
    let text = two.refused(&by_name)?;
    ensure!(
        text.contains("where host `host1` has backed up to"),
        "{text}"
    );
    ensure!(two.run("docker volume ls -q")?.is_empty());
    let place = |host: &Host| anyhow::Ok(format!("/proc/{}/root{REPOSITORY}", host.init()?));
    // As a directory that both have.
    let (from, to) = (place(one)?, place(two)?);
    process::output(Command::new("cp").args(["-a", &from, &to]), "cp")?.succeeded()?;
    two.run(&by_name)?;
    ensure!(content(two, "pg")? == "one");
    shows(
        one,
        "volume ls --all",
        "volumes",
        &["host1 pg present", "host2 pg present"],
    )
}

/// Volumes do not wait for it, and what was not told is told when it is there again.
fn the_coordinator_is_away(one: &Host, two: &Host) -> Result<()> {
    let coordinator = one.processes("drover-coordinator")?;
    let pid = coordinator.first().context("no coordinator")?;
    one.run(&format!("kill -STOP {pid}"))?;
    one.run(&create("later", ""))?;
    one.run("drover volume snapshot create later@s")?;
    let text = one.refused(&create(
        "x",
        "-o from-backup=pg -o backup-password-file=/root/password",
    ))?;
    ensure!(text.contains("give `backup-to`"), "{text}");
    one.kill("drover-coordinator", "KILL")?;
    one.kill("drover-vol", "KILL")?;
    let all = [
        "host1 later present",
        "host1 pg present",
        "host2 pg present",
    ];
    shows(two, "volume ls --all", "volumes", &all)?;
    shows(
        two,
        "volume snapshot ls --all later",
        "snapshots",
        &["host1 later present"],
    )
}

/// Whose backup is meant is not guessed.
fn of_two_hosts(two: &Host) -> Result<()> {
    two.run("docker run --rm -v pg:/data lab sh -c 'echo two > /data/rows'")?;
    two.run(
        "drover backup create pg --to /var/lib/other --password-file /root/password --init --json",
    )?;
    shows(
        two,
        "backup ls --all",
        "backups",
        &["host1 pg present", "host2 pg present"],
    )?;
    let password = "-o backup-password-file=/root/password";
    let text = two.refused(&create("x", &format!("-o from-backup=pg {password}")))?;
    ensure!(
        text.contains("`host1`") && text.contains("`host2`"),
        "{text}"
    );
    let backups = two.drover_json("backup ls --all pg")?;
    for (number, expected) in ["one", "two"].into_iter().enumerate() {
        let id = backups["backups"][number]["id"]
            .as_str()
            .unwrap_or_default();
        let short = id.get(..8).context("no id")?;
        two.run(&create(
            expected,
            &format!("-o from-backup=pg@{short} {password}"),
        ))?;
        let found = content(two, expected)?;
        ensure!(found == expected, "{short}: {found}");
    }
    two.run("docker volume rm one two").map(drop)
}

fn removed(one: &Host, two: &Host) -> Result<()> {
    one.run("docker volume rm pg later")?;
    // They are in the trash.
    shows(two, "volume ls --all", "volumes", &["host2 pg present"])?;
    let backups = ["host1 pg present", "host2 pg present"];
    shows(two, "backup ls --all", "backups", &backups)
}

/// What is known of a host that is away is as it was, and said to be; backups outlive their host.
fn gone(host: &Host) -> Result<()> {
    shows(host, "volume ls --all", "volumes", &["host2 pg away"])?;
    let text = host.run("drover volume ls --all")?;
    ensure!(text.contains("no sign of life of host2"), "{text}");
    host.run("drover host rm host2")?;
    shows(host, "volume ls --all", "volumes", &[])?;
    let backups = ["host1 pg present", "host2 pg removed"];
    shows(host, "backup ls --all", "backups", &backups)
}
