//! Volumes in a thin pool.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_backup_protocol::Repository;
use drover_control_api::volume::{
    BackUpVolume, CreateSnapshot, ResizeVolume, RestoreTrash, RollBack, Snapshots, VerifyBackup,
    VolumeStatus,
};
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::engine::Dockerd;
use crate::plugin::{PATIENCE, Plugin, said};

const MIB: u64 = 1 << 20;

fn repository(plugin: &Plugin) -> Repository {
    Repository {
        url: plugin.path("repository").display().to_string(),
        password_file: plugin.path("password"),
        options_file: None,
        cache: None,
        keys: None,
        bandwidth: None,
    }
}

pub(crate) fn back_up(plugin: &Plugin) -> drover_backup_protocol::Created {
    plugin.ask(&BackUpVolume {
        volume: "pg".parse().unwrap(),
        repository: repository(plugin),
        tags: Vec::new(),
        init: true,
    })
}

/// As many bytes that nothing compresses, the same for the same number.
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn change(at: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(at.join("rows"))
        .unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_backup_reads_what_has_changed_since_the_last_one() {
    if !can_test(&[Capability::DeviceMapper]) {
        return;
    }
    let mut plugin = Plugin::start("thin");
    let place = json!({
        "backup-to": plugin.path("repository"),
        "backup-password-file": plugin.path("password"),
    });
    let with = |more: serde_json::Value| {
        let mut all = place.clone();
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    };
    plugin.create("pg", &with(json!({"size": "64M"})));
    let at = plugin.mount("pg", "test");
    fs::write(at.join("rows"), noise(1, 16 << 20)).unwrap();
    File::open(at.join("rows")).unwrap().sync_all().unwrap();
    let full = back_up(&plugin);
    assert!(full.backup.block && full.parent.is_none());
    // The file, and what the file system has written all over the device, in chunks of 512 KiB.
    assert!((16 * MIB..64 * MIB).contains(&full.read), "{}", full.read);

    change(&at, 5 * MIB, &noise(2, 4096));
    let second = back_up(&plugin);
    assert_eq!(second.parent.as_ref(), Some(&full.backup.id));
    // What the file system wrote by itself meanwhile is in it, too.
    assert!((1..full.read / 2).contains(&second.read), "{}", second.read);
    // It comes back as it is in the backup and in the snapshot that it was made of, beside the volume, and nothing of that stays.
    let verified = plugin.ask(&VerifyBackup {
        volume: "pg".parse().unwrap(),
        backup: "pg".parse().unwrap(),
        repository: repository(&plugin),
    });
    assert_eq!(verified.backup.id, second.backup.id);
    assert_eq!(verified.bytes, 64 * MIB);
    let places = fs::read_dir(plugin.path("state/volumes/restores")).unwrap();
    assert_eq!(places.count(), 0);
    // What it counts from is nobody's snapshot.
    let none = Snapshots { volume: None };
    assert!(plugin.ask(&none).snapshots.is_empty());

    // The records are lost: the volume is known by its tags, and its next backup is whole.
    plugin.kill();
    fs::remove_file(plugin.path("state/volumes.redb")).unwrap();
    plugin.run();
    assert_eq!(plugin.get("pg")["Status"]["size"], "64M");
    change(&at, 9 * MIB, &noise(3, 4096));
    let third = back_up(&plugin);
    assert!(
        third.parent.is_none() && third.read >= 16 * MIB,
        "{third:?}"
    );
    change(&at, 9 * MIB, &noise(4, 4096));
    let fourth = back_up(&plugin);
    assert_eq!(fourth.parent, Some(third.backup.id));

    let small = plugin.refused("copy", &with(json!({"from-backup": "pg", "size": "32M"})));
    assert!(small.contains("at least 64M"), "{small}");
    plugin.create("copy", &with(json!({"from-backup": "pg", "size": "128M"})));
    let copy = plugin.mount("copy", "test");
    assert!(fs::read(copy.join("rows")).unwrap() == fs::read(at.join("rows")).unwrap());
    let space = nix::sys::statvfs::statvfs(&copy).unwrap();
    assert!(
        space.blocks() * space.fragment_size() > 100 * MIB,
        "it has not grown"
    );
    // An earlier one has what was there then.
    let when = format!("pg@{}", &second.backup.id[..8]);
    plugin.create("then", &with(json!({"from-backup": when})));
    let then = fs::read(plugin.mount("then", "test").join("rows")).unwrap();
    assert!(then[5 << 20..][..4096] == noise(2, 4096) && then[9 << 20..][..4096] != noise(4, 4096));
    for name in ["pg", "copy", "then"] {
        plugin.unmount(name, "test");
    }
}

#[test]
fn a_pool_of_a_volume_group_is_found() {
    if !can_test(&[Capability::DeviceMapper]) {
        return;
    }
    let mut plugin = Plugin::prepare("auto");
    plugin.has_engine_without_containers();
    let group = plugin.group_with_pool();
    plugin.run();
    // Less is no xfs.
    let options = json!({"size": "320M", "fs": "xfs", "on-remove": "delete"});
    plugin.create("pg", &options);
    let status = plugin.get("pg");
    assert_eq!(status["Status"]["backend"], "thin", "{status}");
    assert!(group.volumes().contains("drover_v_"));
    fs::write(plugin.mount("pg", "test").join("file"), "one").unwrap();

    // Another Drover leaves it alone, until this one is gone: then it has what there is.
    let mut other = Plugin::prepare("auto");
    other.run_amiss("another Drover on this machine keeps its volumes in the pool `kept/drover`");
    plugin.unmount("pg", "test");
    plugin.detached("pg");
    plugin.kill();
    let at = other.mount("pg", "test");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
    other.remove("pg");
    assert!(!group.volumes().contains("drover_v_"));
}

#[test]
fn a_pool_is_made_in_the_volume_group_that_is_set() {
    if !can_test(&[Capability::DeviceMapper]) {
        return;
    }
    let mut plugin = Plugin::prepare("auto");
    let group = plugin.group_kept();
    plugin.set("volume_group = \"kept\"");
    plugin.run();
    plugin.create("pg", &json!({"size": "64M"}));
    let pool = plugin.ask(&VolumeStatus {}).pool.unwrap();
    assert_eq!(pool.place, "kept/drover");
    assert!(pool.reason.contains("volume_group"), "{}", pool.reason);
    assert!(group.volumes().contains("drover_v_"));
}

/// Runs a script in a container with both volumes.
const RUN: &str = "run --rm --network none -v data:/data -v rows:/rows own /bin/sh -c";
const READ: &str = "read x < /data/file; read y < /rows/file; echo $x $y";

#[test]
fn an_engine_keeps_data_on_thin_volumes() {
    if !can_test(&[Capability::DeviceMapper, Capability::Dockerd]) {
        return;
    }
    let mut plugin = Plugin::prepare("thin");
    let mut engine = Dockerd::start(plugin.folder());
    plugin.serve_engine(engine.socket());
    plugin.run();
    engine.docker("volume create -d drover-vol -o size=64M data");
    engine.docker("volume create -d drover-vol -o size=320M -o fs=xfs rows");
    let found = engine.docker_with(
        RUN,
        "echo one > /data/file; echo one > /rows/file; ls -A /data /rows",
    );
    assert!(!found.contains("lost+found"), "{found}");
    let full = engine.refused(RUN, "dd if=/dev/zero of=/data/big bs=1M");
    assert!(full.contains("No space left"), "{full}");

    // It grows under a container that uses it.
    let user = RUN.replace("--rm", "-d --restart always --name user");
    engine.docker_with(&user, "while :; do sleep 1; done");
    plugin.ask(&ResizeVolume {
        volume: "data".parse().unwrap(),
        size: "128M".parse().unwrap(),
    });
    let fill = "dd if=/dev/zero of=/data/big bs=1M count=90 && : > /data/big";
    engine.docker_with("exec user /bin/sh -c", fill);

    let taken = plugin.ask(&CreateSnapshot {
        volumes: ["data", "rows"].map(|name| name.parse().unwrap()).into(),
        name: "s".parse().unwrap(),
    });
    assert_eq!(taken.snapshots.len(), 2);
    let write = "echo two > /data/file; echo two > /rows/file; sync";
    engine.docker_with("exec user /bin/sh -c", write);
    for name in ["data", "rows"] {
        engine.docker(&format!(
            "volume create -d drover-vol -o from={name}@s -o on-remove=delete {name}-then"
        ));
    }
    let then = RUN
        .replace("data:", "data-then:")
        .replace("rows:", "rows-then:");
    assert_eq!(engine.docker_with(&then, READ), "one one");

    // Both are killed under the container, which goes on with what it had.
    plugin.kill();
    engine.kill();
    plugin.run();
    engine.run();
    assert_eq!(engine.docker_with("exec user /bin/sh -c", READ), "two two");
    let back = |name: &str| RollBack {
        volume: name.parse().unwrap(),
        snapshot: "s".parse().unwrap(),
    };
    let refusal = plugin.try_ask(&back("data")).unwrap_err();
    assert!(refusal.contains("container `user` uses"), "{refusal}");
    engine.docker("rm -f user");
    plugin.ask(&back("data"));
    plugin.ask(&back("rows"));
    assert_eq!(engine.docker_with(RUN, READ), "one one");

    engine.docker("volume rm data rows data-then rows-then");
    assert_eq!(engine.docker("volume ls -q"), "");
    assert!(plugin.mounts().is_empty(), "{:?}", plugin.mounts());
    // What is left is in the trash.
    assert_eq!(plugin.on_backend().volumes.len(), 2);
}

/// What a volume was cloned to, and what its snapshot was, is not of it: all stay, whatever becomes of the volume.
#[test]
fn an_engine_removes_thin_volumes_and_their_clones_stay() {
    if !can_test(&[Capability::DeviceMapper, Capability::Dockerd]) {
        return;
    }
    let mut plugin = Plugin::prepare("thin");
    let engine = Dockerd::start(plugin.folder());
    plugin.serve_engine(engine.socket());
    plugin.run();
    let create = |options: &str| engine.docker(&format!("volume create -d drover-vol {options}"));
    let with = |name: &str, script: &str| {
        let words = format!("run --rm --network none -v {name}:/data own /bin/sh -c");
        engine.docker_with(&words, script)
    };
    let content = "read x < /data/file; echo $x";
    for on_remove in ["delete", "trash", "retain"] {
        create(&format!("-o size=64M -o on-remove={on_remove} base"));
        with("base", "echo one > /data/file; sync");
        plugin.ask(&CreateSnapshot {
            volumes: vec!["base".parse().unwrap()],
            name: "s".parse().unwrap(),
        });
        with("base", "echo two > /data/file; sync");
        create("-o from=base@s -o on-remove=delete of-snapshot");
        create("-o from=base -o on-remove=delete of-volume");
        engine.docker("volume rm base");
        assert_eq!(with("of-snapshot", content), "one");
        assert_eq!(with("of-volume", content), "two");
        match on_remove {
            "trash" => drop(plugin.ask(&RestoreTrash {
                volume: "base".parse().unwrap(),
                new_name: None,
            })),
            "retain" => drop(create("-o size=64M -o on-remove=retain base")),
            _ => {
                let left = plugin.on_backend();
                assert_eq!((left.volumes.len(), left.snapshots.len()), (2, 0));
            }
        }
        if on_remove != "delete" {
            assert_eq!(with("base", content), "two");
            engine.docker("volume rm base");
        }
        engine.docker("volume rm of-snapshot of-volume");
    }
    assert_eq!(engine.docker("volume ls -q"), "");
}

/// As after a restart of the machine: no process, no mount, no device of the group.
#[test]
fn an_engine_starts_its_containers_on_thin_volumes_after_a_reboot() {
    if !can_test(&[Capability::DeviceMapper, Capability::Dockerd]) {
        return;
    }
    let mut plugin = Plugin::prepare("auto");
    let group = plugin.group_with_pool();
    let mut engine = Dockerd::start(plugin.folder());
    plugin.serve_engine(engine.socket());
    plugin.run();
    engine.docker("volume create -d drover-vol -o size=64M data");
    engine.docker("volume create -d drover-vol -o size=320M -o fs=xfs rows");
    let user = RUN.replace("--rm", "-d --restart always --name user");
    let script =
        "for at in data rows; do echo x >> /$at/file; done; sync; while :; do sleep 1; done";
    engine.docker_with(&user, script);
    let count = "for at in data rows; do while read x; do echo $at; done < /$at/file; done";
    let started = |engine: &Dockerd, times: usize| {
        let began = Instant::now();
        loop {
            let lines = engine.try_docker_with("exec user /bin/sh -c", count);
            let lines = lines.map(|told| told.lines().count());
            if lines == Ok(2 * times) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{times}: {lines:?}");
            sleep(Duration::from_millis(500));
        }
    };
    started(&engine, 1);
    for times in 2..4 {
        plugin.kill();
        engine.cut_power();
        plugin.unmount_all();
        group.deactivate();
        plugin.run();
        engine.run();
        started(&engine, times);
    }
    assert_eq!(plugin.mounts().len(), 2, "{:?}", plugin.mounts());
    engine.docker("rm -f user");
    engine.docker("volume rm data rows");
}

/// It is told at once, with the remedy, and to everybody who asks for something; nothing is changed; and what is repaired is used again.
#[test]
fn an_engine_is_told_of_a_damaged_pool_and_loses_nothing() {
    if !can_test(&[Capability::DeviceMapper, Capability::Dockerd]) {
        return;
    }
    let mut plugin = Plugin::prepare("thin");
    let engine = Dockerd::start(plugin.folder());
    plugin.serve_engine(engine.socket());
    plugin.run();
    engine.docker("volume create -d drover-vol -o size=64M data");
    engine.docker("volume create -d drover-vol -o size=320M -o fs=xfs rows");
    engine.docker_with(RUN, "echo one > /data/file; echo one > /rows/file; sync");
    plugin.detached("data");
    plugin.detached("rows");
    plugin.kill();
    let group = plugin.group();
    let metadata = metadata(&group);
    // The device of the file ends with them.
    said(Command::new("vgchange").args(["-qq", "-an", &group]));
    let file = plugin.path("state/volumes/thin.img");
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut whole = vec![0; 1 << 20];
    file.read_exact_at(&mut whole, metadata).unwrap();
    // All but the first block, where LVM looks for its kind.
    file.write_all_at(&vec![0x5a; (1 << 20) - 4096], metadata + 4096)
        .unwrap();
    file.sync_all().unwrap();

    let repair = format!("lvconvert --repair {group}/drover");
    plugin.run_amiss(&repair);
    assert_eq!(engine.docker("volume ls -q"), "data\nrows");
    let health = engine.docker("volume inspect -f {{.Status.health}} data");
    assert!(health.contains(&repair), "{health}");
    let script = "echo two > /data/file";
    for refusal in [
        engine.refused(RUN, script),
        engine.refused("volume create -d drover-vol -o size=64M", "more"),
        engine.refused("volume create -d drover-vol -o from=data", "clone"),
        engine.refused("volume rm", "data"),
    ] {
        assert!(refusal.contains(&repair), "{refusal}");
    }
    assert_eq!(engine.docker("volume ls -q"), "data\nrows");
    let mut after = vec![0; (1 << 20) - 4096];
    file.read_exact_at(&mut after, metadata + 4096).unwrap();
    assert!(
        after.iter().all(|byte| *byte == 0x5a),
        "something was written"
    );

    file.write_all_at(&whole, metadata).unwrap();
    file.sync_all().unwrap();
    plugin.mounts_again("data");
    plugin.unmount("data", "test");
    assert_eq!(engine.docker_with(RUN, READ), "one one");
    engine.docker("volume rm data rows");
}

/// Where the metadata of the pool in a loop file begins, bytes.
fn metadata(group: &str) -> u64 {
    let ranges = "-a --noheadings -o seg_pe_ranges".split(' ');
    let volume = format!("{group}/drover_tmeta");
    let ranges = said(Command::new("lvs").args(ranges).arg(volume));
    let (device, extents) = ranges.split_once(':').unwrap();
    let first: u64 = extents.split('-').next().unwrap().parse().unwrap();
    let start = "--noheadings --units b --nosuffix -o pe_start".split(' ');
    let start = said(Command::new("pvs").args(start).arg(device));
    start.parse::<u64>().unwrap() + first * (4 << 20)
}
