//! Volumes in a thin pool.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use drover_backup_protocol::Repository;
use drover_control_api::volume::{BackUpVolume, CreateSnapshot, ResizeVolume, RollBack, Snapshots};
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::engine::Dockerd;
use crate::plugin::Plugin;

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
