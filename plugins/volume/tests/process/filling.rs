//! A pool that fills up: told early, refused at the reserve, and what there is goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_control_api::volume::{CreateSnapshot, VolumeStatus};
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::Plugin;

/// How often the plugin looks is its own business; this is several times as long.
const ANNOUNCED: Duration = Duration::from_secs(60);
const CHUNK: &[u8] = &[7; 4 << 20];

/// Writes to a file until that much of the pool is used, percent.
fn fill(plugin: &Plugin, file: &mut File, percent: u64) {
    loop {
        let pool = plugin.ask(&VolumeStatus {}).pool.unwrap();
        if pool.used_percent >= percent {
            return;
        }
        file.write_all(CHUNK).unwrap();
        file.sync_all().unwrap();
    }
}

/// Waits until the log and the report have these.
fn told(plugin: &Plugin, in_log: &str, in_report: &str) {
    let began = Instant::now();
    loop {
        let complaints = plugin.ask(&VolumeStatus {}).complaints.join("; ");
        let health = plugin.get("other")["Status"]["health"].to_string();
        let in_answers = complaints.contains(in_report) && health.contains(in_report);
        if plugin.log().contains(in_log) && in_answers {
            return;
        }
        assert!(
            began.elapsed() < ANNOUNCED,
            "{complaints}\n{}",
            plugin.log()
        );
        sleep(Duration::from_millis(200));
    }
}

fn grow(at: &Path) {
    let mut file = File::create(at.join("more")).unwrap();
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
}

fn fills(backend: &str) {
    let plugin = Plugin::start(backend);
    for name in ["big", "large"] {
        plugin.create(name, &json!({}));
    }
    plugin.create("other", &json!({"size": "64M", "on-remove": "delete"}));
    let (at, other) = (plugin.mount("big", "test"), plugin.mount("other", "test"));
    let mut file = File::create(at.join("file")).unwrap();
    // One has not quite the room of the whole pool, for what its file system takes.
    let mut second = File::create(plugin.mount("large", "test").join("file")).unwrap();
    let snapshot = |name: &str| {
        plugin.try_ask(&CreateSnapshot {
            volumes: vec!["other".parse().unwrap()],
            name: name.parse().unwrap(),
        })
    };
    fill(&plugin, &mut file, 81);
    told(&plugin, "make room, or enlarge it", "% full: make room");
    snapshot("early").unwrap();
    fill(&plugin, &mut second, 91);
    let began = Instant::now();
    while plugin.log().matches("is filling up: make room").count() < 2 {
        assert!(began.elapsed() < ANNOUNCED, "{}", plugin.log());
        sleep(Duration::from_millis(200));
    }
    snapshot("still").unwrap();
    plugin.create("small", &json!({"size": "16M", "on-remove": "delete"}));
    plugin.remove("small");
    fill(&plugin, &mut second, 95);
    told(&plugin, "new volumes and snapshots are refused", "refused");
    for refusal in [
        plugin
            .try_create("new", &json!({"size": "16M"}))
            .unwrap_err(),
        plugin
            .try_create("new", &json!({"from": "other"}))
            .unwrap_err(),
        snapshot("late").unwrap_err(),
    ] {
        assert!(refusal.contains("the rest is kept"), "{refusal}");
    }
    // What there is goes on.
    grow(&other);
    drop(file);
    fs::remove_file(at.join("file")).unwrap();
    plugin.unmount("big", "test");
    let began = Instant::now();
    while let Err(refusal) = snapshot("again") {
        assert!(refusal.contains("the rest is kept"), "{refusal}");
        assert!(began.elapsed() < ANNOUNCED, "{refusal}");
        grow(&other);
        sleep(Duration::from_millis(500));
    }
    assert_eq!(fs::read_to_string(other.join("more")).unwrap(), "more");
}

#[test]
fn a_btrfs_that_fills_is_told_of() {
    if can_test(&[Capability::Btrfs]) {
        fills("btrfs");
    }
}

#[test]
fn a_thin_pool_that_fills_is_told_of() {
    if can_test(&[Capability::DeviceMapper]) {
        fills("thin");
    }
}
