//! The process is killed before each call by which it changes something, in everything that it does to volumes. Whoever has got no
//! answer asks again: then it is done, nothing is half made, nothing is lost, and nothing is left mounted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_control_api::volume::{
    CompareSnapshot, CreateSnapshot, RemoveSnapshot, ResizeVolume, RestoreTrash, RollBack,
    Snapshots, VolumeEntry, Volumes,
};
use drover_testkit::capability::{Capability, can_test};
use serde_json::json;

use crate::plugin::Plugin;
use crate::tracer::Tracer;

/// How long what goes on in the background after a start may take.
const SETTLED: Duration = Duration::from_secs(60);
const VOLUME: &str = "vol";
const ID: &str = "container";

type Outcome = Result<(), String>;

/// Something that is done to volumes.
struct Case {
    name: &'static str,
    prepare: fn(&Plugin),
    act: fn(&Plugin) -> Outcome,
    /// That it is done, once it was answered.
    check: fn(&Plugin),
    /// Brings about what was there before `prepare`.
    undo: fn(&Plugin),
}

const NOTHING: fn(&Plugin) = |_| {};

const CASES: &[Case] = &[
    Case {
        name: "create",
        prepare: NOTHING,
        act: |plugin| {
            let options = json!({"size": "64M", "mode": "0750", "on-remove": "delete"});
            plugin.try_create("new", &options)
        },
        check: |plugin| {
            let at = plugin.mount("new", ID);
            assert_eq!(
                fs::metadata(&at).unwrap().permissions().mode() & 0o7777,
                0o750
            );
            assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
            plugin.unmount("new", ID);
        },
        undo: |plugin| plugin.remove("new"),
    },
    Case {
        name: "mount",
        prepare: NOTHING,
        act: |plugin| plugin.try_mount(VOLUME, ID).map(drop),
        check: |plugin| {
            assert_eq!(read(plugin, VOLUME), "one");
            assert_eq!(entry(plugin, VOLUME).holds, 1);
        },
        undo: released,
    },
    Case {
        name: "unmount",
        prepare: |plugin| drop(plugin.mount(VOLUME, ID)),
        act: |plugin| plugin.try_unmount(VOLUME, ID),
        check: NOTHING,
        undo: released,
    },
    Case {
        name: "snapshot",
        prepare: NOTHING,
        act: |plugin| unless(take(plugin, "t"), "has a snapshot `t` already"),
        check: |plugin| assert_eq!(snapshots(plugin), ["s", "t"]),
        undo: |plugin| remove_snapshot(plugin, "t").unwrap(),
    },
    Case {
        name: "removal of a snapshot",
        prepare: |plugin| take(plugin, "t").unwrap(),
        act: |plugin| unless(remove_snapshot(plugin, "t"), "has no snapshot `t`"),
        check: |plugin| assert_eq!(snapshots(plugin), ["s"]),
        undo: NOTHING,
    },
    Case {
        name: "clone",
        prepare: NOTHING,
        act: |plugin| plugin.try_create("new", &json!({"from": "vol@s", "on-remove": "delete"})),
        check: |plugin| {
            plugin.mount("new", ID);
            assert_eq!(read(plugin, "new"), "one");
            plugin.unmount("new", ID);
        },
        undo: |plugin| plugin.remove("new"),
    },
    Case {
        name: "rollback",
        prepare: |plugin| {
            fs::write(plugin.mount(VOLUME, ID).join("file"), "two").unwrap();
            plugin.unmount(VOLUME, ID);
        },
        act: |plugin| {
            plugin.try_ask(&RollBack {
                volume: VOLUME.parse().unwrap(),
                snapshot: "s".parse().unwrap(),
            })
        },
        check: |plugin| {
            plugin.mount(VOLUME, ID);
            assert_eq!(read(plugin, VOLUME), "one");
            plugin.unmount(VOLUME, ID);
        },
        undo: NOTHING,
    },
    Case {
        name: "comparison",
        prepare: NOTHING,
        act: |plugin| {
            plugin.try_ask(&CompareSnapshot {
                volume: VOLUME.parse().unwrap(),
                snapshot: "s".parse().unwrap(),
                with: None,
            })
        },
        check: NOTHING,
        undo: NOTHING,
    },
    Case {
        name: "resize",
        prepare: |plugin| plugin.create("new", &json!({"size": "64M", "on-remove": "delete"})),
        act: |plugin| {
            plugin.try_ask(&ResizeVolume {
                volume: "new".parse().unwrap(),
                size: "96M".parse().unwrap(),
            })
        },
        check: |plugin| {
            assert_eq!(plugin.get("new")["Status"]["size"], "96M");
            let at = plugin.mount("new", ID);
            fs::write(at.join("file"), vec![1; 70 << 20]).unwrap();
            plugin.unmount("new", ID);
        },
        undo: |plugin| plugin.remove("new"),
    },
    Case {
        name: "removal",
        prepare: |plugin| {
            plugin.create("new", &json!({"from": VOLUME, "on-remove": "delete"}));
            let taken = plugin.try_ask(&CreateSnapshot {
                volumes: vec!["new".parse().unwrap()],
                name: "x".parse().unwrap(),
            });
            taken.unwrap();
            plugin.mount("new", ID);
        },
        act: |plugin| plugin.try_remove("new"),
        check: |plugin| assert!(plugin.find("new").is_none()),
        undo: NOTHING,
    },
    Case {
        name: "removal to the trash",
        prepare: |plugin| plugin.create("kept", &json!({"from": VOLUME})),
        act: |plugin| plugin.try_remove("kept"),
        check: |plugin| {
            assert!(plugin.find("kept").is_none());
            let mut kept = all(plugin)
                .into_iter()
                .filter(|it| it.name.as_str() == "kept");
            assert!(kept.all(|it| it.state == "trashed"));
        },
        undo: NOTHING,
    },
    Case {
        name: "restoration from the trash",
        prepare: NOTHING,
        act: |plugin| unless(restore(plugin), "there is a volume `kept`"),
        check: |plugin| {
            plugin.mount("kept", ID);
            assert_eq!(read(plugin, "kept"), "one");
            plugin.unmount("kept", ID);
        },
        undo: |plugin| plugin.remove("kept"),
    },
];

