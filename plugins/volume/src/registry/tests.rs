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

fn of_volumes(volumes: &[(&str, &str)]) -> Listing {
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
    Listing {
        volumes: volumes.collect(),
        ..Listing::default()
    }
}

#[test]
fn what_differs_is_told_and_nothing_else() {
    let (same, changed) = ("00000000000000aa", "00000000000000bb");
    let (new, gone) = ("00000000000000cc", "00000000000000dd");
    let wanted = of_volumes(&[(same, "ready"), (changed, "trashed"), (new, "ready")]);
    let has = of_volumes(&[(same, "ready"), (changed, "ready"), (gone, "ready")]);
    let told = differences(&wanted, &has).unwrap();
    let ids: Vec<_> = told.volumes.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, [changed, new]);
    assert_eq!(told.gone, [gone.parse().unwrap()]);
    assert_eq!(differences(&wanted, &wanted), None);
}

#[test]
fn a_backup_stays_listed_when_its_volume_is_gone_and_gives_way_to_a_later_one() {
    let listed = of_backups([backup("pg", 5)]);
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
    let told = differences(&wanted, &of_backups(all)).unwrap();
    let dropped: Vec<_> = told.dropped.iter().map(|it| it.volume.as_str()).collect();
    assert_eq!(dropped, ["v2", "v1"]);
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
