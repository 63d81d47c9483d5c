//! What a listener is told, and what a question is answered.

use super::*;

const VOLUME: &str = r#"{"version":1,"id":"00000000000000aa","name":"pg","backend":"btrfs","state":"ready","size":null,"created_at":7,"snapshots":[]}"#;

fn backup_entry(host: &str, to: &str, revision: u64) -> Entry {
    let listed = listed(to);
    Entry {
        key: backup_key(&host.parse().unwrap(), &listed.backup),
        value: serde_json::to_vec(&super::backup_entry(listed)).unwrap(),
        revision,
    }
}

fn listed(to: &str) -> ListedBackup {
    let backup = CatalogueBackup {
        volume: "pg".parse().unwrap(),
        to: to.to_owned(),
        id: "4f1c02aa".to_owned(),
        by: "one".to_owned(),
        taken_at: 9,
        size: 10,
    };
    ListedBackup {
        backup,
        forgotten: Vec::new(),
    }
}

fn entry(key: &str, value: &str, revision: u64) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        revision,
    }
}

fn words(events: Vec<CatalogueEvent>) -> String {
    let words = events.into_iter().map(|event| match event {
        CatalogueEvent::Reset => "reset".to_owned(),
        CatalogueEvent::Volume(volume) => volume.name.to_string(),
        CatalogueEvent::VolumeGone { id } => format!("-{id}"),
        CatalogueEvent::Backup(listed) => listed.backup.to,
        CatalogueEvent::Synced => "synced".to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_listener_is_told_all_and_then_what_changes() {
    let mut teller = Teller {
        host: "one".parse().unwrap(),
        told: None,
    };
    let mut told = |entries: &[Entry]| words(teller.news(&Snapshot::of(entries.to_vec())));
    let volume = entry("volumes/one/00000000000000aa", VOLUME, 1);
    let elsewhere = entry("volumes/two/00000000000000bb", VOLUME, 1);
    assert_eq!(told(&[]), "reset synced");
    assert_eq!(told(std::slice::from_ref(&elsewhere)), "");
    let mut all = vec![volume, elsewhere, backup_entry("one", "/first", 2)];
    assert_eq!(told(&all), "/first pg synced");
    assert_eq!(told(&all), "");
    all.push(backup_entry("one", "/second", 3));
    assert_eq!(told(&all), "/second synced");
    all.remove(0);
    assert_eq!(told(&all), "-00000000000000aa synced");
    all.pop();
    assert_eq!(told(&all), "reset /first synced");
}

#[test]
fn a_host_that_is_away_or_removed_is_said_to_be() {
    let entries = vec![
        entry("hosts/away", "{}", 1),
        entry("hosts/there", "{}", 1),
        entry("alive/there", "{}", 1),
        entry("volumes/own/00000000000000aa", VOLUME, 1),
        entry("volumes/away/00000000000000aa", VOLUME, 1),
        entry("volumes/there/00000000000000aa", VOLUME, 1),
        backup_entry("removed", "/there", 2),
        entry("volumes/broken/00000000000000aa", "{}", 1),
    ];
    let own = "own".parse().unwrap();
    let asked = |name: &str| Catalogue {
        volume: Some(name.parse().unwrap()),
    };
    let snapshot = Snapshot::of(entries);
    let found = rows(&snapshot, &own, &asked("pg"));
    let hosts = found
        .volumes
        .iter()
        .map(|it| (it.host.as_str(), it.presence));
    assert_eq!(
        hosts.collect::<Vec<_>>(),
        [
            ("away", Presence::Away),
            ("own", Presence::Present),
            ("there", Presence::Present)
        ]
    );
    let backup = found.backups.first().unwrap();
    assert_eq!(backup.presence, Presence::Removed);
    assert_eq!(
        rows(&snapshot, &own, &asked("other")),
        CatalogueTable::default()
    );
    assert_eq!(rows(&snapshot, &own, &Catalogue::default()), found);
}

#[test]
fn what_is_forgotten_gives_way_to_what_is_left() {
    let was = listed("/b");
    let left = CatalogueBackup {
        id: "00000000".to_owned(),
        taken_at: 5,
        ..was.backup.clone()
    };
    let now = corrected(was.clone(), Some(&left), true).unwrap();
    assert_eq!(now.backup, left);
    assert_eq!(now.forgotten, ["4f1c02aa"]);
    assert!(!now.is_gone());
    // Its host was away all the while, and knows the first only.
    let now = corrected(now, None, true).unwrap();
    assert_eq!(now.forgotten, ["4f1c02aa", "00000000"]);
    assert!(now.is_gone());
    // Nobody is left to take note.
    assert_eq!(corrected(was.clone(), None, false), None);
    let now = corrected(was, Some(&left), false).unwrap();
    assert_eq!((now.backup, now.forgotten), (left, Vec::new()));
}

#[test]
fn a_backup_that_is_gone_is_in_no_table_and_its_host_hears_of_it() {
    let gone = corrected(listed("/b"), None, true).unwrap();
    let entry = Entry {
        value: serde_json::to_vec(&super::backup_entry(gone.clone())).unwrap(),
        ..backup_entry("one", "/b", 1)
    };
    let snapshot = Snapshot::of(vec![entry, entry_of_host("one")]);
    let own = "one".parse().unwrap();
    let table = rows(&snapshot, &own, &Catalogue::default());
    assert_eq!(table, CatalogueTable::default());
    let mut teller = Teller {
        host: own,
        told: None,
    };
    let events = teller.news(&snapshot);
    assert!(events.contains(&CatalogueEvent::Backup(gone)), "{events:?}");
}

fn entry_of_host(host: &str) -> Entry {
    entry(&format!("hosts/{host}"), "{}", 1)
}

/// What is of other volumes is not even decoded.
#[test]
fn of_one_name_only_its_records_are_read() {
    let other = VOLUME.replace("\"pg\"", "\"pg-2\"");
    let named = VOLUME.replace("[]", r#"[{"name":"pg","taken_at":1,"reason":"asked"}]"#);
    let named = named.replacen("\"pg\"", "\"web\"", 1);
    let entries = vec![
        entry("volumes/one/00000000000000aa", VOLUME, 1),
        entry("volumes/one/00000000000000bb", &other, 1),
        entry("volumes/two/00000000000000cc", &named, 1),
        entry("volumes/two/00000000000000dd", VOLUME, 1),
        backup_entry("two", "/first", 2),
    ];
    let snapshot = Snapshot::of(entries);
    let read = |prefix: &str, name: Option<&str>| {
        let name = name.map(|name| name.parse().unwrap());
        let found = candidates(&snapshot, prefix, name.as_ref());
        let keys =
            found.map(|(host, entry)| format!("{host} {}", &entry.key[entry.key.len() - 2..]));
        keys.collect::<Vec<_>>().join(", ")
    };
    // A snapshot that bears the name is a candidate, and no more.
    assert_eq!(read(VOLUMES, Some("pg")), "one aa, two cc, two dd");
    assert_eq!(read(VOLUMES, Some("g")), "");
    assert_eq!(read(VOLUMES, None), "one aa, one bb, two cc, two dd");
    assert_eq!(read(BACKUPS, Some("pg-2")), "");
    assert!(read(BACKUPS, Some("pg")).starts_with("two "));
    let asked = Catalogue {
        volume: Some("pg".parse().unwrap()),
    };
    let table = rows(&snapshot, &"one".parse().unwrap(), &asked);
    let volumes = table.volumes.iter().map(|it| it.host.to_string());
    assert_eq!(volumes.collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(table.backups.len(), 1);
}
