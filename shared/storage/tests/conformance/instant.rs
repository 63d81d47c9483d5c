//! One instant for several volumes, while they are written to.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use drover_storage::Object;

use super::lab::{Lab, snapshot};

/// How many volumes.
const VOLUMES: u64 = 4;
/// How many times.
const ROUNDS: u64 = 5;

/// A writer writes one number after the other, to the volumes in turn, each synced before the next is written. Snapshots
/// of one instant then hold numbers that differ by at most one, in the order of writing.
pub(crate) fn several_volumes_are_snapshotted_at_one_instant(lab: &Lab) {
    if !lab.has_snapshots() {
        return;
    }
    let places: Vec<PathBuf> = (0..VOLUMES).map(|number| lab.make(number)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| write_in_turn(&places, &stop));
        let written = || fs::metadata(places[3].join("log")).is_ok_and(|it| it.len() > 0);
        while !written() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let outcomes: Vec<_> = (1..=ROUNDS)
            .map(|round| {
                let all: Vec<_> = (0..VOLUMES).map(|it| snapshot(it, round)).collect();
                lab.backend.snapshot(&all)
            })
            .collect();
        // Before anything is asserted: the writer stops only then.
        stop.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(Result::unwrap);
    });
    for round in 1..=ROUNDS {
        let lengths: Vec<u64> = (0..VOLUMES)
            .map(|number| {
                let object = Object::from(snapshot(number, round));
                fs::metadata(lab.attach(&object).join("log")).unwrap().len()
            })
            .collect();
        assert!(lengths[0] > 0, "{lengths:?}");
        let in_order = lengths.is_sorted_by(|earlier, later| earlier >= later);
        assert!(
            in_order,
            "round {round}: a later write without an earlier: {lengths:?}"
        );
        assert!(lengths[0] - lengths[3] <= 1, "round {round}: {lengths:?}");
    }
}

/// A byte to each in turn.
fn write_in_turn(places: &[PathBuf], stop: &AtomicBool) {
    let mut logs: Vec<_> = places
        .iter()
        .map(|place| {
            let options = OpenOptions::new().append(true).create(true).to_owned();
            options.open(place.join("log")).unwrap()
        })
        .collect();
    while !stop.load(Ordering::Relaxed) {
        for log in &mut logs {
            log.write_all(b"x").unwrap();
            log.sync_data().unwrap();
        }
    }
}
