//! What restic makes of our repositories, and we of its.

use std::fs;

use drover_backup_protocol::{FailureKind, Keep, Operation, Outcome, Restore, Source, Target};

use crate::place::{Place, noise};
use crate::trees::volume;

#[test]
fn restic_checks_lists_and_restores_what_was_backed_up() {
    let place = Place::new();
    volume(&place.path("volume"));
    let path = place.path("volume");
    place.create("pg", Source::Tree { path });
    let said = place.restic(&["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
    let said = place.restic(&["ls", "latest", "--path", "/pg"]);
    assert!(said.contains("/pg/data/base"), "{said}");
    let target = place.path("by-restic");
    place.restic(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(
        fs::read(target.join("pg/data/base")).unwrap(),
        noise(1, 300_000)
    );
    let said = place.restic(&["snapshots", "--tag", "drover.volume=pg"]);
    assert!(said.contains("1 snapshots"), "{said}");
}

#[test]
fn a_repository_of_restic_is_written_to_and_read() {
    let place = Place::new();
    volume(&place.path("volume"));
    place.restic(&["init", "--repository-version", "2"]);
    let path = place.path("volume");
    place.restic(&["backup", "--quiet", path.to_str().unwrap()]);
    let made = place.create("pg", Source::Tree { path });
    assert!(
        made.sent < 300_000,
        "what restic has sent is not sent again: {made:?}"
    );
    assert_eq!(
        place.backups().len(),
        1,
        "a snapshot of restic is no backup of a volume"
    );
    let outcome = place.work(Operation::Check { read_data: true });
    assert!(matches!(outcome, Ok(Outcome::Checked(checked)) if checked.problems.is_empty()));
    let said = place.restic(&["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
}

#[test]
fn what_is_forgotten_is_removed_and_the_rest_stays_whole() {
    let place = Place::new();
    let path = place.path("volume");
    fs::create_dir(&path).unwrap();
    for seed in 10..13 {
        fs::write(path.join("file"), noise(seed, 2_000_000)).unwrap();
        place.create("pg", Source::Tree { path: path.clone() });
    }
    let keep = |dry_run| Operation::Forget {
        volume: Some("pg".to_owned()),
        backups: Vec::new(),
        keep: Some(Keep {
            last: 1,
            ..Keep::default()
        }),
        dry_run,
    };
    let Ok(Outcome::Forgotten(forgotten)) = place.work(keep(true)) else {
        panic!("nothing was forgotten");
    };
    assert_eq!((forgotten.kept.len(), forgotten.forgotten.len()), (1, 2));
    assert_eq!(place.backups().len(), 3, "a dry run changes nothing");
    place.work(keep(false)).unwrap();
    assert_eq!(place.backups(), forgotten.kept);
    let Ok(Outcome::Pruned(pruned)) = place.work(Operation::Prune) else {
        panic!("nothing was pruned");
    };
    assert_eq!(pruned.backups, place.backups());
    assert!(pruned.removed > 3_900_000, "{pruned:?}");
    let said = place.restic(&["check", "--read-data"]);
    assert!(said.contains("no errors were found"), "{said}");
    let target = place.path("restored");
    place
        .work(Operation::Restore(Restore {
            backup: "pg".parse().unwrap(),
            target: Target::Directory {
                path: target.clone(),
            },
        }))
        .unwrap();
    assert_eq!(fs::read(target.join("file")).unwrap(), noise(12, 2_000_000));
}

#[test]
fn what_is_no_repository_of_ours_is_told_apart() {
    let mut place = Place::new();
    let list = || Operation::List { volume: None };
    let none = place.work(list()).unwrap_err();
    assert_eq!(none.kind, FailureKind::NoRepository);
    place.restic(&["init", "--repository-version", "1"]);
    let old = place.work(list()).unwrap_err();
    assert_eq!(old.kind, FailureKind::UnsupportedVersion, "{}", old.message);
    assert!(old.message.contains("upgrade_repo_v2"), "{}", old.message);
    let wrong = place.path("wrong");
    crate::place::secret(&wrong, "not it\n");
    place.repository.password_file = wrong;
    let wrong = place.work(list()).unwrap_err();
    assert_eq!(wrong.kind, FailureKind::WrongPassword, "{}", wrong.message);
    place.repository.password_file = place.path("none");
    assert_eq!(
        place.work(list()).unwrap_err().kind,
        FailureKind::InvalidInput
    );
    let open = place.path("open");
    fs::write(&open, "x").unwrap();
    place.repository.password_file = open;
    let open = place.work(list()).unwrap_err();
    assert!(open.message.contains("chmod 600"), "{}", open.message);
}
