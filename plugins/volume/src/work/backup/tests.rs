//! Backups and restores by the real worker, in a mount namespace of their own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use drover_daemon::BackendChoice;
use drover_engine::Engine;
use drover_model::VolumeName;
use drover_store::local::Database;
use drover_testkit::capability::{Capability, can_test};
use drover_volumes::record::VolumeState;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::catalogue::Catalogue;
use crate::pools::{Making, Pools};

struct Lab {
    runtime: Runtime,
    work: Arc<Work>,
    folder: TempDir,
}

impl Lab {
    fn new(backend: BackendChoice) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), "correct horse\n").unwrap();
        let password = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.path().join("password"), password).unwrap();
        // Its threads are begun in the namespace of this one.
        let runtime = Runtime::new().unwrap();
        let work = open(&folder, backend);
        Self {
            runtime,
            work,
            folder,
        }
    }

    fn create(&self, name: &str, more: &[(&str, &str)]) -> Result<()> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let mut options = BTreeMap::from([
            ("backup-to".to_owned(), path("repository")),
            ("backup-password-file".to_owned(), path("password")),
        ]);
        for (name, value) in more {
            options.insert((*name).to_owned(), (*value).to_owned());
        }
        self.runtime
            .block_on(self.work.create(&named(name), &options))
    }

    fn record(&self, name: &str) -> VolumeRecord {
        self.work.catalogue.ready(&named(name)).unwrap()
    }

    fn attached(&self, name: &str) -> PathBuf {
        self.runtime
            .block_on(self.work.mount(&named(name), "test"))
            .unwrap()
    }

    /// What a backup is made of where there are no snapshots.
    fn back_up_folder(&self, volume: &str) -> Created {
        let source = self.folder.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("rows"), "one\n").unwrap();
        let create = Create {
            volume: volume.to_owned(),
            host: "elsewhere".to_owned(),
            time: None,
            tags: Vec::new(),
            facts: BTreeMap::new(),
            source: Source::Tree { path: source },
            parent: None,
            init: true,
        };
        let request = Request {
            repository: Repository {
                url: self.folder.path().join("repository").display().to_string(),
                password_file: self.folder.path().join("password"),
                options_file: None,
                cache: None,
                keys: None,
                bandwidth: None,
            },
            operation: Operation::Create(create),
        };
        let id = "00000000000000aa".parse().unwrap();
        let outcome = self.runtime.block_on(self.work.backups.run(&id, request));
        match outcome.unwrap() {
            Outcome::Created(created) => created,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for record in self.work.catalogue.volumes() {
            drop(self.runtime.block_on(self.work.purge(&record)));
        }
        for pool in self.work.pools.all() {
            drop(pool.backend.close(true));
        }
        umount(&self.folder.path().join("run")).unwrap();
    }
}

fn named(name: &str) -> VolumeName {
    name.parse().unwrap()
}

fn open(folder: &TempDir, backend: BackendChoice) -> Arc<Work> {
    let work = open_with(folder, backend, "volumes.redb");
    work.catalogue.set_known();
    work
}

fn open_with(folder: &TempDir, backend: BackendChoice, records: &str) -> Arc<Work> {
    let mut settings = Settings {
        state_dir: folder.path().join("state"),
        run_dir: run_dir(folder),
        ..Settings::default()
    };
    settings.volumes.backend = backend;
    settings.volumes.loop_size = Some("256M".parse().unwrap());
    settings.volumes.reserve = 1;
    fs::create_dir_all(&settings.state_dir).unwrap();
    let database = Database::open(settings.state_dir.join(records)).unwrap();
    // Nobody answers there: no container is asked anything.
    let socket = folder.path().join("engine.sock");
    let engine = Engine::new(&format!("unix://{}", socket.display())).unwrap();
    let catalogue = Catalogue::open(&database, true).unwrap();
    let mut work = Work::new(&settings, catalogue, Pools::new(&settings), engine);
    work.backups.program = drover_backup();
    work.pools.open(&[], Making::Now);
    Arc::new(work)
}

/// In memory, where there is such a file system: keys are kept nowhere else.
fn run_dir(folder: &TempDir) -> PathBuf {
    let run = folder.path().join("run");
    if !run.exists() {
        fs::create_dir(&run).unwrap();
        let (none, kind) = (None::<&str>, Some("tmpfs"));
        mount(none, &run, kind, MsFlags::empty(), none).unwrap();
    }
    run
}

/// The worker, of another package: in `DROVER_BIN`, or where cargo builds it.
fn drover_backup() -> PathBuf {
    let folder = std::env::var_os("DROVER_BIN").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        let program = std::env::current_exe().unwrap();
        program.ancestors().nth(2).unwrap().to_owned()
    });
    folder.join(worker::PROGRAM)
}

