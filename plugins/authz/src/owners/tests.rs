//! The record of owners, without an engine.

use std::fs;

use drover_control_api::owners::{Owned, OwnedKind};

use super::*;

#[test]
fn owners_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owners.json");
    let owners = Owners::load(path.clone());
    owners.note(Kind::Container, "a", "ann");
    owners.note(Kind::Volume, "a", "bob");
    owners.note(Kind::Exec, "e", "ann");
    let owners = Owners::load(path.clone());
    assert_eq!(owners.of(Kind::Container, "a").as_deref(), Some("ann"));
    assert_eq!(owners.of(Kind::Volume, "a").as_deref(), Some("bob"));
    assert_eq!(owners.of(Kind::Exec, "e").as_deref(), Some("ann"));
    assert_eq!(owners.of(Kind::Network, "a"), None);
    owners.forget_gone(Kind::Container, "a", SystemTime::now());
    assert_eq!(owners.of(Kind::Container, "a"), None);
    assert!(owners.of(Kind::Volume, "a").is_some());
}

#[test]
fn every_record_that_cannot_be_read_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owners.json");
    for garbage in ["{", r#"{"version":2,"owners":{}}"#] {
        fs::write(&path, garbage).unwrap();
        assert_eq!(Owners::load(path.clone()).all(), []);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

fn owners() -> (tempfile::TempDir, Owners) {
    let folder = tempfile::tempdir().unwrap();
    let owners = Owners::load(folder.path().join("owners.json"));
    (folder, owners)
}

fn ownership(kind: OwnedKind, id: &str, owner: &str) -> Ownership {
    let owned = Owned {
        kind,
        id: id.to_owned(),
    };
    let owner = owner.to_owned();
    Ownership { owned, owner }
}

#[test]
fn a_name_that_was_taken_anew_is_not_forgotten_by_an_event_from_before() {
    let (_folder, owners) = owners();
    owners.note(Kind::Volume, "data", "ann");
    let between = SystemTime::now();
    owners.note(Kind::Volume, "data", "bob");
    owners.forget_gone(Kind::Volume, "data", between);
    assert_eq!(owners.of(Kind::Volume, "data").as_deref(), Some("bob"));
    owners.forget_gone(Kind::Volume, "data", SystemTime::now());
    assert_eq!(owners.of(Kind::Volume, "data"), None);
    assert_eq!(owners.of_gone(Kind::Volume, "data").as_deref(), Some("bob"));
}

#[test]
fn a_name_is_its_owners_until_its_removal_is_done_and_the_next_makers_then() {
    let (_folder, owners) = owners();
    let of = || owners.of(Kind::Volume, "data");
    owners.claim(Kind::Volume, "data", "ann");
    owners.begin_removal(Kind::Volume, "data");
    assert_eq!(of().as_deref(), Some("ann"), "it is still there");
    owners.end_removal(Kind::Volume, "data");
    assert_eq!(of(), None);
    // The answer to a removal comes behind the next one's claim.
    owners.claim(Kind::Volume, "data", "ann");
    owners.begin_removal(Kind::Volume, "data");
    owners.note(Kind::Volume, "data", "bob");
    owners.end_removal(Kind::Volume, "data");
    assert_eq!(of().as_deref(), Some("bob"));
    // Without an allowed removal nothing is forgotten.
    owners.end_removal(Kind::Volume, "data");
    assert_eq!(of().as_deref(), Some("bob"));
}

#[test]
fn of_two_who_make_something_at_a_time_the_first_has_it() {
    let (_folder, owners) = owners();
    owners.claim(Kind::Volume, "data", "ann");
    owners.claim(Kind::Volume, "data", "bob");
    assert_eq!(owners.of(Kind::Volume, "data").as_deref(), Some("ann"));
}

#[test]
fn the_registry_is_believed_when_nothing_is_on_the_disk_and_about_copies() {
    let (folder, owners) = owners();
    let recorded = [ownership(OwnedKind::Container, "a", "ann")];
    let copies = [ownership(OwnedKind::Network, "n", "bob")];
    owners.heard(&recorded, &[]);
    assert_eq!(owners.all(), recorded);
    let owners = Owners::load(folder.path().join("owners.json"));
    owners.forget_gone(Kind::Container, "a", SystemTime::now());
    // What the registry has not forgotten yet does not come back.
    owners.heard(&recorded, &copies);
    assert_eq!(owners.all(), copies);
}

/// What an engine lists, asked at that time.
fn observed<'a>(
    data: &'a str,
    asked: SystemTime,
    containers: &[&'a str],
    volumes: &[(&'a str, &'a str)],
) -> Observed<'a> {
    let containers = containers.iter().map(|id| (*id, "")).collect();
    let volumes = volumes.iter().copied().collect();
    let listed = |there| Listed { asked, there };
    Observed {
        data: Some(data),
        listed: HashMap::from([
            (Kind::Container, listed(containers)),
            (Kind::Volume, listed(volumes)),
        ]),
    }
}

