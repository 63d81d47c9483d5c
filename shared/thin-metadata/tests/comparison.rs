//! Random pools, made block by block as the kernel would, with shared nodes: the changes are those that a comparison of
//! all mappings finds, shared nodes are not read, and nothing that can be done to a block ends in a panic.
#![cfg(test)]

#[path = "comparison/image.rs"]
mod image;

use std::collections::BTreeMap;

use drover_thin_metadata::{ChangeKind, DeviceId, Error, Fault, Pool, View};
use image::{Image, Mappings};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

const OLD: DeviceId = DeviceId(1);
const NEW: DeviceId = DeviceId(2);
/// Fewer than the kernel's 252, so that small pools have several levels.
const CAPACITIES: std::ops::Range<usize> = 3..12;

/// What a comparison of all mappings finds, block by block.
fn expected(old: &Mappings, new: &Mappings) -> BTreeMap<u64, ChangeKind> {
    let mut changes = BTreeMap::new();
    for (key, value) in new {
        match old.get(key) {
            None => changes.insert(*key, ChangeKind::Added),
            Some(was) if was != value => changes.insert(*key, ChangeKind::Changed),
            Some(_) => None,
        };
    }
    let removed = old.keys().filter(|key| !new.contains_key(key));
    changes.extend(removed.map(|key| (*key, ChangeKind::Removed)));
    changes
}

/// What the crate finds, block by block.
fn found(image: &Image, old: Option<DeviceId>) -> Result<BTreeMap<u64, ChangeKind>, Error> {
    let mut pool = Pool::open(image.reader(), View::Committed)?;
    let mut blocks = BTreeMap::new();
    let mut end = 0;
    for change in pool.changes(old, NEW)? {
        let change = change?;
        assert!(change.blocks.start >= end && change.blocks.start < change.blocks.end);
        end = change.blocks.end;
        blocks.extend(change.blocks.map(|block| (block, change.kind)));
    }
    Ok(blocks)
}

fn mappings() -> impl Strategy<Value = Mappings> {
    btree_map(0..400_u64, 0..5_000_u64, 0..200)
}

/// Blocks that are written (with what), or discarded.
fn writes() -> impl Strategy<Value = Vec<(u64, Option<u64>)>> {
    vec(
        (
            0..500_u64,
            proptest::option::weighted(0.8, 5_000..9_999_u64),
        ),
        0..30,
    )
}

/// A pool with a volume and its snapshot, in which the volume was written to since.
fn written(capacity: usize, old: &Mappings, writes: &[(u64, Option<u64>)]) -> (Image, Mappings) {
    let mut image = Image::new(capacity);
    let root = image.tree(old);
    let (mut new, mut new_root) = (old.clone(), root);
    for (key, value) in writes {
        match value {
            Some(value) => {
                new.insert(*key, *value);
                new_root = image.insert(new_root, *key, *value);
            }
            None => {
                new.remove(key);
                new_root = image.remove(new_root, *key);
            }
        }
    }
    image.commit(&[(OLD.0, root, old.len()), (NEW.0, new_root, new.len())]);
    (image, new)
}

