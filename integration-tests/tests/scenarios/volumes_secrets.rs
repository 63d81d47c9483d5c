//! Passwords and keys of backups are looked for everywhere where somebody else could read them: after backups, failures and a restore.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::process;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "no_secret_of_a_backup_is_told_anywhere",
    setup: Setup::Engines(2),
    needs: &[],
    run: secrets,
}];

const REPOSITORY: &str = "/var/lib/repository";
/// The password, one that is wrong, and the key of a target.
const SECRETS: [&str; 3] = [
    "plugh-7f3a91-password",
    "xyzzy-5e20c4-password",
    "frotz-91bc06-key",
];
/// Where nobody listens.
const ENDPOINT: &str = "http://127.0.0.1:9";
const MOST_OFTEN: Duration = Duration::from_millis(100);

fn secrets(lab: &mut Lab) -> Result<()> {
    lab.form_cluster()?;
    let (one, two) = lab.pair()?;
    for host in [one, two] {
        has_secrets(host)?;
    }
    let ended = AtomicBool::new(false);
    let (worked, seen) = std::thread::scope(|scope| {
        let watching = [one, two].map(|host| {
            let processes = host.root().map(|root| root.join("proc"));
            let ended = &ended;
            scope.spawn(move || watch(&processes?, ended))
        });
        let worked = use_them(one, two);
        ended.store(true, Ordering::Relaxed);
        let seen = watching.map(|it| it.join().unwrap_or_else(|_| Ok(Seen::default())));
        (worked, seen)
    });
    worked?;
    for seen in seen {
        let seen = seen?;
        ensure!(seen.told.is_empty(), "told by {:?}", seen.told);
        ensure!(seen.workers > 0, "no worker was seen while it worked");
    }
    for host in [one, two] {
        let told = told(host)?;
        ensure!(told.is_empty(), "{} tells secrets: {told:?}", host.name);
        would_be_found(host)?;
    }
    Ok(())
}

/// As files that root alone can read.
fn has_secrets(host: &Host) -> Result<()> {
    let [password, wrong, key] = SECRETS;
    host.run(&format!(
        "umask 077; echo {password} > /root/password; echo {wrong} > /root/wrong; \
         printf 'endpoint = {ENDPOINT}\\nregion = nowhere\\naccess_key_id = someone\\nsecret_access_key = {key}\\n' > /root/options"
    ))?;
    Ok(())
}

/// A backup by a schedule, one with a wrong password, one to a target that is not there, and a restore; by hand as well.
fn use_them(one: &Host, two: &Host) -> Result<()> {
    let files = "--password-file /root/password --options-file /root/options";
    one.run(&format!(
        "drover backup init --to {REPOSITORY} --password-file /root/password"
    ))?;
    let s3 = "backup-to=s3://bucket/there";
    for (name, target, password) in [
        ("good", "backup-to=/var/lib/repository", "password"),
        ("wrong", "backup-to=/var/lib/repository", "wrong"),
        ("away", s3, "password"),
    ] {
        let options = if target == s3 {
            "-o backup-options-file=/root/options"
        } else {
            ""
        };
        one.run(&format!(
            "docker volume create -d drover-vol -o {target} {options} -o backup-password-file=/root/{password} \
             -o backup-schedule=1min {name}"
        ))?;
        one.run(&format!(
            "docker run --rm -v {name}:/data {IMAGE} dd if=/dev/urandom of=/data/rows bs=1M count=8"
        ))?;
    }
    for (name, wanted) in [
        ("good", "\"takenAt\""),
        ("wrong", "\"backupFailure\""),
        ("away", "\"backupFailure\""),
    ] {
        let what = format!("`{wanted}` of {name}");
        wait::until(&what, wait::seconds(150), || {
            let status = one.run(&format!(
                "docker volume inspect -f '{{{{json .Status}}}}' {name}"
            ))?;
            ensure!(status.contains(wanted), "{status}");
            Ok(())
        })?;
    }
    one.refused(&format!(
        "drover backup create good --to s3://bucket/other {files} --init --json > /var/log/refused.log 2>&1"
    ))?;
    one.refused("drover backup ls --from /var/lib/repository --password-file /root/wrong > /var/log/wrong.log 2>&1")?;
    let place = |host: &Host| anyhow::Ok(format!("/proc/{}/root{REPOSITORY}", host.init()?));
    let (from, to) = (place(one)?, place(two)?);
    process::output(Command::new("cp").args(["-a", &from, &to]), "cp")?.succeeded()?;
    let create = |options: &str, name: &str| {
        format!("docker volume create -d drover-vol -o from-backup=good {options} {name} 2>&1")
    };
    let place = format!("-o backup-to={REPOSITORY} -o backup-password-file=/root");
    two.refused(&create(&format!("{place}/wrong"), "x"))?;
    two.refused(&create(
        "-o backup-to=s3://bucket/there -o backup-options-file=/root/options -o backup-password-file=/root/password",
        "y",
    ))?;
    two.run(&create(&format!("{place}/password"), "good"))?;
    Ok(())
}

