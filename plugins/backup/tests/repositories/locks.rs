//! Locks, both ways.

use std::io::Write;
use std::time::Duration;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Source};

use crate::place::{Place, ended, events, noise};

fn filled() -> Place {
    let place = Place::new();
    let path = place.path("volume");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), noise(3, 8_000_000)).unwrap();
    place.create("pg", Source::Tree { path });
    place
}

fn locks(place: &Place) -> usize {
    std::fs::read_dir(format!("{}/locks", place.repository.url))
        .unwrap()
        .count()
}

/// Until a lock is there; bounded.
fn wait_for_lock(place: &Place) {
    for _ in 0..400 {
        if locks(place) > 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("there is no lock after 10 s");
}

#[test]
fn restic_respects_our_locks_and_a_dead_process_has_none() {
    let mut place = filled();
    assert_eq!(locks(&place), 0, "a lock is gone with its process");
    // A slow verification holds its lock for long enough.
    place.repository.bandwidth = Some(100_000);
    let verify = Operation::Verify {
        backup: "pg".parse().unwrap(),
        against: None,
    };
    let mut slow = place.worker(verify);
    wait_for_lock(&place);
    let refused = place.try_restic(&["prune"]);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && complaint.contains("already locked"),
        "{complaint}"
    );
    slow.kill().unwrap();
    slow.wait().unwrap();
    assert_eq!(locks(&place), 1);
    place.repository.bandwidth = None;
    // The dead process's lock does not stand in the way, and goes.
    assert!(matches!(
        place.work(Operation::Prune),
        Ok(Outcome::Pruned(_))
    ));
    assert_eq!(locks(&place), 0);
}

#[test]
fn locks_of_restic_are_respected() {
    let place = filled();
    // restic asks for its own lock, then waits for what it is to back up.
    let mut slow = place
        .restic_command(&["backup", "--stdin", "--quiet"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for_lock(&place);
    let backups = place.backups();
    assert_eq!(backups.len(), 1, "those who only read or add go together");
    let forget = Operation::Forget {
        volume: None,
        backups: vec![backups[0].id.clone()],
        keep: None,
        dry_run: false,
    };
    let waiting = place.worker(forget);
    std::thread::sleep(Duration::from_secs(1));
    slow.stdin.take().unwrap().write_all(b"content").unwrap();
    assert!(slow.wait().unwrap().success());
    // It waited for restic's lock to go, and then did its work.
    let done = ended(events(&waiting.wait_with_output().unwrap()));
    assert!(matches!(done, Ok(Outcome::Forgotten(_))), "{done:?}");
    assert!(place.backups().is_empty());
}

#[test]
fn locks_are_removed_when_asked() {
    let place = filled();
    let mut slow = place
        .restic_command(&["backup", "--stdin", "--quiet"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for_lock(&place);
    let removed = |all| match place.work(Operation::Unlock { all }) {
        Ok(Outcome::Unlocked { removed }) => removed,
        other => panic!("{other:?}"),
    };
    assert_eq!(removed(false), 0, "its process is alive");
    assert_eq!(removed(true), 1);
    slow.kill().unwrap();
    slow.wait().unwrap();
}

/// The keys of repositories with the same password, as a process leaves them that is killed while it makes one.
fn stray_keys(count: usize) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let keys = (0..count).flat_map(|_| {
        let other = Place::new();
        other.restic(&["init", "--repository-version", "2"]);
        let keys = std::fs::read_dir(other.path("repository/keys")).unwrap();
        let read = |key: std::io::Result<std::fs::DirEntry>| {
            let key = key.unwrap();
            (key.file_name(), std::fs::read(key.path()).unwrap())
        };
        keys.map(read).collect::<Vec<_>>()
    });
    keys.collect()
}

#[test]
fn a_key_that_another_process_left_is_not_the_repositorys() {
    let strays = stray_keys(3);
    let with_strays = |place: &Place| {
        let keys = place.path("repository/keys");
        std::fs::create_dir_all(&keys).unwrap();
        for (name, content) in &strays {
            std::fs::write(keys.join(name), content).unwrap();
        }
        keys
    };
    let place = filled();
    with_strays(&place);
    assert_eq!(place.backups().len(), 1);
    // Where there is no repository yet they go when one is made.
    let place = Place::new();
    let keys = with_strays(&place);
    place.work(Operation::Init).unwrap();
    assert_eq!(std::fs::read_dir(&keys).unwrap().count(), 1);
    place.restic(&["snapshots"]);
}

#[test]
fn no_repository_is_made_over_backups() {
    let place = filled();
    let keys = || {
        std::fs::read_dir(place.path("repository/keys"))
            .unwrap()
            .count()
    };
    let config = place.path("repository/config");
    let whole = std::fs::read(&config).unwrap();
    std::fs::remove_file(&config).unwrap();
    let path = place.path("volume");
    let mut again = crate::place::create("pg", Source::Tree { path });
    if let Operation::Create(create) = &mut again {
        create.init = true;
    }
    let failed = place.work(again).unwrap_err();
    assert_eq!(failed.kind, FailureKind::Damaged, "{}", failed.message);
    assert!(
        failed.message.contains("no other repository"),
        "{}",
        failed.message
    );
    assert_eq!(keys(), 1);
    std::fs::write(&config, whole).unwrap();
    assert_eq!(place.backups().len(), 1);
    place.restic(&["check"]);
}

#[test]
fn two_hosts_make_and_fill_one_repository_at_once() {
    let place = Place::new();
    let workers: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|volume| {
            let path = place.path(volume);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), noise(4, 3_000_000)).unwrap();
            place.worker(crate::place::create(volume, Source::Tree { path }))
        })
        .collect();
    for worker in workers {
        let done = ended(events(&worker.wait_with_output().unwrap()));
        assert!(matches!(done, Ok(Outcome::Created(_))), "{done:?}");
    }
    assert_eq!(place.backups().len(), 3);
    place.restic(&["check", "--read-data"]);
    let missing = Operation::Verify {
        backup: "four".parse().unwrap(),
        against: None,
    };
    assert_eq!(place.work(missing).unwrap_err().kind, FailureKind::NotFound);
}