#[test]
fn a_volume_is_made_from_what_another_host_backed_up() {
    let lab = Lab::new(BackendChoice::Directory);
    let made = lab.back_up_folder("pg");
    lab.create("pg", &[("from-backup", "pg"), ("mode", "0750")])
        .unwrap();
    let at = lab.attached("pg");
    assert_eq!(fs::read_to_string(at.join("rows")).unwrap(), "one\n");
    assert_eq!(at.metadata().unwrap().mode() & 0o7777, 0o750);
    assert!(!lab.work.restore_point(&lab.record("pg").id).exists());
    let this = format!("pg@{}", &made.backup.id[..8]);
    lab.create("trial", &[("from-backup", &this)]).unwrap();
    let trial = lab.attached("trial").join("rows");
    assert_eq!(fs::read_to_string(trial).unwrap(), "one\n");
}

#[test]
fn keys_of_repositories_are_known_until_all_is_torn_down() {
    let lab = Lab::new(BackendChoice::Directory);
    let keys = lab.folder.path().join("run/backup-keys");
    lab.back_up_folder("pg");
    lab.create("pg", &[("from-backup", "pg")]).unwrap();
    let kept = fs::read_dir(&keys).unwrap().next().unwrap().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode(&keys), mode(&kept.path())), (0o700, 0o600));
    let repository = lab.folder.path().join("repository/keys");
    assert!(repository.join(kept.file_name()).exists());
    lab.work.forget_keys().unwrap();
    assert!(!keys.exists());
    // There is nothing to forget.
    lab.work.forget_keys().unwrap();
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let lab = Lab::new(BackendChoice::Directory);
    let none = lab.create("pg", &[("from-backup", "pg")]).unwrap_err();
    assert!(none.sentence().contains("repository"), "{none}");
    lab.back_up_folder("pg");
    fs::write(lab.folder.path().join("password"), "wrong\n").unwrap();
    let wrong = lab.create("pg", &[("from-backup", "pg")]).unwrap_err();
    assert!(wrong.sentence().contains("password"), "{wrong}");
    fs::write(lab.folder.path().join("password"), "correct horse\n").unwrap();
    let other = lab.create("pg", &[("from-backup", "mysql")]).unwrap_err();
    assert!(other.sentence().contains("mysql"), "{other}");
    assert!(lab.work.catalogue.volumes().is_empty());
    let backend = lab.work.pools.all().remove(0).backend;
    assert!(backend.objects().unwrap().is_empty());
    lab.create("pg", &[("from-backup", "pg")]).unwrap();
}

#[test]
fn what_cannot_be_backed_up_is_refused_at_once() {
    let lab = Lab::new(BackendChoice::Directory);
    let error = lab.create("x", &[("backup-schedule", "daily")]);
    assert!(error.unwrap_err().sentence().contains("no snapshots"));
    fs::remove_file(lab.folder.path().join("password")).unwrap();
    let error = lab.create("x", &[]).unwrap_err();
    assert!(error.sentence().contains("cannot be read"), "{error}");
}

/// `None` where there is no btrfs and none is required.
fn btrfs() -> Option<Lab> {
    can_test(&[Capability::Btrfs]).then(|| Lab::new(BackendChoice::Btrfs))
}

#[test]
fn a_schedule_backs_up_what_a_snapshot_kept_and_removes_it() {
    let Some(lab) = btrfs() else { return };
    lab.create("pg", &[("backup-schedule", "daily")]).unwrap();
    let rows = lab.attached("pg").join("rows");
    fs::write(&rows, "one\n").unwrap();
    let root = rows.parent().unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(root, Some(7), Some(8)).unwrap();
    let due = |at| {
        let work = lab.work.clone().back_up_on_schedule(lab.record("pg"), at);
        lab.runtime.block_on(work);
        lab.record("pg").backups
    };
    let first = due(1);
    assert_eq!((first.begun_at, &first.failure), (Some(1), &None));
    assert!(lab.work.catalogue.snapshots(None).is_empty());
    fs::write(&rows, "two\n").unwrap();
    fs::rename(
        lab.folder.path().join("password"),
        lab.folder.path().join("hidden"),
    )
    .unwrap();
    let failed = due(2);
    assert!(failed.failure.unwrap().contains("password"));
    assert_eq!(failed.last, first.last);
    assert!(lab.work.catalogue.snapshots(None).is_empty());
    fs::rename(
        lab.folder.path().join("hidden"),
        lab.folder.path().join("password"),
    )
    .unwrap();
    let second = due(3);
    assert_eq!(second.failure, None);
    assert_ne!(second.last, first.last);
    let old = format!("pg@{}", first.last.unwrap().id);
    lab.create("old", &[("from-backup", &old), ("size", "64M")])
        .unwrap();
    lab.create("new", &[("from-backup", "pg")]).unwrap();
    for (name, text) in [("old", "one\n"), ("new", "two\n")] {
        let at = lab.attached(name);
        assert_eq!(fs::read_to_string(at.join("rows")).unwrap(), text);
        let root = at.metadata().unwrap();
        assert_eq!(
            (root.uid(), root.gid(), root.mode() & 0o7777),
            (7, 8, 0o700)
        );
    }
}