/// What was seen of processes.
#[derive(Debug, Default)]
struct Seen {
    /// The command lines of those that told a secret.
    told: BTreeSet<String>,
    /// How often a worker was there.
    workers: usize,
}

/// Reads the command line and the environment of every process, again and again.
fn watch(processes: &Path, ended: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    while !ended.load(Ordering::Relaxed) {
        for process in fs::read_dir(processes)?.flatten() {
            // One that has ended meanwhile tells nothing.
            let read = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
            let (words, environment) = (read("cmdline"), read("environ"));
            let text = String::from_utf8_lossy(&words).replace('\0', " ");
            seen.workers += usize::from(text.contains("drover-backup"));
            // It makes the files that the secrets are in, and nobody else is on the host then.
            if !text.contains("umask 077") && (tells(&words) || tells(&environment)) {
                seen.told.insert(text);
            }
        }
        std::thread::sleep(MOST_OFTEN);
    }
    Ok(seen)
}

fn tells(text: &[u8]) -> bool {
    SECRETS.iter().any(|secret| {
        let mut windows = text.windows(secret.len());
        windows.any(|it| it == secret.as_bytes())
    })
}

/// What tells a secret: outputs of commands, files of Drover's and of the engine's, every log.
fn told(host: &Host) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for command in [
        "docker volume inspect $(docker volume ls -q)",
        "docker volume ls --format '{{json .}}'",
        "docker info",
        "drover volume ls --json; drover volume ls; drover volume ls --all --json; drover volume ls --trash",
        "for v in $(docker volume ls -q); do drover volume inspect $v; drover volume inspect $v --json; done",
        "drover volume snapshot ls; drover volume snapshot ls --all --json",
        "drover backup ls --all; drover backup ls --all --json",
        "drover backup ls --from /var/lib/repository --password-file /root/password --json",
        "drover status; drover status --json; drover doctor --json; drover networks --json",
    ] {
        // Some have nothing to list here; what they say then is looked at as well.
        let said = host
            .attempt(&format!("({command}) 2>&1 || true"))?
            .succeeded()?;
        ensure!(!said.is_empty(), "`{command}` says nothing");
        if tells(said.as_bytes()) {
            told.push(format!("`{command}`"));
        }
    }
    let root = host.root()?;
    for folder in [
        "var/lib/drover",
        "run/drover",
        "etc/drover",
        "var/lib/repository",
        "var/lib/docker/volumes",
        "var/lib/docker/containers",
        "run/docker",
        "tmp",
    ] {
        in_files(&root.join(folder), &mut told)?;
    }
    let logs = host.log("drover.log");
    in_files(logs.parent().unwrap_or(&logs), &mut told)?;
    let has = |name: &str| fs::metadata(host.log(name)).is_ok_and(|it| it.len() > 0);
    ensure!(has("drover.log") && has("dockerd.log"), "no logs");
    Ok(told)
}

/// Looks through files, not through what lies on volumes.
fn in_files(folder: &Path, told: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        // Not every host has every folder.
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_pool = |path: &PathBuf| path.extension().is_some_and(|it| it == "img");
        if kind.is_dir() {
            in_files(&path, told)?;
        } else if kind.is_file() && !is_pool(&path) {
            // One may have been renamed meanwhile.
            let content = fs::read(&path).unwrap_or_default();
            if tells(&content) {
                told.push(path.display().to_string());
            }
        }
    }
    Ok(())
}

/// What is told, this finds: on a volume's options, in a log, in a file of the state.
fn would_be_found(host: &Host) -> Result<()> {
    let [_, _, key] = SECRETS;
    host.run(&format!(
        "docker volume create --label leak={key} leak; echo {key} >> /var/log/leak.log; echo {key} > /var/lib/drover/leak"
    ))?;
    let found = told(host)?;
    for part in ["docker volume inspect", "leak.log", "drover/leak"] {
        ensure!(
            found.iter().any(|it| it.contains(part)),
            "a secret that was told by `{part}` was not found: {found:?}"
        );
    }
    let ended = AtomicBool::new(false);
    let processes = host.root()?.join("proc");
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&processes, &ended));
        let told = host.run(&format!("env LEAK={key} sleep 1"));
        ended.store(true, Ordering::Relaxed);
        told.and(watching.join().unwrap_or_else(|_| Ok(Seen::default())))
    })?;
    ensure!(
        !seen.told.is_empty(),
        "a secret in an environment was not found"
    );
    host.run("docker volume rm leak; rm /var/log/leak.log /var/lib/drover/leak")?;
    Ok(())
}
