//! Volumes when something is lost, killed or restarted under them: what the engine has a part in, on every engine.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

use crate::volumes::{attached, with};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "volumes_are_known_again_when_their_records_are_lost",
        setup: Setup::Engines(1),
        needs: &[],
        run: records_lost,
    },
    Scenario {
        name: "volumes_stay_with_their_containers_under_live_restore",
        setup: Setup::Engines(1),
        needs: &[],
        run: live_restore,
    },
];

/// The file of the records.
const RECORDS: &str = "/var/lib/drover/volumes.redb";

fn records_lost(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    host.run("docker volume create -d drover-vol -o size=64M -o snapshot-schedule=weekly data")?;
    host.run("docker volume create -d drover-vol gone; docker volume rm gone")?;
    with(host, "data", "echo one > /data/file")?;
    host.run("drover volume snapshot create data@before")?;
    host.sleeper("user", "-v data:/data --restart always")?;
    for damage in [
        format!("rm {RECORDS}"),
        format!("truncate -s 0 {RECORDS}"),
        format!("echo garbage > {RECORDS}"),
        format!("truncate -s 5000 {RECORDS}"),
        format!("dd if=/dev/urandom of={RECORDS} bs=4096 seek=1 count=40 conv=notrunc"),
    ] {
        host.inside("user", "sh -c 'echo more >> /data/file'")?;
        host.run(&damage)?;
        host.kill("drover-vol", "KILL")?;
        is_as_before(host, &damage)?;
    }
    let aside = host.run("ls /var/lib/drover | grep -c volumes.damaged || true")?;
    ensure!(aside == "3", "{aside} damaged files are kept");
    // What is lost once more goes no further than what there is.
    host.run("docker rm -f user")?;
    attached(host, 0)?;
    ensure!(with(host, "data", "wc -l < /data/file")? == "6");
    host.run("drover volume snapshot rollback data@before")?;
    ensure!(with(host, "data", "cat /data/file")? == "one");
    host.run("drover volume restore-trash gone; docker volume rm gone data")?;
    Ok(())
}

/// The volume, its options, its snapshot, the trash, and the container that runs with it.
fn is_as_before(host: &Host, damage: &str) -> Result<()> {
    wait::until("the plugin is back", wait::seconds(10), || {
        host.run("docker volume inspect data")
    })?;
    let status = host.run("docker volume inspect -f '{{json .Status}}' data")?;
    for part in ["\"size\":\"64M\"", "\"snapshotSchedule\":\"weekly"] {
        ensure!(status.contains(part), "{damage}: {part}: {status}");
    }
    let snapshots = host.run("drover volume snapshot ls data")?;
    ensure!(snapshots.contains("before"), "{damage}: {snapshots}");
    let trash = host.run("drover volume ls --trash")?;
    ensure!(trash.contains("in the trash"), "{damage}: {trash}");
    host.inside("user", "cat /data/file")?;
    attached(host, 1)?;
    host.run("docker restart -t 0 user")?;
    ensure!(
        host.inside("user", "head -n 1 /data/file")? == "one",
        "{damage}"
    );
    attached(host, 1)
}

fn live_restore(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    host.stop_engine("TERM")?;
    host.start_engine("--live-restore")?;
    host.run("docker volume create -d drover-vol data")?;
    host.sleeper("user", "-v data:/data --restart always")?;
    host.sleeper("other", "-v data:/data")?;
    let write = "sh -c 'echo x >> /data/log; sync'";
    for signal in ["TERM", "KILL"] {
        let pid = host.run("docker inspect -f '{{.State.Pid}}' user")?;
        host.stop_engine(signal)?;
        // Both are away: the container keeps its volume.
        host.kill("drover-vol", "KILL")?;
        host.run(&format!(
            "nsenter -m -t {pid} sh -c 'echo x >> /data/log; sync'"
        ))?;
        host.start_engine("--live-restore")?;
        let now = host.run("docker inspect -f '{{.State.Pid}}' user")?;
        ensure!(now == pid, "live-restore has restarted the container");
        host.inside("user", write)?;
        attached(host, 1)?;
        // One of two goes: the other keeps it.
        host.run("docker restart -t 0 other")?;
        attached(host, 1)?;
        host.inside("user", write)?;
    }
    host.run("docker rm -f user")?;
    host.inside("other", write)?;
    attached(host, 1)?;
    host.run("docker rm -f other")?;
    attached(host, 0)?;
    let lines = with(host, "data", "wc -l < /data/log")?;
    ensure!(lines.trim() == "7", "{lines} lines");
    host.run("docker volume rm data")?;
    Ok(())
}
