//! What thin pools alone do.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use drover_model::FileSystem;
use drover_storage::{Access, Backend, ErrorKind, Object, Shape, ThinPlace};

use super::lab::{Lab, open_thin_at, snapshot, thin_file, volume};

const BLOCK: usize = 64 << 10;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let (said, errors) = (output.stdout, output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&errors)
    );
    String::from_utf8(said).unwrap()
}

fn object(number: u64) -> Object {
    Object::Volume(volume(number))
}

fn of(size: &str, file_system: Option<FileSystem>) -> Shape {
    Shape {
        size: Some(size.parse().unwrap()),
        file_system,
        ..Shape::default()
    }
}

/// A file that may become larger than its disk: what the disk does not have counts as used.
pub(crate) fn a_file_on_a_small_disk_counts_what_the_disk_has(lab: &Lab) {
    let disk = lab.folder.path().join("small");
    fs::create_dir(&disk).unwrap();
    let words = ["-t", "tmpfs", "-o", "size=300M", "tmpfs"];
    run("mount", &[&words[..], &[disk.to_str().unwrap()]].concat());
    let thin = open_thin_at(thin_file(&disk), &disk).unwrap();
    let pool = thin.pool().unwrap();
    assert!(pool.capacity > 400 << 20, "{pool:?}");
    assert!(pool.capacity - pool.used <= 300 << 20, "{pool:?}");
    thin.close(true).unwrap();
    drop(thin);
    // The kernel lets go of the loop device's file a moment later.
    run("umount", &["--lazy", disk.to_str().unwrap()]);
}

pub(crate) fn what_a_kill_left_of_a_volume_is_tidied_away(lab: &Lab) {
    lab.make(1);
    lab.backend.create(&volume(2), &Shape::default()).unwrap();
    let group = lab.group().unwrap();
    let half_made = format!("{group}/drover_v_{}", volume(2));
    run("lvchange", &["--deltag", "drover.ready", &half_made]);
    let backend = lab.reopen();
    assert_eq!(backend.objects().unwrap(), [object(1)].into());
    backend.tidy().unwrap();
    assert!(!run("lvs", &["--noheadings", "-o", "lv_name", &group]).contains(volume(2).as_str()));
    // Made anew over what was left.
    backend.create(&volume(2), &Shape::default()).unwrap();
    run("lvchange", &["--deltag", "drover.ready", &half_made]);
    backend.create(&volume(2), &Shape::default()).unwrap();
    assert_eq!(backend.objects().unwrap().len(), 2);
}

fn read_all(device: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(device).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

pub(crate) fn the_changes_of_a_snapshot_are_those_of_its_device(lab: &Lab) {
    let at = lab.make_of(1, &of("64M", None));
    fs::write(at.join("file"), vec![7; 8 << 20]).unwrap();
    let (first, second) = (snapshot(1, 1), snapshot(1, 2));
    lab.backend.snapshot(std::slice::from_ref(&first)).unwrap();
    let mut file = OpenOptions::new()
        .write(true)
        .open(at.join("file"))
        .unwrap();
    file.seek(SeekFrom::Start(3 << 20)).unwrap();
    file.write_all(&[8; 100]).unwrap();
    file.sync_all().unwrap();
    lab.backend.snapshot(std::slice::from_ref(&second)).unwrap();

    let changed = lab.backend.changes(Some(&first), &second).unwrap().unwrap();
    let mapped = lab.backend.changes(None, &second).unwrap().unwrap();
    assert_eq!(
        lab.backend
            .changes(Some(&second), &second)
            .unwrap()
            .unwrap(),
        []
    );
    let devices =
        [&first, &second].map(|it| lab.backend.device(&it.clone().into()).unwrap().unwrap());
    let [old, new] = devices.map(|device| read_all(&device));
    let within = |ranges: &[std::ops::Range<u64>], block: usize| {
        let offset = (block * BLOCK) as u64;
        ranges.iter().any(|range| range.contains(&offset))
    };
    let mut differing = 0;
    for (number, (was, is)) in old.chunks(BLOCK).zip(new.chunks(BLOCK)).enumerate() {
        if was != is {
            differing += 1;
            assert!(
                within(&changed, number),
                "block {number} differs: {changed:?}"
            );
        }
        if is.iter().any(|byte| *byte != 0) {
            assert!(
                within(&mapped, number),
                "block {number} is not empty: {mapped:?}"
            );
        }
    }
    let told: u64 = changed.iter().map(|range| range.end - range.start).sum();
    assert!(
        differing > 0 && told < 4 << 20,
        "{differing} blocks, {told} bytes"
    );
    let missing = lab
        .backend
        .changes(Some(&snapshot(1, 9)), &second)
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

fn capacity(at: &Path) -> u64 {
    let found = nix::sys::statvfs::statvfs(at).unwrap();
    found.blocks() * found.fragment_size()
}

pub(crate) fn xfs_and_its_clone_are_mounted_side_by_side(lab: &Lab) {
    let at = lab.make_of(1, &of("320M", Some(FileSystem::Xfs)));
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    fs::write(at.join("file"), "one").unwrap();
    let taken = snapshot(1, 1);
    lab.backend.snapshot(std::slice::from_ref(&taken)).unwrap();
    lab.backend
        .clone_object(&volume(2), &object(1), &Shape::default())
        .unwrap();
    let clone = lab.attach(&object(2));
    fs::write(clone.join("file"), "two").unwrap();
    let kept = lab.attach(&taken.into());
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "one");
    assert_eq!(fs::read_to_string(clone.join("file")).unwrap(), "two");
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "one");
    let before = capacity(&clone);
    lab.backend
        .resize(&volume(2), "400M".parse().unwrap())
        .unwrap();
    assert_eq!(capacity(&clone), before + (80 << 20));
    assert_eq!(fs::read_to_string(clone.join("file")).unwrap(), "two");
}

