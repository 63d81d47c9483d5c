//! Which backup is meant.

use drover_control_api::catalogue::CatalogueBackup;

use super::*;

fn listed(host: &str, to: &str, id: &str, presence: Presence) -> HostBackup {
    HostBackup {
        host: host.parse().unwrap(),
        presence,
        backup: CatalogueBackup {
            volume: "pg".parse().unwrap(),
            to: to.to_owned(),
            id: id.repeat(8),
            by: host.to_owned(),
            taken_at: 1_796_000_000,
            size: 1,
        },
    }
}

fn chosen(source: &str, among: &[HostBackup]) -> std::result::Result<String, String> {
    let chosen = choose(&source.parse().unwrap(), among.to_vec());
    chosen
        .map(|it| it.host.to_string())
        .map_err(|error| error.to_string())
}

#[test]
fn the_only_place_is_taken_whatever_the_time() {
    let one = [listed("one", "/backups", "4f1c02aa", Presence::Away)];
    assert_eq!(chosen("pg", &one), Ok("one".to_owned()));
    assert_eq!(chosen("pg@2026-05-01", &one), Ok("one".to_owned()));
    let none = chosen("pg", &[]).unwrap_err();
    assert!(none.contains("give `backup-to`"), "{none}");
}

#[test]
fn whose_backup_is_meant_is_not_guessed() {
    let several = [
        listed("one", "/backups", "4f1c02aa", Presence::Removed),
        listed("two", "s3://b/pg", "77770000", Presence::Present),
    ];
    let text = chosen("pg", &several).unwrap_err();
    for part in [
        "`pg@4f1c02aa` by host `one`, which was removed in `/backups` of 2026-11-",
        "`pg@77770000` by host `two` in `s3://b/pg`",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(chosen("pg@7777", &several), Ok("two".to_owned()));
    assert!(chosen("pg@latest", &several).is_err());
}

#[test]
fn a_place_that_is_another_hosts_is_explained() {
    let missing = || {
        Error::Backup(drover_backup_protocol::Failure {
            kind: FailureKind::NoRepository,
            message: "there is no repository at `/backups`".to_owned(),
        })
    };
    let mut wanted = Wanted {
        selector: selector(&"pg".parse().unwrap(), None),
        listed: Some(listed("one", "/backups", "4f1c02aa", Presence::Present)),
    };
    let text = wanted.explain(missing()).to_string();
    assert!(
        text.contains("host `one`") && text.contains("backup-to"),
        "{text}"
    );
    wanted.listed = None;
    assert_eq!(wanted.explain(missing()).to_string(), missing().to_string());
}
