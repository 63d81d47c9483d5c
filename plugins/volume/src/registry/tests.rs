//! What is told, and what of a URL is.

use super::*;

fn backup(volume: &str, taken_at: u64) -> CatalogueBackup {
    CatalogueBackup {
        volume: volume.parse().unwrap(),
        to: "/backups".to_owned(),
        id: "4f1c02aa".to_owned(),
        by: "one".to_owned(),
        taken_at,
        size: 1,
    }
}

fn of_backups(backups: impl IntoIterator<Item = CatalogueBackup>) -> Listing {
    let backups = backups.into_iter().map(|it| (place(&it), it)).collect();
    Listing {
        backups,
        ..Listing::default()
    }
}

fn listed(backups: impl IntoIterator<Item = CatalogueBackup>) -> Has {
    let backups = backups.into_iter().map(|backup| {
        let forgotten = Vec::new();
        (place(&backup), ListedBackup { backup, forgotten })
    });
    Has {
        backups: backups.collect(),
        ..Has::default()
    }
}

fn volumes(volumes: &[(&str, &str)]) -> BTreeMap<VolumeId, CatalogueVolume> {
    let volumes = volumes.iter().map(|(id, state)| {
        let volume = CatalogueVolume {
            id: id.parse().unwrap(),
            name: "pg".parse().unwrap(),
            backend: drover_model::BackendKind::Btrfs,
            state: (*state).to_owned(),
            size: None,
            created_at: 1,
            snapshots: Vec::new(),
            older_snapshots: 0,
        };
        (volume.id.clone(), volume)
    });
    volumes.collect()
}

#[test]
fn what_differs_is_told_and_nothing_else() {
    let (same, changed) = ("00000000000000aa", "00000000000000bb");
    let (new, gone) = ("00000000000000cc", "00000000000000dd");
    let wanted = Listing {
        volumes: volumes(&[(same, "ready"), (changed, "trashed"), (new, "ready")]),
        ..Listing::default()
    };
    let mut has = Has {
        volumes: volumes(&[(same, "ready"), (changed, "ready"), (gone, "ready")]),
        ..Has::default()
    };
    let told = differences(&wanted, &has).unwrap();
    let ids: Vec<_> = told.volumes.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, [changed, new]);
    assert_eq!(told.gone, [gone.parse().unwrap()]);
    has.volumes.clone_from(&wanted.volumes);
    assert_eq!(differences(&wanted, &has), None);
}

#[test]
fn a_backup_stays_listed_when_its_volume_is_gone_and_gives_way_to_a_later_one() {
    let listed = listed([backup("pg", 5)]);
    assert_eq!(differences(&Listing::default(), &listed), None);
    assert_eq!(differences(&of_backups([backup("pg", 4)]), &listed), None);
    let told = differences(&of_backups([backup("pg", 6)]), &listed).unwrap();
    assert_eq!(told.backups, [backup("pg", 6)]);
}

#[test]
fn the_oldest_backups_are_dropped_but_none_of_a_volume_that_is_there() {
    let count = MOST_BACKUPS as u64 + 2;
    let all = (0..count).map(|number| backup(&format!("v{number}"), number));
    let wanted = of_backups([backup("v0", 0)]);
    let told = differences(&wanted, &listed(all)).unwrap();
    let dropped: Vec<_> = told.dropped.iter().map(|it| it.volume.as_str()).collect();
    assert_eq!(dropped, ["v2", "v1"]);
}

fn with_id(id: &str, taken_at: u64) -> CatalogueBackup {
    CatalogueBackup {
        id: id.to_owned(),
        ..backup("pg", taken_at)
    }
}

fn record(last: &CatalogueBackup) -> VolumeRecord {
    let note = drover_volumes::note::VolumeNote {
        version: 1,
        name: last.volume.clone(),
        options: drover_volumes::VolumeOptions::default(),
        size: None,
        created_at: 1,
        state: VolumeState::Ready,
        paused: false,
    };
    let id = "00000000000000aa".parse().unwrap();
    let mut record = note.record(id, drover_model::BackendKind::Btrfs);
    record.backups.last = Some(LastBackup {
        taken_at: last.taken_at,
        id: last.id.clone(),
        to: last.to.clone(),
        size: last.size,
    });
    record
}

#[test]
fn what_was_forgotten_is_not_told_again_and_is_noted() {
    let (first, second) = (with_id("first", 5), with_id("second", 9));
    let is_forgotten = |backup: &CatalogueBackup, forgotten: &[&str]| {
        let mut has = listed([backup.clone()]);
        for it in has.backups.values_mut() {
            it.forgotten = forgotten.iter().map(ToString::to_string).collect();
        }
        has
    };
    // The first is left.
    let has = is_forgotten(&first, &["second"]);
    assert_eq!(differences(&of_backups([second.clone()]), &has), None);
    let instead = forgotten(&record(&second), &has).unwrap().unwrap();
    assert_eq!((instead.id.as_str(), instead.taken_at), ("first", 5));
    assert_eq!(forgotten(&record(&first), &has), None);
    assert_eq!(differences(&of_backups([first.clone()]), &has), None);
    // None is left: once that is noted, nothing is listed.
    let has = is_forgotten(&second, &["first", "second"]);
    assert_eq!(forgotten(&record(&first), &has), Some(None));
    assert_eq!(differences(&of_backups([second.clone()]), &has), None);
    let told = differences(&Listing::default(), &has).unwrap();
    assert_eq!(told.dropped, [second]);
    // The next one is told, also by a clock that was set back.
    let next = with_id("third", 7);
    let told = differences(&of_backups([next.clone()]), &has).unwrap();
    assert_eq!(told.backups, [next]);
}

#[test]
fn no_secret_of_a_url_is_told() {
    for (url, told) in [
        ("/srv/backups", "/srv/backups"),
        ("s3://bucket/pg", "s3://bucket/pg"),
        ("sftp://joe@host:22/pg", "sftp://joe@host:22/pg"),
        ("sftp://joe:secret@host/pg?key=secret", "sftp://joe@host/pg"),
        ("s3://bucket?secret_access_key=secret", "s3://bucket"),
    ] {
        assert_eq!(without_secret(url), told);
    }
}
