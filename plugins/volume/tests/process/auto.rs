//! Where volumes lie when nothing is configured: on the file system of the state directory, or where there is neither btrfs nor a
//! thin pool to be had.

use std::fs;
use std::process::Command;

use drover_control_api::volume::{CreateSnapshot, PoolReport, VolumeStatus};
use drover_model::BackendKind;
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::{Plugin, said};

fn pool(plugin: &Plugin) -> PoolReport {
    let report = plugin.ask(&VolumeStatus {});
    // How full this machine's disk is, is not ours to say.
    let mut complaints = report.complaints.iter();
    assert!(complaints.all(|it| it.contains("% full")), "{report:?}");
    report.pool.unwrap()
}

fn is_on(plugin: &Plugin, volume: &str, backend: &str) {
    let status = plugin.get(volume)["Status"].clone();
    assert_eq!(status["backend"], backend, "{status}");
}

/// A new pool of auto where there is no loop file of a certain size; and an engine that has no container.
fn prepare() -> Plugin {
    let mut plugin = Plugin::prepare("auto");
    plugin.has_engine_without_containers();
    plugin
}

/// Subvolumes are made beside everything else on it, and no file.
#[test]
fn a_state_directory_on_btrfs_has_the_volumes_itself() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = prepare();
    let (disk, state) = (plugin.path("disk"), plugin.path("state"));
    fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    said(Command::new("mkfs.btrfs").arg("-q").arg(&disk));
    said(
        Command::new("mount")
            .args(["-o", "loop"])
            .args([&disk, &state]),
    );
    fs::write(state.join("other"), "not ours").unwrap();
    plugin.run();
    plugin.create("data", &json!({"size": "64M"}));
    let found = pool(&plugin);
    assert_eq!(found.backend, BackendKind::Btrfs);
    assert_eq!(found.reason, "the state directory is on a btrfs");
    assert_eq!(
        found.place,
        state.join("volumes/btrfs").display().to_string()
    );
    assert!(found.snapshots && found.size_limits);
    assert!(!state.join("volumes/btrfs.img").exists());
    fs::write(plugin.mount("data", "test").join("file"), "one").unwrap();
    let listed = said(
        Command::new("btrfs")
            .args(["subvolume", "list"])
            .arg(&state),
    );
    assert!(listed.contains("volumes/btrfs/volumes/"), "{listed}");
    plugin.ask(&CreateSnapshot {
        volumes: vec!["data".parse().unwrap()],
        name: "s".parse().unwrap(),
    });
    plugin.create("clone", &json!({"from": "data@s", "on-remove": "delete"}));
    plugin.kill();
    plugin.unmount_all();
    plugin.run();
    let at = plugin.mounts_again("clone");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
    plugin.unmount("clone", "test");
    plugin.remove("clone");
    assert_eq!(plugin.on_backend().volumes.len(), 1);
    assert_eq!(fs::read_to_string(state.join("other")).unwrap(), "not ours");
}

/// Volumes in plain directories, with the reason; what they cannot do is refused in words.
fn in_directories(plugin: &Plugin, reason: &str) {
    assert!(plugin.ask(&VolumeStatus {}).planned);
    let refusal = plugin.refused("limited", &json!({"size": "64M"}));
    assert!(refusal.contains("no limit of size"), "{refusal}");
    plugin.create("data", &json!({}));
    is_on(plugin, "data", "directory");
    fs::write(plugin.mount("data", "test").join("file"), "one").unwrap();
    plugin.unmount("data", "test");
    let found = pool(plugin);
    assert_eq!(found.backend, BackendKind::Directory);
    assert!(found.reason.contains(reason), "{}", found.reason);
    assert!(!found.snapshots && !found.size_limits);
    let refusal = plugin.try_ask(&CreateSnapshot {
        volumes: vec!["data".parse().unwrap()],
        name: "s".parse().unwrap(),
    });
    let refusal = refusal.unwrap_err();
    assert!(
        refusal.contains("`directory` have no snapshots"),
        "{refusal}"
    );
    let refusal = plugin.refused("clone", &json!({"from": "data"}));
    assert!(refusal.contains("no snapshots, clones"), "{refusal}");
    for left in ["btrfs.img", "btrfs.new", "thin.img"] {
        assert!(!plugin.path("state/volumes").join(left).exists(), "{left}");
    }
}

fn again(plugin: &mut Plugin) {
    plugin.kill();
    plugin.run();
    let at = plugin.mounts_again("data");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
    plugin.unmount("data", "test");
}

/// Nothing makes a btrfs: the package is named. Once it is there, new volumes lie on btrfs, and those that there are stay where they are.
#[test]
fn without_a_program_for_btrfs_volumes_are_directories() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = prepare();
    let program = said(Command::new("sh").args(["-c", "command -v mkfs.btrfs"]));
    // In this mount namespace alone.
    said(Command::new("mount").args(["--bind", "/dev/null", &program]));
    plugin.run();
    in_directories(&plugin, "install the package btrfs-progs");
    again(&mut plugin);
    is_on(&plugin, "data", "directory");
    said(Command::new("umount").arg(&program));
    again(&mut plugin);
    plugin.create("more", &json!({"size": "64M"}));
    is_on(&plugin, "more", "btrfs");
    is_on(&plugin, "data", "directory");
    let report = plugin.ask(&VolumeStatus {});
    let former: Vec<_> = report.former_pools.iter().map(|it| it.backend).collect();
    assert_eq!(former, [BackendKind::Directory]);
    again(&mut plugin);
}

/// The disk has no room for a pool: how much it takes is told.
#[test]
fn without_room_for_a_file_volumes_are_directories() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = prepare();
    let settings = plugin.path("drover.toml");
    fs::write(settings, "[volumes]\nbackend = \"auto\"\n").unwrap();
    let words = ["-t", "tmpfs", "-o", "size=300M", "tmpfs"];
    said(Command::new("mount").args(words).arg(plugin.path("state")));
    plugin.run();
    in_directories(&plugin, "takes at least 256M");
    let reason = pool(&plugin).reason;
    assert!(reason.contains("volumes.loop_size"), "{reason}");
    again(&mut plugin);
    is_on(&plugin, "data", "directory");
}
