//! Metadata that `thin_restore` has made: what we find in it is what `thin_delta` finds, and after a bit of the file is
//! flipped, it is the same or an error.
#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the programs work on files"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use drover_thin_metadata::{Change, ChangeKind, DeviceId, Error, Pool, View};
use tempfile::TempDir;

const OLD: DeviceId = DeviceId(1);
const NEW: DeviceId = DeviceId(7);
const DATA_BLOCKS: u64 = 1 << 20;

/// Runs one of the programs of Debian's package `thin-provisioning-tools`.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}: the package thin-provisioning-tools is needed")
        });
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The metadata of a pool in a file.
struct Made {
    _folder: TempDir,
    path: PathBuf,
}

/// A pool with these devices, in the words of `thin_dump`.
fn made(devices: &[(DeviceId, &BTreeMap<u64, u64>)]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!(
        r#"<superblock uuid="" time="2" transaction="3" flags="0" version="2" data_block_size="128" nr_data_blocks="{DATA_BLOCKS}">"#
    );
    for (device, mappings) in devices {
        let count = mappings.len();
        writeln!(
            text,
            r#"<device dev_id="{device}" mapped_blocks="{count}" transaction="1" creation_time="0" snap_time="2">"#
        )
        .unwrap();
        for (from, to) in *mappings {
            let time = from % 3;
            writeln!(
                text,
                r#"<single_mapping origin_block="{from}" data_block="{to}" time="{time}"/>"#
            )
            .unwrap();
        }
        text.push_str("</device>\n");
    }
    text.push_str("</superblock>\n");
    let (xml, path) = (folder.path().join("xml"), folder.path().join("metadata"));
    std::fs::write(&xml, text).unwrap();
    File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let (input, output) = (xml.to_str().unwrap(), path.to_str().unwrap());
    tool("thin_restore", &["-q", "-i", input, "-o", output]);
    Made {
        _folder: folder,
        path,
    }
}

/// Mappings of random runs, some of them contiguous.
fn random(random: &mut fastrand::Rng, mappings: &mut BTreeMap<u64, u64>, next: &mut u64) {
    for _ in 0..random.usize(1..60) {
        let (start, length) = (random.u64(0..20_000), random.u64(1..200));
        for block in start..start + length {
            if random.u8(0..10) == 0 {
                mappings.remove(&block);
            } else {
                mappings.insert(block, *next);
                *next += 1;
            }
        }
    }
}

fn ours(path: &Path) -> Result<Vec<Change>, Error> {
    let mut pool = Pool::open(File::open(path).unwrap(), View::Committed)?;
    pool.devices()?;
    pool.changes(Some(OLD), NEW)?.collect()
}

/// The number in an attribute of a line of XML.
fn attribute(line: &str, name: &str) -> u64 {
    let (_, after) = line.split_once(&format!("{name}=\"")).unwrap();
    after.split_once('"').unwrap().0.parse().unwrap()
}

/// What `thin_delta` says, in our words.
fn theirs(path: &Path) -> Vec<Change> {
    let (old, new) = (OLD.to_string(), NEW.to_string());
    let path = path.to_str().unwrap();
    let said = tool("thin_delta", &["--snap1", &old, "--snap2", &new, path]);
    let mut changes = Vec::new();
    for line in said.lines().map(str::trim) {
        let kind = match line.split_whitespace().next() {
            Some("<different") => ChangeKind::Changed,
            Some("<left_only") => ChangeKind::Removed,
            Some("<right_only") => ChangeKind::Added,
            _ => continue,
        };
        let begin = attribute(line, "begin");
        changes.push(Change {
            blocks: begin..begin + attribute(line, "length"),
            kind,
        });
    }
    changes
}

#[test]
fn thin_delta_finds_the_same() {
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut old, mut next) = (BTreeMap::new(), 0);
        random(&mut rng, &mut old, &mut next);
        let mut new = if seed % 4 == 3 {
            BTreeMap::new()
        } else {
            old.clone()
        };
        random(&mut rng, &mut new, &mut next);
        let pool = made(&[(OLD, &old), (DeviceId(3), &BTreeMap::new()), (NEW, &new)]);
        let (ours, theirs) = (ours(&pool.path).unwrap(), theirs(&pool.path));
        assert!(!ours.is_empty());
        assert_eq!(ours, theirs, "seed {seed}");
    }
}

#[test]
fn what_the_superblock_tells() {
    let mappings: BTreeMap<u64, u64> = (0..1000).map(|block| (block * 2, block)).collect();
    let pool = made(&[(OLD, &mappings)]);
    let mut pool = Pool::open(File::open(&pool.path).unwrap(), View::Committed).unwrap();
    let superblock = pool.superblock();
    assert_eq!(superblock.data_block_size, 64 << 10);
    assert_eq!((superblock.time, superblock.transaction), (2, 3));
    assert_eq!(
        (superblock.data.allocated, superblock.data.blocks),
        (1000, DATA_BLOCKS)
    );
    assert_eq!(superblock.metadata.blocks, (16 << 20) / 4096);
    assert!(!superblock.needs_check && superblock.snapshot.is_none());
    let device = pool.devices().unwrap()[0];
    assert_eq!((device.id, device.mapped_blocks), (OLD, 1000));
    assert_eq!(
        (device.transaction, device.created, device.snapshotted),
        (1, 0, 2)
    );
}

#[test]
fn a_flipped_bit_of_the_file_is_seen_or_does_not_matter() {
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut old, mut next) = (BTreeMap::new(), 0);
    random(&mut rng, &mut old, &mut next);
    let mut new = old.clone();
    random(&mut rng, &mut new, &mut next);
    let pool = made(&[(OLD, &old), (NEW, &new)]);
    let right = ours(&pool.path).unwrap();
    let good = std::fs::read(&pool.path).unwrap();
    // What lies behind the last block that was written is not worth a try.
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut seen = 0;
    for _ in 0..400 {
        let mut bad = good.clone();
        bad[rng.usize(0..used)] ^= 1 << rng.u8(0..8);
        let mut file = File::create(&pool.path).unwrap();
        file.write_all(&bad[..used]).unwrap();
        file.set_len(16 << 20).unwrap();
        match ours(&pool.path) {
            Ok(changes) => assert_eq!(changes, right),
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen} of 400 were seen");
}
