//! The process with volumes on a thin pool, asked as the engine and the command line ask it, and by an engine. It needs
//! device-mapper: `integration-tests/uml/run drover-vol/thin` where the kernel has none.
#![cfg(test)]

#[path = "thin/engine.rs"]
mod engine;
#[path = "thin/process.rs"]
mod process;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use drover_backup_protocol::Repository;
use drover_control_api::volume::{BackUpVolume, CreateSnapshot, Snapshots};
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use engine::Dockerd;
use process::Plugin;

const MIB: u64 = 1 << 20;

fn repository(plugin: &Plugin) -> Repository {
    Repository {
        url: plugin.path("repository").display().to_string(),
        password_file: plugin.path("password"),
        options_file: None,
        cache: None,
        bandwidth: None,
    }
}

fn back_up(plugin: &Plugin) -> drover_backup_protocol::Created {
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
    let at = plugin.mount("pg");
    fs::write(at.join("rows"), noise(1, 16 << 20)).unwrap();
    fs::File::open(at.join("rows")).unwrap().sync_all().unwrap();
    let full = back_up(&plugin);
    assert!(full.backup.block && full.parent.is_none());
    // The file, and what the file system has written all over the device, in chunks of 1 MiB.
    assert!((16 * MIB..64 * MIB).contains(&full.read), "{}", full.read);

    change(&at, 5 * MIB, &noise(2, 4096));
    let second = back_up(&plugin);
    assert_eq!(second.parent.as_ref(), Some(&full.backup.id));
    // What the file system wrote by itself meanwhile is in it, too.
    assert!((1..full.read / 2).contains(&second.read), "{}", second.read);
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
    let copy = plugin.mount("copy");
    assert!(fs::read(copy.join("rows")).unwrap() == fs::read(at.join("rows")).unwrap());
    let space = nix::sys::statvfs::statvfs(&copy).unwrap();
    assert!(
        space.blocks() * space.fragment_size() > 100 * MIB,
        "it has not grown"
    );
    // An earlier one has what was there then.
    let when = format!("pg@{}", &second.backup.id[..8]);
    plugin.create("then", &with(json!({"from-backup": when})));
    let then = fs::read(plugin.mount("then").join("rows")).unwrap();
    assert!(then[5 << 20..][..4096] == noise(2, 4096) && then[9 << 20..][..4096] != noise(4, 4096));
    for name in ["pg", "copy", "then"] {
        plugin.unmount(name);
    }
}

#[test]
fn a_pool_of_a_volume_group_is_found() {
    if !can_test(&[Capability::DeviceMapper]) {
        return;
    }
    let plugin = Plugin::prepare("auto");
    let group = plugin.group_with_pool();
    let mut plugin = plugin;
    plugin.run();
    plugin.create(
        "pg",
        &json!({"size": "32M", "fs": "xfs", "on-remove": "delete"}),
    );
    let status = plugin.get("pg");
    assert_eq!(status["Status"]["backend"], "thin", "{status}");
    let listed = group.volumes();
    assert!(listed.contains("drover_v_"), "{listed}");
    plugin.remove("pg");
}

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
    let one = "run --rm --network none -v data:/data own /bin/sh -c";
    engine.docker_with(one, "echo one > /data/file");
    let full = engine.refused(
        one,
        "while echo 0123456789abcdef0123456789abcdef; do :; done > /data/big; exit 1",
    );
    assert!(full.contains("echo"), "{full}");
    let taken = plugin.ask(&CreateSnapshot {
        volumes: vec!["data".parse().unwrap()],
        name: "s".parse().unwrap(),
    });
    assert_eq!(taken.snapshots.len(), 1);
    engine.docker_with(one, ": > /data/big; echo two > /data/file");
    engine.docker("volume create -d drover-vol -o from=data@s clone");
    let read = "read x < /data/file; echo $x";
    let clone = "run --rm --network none -v clone:/data own /bin/sh -c";
    assert_eq!(engine.docker_with(clone, read), "one");
    assert_eq!(engine.docker_with(one, read), "two");
    // Both are killed under a container that goes on writing.
    engine.docker_with(
        "run -d --restart always --name user --network none -v data:/data own /bin/sh -c",
        "echo three > /data/file; while :; do read x < /data/file; done",
    );
    plugin.kill();
    engine.restart();
    plugin.run();
    assert_eq!(engine.docker_with("exec user /bin/sh -c", read), "three");
    engine.docker("rm -f user");
    plugin.detached("data");
    engine.docker("volume rm data clone");
    assert_eq!(engine.docker("volume ls -q"), "");
}
