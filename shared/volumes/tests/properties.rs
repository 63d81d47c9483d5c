//! What holds for every schedule, every retention and every order of `Mount` and `Unmount`.

use std::collections::{BTreeMap, BTreeSet};

use drover_volumes::VolumeOptions;
use drover_volumes::holds::{Holds, STARTING, Users, Verdict};
use drover_volumes::retention::Keep;
use drover_volumes::schedule::Schedule;
use proptest::prelude::*;

fn keep() -> impl Strategy<Value = Keep> {
    let number = 0..6_u32;
    (
        number.clone(),
        number.clone(),
        number.clone(),
        number.clone(),
        number.clone(),
        number,
    )
        .prop_map(|(last, hours, days, weeks, months, years)| Keep {
            last,
            hours,
            days,
            weeks,
            months,
            years,
        })
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let minute = 0..1440_u16;
    prop_oneof![
        (60..400_000_u32).prop_map(Schedule::Every),
        minute.clone().prop_map(Schedule::Daily),
        (0..7_u8, minute.clone()).prop_map(|(day, minute)| Schedule::Weekly(day, minute)),
        minute.prop_map(Schedule::Monthly),
    ]
}

/// Some year or other between 1990 and 2096.
const TIMES: std::ops::Range<u64> = 631_152_000..4_000_000_000;

proptest! {
    #[test]
    fn retention_keeps_the_newest_and_no_more_than_asked(
        keep in keep(),
        taken in prop::collection::btree_set(TIMES, 0..60),
    ) {
        let expired = keep.expired(&taken);
        prop_assert!(expired.is_subset(&taken));
        let kept: BTreeSet<u64> = taken.difference(&expired).copied().collect();
        prop_assert!(taken.last().is_none_or(|newest| kept.contains(newest)));
        let asked = keep.last + keep.hours + keep.days + keep.weeks + keep.months + keep.years;
        prop_assert!(kept.len() <= (asked as usize).max(1));
        // Asked again, nothing more goes.
        prop_assert!(keep.expired(&kept).is_empty());
    }

    #[test]
    fn one_more_snapshot_brings_back_none(
        keep in keep(),
        taken in prop::collection::btree_set(TIMES, 1..40),
    ) {
        let newest = taken.last().copied().unwrap_or_default();
        let expired = keep.expired(&taken);
        let mut more = taken.clone();
        more.insert(newest + 7200);
        // What was not worth keeping is not worth it later.
        prop_assert!(expired.is_subset(&keep.expired(&more)));
    }

    #[test]
    fn a_schedule_is_due_once_a_moment(
        schedule in schedule(),
        seed in "[0-9a-f]{16}",
        now in TIMES,
        wait in 1..10_000_000_u64,
    ) {
        let jitter = schedule.jitter(&seed);
        let next = schedule.next(jitter, now);
        prop_assert!(next > now);
        prop_assert!(!schedule.is_due(jitter, now, next - 1));
        prop_assert!(schedule.is_due(jitter, now, next));
        prop_assert!(!schedule.is_due(jitter, next, next));
        // However long nobody looked, one run is enough.
        let late = next + wait;
        prop_assert!(schedule.is_due(jitter, now, late));
        prop_assert!(!schedule.is_due(jitter, late, late));
    }

    #[test]
    fn what_is_written_of_a_schedule_reads_as_the_same(schedule in schedule()) {
        let Schedule::Every(period) = schedule else {
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
            return Ok(());
        };
        let whole = Schedule::Every(period / 60 * 60);
        prop_assert_eq!(whole.to_string().parse(), Ok(whole));
    }

    #[test]
    fn what_is_written_of_keep_reads_as_the_same(keep in keep()) {
        prop_assume!(keep != Keep::default());
        prop_assert_eq!(keep.to_string().parse(), Ok(keep));
    }

    #[test]
    fn holds_balance_in_any_order_and_nothing_is_detached_under_a_container(
        calls in prop::collection::vec((0..3_u8, any::<bool>()), 0..40),
    ) {
        let mut holds = Holds::default();
        let mut counts = BTreeMap::<u8, u32>::new();
        for (now, (id, mount)) in calls.into_iter().enumerate() {
            let count = counts.entry(id).or_default();
            if mount {
                holds.take(&id.to_string(), now as u64);
                *count += 1;
            } else {
                holds.give_back(&id.to_string());
                *count = count.saturating_sub(1);
            }
            let held = counts.values().filter(|count| **count > 0).count();
            prop_assert_eq!(holds.len(), held);
            let now = now as u64 + STARTING;
            prop_assert_eq!(holds.verdict(Users::Some, now), Verdict::Wait);
            prop_assert_eq!(holds.verdict(Users::Unknown, now), Verdict::Wait);
        }
        prop_assert_eq!(holds.verdict(Users::None, 40 + STARTING), Verdict::Detach);
    }

    #[test]
    fn no_options_make_the_reader_fall_over(
        given in prop::collection::btree_map("[a-z-]{0,20}", "\\PC{0,40}", 0..8),
    ) {
        if let Err(faults) = VolumeOptions::parse(&given) {
            prop_assert!(!faults.faults().is_empty());
        }
    }
}
