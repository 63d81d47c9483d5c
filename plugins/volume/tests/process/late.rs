//! Mounts that an engine has given up: it waits 120 s, and sends no `Unmount` for them. They take minutes, and are run by
//! the step `late` of `run-tests` alone.

use std::fs;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use drover_control_api::volume::{CreateSnapshot, VolumeEntry, Volumes};
use drover_testkit::capability::{Capability, can_test};

use crate::between::Between;
use crate::engine::Dockerd;
use crate::plugin::Plugin;

/// How long until it has been looked at again, and some more.
const UNDONE: Duration = Duration::from_secs(300);
const LOOP: &str = "while :; do sleep 1; done";

fn with_an_engine() -> Option<(Plugin, Dockerd, Between)> {
    if !can_test(&[Capability::Btrfs, Capability::Dockerd]) {
        return None;
    }
    let mut plugin = Plugin::prepare("btrfs");
    let engine = Dockerd::start(plugin.folder());
    plugin.serve_engine(engine.socket());
    plugin.run();
    let between = plugin.between();
    engine.docker("volume create -d drover-vol data");
    Some((plugin, engine, between))
}

fn entry(plugin: &Plugin) -> VolumeEntry {
    let name = Some("data".parse().unwrap());
    let removed = false;
    let table = plugin.ask(&Volumes { name, removed });
    table.volumes.into_iter().next().unwrap()
}

/// Waits until there is a number of holds, and mounts as expected.
fn has_holds(plugin: &Plugin, holds: u64, mounts: usize) {
    let began = Instant::now();
    loop {
        let found = (entry(plugin).holds, plugin.mounts().len());
        if found == (holds, mounts) {
            return;
        }
        assert!(began.elapsed() < UNDONE, "{found:?}: {}", plugin.log());
        sleep(Duration::from_secs(1));
    }
}

/// The plugin itself notices, and tells the engine before that gives up.
#[test]
#[ignore = "takes two minutes: an engine waits that long"]
fn a_mount_that_takes_too_long_is_undone_and_takes_nothing_from_others() {
    let Some((plugin, engine, _)) = with_an_engine() else {
        return;
    };
    // A snapshot has the volume, with a command before it that takes its time.
    let words = "run -d --network none -v data:/data --name user -l drover.snapshot.timeout=200 -l";
    let words: Vec<_> = words.split_whitespace().collect();
    let label = "drover.snapshot.pre=: > /data/begun; sleep 130";
    engine.docker_words(&[&words, &[label, "own", "/bin/sh", "-c", LOOP][..]].concat());
    let at = plugin.path("state/volumes/mounts/data");
    scope(|scope| {
        scope.spawn(|| {
            // Whoever asks does not wait so long.
            let name = "slow".parse().unwrap();
            let volumes = vec!["data".parse().unwrap()];
            drop(plugin.try_ask(&CreateSnapshot { volumes, name }));
        });
        let began = Instant::now();
        while !at.join("begun").exists() {
            assert!(began.elapsed() < UNDONE, "{}", plugin.log());
            sleep(Duration::from_millis(200));
        }
        let run = "run --network none --name late -v data:/data own /bin/sh -c";
        let refusal = engine.refused(run, "echo late > /data/late");
        assert!(refusal.contains("was not done within 110s"), "{refusal}");
    });
    let began = Instant::now();
    while !plugin
        .log()
        .contains("a mount came too late for the engine")
    {
        assert!(began.elapsed() < UNDONE, "{}", plugin.log());
        sleep(Duration::from_millis(500));
    }
    has_holds(&plugin, 1, 1);
    engine.docker_with("exec user /bin/sh -c", "echo one > /data/file");
    assert!(!at.join("late").exists());
    engine.docker("rm -f user late");
    has_holds(&plugin, 0, 0);
    engine.docker("volume rm data");
}

/// The engine itself gives up, after its 120 s: the process has answered `Get`, and is stopped when `Mount` comes.
#[test]
#[ignore = "takes nine minutes: an engine waits for two, and what is mounted is looked at again after two and a half"]
fn a_mount_that_the_engine_has_given_up_is_undone() {
    let Some((plugin, engine, between)) = with_an_engine() else {
        return;
    };
    engine.docker_with(
        "create --network none --name late -v data:/data own /bin/sh -c",
        LOOP,
    );
    has_holds(&plugin, 0, 0);
    between.stop_at("VolumeDriver.Mount");
    let began = Instant::now();
    let refusal = engine.refused("start", "late");
    assert!(refusal.contains("VolumeDriver.Mount"), "{refusal}");
    assert!(refusal.contains("deadline exceeded"), "{refusal}");
    assert!(
        (Duration::from_secs(115)..Duration::from_secs(140)).contains(&began.elapsed()),
        "the engine has waited {:?}",
        began.elapsed()
    );
    assert!(between.has_stopped());
    between.go_on();
    // It does what it was asked for, and finds out.
    has_holds(&plugin, 1, 1);
    has_holds(&plugin, 0, 0);
    // A container that runs keeps what it has, when it is looked at.
    engine.docker("start late");
    let began = Instant::now();
    while began.elapsed() < UNDONE {
        sleep(Duration::from_secs(10));
        assert_eq!((entry(&plugin).holds, plugin.mounts().len()), (1, 1));
    }
    engine.docker_with("exec late /bin/sh -c", "echo one > /data/file");
    let at = plugin.path("state/volumes/mounts/data/file");
    assert_eq!(fs::read_to_string(at).unwrap(), "one\n");
    engine.docker("rm -f late");
    has_holds(&plugin, 0, 0);
    engine.docker("volume rm data");
}
