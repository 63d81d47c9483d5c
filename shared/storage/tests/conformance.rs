//! What every backend does, and what each does that others do not.
//!
//! Each test has a mount namespace of its own: what is mounted in it goes when it ends, however it ends.
#![cfg(test)]

#[path = "conformance/instant.rs"]
mod instant;
#[path = "conformance/lab.rs"]
mod lab;
#[path = "conformance/limits.rs"]
mod limits;
#[path = "conformance/snapshots.rs"]
mod snapshots;
#[path = "conformance/thin.rs"]
mod thin;
#[path = "conformance/volumes.rs"]
mod volumes;

use lab::{Lab, each};

macro_rules! suite {
    ($($module:ident: $($test:ident),+ $(,)?;)+) => {
        $($(
            #[test]
            fn $test() {
                each($module::$test);
            }
        )+)+
    };
}

suite! {
    volumes:
        a_volume_is_empty_until_something_is_written_and_gone_when_it_is_removed,
        everything_may_be_asked_for_twice,
        what_was_begun_and_not_finished_is_tidied_away,
        a_volume_that_is_attached_is_not_removed,
        a_read_only_volume_is_one,
        what_is_attached_is_found_again_by_another_process,
        another_mount_in_the_way_is_left_alone,
        a_note_stays_beside_its_object_and_goes_with_it;
    snapshots:
        a_snapshot_keeps_what_was_there,
        a_clone_is_a_volume_of_its_own,
        a_rollback_brings_back_what_a_snapshot_kept,
        a_volume_is_there_while_it_is_rolled_back,
        a_snapshot_outlives_its_volume,
        what_differs_is_told_by_path,
        what_is_not_there_is_not_snapshotted;
    instant:
        several_volumes_are_snapshotted_at_one_instant;
    limits:
        a_volume_with_a_limit_holds_no_more,
        a_limit_grows_while_containers_write,
        a_limit_survives_a_rollback,
        a_full_pool_refuses_and_keeps_what_there_is;
}

/// A backend that cannot do something says which can.
#[test]
fn a_directory_says_what_it_cannot_do() {
    let lab = Lab::directory();
    limits::a_directory_refuses_in_words(&lab);
}

#[test]
fn a_loop_file_that_is_gone_is_told_and_never_made_anew_over_what_is_mounted() {
    let Some(lab) = Lab::btrfs() else { return };
    limits::a_missing_loop_file_is_told(&lab);
}

#[test]
fn a_loop_file_grows_when_the_setting_does() {
    let Some(lab) = Lab::btrfs() else { return };
    limits::a_loop_file_grows(&lab);
}

/// Tests of thin pools alone.
macro_rules! of_thin_pools {
    ($($test:ident),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                if let Some(lab) = Lab::thin() {
                    thin::$test(&lab);
                }
            }
        )+
    };
}

of_thin_pools! {
    what_a_kill_left_of_a_volume_is_tidied_away,
    the_changes_of_a_snapshot_are_those_of_its_device,
    xfs_and_its_clone_are_mounted_side_by_side,
    what_cannot_be_made_is_refused_in_words,
    a_process_for_lvm_that_dies_is_started_anew,
    a_pool_is_found_again_after_a_reboot,
    a_pool_that_there_is_is_used,
    a_file_on_a_small_disk_counts_what_the_disk_has,
    damaged_metadata_is_told_with_the_remedy,
}

#[test]
fn without_device_mapper_there_is_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    match drover_storage::missing_for_thin() {
        None => {}
        Some(reason) => {
            let error =
                lab::open_thin_at(lab::thin_file(folder.path()), folder.path()).unwrap_err();
            assert_eq!(error.to_string(), reason);
            assert!(
                reason.contains("use the backend") || reason.contains("install"),
                "{reason}"
            );
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