#[test]
fn what_a_killed_backup_was_made_of_goes_though_it_is_of_the_same_second() {
    let Some(lab) = btrfs() else { return };
    lab.create("pg", &[]).unwrap();
    let (volumes, name) = ([named("pg")], "backup".parse().unwrap());
    let taken = lab.work.snapshot(&volumes, &name, SnapshotReason::Working);
    lab.runtime.block_on(taken).unwrap();
    // The next process is up faster than the clock has another second.
    let (_stop, shutdown) = watch::channel(false);
    let start = crate::recovery::run(lab.work.clone(), shutdown);
    lab.runtime.block_on(start);
    assert!(lab.work.catalogue.snapshots(None).is_empty());
}

/// The largest file of the repository, with data.
fn largest_pack(repository: &Path) -> PathBuf {
    let folders = fs::read_dir(repository.join("data")).unwrap();
    let packs = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let packs = packs.map(|pack| pack.unwrap().path());
    packs
        .max_by_key(|pack| pack.metadata().unwrap().len())
        .unwrap()
}

#[test]
fn a_backup_is_restored_beside_its_volume_and_compared() {
    let Some(lab) = btrfs() else { return };
    let options = [("backup-schedule", "daily"), ("verify-schedule", "weekly")];
    lab.create("pg", &options).unwrap();
    let at = lab.attached("pg");
    fs::write(at.join("rows"), vec![7; 100_000]).unwrap();
    std::os::unix::fs::symlink("rows", at.join("link")).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o1770)).unwrap();
    let work = || lab.work.clone();
    lab.runtime
        .block_on(work().back_up_on_schedule(lab.record("pg"), 1));
    let backup = lab.record("pg").backups.last.unwrap();
    let verify = |due| {
        lab.runtime
            .block_on(work().verify_on_schedule(lab.record("pg"), due));
        // Nothing of the scratch volume is left.
        assert_eq!(lab.work.catalogue.volumes().len(), 1);
        let backend = lab.work.pools.all().remove(0).backend;
        let own = BTreeSet::from([Object::Volume(lab.record("pg").id)]);
        assert_eq!(backend.objects().unwrap(), own);
        lab.record("pg").backups.verification.unwrap()
    };
    let found = verify(2);
    assert_eq!((found.failure, found.restored), (None, true));
    assert_eq!(found.id, Some(backup.id));
    let pack = largest_pack(&lab.folder.path().join("repository"));
    let mut damaged = fs::read(&pack).unwrap();
    damaged[20] ^= 1;
    fs::write(&pack, damaged).unwrap();
    let failure = verify(3).failure.unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(failure.contains(name), "{failure}");
}

#[test]
fn a_backup_that_would_fill_the_pool_is_only_read() {
    let Some(lab) = btrfs() else { return };
    lab.create("pg", &[("backup-schedule", "daily")]).unwrap();
    let rows = fs::File::create(lab.attached("pg").join("rows")).unwrap();
    // More than the pool holds, of which nothing is written.
    rows.set_len(1 << 30).unwrap();
    lab.runtime
        .block_on(lab.work.clone().back_up_on_schedule(lab.record("pg"), 1));
    let work = lab.work.clone();
    lab.runtime
        .block_on(work.verify_on_schedule(lab.record("pg"), 2));
    let found = lab.record("pg").backups.verification.unwrap();
    assert_eq!((found.failure, found.restored), (None, false));
    assert!(found.verified_at.is_some());
}