pub(crate) fn what_cannot_be_made_is_refused_in_words(lab: &Lab) {
    let options = |text: &str| Shape {
        mkfs_options: text.split(' ').map(str::to_owned).collect(),
        ..of("64M", None)
    };
    for (shape, words) in [
        (of("1M", None), "too small for a file system"),
        (of("1T", None), "more than the pool"),
        (options("/dev/loop0"), "`/dev/loop0` in `mkfs-opts`"),
        (options("-E no-such=1"), "mkfs.ext4"),
        (of("16M", Some(FileSystem::Xfs)), "mkfs.xfs"),
    ] {
        let error = lab.backend.create(&volume(1), &shape).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(lab.backend.objects().unwrap().is_empty());
    let group = lab.group().unwrap();
    assert!(!run("lvs", &["--noheadings", "-o", "lv_name", &group]).contains("drover_v_"));
    lab.backend
        .create(&volume(1), &options("-i 65536"))
        .unwrap();
    let error = lab
        .backend
        .resize(&volume(1), "32M".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// The process that the backend started: the one that has its lock file open.
fn process_of(lab: &Lab) -> i32 {
    let lock = lab.folder.path().join("thin/lock");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let has_lock = |id: &i32| {
        let command = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        command.contains(lock.to_str().unwrap())
    };
    ids.into_iter().find(has_lock).unwrap()
}

pub(crate) fn a_process_for_lvm_that_dies_is_started_anew(lab: &Lab) {
    let at = lab.make(1);
    fs::write(at.join("file"), "content").unwrap();
    let kill =
        |id| nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::SIGKILL);
    kill(process_of(lab)).unwrap();
    let error = lab.backend.objects().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(lab.backend.objects().unwrap().len(), 1);
    // As if it had died while it had a device suspended and the metadata held.
    let group = lab.group().unwrap().replace('-', "--");
    let device = format!("{group}-drover_v_{}", volume(1));
    run("dmsetup", &["suspend", &device]);
    run(
        "dmsetup",
        &[
            "message",
            &format!("{group}-drover-tpool"),
            "0",
            "reserve_metadata_snap",
        ],
    );
    kill(process_of(lab)).unwrap();
    lab.backend.objects().unwrap_err();
    lab.backend.snapshot(&[snapshot(1, 1)]).unwrap();
    assert!(run("dmsetup", &["info", &device]).contains("ACTIVE"));
    assert!(
        lab.backend
            .changes(None, &snapshot(1, 1))
            .unwrap()
            .is_some()
    );
    fs::write(at.join("file"), "more").unwrap();
}

pub(crate) fn a_pool_is_found_again_after_a_reboot(lab: &Lab) {
    let at = lab.make(1);
    fs::write(at.join("file"), "content").unwrap();
    lab.backend.snapshot(&[snapshot(1, 1)]).unwrap();
    lab.detach(&object(1));
    let group = lab.group().unwrap();
    run("vgchange", &["-an", &group]);
    let state = lab.backend.pool().unwrap();
    assert!(state.complaints[0].contains("is not active"), "{state:?}");
    let backend = lab.reopen();
    assert_eq!(backend.objects().unwrap().len(), 2);
    backend.attach(&object(1), &at, Access::ReadWrite).unwrap();
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "content");
    assert_eq!(backend.pool().unwrap().complaints, Vec::<String>::new());
    backend.detach(&object(1), &at).unwrap();

    // A file that is gone is told, and none is made in its place.
    let (file, elsewhere) = (
        lab.folder.path().join("thin.img"),
        lab.folder.path().join("elsewhere"),
    );
    fs::rename(&file, &elsewhere).unwrap();
    let state = backend.pool().unwrap();
    assert!(state.complaints[0].contains("is gone"), "{state:?}");
    let error = open_thin_at(thin_file(lab.folder.path()), lab.folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("is gone") && !file.exists(),
        "{error}"
    );
    // Nor is another file taken for it.
    fs::write(&file, vec![1; 300 << 20]).unwrap();
    let error = open_thin_at(thin_file(lab.folder.path()), lab.folder.path()).unwrap_err();
    assert!(error.to_string().contains("no volume group"), "{error}");
    fs::remove_file(&file).unwrap();
    fs::rename(&elsewhere, &file).unwrap();
    assert_eq!(lab.reopen().objects().unwrap().len(), 2);
}

pub(crate) fn a_pool_that_there_is_is_used(lab: &Lab) {
    let group = lab.group().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = |pool: &str| ThinPlace::Pool {
        group: group.clone(),
        pool: pool.to_owned(),
    };
    let error = open_thin_at(place("none"), folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("there is no thin pool"),
        "{error}"
    );
    let other = open_thin_at(place("drover"), folder.path()).unwrap();
    other.create(&volume(5), &of("64M", None)).unwrap();
    assert!(lab.backend.objects().unwrap().contains(&object(5)));
    let group = ThinPlace::Group { group, size: None };
    let again = open_thin_at(group, folder.path()).unwrap();
    assert_eq!(again.objects().unwrap().len(), 1);
    let nowhere = ThinPlace::Group {
        group: "no-such-group".to_owned(),
        size: None,
    };
    let error = open_thin_at(nowhere, folder.path()).unwrap_err();
    assert!(error.to_string().contains("no-such-group"), "{error}");
}

pub(crate) fn damaged_metadata_is_told_with_the_remedy(lab: &Lab) {
    lab.backend.create(&volume(1), &of("64M", None)).unwrap();
    let group = lab.group().unwrap();
    let devices = group.replace('-', "--");
    run("vgchange", &["-an", &group]);
    // LVM gives the metadata alone out for repair, read-only; it is overwritten where it lies on the file.
    let start = run(
        "lvs",
        &[
            "-a",
            "--noheadings",
            "-o",
            "seg_pe_ranges",
            &format!("{group}/drover_tmeta"),
        ],
    );
    let (device, extents) = start.trim().split_once(':').unwrap();
    let first: u64 = extents.split('-').next().unwrap().parse().unwrap();
    let before = run(
        "pvs",
        &[
            "--noheadings",
            "--units",
            "b",
            "--nosuffix",
            "-o",
            "pe_start",
            device,
        ],
    );
    let offset = before.trim().parse::<u64>().unwrap() + first * (4 << 20);
    let mut raw = OpenOptions::new().write(true).open(device).unwrap();
    raw.seek(SeekFrom::Start(offset + 4096)).unwrap();
    raw.write_all(&vec![0x5a; 1 << 20]).unwrap();
    raw.sync_all().unwrap();
    let error = open_thin_at(thin_file(lab.folder.path()), lab.folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("lvconvert --repair {group}/drover")),
        "{error}"
    );
    let tables = run("dmsetup", &["table"]);
    assert!(
        !tables.contains(&format!("{devices}-drover_v_")),
        "{tables}"
    );
}
