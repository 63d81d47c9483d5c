//! Options: what is taken, what is refused, and in which words.

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<VolumeOptions, OptionFaults> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    VolumeOptions::parse(&pairs.collect())
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    parse(pairs).unwrap_err().to_string()
}

#[test]
fn nothing_said_is_a_volume_without_a_limit_that_goes_to_the_trash() {
    let options = parse(&[]).unwrap();
    assert_eq!(options, VolumeOptions::default());
    assert_eq!(options.on_remove, OnRemove::Trash);
}

#[test]
fn every_option_is_read_and_survives_a_record() {
    let options = parse(&[
        ("size", "10G"),
        ("fs", "xfs"),
        ("mkfs-opts", "-L data  -K"),
        ("snapshot-schedule", "hourly"),
        ("keep", "24h 7d 4w 12m"),
        ("backup-to", "s3://bucket/drover"),
        ("backup-password-file", "/etc/drover/password"),
        ("backup-schedule", "daily 03:30"),
        ("on-remove", "delete"),
        ("read-only", "true"),
        ("owner", "999:998"),
        ("mode", "0750"),
    ])
    .unwrap();
    assert_eq!(options.mkfs_options, ["-L", "data", "-K"]);
    assert_eq!(
        options.owner.unwrap(),
        Owner {
            user: 999,
            group: 998
        }
    );
    assert_eq!(options.mode.unwrap().bits(), 0o750);
    let written = serde_json::to_string(&options).unwrap();
    assert_eq!(
        serde_json::from_str::<VolumeOptions>(&written).unwrap(),
        options
    );
}

#[test]
fn what_a_volume_is_made_from_is_named_with_an_at_sign() {
    let clone = parse(&[("from", "pg@before")]).unwrap().from.unwrap();
    assert_eq!(
        (clone.volume.as_str(), clone.to_string()),
        ("pg", "pg@before".to_owned())
    );
    assert_eq!(
        parse(&[("from", "pg")]).unwrap().from.unwrap().snapshot,
        None
    );
    let backup = [
        ("from-backup", "pg@2026-11-30T01:00:00Z"),
        ("backup-to", "/srv/backup"),
        ("backup-password-file", "/p"),
    ];
    let backup = parse(&backup).unwrap().from_backup.unwrap();
    assert_eq!(backup.when.as_deref(), Some("2026-11-30T01:00:00Z"));
}

#[test]
fn an_unknown_option_is_named_with_the_nearest() {
    assert!(refusal(&[("sise", "1G")]).contains("`sise`, did you mean `size`"));
    assert!(refusal(&[("readonly", "1")]).contains("did you mean `read-only`"));
    assert!(refusal(&[("compression", "zstd-level-19")]).contains("`compression`"));
    let long = "x".repeat(500);
    assert!(refusal(&[(&long, "")]).len() < 500);
}

#[test]
fn every_fault_is_told_at_once() {
    let text = refusal(&[
        ("size", "1Y"),
        ("fs", "ntfs"),
        ("mode", "rwx"),
        ("owner", "postgres"),
        ("on-remove", "keep"),
        ("snapshot-schedule", "sometimes"),
    ]);
    for part in ["size=1Y", "ext4", "octal", "UID:GID", "retain", "sometimes"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn options_that_contradict_each_other_or_lack_another_are_refused() {
    assert!(refusal(&[("from", "a"), ("fs", "xfs")]).contains("leave out `fs`"));
    assert!(refusal(&[("keep", "7d")]).contains("`snapshot-schedule`"));
    assert!(refusal(&[("backup-to", "/b")]).contains("`backup-password-file`"));
    assert!(refusal(&[("backup-schedule", "daily")]).contains("`backup-to`"));
    assert!(refusal(&[("from", "../etc")]).contains("volume name"));
    assert!(refusal(&[("from", "a@")]).contains("snapshot name"));
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let text = refusal(&[
        ("backup-to", "sftp://me:secret@host/backup"),
        ("backup-password-file", "/p"),
    ]);
    assert!(
        text.contains("by file") && !text.contains("secret"),
        "{text}"
    );
}
