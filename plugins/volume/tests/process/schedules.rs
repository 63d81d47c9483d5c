//! Snapshots by schedule, with what happened long ago told by the notes beside volumes.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_control_api::volume::{PauseVolume, Snapshots};
use drover_testkit::capability::{Capability, can_test};
use serde_json::{Value, json};

use crate::plugin::{PATIENCE, Plugin};

const DAY: u64 = 86_400;
/// Longer than the plugin rests between two looks.
const TWO_LOOKS: Duration = Duration::from_secs(12);

fn snapshots(plugin: &Plugin, of: &str) -> Vec<String> {
    let volume = Some(of.parse().unwrap());
    let all = plugin.ask(&Snapshots { volume }).snapshots.into_iter();
    all.map(|it| it.name.to_string()).collect()
}

fn wait_for(plugin: &Plugin, is: impl Fn(&[String]) -> bool) -> Vec<String> {
    let began = Instant::now();
    loop {
        let found = snapshots(plugin, "data");
        if is(&found) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}: {}", plugin.log());
        sleep(Duration::from_millis(200));
    }
}

/// Loses the records, and moves a time in all notes back.
fn days_pass(plugin: &mut Plugin, time: &str, days: u64) {
    plugin.kill();
    fs::remove_file(plugin.path("state/volumes.redb")).unwrap();
    let notes = plugin.path("state/volumes/btrfs/notes");
    for entry in fs::read_dir(notes).unwrap() {
        let path = entry.unwrap().path();
        let mut note: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if let Some(at) = note[time].as_u64() {
            note[time] = json!(at - days * DAY);
            fs::write(&path, note.to_string()).unwrap();
        }
    }
    plugin.run();
}

#[test]
fn what_a_schedule_has_missed_is_caught_up_once_and_what_is_old_goes() {
    if !can_test(&[Capability::Btrfs]) {
        return;
    }
    let mut plugin = Plugin::start("btrfs");
    let options = json!({"snapshot-schedule": "hourly", "keep": "1h"});
    for name in ["data", "rests"] {
        plugin.create(name, &options);
    }
    let volume = "rests".parse().unwrap();
    let paused = true;
    plugin.ask(&PauseVolume { volume, paused });
    assert!(snapshots(&plugin, "data").is_empty());

    days_pass(&mut plugin, "created_at", 3);
    let first = wait_for(&plugin, |found| !found.is_empty());
    sleep(TWO_LOOKS);
    assert_eq!(snapshots(&plugin, "data"), first);
    assert!(
        first.len() == 1 && first[0].starts_with("auto-"),
        "{first:?}"
    );

    days_pass(&mut plugin, "taken_at", 1);
    wait_for(&plugin, |found| found.len() == 1 && found != first);
    assert!(snapshots(&plugin, "rests").is_empty());
    assert_eq!(plugin.on_backend().snapshots.len(), 1);
}
