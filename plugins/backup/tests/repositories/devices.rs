//! Block devices: only what has changed is read and sent.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use drover_backup_protocol::{
    ByteRange, Create, Created, FailureKind, Operation, Outcome, Restore, Source, Target,
};

use crate::place::{Place, create, noise};

const SIZE: u64 = 40 << 20;

/// The length of the chunks of a device of this size.
const CHUNK: u64 = 512 << 10;

fn image(place: &Place) -> std::path::PathBuf {
    let path = place.path("image");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&noise(2, 9 << 20), 0).unwrap();
    file.set_len(SIZE).unwrap();
    path
}

fn source(path: &Path, changed: Option<Vec<ByteRange>>) -> Source {
    Source::Block {
        path: path.to_path_buf(),
        size: path.metadata().unwrap().len(),
        changed,
    }
}

fn after(place: &Place, parent: &Created, source: Source) -> Created {
    let Operation::Create(create) = create("disk", source) else {
        unreachable!("it creates");
    };
    let create = Create {
        parent: Some(parent.backup.id.clone()),
        ..create
    };
    match place.work(Operation::Create(create)) {
        Ok(Outcome::Created(created)) => created,
        other => panic!("{other:?}"),
    }
}

fn restore(place: &Place, when: &str, name: &str) -> Vec<u8> {
    let path = place.path(name);
    let outcome = place.work(Operation::Restore(Restore {
        backup: format!("disk@{when}").parse().unwrap(),
        target: Target::Block {
            path: path.clone(),
            blank: false,
        },
    }));
    assert!(matches!(outcome, Ok(Outcome::Restored(_))), "{outcome:?}");
    fs::read(path).unwrap()
}

#[test]
fn a_device_is_sent_once_and_then_what_has_changed() {
    let place = Place::new();
    let path = image(&place);
    let written = vec![ByteRange {
        offset: 0,
        length: 9 << 20,
    }];
    let first = place.create("disk", source(&path, Some(written)));
    assert_eq!(first.read, 9 << 20, "nothing else was ever written");
    let old = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"changed", 5 << 20).unwrap();
    let changed = vec![ByteRange {
        offset: 5 << 20,
        length: 65_536,
    }];
    let second = after(&place, &first, source(&path, Some(changed)));
    assert_eq!(second.read, CHUNK);
    assert_eq!(second.parent.as_deref(), Some(first.backup.id.as_str()));
    assert!(second.sent < CHUNK + (100 << 10), "{second:?}");
    let new = fs::read(&path).unwrap();
    assert!(restore(&place, &first.backup.id, "old") == old);
    assert!(restore(&place, "latest", "new") == new);
    let compare = |when: &str| {
        place.work(Operation::Compare {
            backup: format!("disk@{when}").parse().unwrap(),
            with: source(&path, None),
        })
    };
    assert!(matches!(compare("latest"), Ok(Outcome::Verified(_))));
    let differs = compare(&first.backup.id).unwrap_err();
    assert_eq!(differs.kind, FailureKind::Differs, "{}", differs.message);
    let said = place.restic(&["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
    for (id, wanted) in [(&first, &old), (&second, &new)] {
        let dumped = place.try_restic(&["dump", &id.backup.id, "/disk.img"]);
        assert!(dumped.stdout == *wanted, "restic reads another image");
    }
}

#[test]
fn a_device_that_has_grown_or_lost_its_parent_is_whole() {
    let place = Place::new();
    let path = image(&place);
    let first = place.create("disk", source(&path, None));
    assert_eq!(first.read, SIZE);
    // A size that is no multiple of a chunk.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(SIZE + 12_345).unwrap();
    file.write_all_at(b"end", SIZE + 12_000).unwrap();
    let grown = after(&place, &first, source(&path, Some(Vec::new())));
    assert_eq!(grown.read, 12_345, "what the parent did not have is read");
    assert!(restore(&place, "latest", "grown") == fs::read(&path).unwrap());
    place.restic(&["forget", &grown.backup.id]);
    let again = after(&place, &grown, source(&path, Some(Vec::new())));
    assert_eq!(again.parent, None);
    assert_eq!(again.read, SIZE + 12_345);
    assert!(restore(&place, "latest", "again") == fs::read(&path).unwrap());
}

#[test]
fn a_device_keeps_the_length_of_its_chunks() {
    const GIB: u64 = 1 << 30;
    let place = Place::new();
    let path = image(&place);
    let file = fs::File::options().write(true).open(&path).unwrap();
    let range = |offset| {
        let length = 65_536;
        Some(vec![ByteRange { offset, length }])
    };
    // Large enough for chunks of 1 MiB, and then not any more.
    file.set_len(17 * GIB).unwrap();
    let first = place.create("disk", source(&path, range(0)));
    assert_eq!(first.read, 1 << 20);
    file.set_len(16 * GIB).unwrap();
    file.write_all_at(b"changed", GIB).unwrap();
    let second = after(&place, &first, source(&path, range(GIB)));
    assert_eq!((second.read, second.new), (1 << 20, 1 << 20));
    assert_eq!(second.parent, Some(first.backup.id));
    // Also where nobody says what has changed since.
    let unrelated = place.create("disk", source(&path, range(GIB)));
    assert_eq!((unrelated.read, unrelated.new), (1 << 20, 0));
    let other = place.create("other", source(&path, range(GIB)));
    assert_eq!(other.read, CHUNK);
}

#[test]
fn a_file_is_taken_out_of_a_device() {
    let place = Place::new();
    let path = place.path("image");
    fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let tree = place.path("tree");
    fs::create_dir_all(tree.join("data")).unwrap();
    fs::write(tree.join("data/file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", tree.join("out")).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-d"])
        .arg(&tree)
        .arg(&path)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    place.create("disk", source(&path, None));
    let part = |inner: &str, name: &str| {
        place.work(Operation::Restore(Restore {
            backup: "disk".parse().unwrap(),
            target: Target::Part {
                inner: inner.into(),
                path: place.path(name),
            },
        }))
    };
    part("data/file", "file").unwrap();
    assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "content");
    assert_eq!(
        part("data/none", "none").unwrap_err().kind,
        FailureKind::NotFound
    );
    assert_eq!(
        part("out/hostname", "leak").unwrap_err().kind,
        FailureKind::NotFound
    );
    let left: Vec<_> = fs::read_dir(place.folder.path())
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".drover")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
