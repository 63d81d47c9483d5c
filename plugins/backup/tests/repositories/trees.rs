//! Trees of files, there and back.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Restore, Selector, Source, Target};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::place::{Place, noise};

/// A volume with all that files can be.
pub(crate) fn volume(path: &Path) {
    fs::create_dir_all(path.join("data/deep")).unwrap();
    fs::write(path.join("data/base"), noise(1, 300_000)).unwrap();
    fs::write(path.join("data/deep/ünïcode \\ \"name\""), "x").unwrap();
    fs::write(path.join("empty"), "").unwrap();
    fs::hard_link(path.join("data/base"), path.join("linked")).unwrap();
    symlink("data/base", path.join("link")).unwrap();
    symlink("/nowhere", path.join("dangling")).unwrap();
    let sparse = fs::File::create(path.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    xattr::set(path.join("data/base"), "user.note", b"kept").unwrap();
    fs::set_permissions(path.join("data/base"), fs::Permissions::from_mode(0o4711)).unwrap();
    chown(path.join("data/deep"), Some(1234), Some(4321)).unwrap();
    lchown(path.join("dangling"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(path.join("data"), fs::Permissions::from_mode(0o2711)).unwrap();
    let (readable, none) = (Mode::from_bits_truncate(0o640), Mode::empty());
    mknod(&path.join("pipe"), SFlag::S_IFIFO, readable, 0).unwrap();
    mknod(&path.join("null"), SFlag::S_IFCHR, readable, makedev(1, 3)).unwrap();
    mknod(&path.join("loop"), SFlag::S_IFBLK, none, makedev(7, 99)).unwrap();
    mknod(&path.join("socket"), SFlag::S_IFSOCK, readable, 0).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o1700)).unwrap();
    chown(path, Some(999), Some(998)).unwrap();
    for (name, second) in TIMES {
        let time = TimeSpec::new(second, 123_456_789);
        let links = UtimensatFlags::NoFollowSymlink;
        utimensat(AT_FDCWD, &path.join(name), &time, &time, links).unwrap();
    }
}

/// When what is in the tree was changed, from the leaves to the root: what is made in a directory changes it.
const TIMES: [(&str, i64); 5] = [
    ("data/base", -5),
    ("dangling", 1_000_000_000),
    ("data/deep", 1_000_000_001),
    ("data", 1_000_000_002),
    ("", 1_000_000_003),
];

fn restored(place: &Place, name: &str) -> std::path::PathBuf {
    let path = place.path(name);
    let outcome = place.work(Operation::Restore(Restore {
        backup: "pg".parse().unwrap(),
        target: Target::Directory { path: path.clone() },
    }));
    assert!(matches!(outcome, Ok(Outcome::Restored(_))), "{outcome:?}");
    path
}

fn assert_same(path: &Path) {
    let meta = |name: &str| fs::symlink_metadata(path.join(name)).unwrap();
    let root = meta("");
    assert_eq!(
        (root.mode() & 0o7777, root.uid(), root.gid()),
        (0o1700, 999, 998)
    );
    for (name, second) in TIMES {
        let found = meta(name);
        let time = (found.mtime(), found.mtime_nsec());
        assert_eq!(time, (second, 123_456_789), "{name}");
    }
    for (name, kind, device, mode) in [
        ("pipe", SFlag::S_IFIFO, 0, 0o640),
        ("null", SFlag::S_IFCHR, makedev(1, 3), 0o640),
        ("loop", SFlag::S_IFBLK, makedev(7, 99), 0),
        ("socket", SFlag::S_IFSOCK, 0, 0o640),
    ] {
        let found = meta(name);
        let is = SFlag::from_bits_truncate(found.mode()) & SFlag::S_IFMT;
        assert_eq!(
            (is, found.rdev(), found.mode() & 0o7777),
            (kind, device, mode),
            "{name}"
        );
    }
    assert_eq!(meta("data").mode() & 0o7777, 0o2711);
    assert_eq!(
        (meta("dangling").uid(), meta("dangling").gid()),
        (1234, 4321)
    );
    assert_eq!(fs::read(path.join("data/base")).unwrap(), noise(1, 300_000));
    assert_eq!(meta("data/base").mode() & 0o7777, 0o4711);
    assert_eq!(meta("data/base").ino(), meta("linked").ino());
    assert_eq!(
        (meta("data/deep").uid(), meta("data/deep").gid()),
        (1234, 4321)
    );
    assert_eq!(
        fs::read_link(path.join("link")).unwrap(),
        Path::new("data/base")
    );
    assert_eq!(
        fs::read_link(path.join("dangling")).unwrap(),
        Path::new("/nowhere")
    );
    let note = xattr::get(path.join("data/base"), "user.note").unwrap();
    assert_eq!(note.as_deref(), Some(b"kept".as_slice()));
    assert_eq!(meta("sparse").len(), 20 << 20);
    assert!(meta("sparse").blocks() < 100, "the hole is filled");
    assert_eq!(
        fs::read(path.join("data/deep/ünïcode \\ \"name\"")).unwrap(),
        b"x"
    );
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let place = Place::new();
    let source = place.path("volume");
    volume(&source);
    let tree = Source::Tree {
        path: source.clone(),
    };
    let first = place.create("pg", tree.clone());
    assert!(first.new > 300_000, "{first:?}");
    assert_eq!(first.backup.facts["fs"], "ext4");
    let second = place.create("pg", tree.clone());
    assert_eq!(second.parent.as_deref(), Some(first.backup.id.as_str()));
    assert_eq!((second.read, second.new), (0, 0), "nothing had changed");
    assert_same(&restored(&place, "restored"));
    let verify = |against| Operation::Verify {
        backup: "pg".parse().unwrap(),
        against,
    };
    assert!(matches!(
        place.work(verify(Some(tree.clone()))),
        Ok(Outcome::Verified(_))
    ));
    let compare = || {
        place.work(Operation::Compare {
            backup: "pg".parse().unwrap(),
            with: tree.clone(),
        })
    };
    assert!(matches!(compare(), Ok(Outcome::Verified(_))));
    let file = fs::File::options()
        .write(true)
        .open(source.join("data/base"));
    let file = file.unwrap();
    file.write_all_at(b"x", 299_999).unwrap();
    for found in [compare(), place.work(verify(Some(tree.clone())))] {
        let differs = found.unwrap_err();
        assert_eq!(differs.kind, FailureKind::Differs);
        // The file has two names.
        let named = ["data/base", "linked"].map(|name| differs.message.contains(name));
        assert!(named.contains(&true), "{}", differs.message);
    }
    file.write_all_at(noise(1, 300_000).get(299_999..).unwrap(), 299_999)
        .unwrap();
    assert!(matches!(compare(), Ok(Outcome::Verified(_))));
    fs::write(source.join("data/deep/new"), "new").unwrap();
    let differs = place.work(verify(Some(tree))).unwrap_err();
    assert_eq!(differs.kind, FailureKind::Differs);
    assert!(
        differs.message.contains("data/deep/new"),
        "{}",
        differs.message
    );
    assert!(matches!(place.work(verify(None)), Ok(Outcome::Verified(_))));
}

#[test]
fn one_path_comes_back_alone() {
    let place = Place::new();
    volume(&place.path("volume"));
    let path = place.path("volume");
    place.create("pg", Source::Tree { path });
    let part = |inner: &str, name: &str| {
        place.work(Operation::Restore(Restore {
            backup: Selector {
                volume: "pg".to_owned(),
                when: None,
                host: None,
            },
            target: Target::Part {
                inner: inner.into(),
                path: place.path(name),
            },
        }))
    };
    part("/data/base", "one").unwrap();
    assert_eq!(fs::read(place.path("one")).unwrap(), noise(1, 300_000));
    part("data", "folder").unwrap();
    assert_eq!(
        fs::read(place.path("folder/base")).unwrap(),
        noise(1, 300_000)
    );
    assert_eq!(
        part("data", "folder").unwrap_err().kind,
        FailureKind::InvalidInput
    );
    assert_eq!(
        part("no/such", "two").unwrap_err().kind,
        FailureKind::NotFound
    );
    assert_eq!(
        part("../password", "two").unwrap_err().kind,
        FailureKind::InvalidInput
    );
}

#[test]
fn nothing_in_a_directory_is_overwritten() {
    let place = Place::new();
    volume(&place.path("volume"));
    let path = place.path("volume");
    place.create("pg", Source::Tree { path: path.clone() });
    let refused = place.work(Operation::Restore(Restore {
        backup: "pg".parse().unwrap(),
        target: Target::Directory { path },
    }));
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, FailureKind::InvalidInput);
    assert!(refused.message.contains("not empty"), "{}", refused.message);
}