fn later(than: SystemTime, seconds: u64) -> SystemTime {
    than + Duration::from_secs(seconds)
}

/// What is said of whose things are, after a start of the plugin.
fn loaded_anew(folder: &tempfile::TempDir) -> Owners {
    Owners::load(folder.path().join("owners.json"))
}

#[test]
fn what_the_engine_has_no_more_is_nobodys() {
    let (folder, owners) = owners();
    owners.note(Kind::Container, "stays", "ann");
    owners.note(Kind::Container, "goes", "ann");
    owners.note(Kind::Network, "unlisted", "ann");
    for volume in ["stays", "goes", "other", "unanswered"] {
        owners.note(Kind::Volume, volume, "ann");
    }
    let volumes = [
        ("stays", "local"),
        ("goes", "local"),
        ("other", "nfs"),
        ("unanswered", "nfs"),
    ];
    let now = SystemTime::now();
    owners.reconcile(&observed("d", later(now, 1), &["stays", "goes"], &volumes));
    assert_eq!(owners.all().len(), 7);

    let owners = loaded_anew(&folder);
    let asked = later(owners.written(), 1000);
    owners.reconcile(&observed("d", asked, &["stays"], &[("stays", "local")]));
    let of = |kind, id: &str| owners.of(kind, id).is_some();
    assert!(of(Kind::Container, "stays") && !of(Kind::Container, "goes"));
    assert!(of(Kind::Network, "unlisted"), "nothing was said of these");
    assert!(of(Kind::Volume, "stays") && !of(Kind::Volume, "goes"));
    // Its plugin does not answer, about any.
    assert!(of(Kind::Volume, "unanswered") && of(Kind::Volume, "other"));
    let volumes = [("stays", "local"), ("other", "nfs")];
    owners.reconcile(&observed("d", asked, &["stays"], &volumes));
    assert!(of(Kind::Volume, "other") && !of(Kind::Volume, "unanswered"));
    assert_eq!(loaded_anew(&folder).all(), owners.all());
}

#[test]
fn what_is_being_made_while_the_engine_is_asked_is_not_forgotten() {
    let (folder, owners) = owners();
    let before = SystemTime::now();
    owners.note(Kind::Container, "new", "ann");
    owners.reconcile(&observed("d", before, &[], &[("again", "local")]));
    assert!(owners.of(Kind::Container, "new").is_some());
    // A volume is claimed before it is there: by this process, or by one that ended just then.
    owners.claim(Kind::Volume, "again", "ann");
    owners.reconcile(&observed("d", before, &["new"], &[("again", "local")]));
    let is_kept = |owners: &Owners, seconds| {
        let asked = later(before, seconds);
        owners.reconcile(&observed("d", asked, &["new"], &[]));
        owners.of(Kind::Volume, "again").is_some()
    };
    assert!(is_kept(&owners, 100));
    let owners = loaded_anew(&folder);
    assert!(is_kept(&owners, 100));
    assert!(!is_kept(&owners, 1000));
}

#[test]
fn a_volume_that_was_made_beside_the_plugin_is_not_its_earlier_makers() {
    let (_folder, owners) = owners();
    owners.claim(Kind::Volume, "data", "ann");
    let of = || owners.of(Kind::Volume, "data").is_some();
    let now = SystemTime::now();
    owners.forget_earlier("data", later(now, 100));
    assert!(of(), "that was the engine, on behalf of ann");
    owners.forget_earlier("data", later(now, 1000));
    assert!(!of());
}

#[test]
fn owners_of_what_another_data_folder_had_are_set_aside() {
    let (folder, owners) = owners();
    owners.note(Kind::Container, "a", "ann");
    let now = SystemTime::now();
    owners.reconcile(&observed("first", later(now, 1), &["a"], &[]));
    owners.reconcile(&observed("second", later(now, 2), &["a"], &[]));
    let files = || {
        let files = fs::read_dir(folder.path()).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| !path.ends_with("owners.json"))
            .collect::<Vec<_>>()
    };
    assert_eq!(files(), [] as [PathBuf; 0], "its networks were made anew");
    owners.reconcile(&observed("third", later(now, 3), &[], &[]));
    assert_eq!(owners.all(), []);
    let [aside] = files().try_into().unwrap();
    fs::rename(aside, folder.path().join("owners.json")).unwrap();
    let owner = loaded_anew(&folder).of(Kind::Container, "a");
    assert_eq!(owner.as_deref(), Some("ann"));
}