/// What is refused since it is done already is done.
fn unless(outcome: Outcome, done: &str) -> Outcome {
    outcome.or_else(|refusal| {
        if refusal.contains(done) {
            Ok(())
        } else {
            Err(refusal)
        }
    })
}

fn read(plugin: &Plugin, name: &str) -> String {
    let at = plugin.get(name)["Mountpoint"].as_str().unwrap().to_owned();
    fs::read_to_string(format!("{at}/file")).unwrap()
}

fn take(plugin: &Plugin, name: &str) -> Outcome {
    plugin.try_ask(&CreateSnapshot {
        volumes: vec![VOLUME.parse().unwrap()],
        name: name.parse().unwrap(),
    })
}

fn remove_snapshot(plugin: &Plugin, name: &str) -> Outcome {
    plugin.try_ask(&RemoveSnapshot {
        volume: VOLUME.parse().unwrap(),
        snapshot: name.parse().unwrap(),
    })
}

fn restore(plugin: &Plugin) -> Outcome {
    plugin.try_ask(&RestoreTrash {
        volume: "kept".parse().unwrap(),
        new_name: None,
    })
}

fn snapshots(plugin: &Plugin) -> Vec<String> {
    let table = plugin.ask(&Snapshots { volume: None });
    table
        .snapshots
        .iter()
        .map(|it| it.name.to_string())
        .collect()
}

fn all(plugin: &Plugin) -> Vec<VolumeEntry> {
    let asked = Volumes {
        name: None,
        removed: true,
    };
    plugin.ask(&asked).volumes
}

fn entry(plugin: &Plugin, name: &str) -> VolumeEntry {
    let found = all(plugin).into_iter().find(|it| it.name.as_str() == name);
    found.unwrap_or_else(|| panic!("there is no `{name}`"))
}

