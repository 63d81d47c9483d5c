//! A flipped bit anywhere is found, and the file is named.

use std::fs;
use std::path::Path;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Restore, Source, Target};

use crate::place::{Place, noise};

fn filled() -> Place {
    let place = Place::new();
    let path = place.path("volume");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), noise(5, 500_000)).unwrap();
    place.create("pg", Source::Tree { path });
    place
}

/// Flips one bit of a file for as long as `look` looks.
fn flipped<T>(file: &Path, look: impl FnOnce() -> T) -> T {
    let whole = fs::read(file).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    fs::write(file, damaged).unwrap();
    let seen = look();
    fs::write(file, whole).unwrap();
    seen
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_named() {
    let place = filled();
    let root = place.repository.url.clone();
    let backup = place.backups()[0].id.clone();
    let files = place.files();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let name = file
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let seen = flipped(&file, || place.work(Operation::Check { read_data: true }));
        match seen {
            Ok(Outcome::Checked(checked)) => {
                let problem = checked
                    .problems
                    .iter()
                    .find(|problem| problem.file.as_deref() == Some(name.as_str()))
                    .unwrap_or_else(|| panic!("{name}: {checked:?}"));
                if name.starts_with("data/") || name.starts_with("snapshots/") {
                    assert_eq!(problem.backups, std::slice::from_ref(&backup), "{name}");
                }
            }
            // Without a key or the configuration nothing can be opened, and that is told of the file.
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::Damaged, "{name}: {failure:?}");
                assert!(failure.message.contains(&name), "{name}: {failure:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let whole = place.work(Operation::Check { read_data: true });
    assert!(matches!(whole, Ok(Outcome::Checked(checked)) if checked.problems.is_empty()));
}

#[test]
fn a_missing_pack_is_named_with_the_backups_that_need_it() {
    let place = filled();
    let files = place.files();
    let pack = files
        .iter()
        .filter(|file| file.to_str().unwrap().contains("/data/"))
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    fs::remove_file(pack).unwrap();
    let Ok(Outcome::Checked(checked)) = place.work(Operation::Check { read_data: false }) else {
        panic!("the check failed");
    };
    let problem = &checked.problems[0];
    assert!(
        pack.ends_with(problem.file.as_ref().unwrap()),
        "{checked:?}"
    );
    assert_eq!(problem.backups, [place.backups()[0].id.clone()]);
    let verified = place.work(Operation::Verify {
        backup: "pg".parse().unwrap(),
        against: None,
    });
    assert!(verified.is_err());
}

#[test]
fn a_damaged_backup_is_not_restored_as_if_it_were_whole() {
    let place = filled();
    let files = place.files();
    let pack = files
        .iter()
        .filter(|file| file.to_str().unwrap().contains("/data/"))
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let seen = flipped(pack, || {
        place.work(Operation::Restore(Restore {
            backup: "pg".parse().unwrap(),
            target: Target::Directory {
                path: place.path("restored"),
            },
        }))
    });
    assert_eq!(seen.unwrap_err().kind, FailureKind::Damaged);
}
