//! A place where volumes lie that is not there.

use std::fs;
use std::process::Command;

use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::Plugin;

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