/// The engine's container has gone: what it held is given back, however often it was taken.
fn released(plugin: &Plugin) {
    plugin.unmount(VOLUME, ID);
    plugin.detached(VOLUME);
    assert_eq!(entry(plugin, VOLUME).holds, 0);
}

/// Waits until what there is is known, complete and attached where it is wanted and nowhere else.
fn settled(plugin: &Plugin, what: &str) {
    let began = Instant::now();
    loop {
        let fault = fault(plugin);
        let Some(fault) = fault else { return };
        assert!(
            began.elapsed() < SETTLED,
            "{what}: {fault}\n{}",
            plugin.log()
        );
        sleep(Duration::from_millis(50));
    }
}

fn fault(plugin: &Plugin) -> Option<String> {
    let known = all(plugin);
    if let Some(it) = known
        .iter()
        .find(|it| !matches!(it.state.as_str(), "ready" | "trashed"))
    {
        return Some(format!("`{}` is {}", it.name, it.state));
    }
    let on_backend = plugin.on_backend();
    let volumes: BTreeSet<String> = known.iter().map(|it| it.id.to_string()).collect();
    if volumes != on_backend.volumes {
        return Some(format!(
            "known {volumes:?}, there is {:?}",
            on_backend.volumes
        ));
    }
    let snapshots = plugin.ask(&Snapshots { volume: None }).snapshots;
    let snapshots: BTreeSet<String> = snapshots.iter().map(|it| it.id.to_string()).collect();
    if snapshots != on_backend.snapshots || !on_backend.others.is_empty() {
        return Some(format!("known {snapshots:?}, there is {on_backend:?}"));
    }
    let mounted: BTreeSet<_> = plugin.mounts().into_iter().collect();
    let attached: BTreeSet<_> = known.into_iter().filter_map(|it| it.mount_point).collect();
    (mounted != attached).then(|| format!("mounted {mounted:?}, known {attached:?}"))
}

/// Goes through all cases: kills it before the first call, the one `stride` later, and so on.
fn at_each_step(backend: &str, stride: usize) {
    let mut plugin = Plugin::prepare(backend);
    plugin.has_engine_without_containers();
    plugin.run();
    plugin.create(VOLUME, &json!({"size": "64M"}));
    fs::write(plugin.mount(VOLUME, ID).join("file"), "one").unwrap();
    plugin.unmount(VOLUME, ID);
    take(&plugin, "s").unwrap();
    released(&plugin);
    let mut total = 0;
    for (index, case) in CASES.iter().enumerate() {
        let began = Instant::now();
        let mut steps = Vec::new();
        loop {
            (case.prepare)(&plugin);
            let tracer =
                Tracer::kill_before(plugin.id(), 1 + index % stride + steps.len() * stride);
            let answered = (case.act)(&plugin).is_ok();
            plugin.kill();
            let before = tracer.ended();
            plugin.run();
            let what = format!("{}, killed before {before:?} after {steps:?}", case.name);
            if let Err(refusal) = (case.act)(&plugin) {
                panic!("{what}: {refusal}\n{}", plugin.log());
            }
            (case.check)(&plugin);
            (case.undo)(&plugin);
            settled(&plugin, &what);
            assert_eq!(snapshots(&plugin), ["s"], "{what}");
            // All that is left after the answer is other work.
            let Some(call) = before.filter(|_| !answered) else {
                break;
            };
            steps.push(call);
        }
        println!(
            "{}: {:.1?}, killed before {steps:?}",
            case.name,
            began.elapsed()
        );
        total += steps.len();
    }
    assert!(total * stride > 50, "{total} steps");
    released(&plugin);
    plugin.remove(VOLUME);
}

#[test]
fn at_each_step_on_btrfs() {
    if can_test(&[Capability::Btrfs]) {
        at_each_step("btrfs", 1);
    }
}

/// Each request to the process for LVM is a step as well, and each kill takes seconds on a kernel in user mode.
#[test]
fn at_every_fifth_step_on_thin() {
    if can_test(&[Capability::DeviceMapper]) {
        at_each_step("thin", 5);
    }
}
