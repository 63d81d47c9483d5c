//! Volumes: made, attached, found again, removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use drover_storage::{Access, Error, ErrorKind, Object, Shape};

use super::lab::{Lab, snapshot, volume};

pub(crate) fn a_volume_is_empty_until_something_is_written_and_gone_when_it_is_removed(lab: &Lab) {
    let at = lab.make(1);
    let found = fs::metadata(&at).unwrap();
    assert_eq!((found.uid(), found.gid()), (0, 0));
    assert_eq!(found.permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    fs::write(at.join("file"), "content").unwrap();
    let object = Object::Volume(volume(1));
    lab.detach(&object);
    assert!(!at.exists());
    let at = lab.attach(&object);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "content");
    lab.detach(&object);
    lab.backend.remove(&object).unwrap();
    assert!(lab.backend.objects().unwrap().is_empty());
    let error = lab.backend.usage(&object).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // Another of the same id has nothing of it.
    let at = lab.make(1);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
}

pub(crate) fn everything_may_be_asked_for_twice(lab: &Lab) {
    let object = Object::Volume(volume(1));
    for _ in 0..2 {
        lab.backend.create(&volume(1), &Shape::default()).unwrap();
    }
    let at = lab.attach(&object);
    fs::write(at.join("file"), "content").unwrap();
    lab.backend.create(&volume(1), &Shape::default()).unwrap();
    assert_eq!(lab.attach(&object), at);
    assert!(at.join("file").exists());
    for _ in 0..2 {
        lab.detach(&object);
    }
    for _ in 0..2 {
        lab.backend.remove(&object).unwrap();
    }
}

pub(crate) fn what_was_begun_and_not_finished_is_tidied_away(lab: &Lab) {
    if lab.backend.kind().as_str() == "thin" {
        // It has no folders: see `thin`.
        return;
    }
    lab.make(1);
    let staging = lab.folder.path().join(match lab.backend.kind().as_str() {
        "btrfs" => "btrfs/staging",
        _ => "directory/staging",
    });
    // What a kill leaves of a creation and of a removal looks like a volume, in staging.
    let object = Object::Volume(volume(2));
    lab.backend.create(&volume(2), &Shape::default()).unwrap();
    let volumes = staging.with_file_name("volumes");
    let left = staging.join(format!("{}.gone", volume(2)));
    fs::rename(volumes.join(volume(2).as_str()), &left).unwrap();
    fs::write(left.join("file"), "content").unwrap();
    let backend = lab.reopen();
    assert!(!backend.objects().unwrap().contains(&object));
    backend.tidy().unwrap();
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    assert_eq!(
        backend.objects().unwrap(),
        [Object::Volume(volume(1))].into()
    );
}

pub(crate) fn a_volume_that_is_attached_is_not_removed(lab: &Lab) {
    let at = lab.make(1);
    fs::write(at.join("file"), "content").unwrap();
    let error = lab.backend.remove(&Object::Volume(volume(1))).unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
    assert!(at.join("file").exists());
}

pub(crate) fn a_read_only_volume_is_one(lab: &Lab) {
    let object = Object::Volume(volume(1));
    lab.backend.create(&volume(1), &Shape::default()).unwrap();
    let at = lab.place(&object);
    lab.backend.attach(&object, &at, Access::ReadOnly).unwrap();
    let error = fs::write(at.join("file"), "content").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    lab.backend.attach(&object, &at, Access::ReadWrite).unwrap();
    fs::write(at.join("file"), "content").unwrap();
}

pub(crate) fn what_is_attached_is_found_again_by_another_process(lab: &Lab) {
    let at = lab.make(1);
    fs::write(at.join("file"), "content").unwrap();
    let backend = lab.reopen();
    let object = Object::Volume(volume(1));
    assert!(drover_storage::mounts::at(&at).unwrap().is_some());
    backend.attach(&object, &at, Access::ReadWrite).unwrap();
    let mounts = drover_storage::mounts::below(at.parent().unwrap()).unwrap();
    assert_eq!(mounts.len(), 1, "attached once, not once more: {mounts:?}");
    backend.detach(&object, &at).unwrap();
    assert!(!at.exists());
}

pub(crate) fn another_mount_in_the_way_is_left_alone(lab: &Lab) {
    let at = lab.make(1);
    let other = lab.make(2);
    lab.detach(&Object::Volume(volume(1)));
    fs::write(other.join("file"), "content").unwrap();
    let error = lab
        .backend
        .attach(&Object::Volume(volume(1)), &other, Access::ReadWrite)
        .unwrap_err();
    assert!(
        error.to_string().contains("something else is mounted"),
        "{error}"
    );
    assert!(other.join("file").exists() && !at.exists());
}

pub(crate) fn a_note_stays_beside_its_object_and_goes_with_it(lab: &Lab) {
    let object = Object::Volume(volume(1));
    let missing = lab.backend.note(&object, "nothing").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    lab.backend.create(&volume(1), &Shape::default()).unwrap();
    let long = format!("{{\"name\":\"{}\"}}", "x,ü".repeat(400));
    for text in ["first", &long, "{\"name\":\"pg\"}"] {
        lab.backend.note(&object, text).unwrap();
        let notes = lab.backend.notes().unwrap();
        assert_eq!(
            notes.into_iter().collect::<Vec<_>>(),
            [(object.clone(), text.to_owned())]
        );
    }
    if lab.backend.abilities().snapshots {
        let taken = snapshot(1, 7);
        lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
        lab.backend
            .note(&taken.clone().into(), "of a snapshot")
            .unwrap();
        let notes = lab.reopen().notes().unwrap();
        assert_eq!(
            notes.get(&taken.clone().into()).map(String::as_str),
            Some("of a snapshot")
        );
        assert_eq!(notes.len(), 2);
        lab.backend.remove(&taken.into()).unwrap();
    }
    lab.backend.tidy().unwrap();
    assert_eq!(lab.backend.notes().unwrap().len(), 1);
    lab.backend.remove(&object).unwrap();
    assert!(lab.backend.notes().unwrap().is_empty());
}
