//! Processes that are killed, and targets that are full.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Restore, Source, Target};

use crate::place::{Place, create, noise};

fn packs(place: &Place) -> usize {
    place
        .files()
        .iter()
        .filter(|file| file.to_str().unwrap().contains("/data/"))
        .filter(|file| file.file_name().unwrap().len() == 64)
        .count()
}

#[test]
fn what_a_killed_backup_has_sent_is_found_again() {
    let mut place = Place::new();
    let path = place.path("image");
    fs::write(&path, noise(6, 100 << 20)).unwrap();
    let source = Source::Block {
        path: path.clone(),
        size: 100 << 20,
        changed: None,
    };
    place.work(Operation::Init).unwrap();
    place.repository.bandwidth = Some(30 << 20);
    let mut killed = place.worker(create("disk", source.clone()));
    for _ in 0..1200 {
        if packs(&place) >= 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let sent = packs(&place);
    assert!(sent >= 2, "no pack was sent in 30 s");
    place.repository.bandwidth = None;
    assert!(place.backups().is_empty(), "half a backup is none");
    let again = place.create("disk", source);
    assert!(again.resumed > 30 << 20, "{again:?}");
    assert!(again.sent < (101 << 20) - again.resumed, "{again:?}");
    let said = place.restic(&["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
    let copy = place.path("copy");
    place
        .work(Operation::Restore(Restore {
            backup: "disk".parse().unwrap(),
            target: Target::Block {
                path: copy.clone(),
                blank: false,
            },
        }))
        .unwrap();
    assert!(fs::read(copy).unwrap() == fs::read(path).unwrap());
}

/// A file system of a few megabytes; unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn new(path: &'a Path) -> Self {
        fs::create_dir(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(path)
            .status();
        assert!(mounted.unwrap().success());
        Self(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        assert!(
            Command::new("umount")
                .arg(self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

#[test]
fn a_full_target_is_told_and_what_was_there_stays_whole() {
    let mut place = Place::new();
    let target = place.path("small");
    let _small = Small::new(&target);
    place.repository.url = target.join("repository").to_str().unwrap().to_owned();
    let path = place.path("volume");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("small"), noise(7, 1_000_000)).unwrap();
    place.create("pg", Source::Tree { path: path.clone() });
    fs::write(path.join("large"), noise(8, 30 << 20)).unwrap();
    let full = place
        .work(create("pg", Source::Tree { path: path.clone() }))
        .unwrap_err();
    assert_eq!(full.kind, FailureKind::Full, "{}", full.message);
    let image = Source::Block {
        path: path.join("large"),
        size: 30 << 20,
        changed: None,
    };
    let full = place.work(create("disk", image)).unwrap_err();
    assert_eq!(full.kind, FailureKind::Full, "{}", full.message);
    fs::remove_file(path.join("large")).unwrap();
    // As one leaves that is killed while it writes.
    let unfinished = target.join("repository/data/ab/.drover-1-0");
    fs::create_dir_all(unfinished.parent().unwrap()).unwrap();
    fs::write(&unfinished, noise(9, 100_000)).unwrap();
    // Packs that nobody needs go, and then there is room again.
    place.work(Operation::Prune).unwrap();
    assert!(!unfinished.exists());
    place.create("pg", Source::Tree { path });
    assert_eq!(place.backups().len(), 2);
    let said = place.restic(&["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
}

#[test]
fn a_full_host_is_told_when_a_backup_is_restored() {
    let place = Place::new();
    let path = place.path("volume");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("large"), noise(9, 12 << 20)).unwrap();
    place.create("pg", Source::Tree { path });
    let small = place.path("small");
    let _small = Small::new(&small);
    let target = Target::Directory {
        path: small.join("volume"),
    };
    let full = place.work(Operation::Restore(Restore {
        backup: "pg".parse().unwrap(),
        target,
    }));
    assert_eq!(full.unwrap_err().kind, FailureKind::Full);
}

#[test]
fn a_source_that_is_not_there_makes_no_backup() {
    let place = Place::new();
    let gone = place
        .work(create(
            "pg",
            Source::Tree {
                path: place.path("none"),
            },
        ))
        .unwrap_err();
    assert_eq!(gone.kind, FailureKind::Source, "{}", gone.message);
    let gone = Source::Block {
        path: place.path("none"),
        size: 1 << 20,
        changed: None,
    };
    assert_eq!(
        place.work(create("disk", gone)).unwrap_err().kind,
        FailureKind::Source
    );
    assert!(place.backups().is_empty());
    let outcome = place.work(Operation::Init);
    assert!(
        matches!(outcome, Ok(Outcome::Initialised { made: false, .. })),
        "{outcome:?}"
    );
}
