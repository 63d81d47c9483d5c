//! Snapshots, clones, rollbacks, differences.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use drover_storage::walk::{Change, compare};
use drover_storage::{ErrorKind, Object, Shape};

use super::lab::{Lab, snapshot, volume};

fn write(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
}

pub(crate) fn a_snapshot_keeps_what_was_there(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    let at = lab.make(1);
    write(&at.join("file"), "before");
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    write(&at.join("file"), "after");
    let object = Object::from(taken.clone());
    let kept = lab.attach(&object);
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "before");
    fs::write(kept.join("file"), "x").unwrap_err();
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "after");
    // Asked for again, it is the one that was taken.
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "before");
    assert!(lab.backend.objects().unwrap().contains(&object));
    assert_eq!(
        lab.backend.remove(&object).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    lab.detach(&object);
    lab.backend.remove(&object).unwrap();
    lab.backend.remove(&object).unwrap();
    assert!(!lab.backend.objects().unwrap().contains(&object));
}

pub(crate) fn a_clone_is_a_volume_of_its_own(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    let at = lab.make(1);
    write(&at.join("file"), "one");
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    write(&at.join("file"), "two");
    for (number, source, text) in [
        (2, Object::Volume(volume(1)), "two"),
        (3, Object::from(taken), "one"),
    ] {
        lab.backend
            .clone_object(&volume(number), &source, &Shape::default())
            .unwrap();
        let clone = lab.attach(&Object::Volume(volume(number)));
        assert_eq!(fs::read_to_string(clone.join("file")).unwrap(), text);
        write(&clone.join("file"), "mine");
    }
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "two");
    let missing = Object::Volume(volume(9));
    let error = lab
        .backend
        .clone_object(&volume(4), &missing, &Shape::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        !lab.backend
            .objects()
            .unwrap()
            .contains(&Object::Volume(volume(4)))
    );
}

pub(crate) fn a_rollback_brings_back_what_a_snapshot_kept(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    let at = lab.make(1);
    let object = Object::Volume(volume(1));
    write(&at.join("file"), "before");
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    write(&at.join("file"), "after");
    write(&at.join("more"), "after");
    let error = lab.backend.rollback(&taken).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    lab.detach(&object);
    for _ in 0..2 {
        lab.backend.rollback(&taken).unwrap();
        let at = lab.attach(&object);
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "before");
        assert!(!at.join("more").exists());
        write(&at.join("file"), "writable");
        lab.detach(&object);
    }
    assert!(
        lab.backend
            .objects()
            .unwrap()
            .contains(&Object::from(taken))
    );
}

pub(crate) fn a_snapshot_outlives_its_volume(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    let at = lab.make(1);
    write(&at.join("file"), "content");
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    lab.detach(&Object::Volume(volume(1)));
    lab.backend.remove(&Object::Volume(volume(1))).unwrap();
    let object = Object::from(taken);
    assert_eq!(lab.backend.objects().unwrap(), [object.clone()].into());
    let kept = lab.attach(&object);
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "content");
}

pub(crate) fn what_differs_is_told_by_path(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    let at = lab.make(1);
    fs::create_dir_all(at.join("deep/er")).unwrap();
    for name in ["same", "changed", "gone", "deep/er/changed"] {
        write(&at.join(name), "before");
    }
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    // Of the same size: told by the time, which the kernel counts in steps of up to 10 ms.
    std::thread::sleep(std::time::Duration::from_millis(20));
    write(&at.join("changed"), "after!");
    write(&at.join("deep/er/changed"), "after!!");
    write(&at.join("added"), "");
    fs::remove_file(at.join("gone")).unwrap();
    let kept = lab.attach(&Object::from(taken));
    let (differences, complete) = compare(&kept, &at, 100).unwrap();
    let told: Vec<_> = differences
        .iter()
        .map(|it| (it.change, it.path.to_str().unwrap(), it.size))
        .collect();
    assert!(complete);
    assert_eq!(
        told,
        [
            (Change::Added, "added", 0),
            (Change::Modified, "changed", 6),
            (Change::Modified, "deep/er/changed", 7),
            (Change::Removed, "gone", 6),
        ]
    );
    let (some, complete) = compare(&kept, &at, 2).unwrap();
    assert_eq!((some.len(), complete), (2, false));
}

pub(crate) fn what_is_not_there_is_not_snapshotted(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    lab.make(1);
    let error = lab
        .backend
        .snapshot(&[snapshot(1, 1), snapshot(2, 1)])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // None of them, or all.
    assert_eq!(lab.backend.objects().unwrap().len(), 1);
}

pub(crate) fn a_volume_is_there_while_it_is_rolled_back(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    lab.backend.create(&volume(1), &Shape::default()).unwrap();
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    let (backend, done) = (&*lab.backend, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let there = backend.objects().unwrap();
                assert!(there.contains(&Object::Volume(volume(1))), "{there:?}");
                looks += 1;
            }
            looks
        });
        let outcomes = [(); 5].map(|()| backend.rollback(&taken));
        done.store(true, Ordering::Relaxed);
        assert!(looking.join().unwrap() > 0);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
}
