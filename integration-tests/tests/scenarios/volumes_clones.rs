//! Removal of volumes that have clones, snapshots or users: what is removed takes nothing from others, and what is in use stays.

use anyhow::{Context as _, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

use crate::volumes::{attached, with};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_volume_is_removed_and_its_clones_stay",
    setup: Setup::Engines(1),
    needs: &[],
    run: clones,
}];

fn clones(lab: &mut Lab) -> Result<()> {
    let host = lab.host(0)?;
    host.drover_up("")?;
    for on_remove in ["delete", "trash", "retain"] {
        removed(host, on_remove).with_context(|| format!("on-remove={on_remove}"))?;
    }
    in_use(host)?;
    looked_at(host)?;
    attached(host, 0)
}

fn create(host: &Host, options: &str) -> Result<String> {
    host.run(&format!("docker volume create -d drover-vol {options}"))
}

/// A volume goes, of which there are a clone, a clone of a snapshot, and a clone of a clone.
fn removed(host: &Host, on_remove: &str) -> Result<()> {
    create(host, &format!("-o on-remove={on_remove} -o size=64M base"))?;
    with(host, "base", "echo one > /data/file")?;
    host.run("drover volume snapshot create base@s")?;
    with(host, "base", "echo two > /data/file")?;
    create(host, "-o from=base@s -o on-remove=delete of-snapshot")?;
    create(host, "-o from=base -o on-remove=delete of-volume")?;
    create(host, "-o from=of-volume -o on-remove=delete of-clone")?;
    // The snapshot goes before its volume, and its clone stays.
    host.run("drover volume snapshot create base@t")?;
    create(host, "-o from=base@t -o on-remove=delete of-removed")?;
    host.run("drover volume snapshot rm base@t")?;
    host.run("docker volume rm base")?;
    let clones = [
        ("of-snapshot", "one"),
        ("of-volume", "two"),
        ("of-clone", "two"),
        ("of-removed", "two"),
    ];
    for (clone, content) in clones {
        let found = with(host, clone, "cat /data/file; echo more >> /data/file")?;
        ensure!(found == content, "{clone}: {found}");
    }
    comes_back(host, on_remove)?;
    // The clone in the middle goes, and that of it stays.
    host.run("docker volume rm of-volume")?;
    ensure!(with(host, "of-clone", "cat /data/file")? == "two\nmore");
    host.run("docker volume rm of-snapshot of-clone of-removed")?;
    ensure!(host.run("docker volume ls -q")?.is_empty());
    Ok(())
}

/// What is promised of a volume that was removed, and its snapshot with it; then it goes for good.
fn comes_back(host: &Host, on_remove: &str) -> Result<()> {
    let on_disk = "ls /var/lib/drover/volumes/btrfs/volumes | wc -l";
    match on_remove {
        "trash" => drop(host.run("drover volume restore-trash base")?),
        "retain" => drop(create(host, "-o on-remove=retain -o size=64M base")?),
        _ => {
            host.refused("drover volume restore-trash base")?;
            let left = host.run(on_disk)?;
            ensure!(left == "4", "{left} subvolumes beside four clones");
            let snapshots = host.run("ls /var/lib/drover/volumes/btrfs/snapshots | wc -l")?;
            ensure!(snapshots == "0", "{snapshots} have snapshots still");
            return Ok(());
        }
    }
    ensure!(with(host, "base", "cat /data/file")? == "two");
    host.run("drover volume snapshot rollback base@s")?;
    ensure!(with(host, "base", "cat /data/file")? == "one");
    host.run("docker volume rm base")?;
    Ok(())
}

/// The engine keeps a volume that a container has, also one that is stopped; nothing of ours is lost by the attempt.
fn in_use(host: &Host) -> Result<()> {
    create(host, "-o on-remove=delete used")?;
    create(host, "-o on-remove=delete -o from=used clone")?;
    host.sleeper("user", "--network none -v used:/data")?;
    host.inside("user", "sh -c 'echo one > /data/file'")?;
    for _ in 0..2 {
        let refusal = host.refused("docker volume rm used")?;
        ensure!(refusal.contains("in use"), "{refusal}");
        host.run("docker stop -t 0 user")?;
    }
    host.run("docker start user")?;
    ensure!(host.inside("user", "cat /data/file")? == "one");
    host.run("docker volume rm clone; docker rm -f user; docker volume rm used")?;
    Ok(())
}

/// Somebody looks at a snapshot: it stays, and its volume with it, until that is over.
fn looked_at(host: &mut Host) -> Result<()> {
    for on_remove in ["delete", "trash", "retain"] {
        let name = format!("seen-{on_remove}");
        create(host, &format!("-o on-remove={on_remove} {name}"))?;
        with(host, &name, "echo one > /data/file")?;
        host.run(&format!("drover volume snapshot create {name}@s"))?;
        let at = host.run(&format!("drover volume snapshot mount {name}@s"))?;
        host.start(
            &format!("cd {at}; echo $$ > /root/{name}; exec sleep 1000"),
            "look.log",
        )?;
        wait::until("somebody who looks", wait::seconds(10), || {
            host.run(&format!("cat /root/{name}"))
        })?;
        for command in [
            format!("docker volume rm {name}"),
            format!("drover volume snapshot rm {name}@s"),
        ] {
            let refusal = host.refused(&command)?;
            ensure!(
                refusal.contains("in use") && refusal.contains(&at),
                "{command}: {refusal}"
            );
        }
        ensure!(with(host, &name, "cat /data/file")? == "one");
        let listed = host.run(&format!("drover volume snapshot ls {name}; cat {at}/file"))?;
        ensure!(listed.contains("s ") && listed.ends_with("one"), "{listed}");
        host.run(&format!("kill $(cat /root/{name})"))?;
        wait::until("the removal", wait::seconds(10), || {
            host.run(&format!("docker volume rm {name}"))
        })?;
        let mounted = host.run("grep -c volumes/snapshots/ /proc/self/mountinfo || true")?;
        ensure!(mounted == "0", "{mounted} snapshots are mounted");
    }
    Ok(())
}