#[test]
fn a_backup_to_another_place_leaves_the_failure_of_the_schedule() {
    let Some(lab) = btrfs() else { return };
    lab.create("pg", &[("backup-schedule", "daily")]).unwrap();
    fs::write(lab.attached("pg").join("rows"), "one\n").unwrap();
    let path = |name: &str| lab.folder.path().join(name);
    fs::rename(path("password"), path("elsewhere")).unwrap();
    let work = lab.work.clone();
    lab.runtime
        .block_on(work.back_up_on_schedule(lab.record("pg"), 1));
    let to = path("other").display().to_string();
    let back_up = |init| {
        let destination = Destination {
            repository: Repository {
                url: to.clone(),
                password_file: path("elsewhere"),
                options_file: None,
                cache: None,
                keys: None,
                bandwidth: None,
            },
            tags: vec!["asked".to_owned()],
            init,
        };
        let record = lab.record("pg");
        lab.runtime.block_on(lab.work.back_up(&record, destination))
    };
    let none = back_up(false).unwrap_err().sentence();
    assert!(none.contains("repository"), "{none}");
    assert!(lab.work.catalogue.snapshots(None).is_empty());
    let made = back_up(true).unwrap();
    assert_eq!(made.backup.tags, ["asked"]);
    let backups = lab.record("pg").backups;
    assert!(backups.failure.unwrap().contains("password"));
    let last = backups.last.unwrap();
    assert_eq!((last.to, last.size), (to.clone(), made.backup.size));
    assert!(lab.work.catalogue.snapshots(None).is_empty());
}

#[test]
fn a_volume_that_goes_stops_its_backup() {
    let Some(lab) = btrfs() else { return };
    let options = [("backup-schedule", "daily"), ("on-remove", "delete")];
    lab.create("pg", &options).unwrap();
    // Opening it waits until somebody writes, which nobody does.
    let password = lab.folder.path().join("password");
    fs::remove_file(&password).unwrap();
    nix::unistd::mkfifo(&password, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let record = lab.record("pg");
    lab.runtime.block_on(async {
        let work = lab.work.clone();
        let backup = tokio::spawn(work.back_up_on_schedule(record.clone(), 1));
        for _ in 0..1000 {
            if lab.work.has_worker(&record.id) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(lab.work.has_worker(&record.id));
        lab.work.remove(&named("pg")).await.unwrap();
        backup.await.unwrap();
    });
    assert!(lab.work.catalogue.volumes().is_empty());
    assert!(lab.work.catalogue.snapshots(None).is_empty());
    let backend = lab.work.pools.all().remove(0).backend;
    assert!(backend.objects().unwrap().is_empty());
}

#[test]
fn a_restore_that_was_killed_is_removed_at_the_next_start() {
    let lab = Lab::new(BackendChoice::Directory);
    lab.create("pg", &[]).unwrap();
    let record = lab.record("pg");
    let begun = lab
        .work
        .catalogue
        .change(&record.id, |it| it.state = VolumeState::Creating);
    begun.unwrap();
    let backend = lab.work.pools.all().remove(0).backend;
    let at = lab.work.restore_point(&record.id);
    let object = Object::Volume(record.id);
    backend.attach(&object, &at, Access::ReadWrite).unwrap();
    fs::write(at.join("half"), "").unwrap();
    let (_shutdown, receiver) = watch::channel(false);
    let start = crate::recovery::run(lab.work.clone(), receiver);
    lab.runtime.block_on(start);
    assert!(lab.work.catalogue.volumes().is_empty());
    assert!(backend.objects().unwrap().is_empty());
    assert!(!at.exists());
}

#[test]
fn volumes_are_known_again_by_what_lies_beside_them() {
    let Some(lab) = btrfs() else { return };
    for name in ["pg", "gone", "unreadable"] {
        lab.create(name, &[("size", "64M"), ("owner", "7:8")])
            .unwrap();
    }
    let work = lab.work.clone();
    let taken = lab.runtime.block_on(async {
        let (names, name) = ([named("pg")], "before".parse().unwrap());
        let taken = work.snapshot(&names, &name, SnapshotReason::Asked);
        let taken = taken.await.unwrap();
        work.remove(&named("gone")).await.unwrap();
        taken.snapshots
    });
    let unreadable = lab.record("unreadable").id;
    let backend = lab.work.pools.all().remove(0).backend;
    backend
        .note(&Object::Volume(unreadable.clone()), "garbage")
        .unwrap();

    let again = open_with(&lab.folder, BackendChoice::Btrfs, "new.redb");
    assert!(!again.catalogue.is_known());
    lab.runtime.block_on(again.adopt()).unwrap();
    assert_eq!(
        again.catalogue.ready(&named("pg")).unwrap(),
        lab.record("pg")
    );
    assert_eq!(again.catalogue.snapshots(None), taken);
    let recovered = named(&format!("recovered-{unreadable}"));
    assert_eq!(again.catalogue.ready(&recovered).unwrap().id, unreadable);
    let trashed = again.catalogue.volumes().into_iter();
    let trashed = trashed.filter(|it| matches!(it.state, VolumeState::Trashed { .. }));
    let trashed: Vec<_> = trashed.map(|it| it.name).collect();
    assert_eq!(trashed, [named("gone")]);
    // What is known already is not taken again.
    lab.runtime.block_on(again.adopt()).unwrap();
    assert_eq!(again.catalogue.volumes().len(), 3);
}