proptest! {
    #[test]
    fn unrelated_devices(capacity in CAPACITIES, old in mappings(), new in mappings()) {
        let mut image = Image::new(capacity);
        let (old_root, new_root) = (image.tree(&old), image.tree(&new));
        image.commit(&[(OLD.0, old_root, old.len()), (NEW.0, new_root, new.len())]);
        prop_assert_eq!(found(&image, Some(OLD)).unwrap(), expected(&old, &new));
        prop_assert_eq!(found(&image, None).unwrap(), expected(&Mappings::new(), &new));
        let devices = Pool::open(image.reader(), View::Committed).unwrap().devices().unwrap();
        let counts: Vec<_> = devices.iter().map(|device| (device.id, device.mapped_blocks)).collect();
        prop_assert_eq!(counts, vec![(OLD, old.len() as u64), (NEW, new.len() as u64)]);
    }

    #[test]
    fn a_volume_and_its_snapshot(
        capacity in CAPACITIES, old in mappings(), writes in writes(),
    ) {
        let (image, new) = written(capacity, &old, &writes);
        prop_assert_eq!(found(&image, Some(OLD)).unwrap(), expected(&old, &new));
        prop_assert_eq!(found(&image, None).unwrap(), expected(&Mappings::new(), &new));
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_in_what_was_not_read(
        old in mappings(), writes in writes(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let (mut image, new) = written(4, &old, &writes);
        let byte = at.index(image.bytes.len());
        image.bytes[byte] ^= 1 << bit;
        match found(&image, Some(OLD)) {
            Ok(changes) => prop_assert_eq!(changes, expected(&old, &new)),
            Err(error) => prop_assert!(error.is_damage(), "{}", error),
        }
    }

    /// With a checksum that is right, so that only the content can give it away.
    #[test]
    fn forged_blocks_end_in_an_answer(
        old in mappings(), writes in writes(),
        forgeries in vec((any::<prop::sample::Index>(), 0..512_usize, any::<u64>(), 0..64_u32), 1..8),
    ) {
        let (mut image, _) = written(4, &old, &writes);
        let blocks = image.bytes.len() / 4096;
        for (block, word, value, shift) in forgeries {
            // Small numbers, and those in headers, do most harm.
            let word = if shift < 32 { word % 20 } else { word };
            image.forge(block.index(blocks), word * 8, value >> shift);
        }
        let reader = image.reader();
        let reads = reader.reads.clone();
        if let Ok(mut pool) = Pool::open(reader, View::Committed) {
            let _devices = pool.devices();
            if let Ok(changes) = pool.changes(Some(OLD), NEW) {
                let _count = changes.filter_map(Result::ok).count();
            }
        }
        prop_assert!(reads.get() < 4 * blocks + 300, "{} reads of {} blocks", reads.get(), blocks);
    }

    #[test]
    fn garbage_is_no_pool(bytes in vec(any::<u8>(), 0..8192)) {
        let reader = std::io::Cursor::new(bytes);
        prop_assert!(Pool::open(reader, View::Committed).is_err());
    }
}

#[test]
fn what_is_shared_is_not_read() {
    let old: Mappings = (0..250_000).map(|block| (block, block)).collect();
    let (image, new) = written(252, &old, &[(7, Some(300_000)), (123_456, Some(300_001))]);
    let reader = image.reader();
    let reads = reader.reads.clone();
    let mut pool = Pool::open(reader, View::Committed).unwrap();
    let changes: Vec<_> = pool
        .changes(Some(OLD), NEW)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(changes.len(), expected(&old, &new).len());
    assert!(reads.get() < 20, "{} reads", reads.get());
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let (image, _) = written(4, &Mappings::new(), &[]);
    let mut pool = Pool::open(image.reader(), View::Committed).unwrap();
    let error = pool.changes(Some(DeviceId(9)), NEW).err().unwrap();
    assert_eq!(error.to_string(), "the pool has no thin device 9");
}

#[test]
fn a_snapshot_of_the_metadata_is_read_when_there_is_one() {
    let (mut image, _) = written(4, &Mappings::from([(1, 1)]), &[(2, Some(2))]);
    let error = Pool::open(image.reader(), View::Snapshot).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the pool holds no snapshot of its metadata"
    );

    image.reserve_snapshot();
    let root = image.tree(&Mappings::new());
    image.commit(&[(NEW.0, root, 0)]);
    let mut pool = Pool::open(image.reader(), View::Snapshot).unwrap();
    assert_eq!(pool.devices().unwrap().len(), 2);
    let changes: Vec<_> = pool
        .changes(Some(OLD), NEW)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].blocks, 2..3);
}

#[test]
fn a_mapping_to_nowhere_is_damage() {
    let (image, _) = written(4, &Mappings::from([(1, 50_000)]), &[]);
    let error = found(&image, None).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Damaged {
                fault: Fault::DataBlock {
                    to: 50_000,
                    blocks: 10_000
                },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_version_from_the_future_is_not_guessed_at() {
    let (mut image, _) = written(4, &Mappings::new(), &[]);
    image.forge(0, 40, 3);
    let error = Pool::open(image.reader(), View::Committed).err().unwrap();
    assert!(
        matches!(
            error,
            Error::Unknown {
                version: 3,
                features: 0
            }
        ),
        "{error}"
    );
    assert!(!error.is_damage());
}
