//! Limits: of a volume, of a pool.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use drover_model::ByteSize;
use drover_storage::{Backend, Btrfs, ErrorKind, Object, Shape};

use super::lab::{Lab, pool, snapshot, volume};

fn size(text: &str) -> ByteSize {
    text.parse().unwrap()
}

fn limited(text: &str) -> Shape {
    Shape {
        size: Some(size(text)),
        ..Shape::default()
    }
}

/// Writes that many MiB, and has them on the disk.
fn fill(path: &Path, mebibytes: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    for _ in 0..mebibytes {
        file.write_all(&[b'x'; 1 << 20])?;
    }
    file.sync_all()
}

fn can_limit(lab: &Lab) -> bool {
    lab.backend.abilities().no_size_limit.is_none()
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull
    )
}

pub(crate) fn a_volume_with_a_limit_holds_no_more(lab: &Lab) {
    if !can_limit(lab) {
        return;
    }
    let at = lab.make_of(1, &limited("32M"));
    let other = lab.make(2);
    fill(&at.join("file"), 16).unwrap();
    let error = fill(&at.join("file"), 32).unwrap_err();
    assert!(is_full(&error), "{error}");
    fill(&other.join("file"), 64).unwrap();
    let used = lab
        .backend
        .usage(&Object::Volume(volume(1)))
        .unwrap()
        .used
        .unwrap();
    assert!((16 << 20..=32 << 20).contains(&used), "{used}");
}

pub(crate) fn a_limit_grows_while_containers_write(lab: &Lab) {
    if !can_limit(lab) {
        return;
    }
    let at = lab.make_of(1, &limited("32M"));
    fill(&at.join("file"), 24).unwrap();
    lab.backend.resize(&volume(1), size("128M")).unwrap();
    fill(&at.join("file"), 64).unwrap();
    let error = lab.backend.resize(&volume(1), size("16M")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    fill(&at.join("file"), 8).unwrap();
}

pub(crate) fn a_limit_survives_a_rollback(lab: &Lab) {
    if !can_limit(lab) || !lab.has_snapshots() {
        return;
    }
    let at = lab.make_of(1, &limited("32M"));
    fill(&at.join("file"), 8).unwrap();
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    let object = Object::Volume(volume(1));
    lab.detach(&object);
    lab.backend.rollback(&taken).unwrap();
    let at = lab.attach(&object);
    let error = fill(&at.join("file"), 64).unwrap_err();
    assert!(is_full(&error), "{error}");
}

/// Filled by volumes without a limit, the pool says so, and what was written before is there.
pub(crate) fn a_full_pool_refuses_and_keeps_what_there_is(lab: &Lab) {
    if lab.backend.kind().as_str() == "directory" {
        // It would fill the disk of the machine.
        return;
    }
    let kept = lab.make(1);
    fill(&kept.join("file"), 16).unwrap();
    let before = fs::read(kept.join("file")).unwrap();
    let at = lab.make(2);
    let empty = lab.backend.pool().unwrap();
    let error = (0..64).find_map(|number| fill(&at.join(number.to_string()), 16).err());
    let error = error.unwrap();
    // What a thin pool has no room for is an error of the disk to a file system.
    assert!(
        is_full(&error) || lab.backend.kind().as_str() == "thin",
        "{error}"
    );
    let full = lab.backend.pool().unwrap();
    assert!(full.complaints.is_empty(), "{full:?}");
    assert!(
        full.used > empty.used && full.used * 10 >= full.capacity * 8,
        "{full:?}"
    );
    assert_eq!(fs::read(kept.join("file")).unwrap(), before);
    // Room is made by removal, also then.
    let object = Object::Volume(volume(2));
    lab.detach(&object);
    lab.backend.remove(&object).unwrap();
    lab.backend.tidy().unwrap();
    let written = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        fill(&kept.join("more"), 16).is_ok()
    });
    assert!(written);
}

pub(crate) fn a_directory_refuses_in_words(lab: &Lab) {
    lab.make(1);
    let refusals = [
        lab.backend.create(&volume(2), &limited("1G")),
        lab.backend.snapshot(&[snapshot(1, 1)]),
        lab.backend.rollback(&snapshot(1, 1)),
        lab.backend.resize(&volume(1), size("1G")),
        lab.backend
            .clone_object(&volume(2), &Object::Volume(volume(1)), &Shape::default()),
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`btrfs`"), "{error}");
    }
    assert_eq!(lab.backend.objects().unwrap().len(), 1);
}

pub(crate) fn a_missing_loop_file_is_told(lab: &Lab) {
    let at = lab.make(1);
    fs::write(at.join("file"), "content").unwrap();
    let pool = pool(lab.folder.path());
    let elsewhere = lab.folder.path().join("elsewhere");
    fs::rename(&pool.file, &elsewhere).unwrap();
    let state = lab.backend.pool().unwrap();
    assert!(state.complaints[0].contains("is gone"), "{state:?}");
    let error = Btrfs::open_loop(&pool).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(!pool.file.exists() && at.join("file").exists());
    fs::rename(&elsewhere, &pool.file).unwrap();
    assert!(Btrfs::open_loop(&pool).is_ok());
}

pub(crate) fn a_loop_file_grows(lab: &Lab) {
    let before = lab.backend.pool().unwrap().capacity;
    let mut pool = pool(lab.folder.path());
    pool.size = Some(size("512M"));
    let grown = Btrfs::open_loop(&pool).unwrap();
    let after = grown.pool().unwrap().capacity;
    assert_eq!(after - before, 256 << 20);
    // It never shrinks.
    pool.size = Some(size("256M"));
    assert_eq!(
        Btrfs::open_loop(&pool).unwrap().pool().unwrap().capacity,
        after
    );
}
