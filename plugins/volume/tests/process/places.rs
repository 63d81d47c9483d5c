//! A place where volumes lie that is not there.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use drover_control_api::volume::VolumeStatus;
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::{Plugin, said};

/// As after a restart of the machine on which a disk is missing: what is told to the engine is from the records, so that it forgets no
/// volume; nothing is made in the place of what is missing; and with the disk everything is there.
#[test]
fn a_place_that_is_missing_is_told_and_waited_for() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = Plugin::prepare("btrfs");
    plugin.has_engine_without_containers();
    plugin.run();
    plugin.create("data", &json!({}));
    fs::write(plugin.mount("data", "test").join("file"), "one").unwrap();
    plugin.kill();
    for at in plugin.mounts() {
        assert!(Command::new("umount").arg(at).status().unwrap().success());
    }
    let pool = plugin.path("state/volumes/btrfs");
    assert!(
        Command::new("umount")
            .arg(&pool)
            .status()
            .unwrap()
            .success()
    );
    let (file, elsewhere) = (pool.with_extension("img"), plugin.path("elsewhere"));
    fs::rename(&file, &elsewhere).unwrap();

    plugin.run_amiss("btrfs.img` is gone");
    assert_eq!(plugin.get("data")["Mountpoint"], "");
    let health = plugin.get("data")["Status"]["health"].to_string();
    assert!(health.contains("btrfs.img` is gone"), "{health}");
    for refusal in [
        plugin.try_mount("data", "test").unwrap_err(),
        plugin.try_remove("data").unwrap_err(),
        plugin.try_create("more", &json!({})).unwrap_err(),
        plugin
            .try_create("clone", &json!({"from": "data"}))
            .unwrap_err(),
    ] {
        assert!(refusal.contains("btrfs"), "{refusal}");
    }
    assert!(!file.exists());
    assert!(plugin.find("more").is_none() && plugin.mounts().is_empty());

    fs::rename(&elsewhere, &file).unwrap();
    let at = plugin.mounts_again("data");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
    plugin.remove("data");
}

/// Mounts a file that holds a file system.
fn mount_file(file: &Path, place: &Path) {
    said(
        Command::new("mount")
            .args(["-o", "loop"])
            .args([file, place]),
    );
}

/// A host that never had a volume, with a setting that is wrong: nothing is kept waiting for it, the reason is told, and once there is
/// such a place it is used. What is there then, an engine is never told that it is not, whatever becomes of the place.
#[test]
fn a_wrong_place_on_a_new_host_is_told_at_once() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = Plugin::prepare("auto");
    plugin.has_engine_without_containers();
    let (place, disk) = (plugin.path("place"), plugin.path("disk"));
    plugin.set(&format!("path = \"{}\"", place.display()));
    // With the second start the records are no longer new.
    for _ in 0..2 {
        plugin.run_amiss("is not on a btrfs");
        let complaints = plugin.ask(&VolumeStatus {}).complaints;
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        let unknown = plugin.try_get("data").unwrap_err();
        assert!(unknown.contains("there is no volume `data`"), "{unknown}");
        plugin.try_remove("data").unwrap();
        let refusal = plugin.refused("data", &json!({}));
        assert!(refusal.contains("is not on a btrfs"), "{refusal}");
        plugin.kill();
    }
    plugin.run_amiss("is not on a btrfs");
    fs::File::create(&disk).unwrap().set_len(300 << 20).unwrap();
    said(Command::new("mkfs.btrfs").arg("-q").arg(&disk));
    mount_file(&disk, &place);
    plugin.creates_again("data");
    plugin.kill();
    said(Command::new("umount").arg(&place));
    plugin.run_amiss("is not on a btrfs");
    assert_eq!(plugin.get("data")["Name"], "data");
    for refusal in [
        plugin.try_mount("data", "test").unwrap_err(),
        plugin.try_remove("data").unwrap_err(),
    ] {
        assert!(refusal.contains("is not on a btrfs"), "{refusal}");
    }
    mount_file(&disk, &place);
    plugin.mounts_again("data");
}

/// A file that holds volumes, and damage at its beginning: nothing is made in its place, nothing is written to it, and what is repaired
/// is used again.
#[test]
fn a_damaged_file_is_told_and_left_alone() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = Plugin::prepare("btrfs");
    plugin.has_engine_without_containers();
    plugin.run();
    plugin.create("data", &json!({}));
    fs::write(plugin.mount("data", "test").join("file"), "one").unwrap();
    plugin.kill();
    plugin.unmount_all();
    let pool = plugin.path("state/volumes/btrfs");
    said(Command::new("umount").arg(&pool));
    // The first superblock is 64 KiB from the beginning.
    let (at, mut whole) = (64 << 10, vec![0; 4096]);
    let file = pool.with_extension("img");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    file.read_exact_at(&mut whole, at).unwrap();
    let damage = vec![0x5a; whole.len()];
    file.write_all_at(&damage, at).unwrap();
    file.sync_all().unwrap();

    plugin.run_amiss("cannot be mounted");
    assert_eq!(plugin.get("data")["Name"], "data");
    for refusal in [
        plugin.try_mount("data", "test").unwrap_err(),
        plugin.try_remove("data").unwrap_err(),
        plugin.refused("more", &json!({})),
    ] {
        assert!(refusal.contains("btrfs check"), "{refusal}");
    }
    let mut found = damage.clone();
    file.read_exact_at(&mut found, at).unwrap();
    assert_eq!(found, damage, "something was written");

    file.write_all_at(&whole, at).unwrap();
    file.sync_all().unwrap();
    let at = plugin.mounts_again("data");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
}
