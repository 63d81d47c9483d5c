//! S3, Azure, Google Cloud Storage and SFTP: backups go there and come back, also when they were interrupted.

use std::path::PathBuf;
use std::time::Duration;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Restore, Source, Target};

use crate::place::{Place, all_files, create, noise};
use crate::servers::{Server, behind_ssh, in_azure, in_gcs, in_s3};

/// More than one pack.
const SIZE: usize = 17 << 20;

/// More than two.
const LARGE: usize = 34 << 20;

/// What every target has to do; `packs` counts those that it has.
fn there_and_back(place: &mut Place, packs: impl Fn(&Place) -> u64) {
    let path = place.path("volume");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), noise(20, SIZE)).unwrap();
    let none = place.work(Operation::List { volume: None }).unwrap_err();
    assert_eq!(none.kind, FailureKind::NoRepository, "{}", none.message);
    place.create("pg", Source::Tree { path: path.clone() });
    let image = image(path.join("file"), SIZE);
    place.create("disk", image.clone());
    assert_eq!(place.backups().len(), 2);
    restored(place, "pg", SIZE, 20);
    let verify = Operation::Verify {
        backup: "disk".parse().unwrap(),
        against: Some(image),
    };
    place.work(verify).unwrap();
    interrupted(place, packs);
    assert!(files(place, true) > 5);
    forgotten(place);
}

fn image(path: PathBuf, size: usize) -> Source {
    Source::Block {
        path,
        size: u64::try_from(size).unwrap(),
        changed: None,
    }
}

/// As far as the worker can tell: with each pack there is a file more.
fn told(place: &Place) -> u64 {
    files(place, false)
}

fn restored(place: &Place, volume: &str, size: usize, seed: u64) {
    let target = place.path("restored");
    place
        .work(Operation::Restore(Restore {
            backup: volume.parse().unwrap(),
            target: Target::Directory {
                path: target.clone(),
            },
        }))
        .unwrap();
    assert!(std::fs::read(target.join("file")).unwrap() == noise(seed, size));
    std::fs::remove_dir_all(target).unwrap();
}

/// How many files the repository has, of which none is damaged.
fn files(place: &Place, read_data: bool) -> u64 {
    match place.work(Operation::Check { read_data }) {
        Ok(Outcome::Checked(checked)) => {
            assert_eq!(checked.problems, []);
            checked.files
        }
        other => panic!("{other:?}"),
    }
}

/// A backup that was killed is none, and what it has sent is used.
fn interrupted(place: &mut Place, packs: impl Fn(&Place) -> u64) {
    let path = place.path("large");
    std::fs::write(&path, noise(21, LARGE)).unwrap();
    let source = image(path, LARGE);
    let before = packs(place);
    place.repository.bandwidth = Some(8 << 20);
    let mut killed = place.worker(create("large", source.clone()));
    place.repository.bandwidth = None;
    let is_sent = (0..60).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        packs(place) > before
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(is_sent, "no pack was sent");
    assert_eq!(place.backups().len(), 2, "half a backup is none");
    let again = place.create("large", source);
    assert!(again.resumed > 15 << 20, "{again:?}");
    assert!(again.sent < 20 << 20, "{again:?}");
}

/// What is forgotten goes, and what is left is whole.
fn forgotten(place: &Place) {
    let large = place.backups();
    let large = large.iter().find(|it| it.volume == "large").unwrap();
    let forget = Operation::Forget {
        volume: None,
        backups: vec![large.id.clone()],
        keep: None,
        dry_run: false,
    };
    place.work(forget).unwrap();
    let Ok(Outcome::Pruned(pruned)) = place.work(Operation::Prune) else {
        panic!("nothing was pruned");
    };
    assert!(pruned.removed > 33 << 20, "{pruned:?}");
    restored(place, "pg", SIZE, 20);
}

/// What restic says of the repository, by another name.
fn checked_by_restic(place: &mut Place, repository: &str, options: &[&str]) {
    place.repository.url = repository.to_owned();
    let said = place.restic(&[options, &["check", "--read-data"]].concat());
    assert!(said.contains("no errors were found"), "{said}");
}

#[test]
fn a_volume_goes_to_s3_and_comes_back() {
    let server = Server::s3();
    let mut place = Place::new();
    in_s3(&mut place, server.port);
    there_and_back(&mut place, told);
    place.repository.url = "s3://no-such-bucket/x".to_owned();
    let failed = place.work(Operation::Init).unwrap_err();
    assert_eq!(failed.kind, FailureKind::InvalidInput, "{}", failed.message);
    assert!(
        failed.message.contains("no-such-bucket"),
        "{}",
        failed.message
    );
    assert!(!failed.message.contains("hidden"), "{}", failed.message);
    place.environment = vec![
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hidden".to_owned()),
    ];
    let url = format!("s3:http://127.0.0.1:{}/bucket/hosts/one", server.port);
    checked_by_restic(&mut place, &url, &[]);
}

#[test]
fn a_volume_goes_to_azure_and_comes_back() {
    let server = Server::azure();
    let mut place = Place::new();
    in_azure(&mut place, server.port);
    there_and_back(&mut place, told);
}

#[test]
fn a_volume_goes_to_google_and_comes_back() {
    let server = Server::gcs();
    let mut place = Place::new();
    in_gcs(&mut place, server.port);
    there_and_back(&mut place, told);
}

#[test]
fn a_volume_goes_behind_ssh_and_comes_back() {
    let mut place = Place::new();
    let server = Server::sftp(&place);
    behind_ssh(&mut place, server.port);
    // Each command asks the server for a connection, which takes a while: what it has is seen without.
    there_and_back(&mut place, |place| {
        let is_pack = |file: &PathBuf| file.file_name().is_some_and(|name| name.len() == 64);
        let files = all_files(&place.path("behind/data"));
        u64::try_from(files.iter().filter(|file| is_pack(file)).count()).unwrap()
    });
    let unfinished = |file: &PathBuf| file.to_string_lossy().contains(".drover-");
    let left = all_files(&place.path("behind"));
    assert!(!left.iter().any(unfinished), "{left:?}");
    // The same files, seen on the server.
    let directory = place.path("behind").display().to_string();
    checked_by_restic(&mut place, &directory, &[]);
}
