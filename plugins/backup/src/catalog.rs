//! Backups as snapshots of a repository: a snapshot of one volume, which its tags name.
//!
//! A tree lies at `/VOLUME` in its snapshot, a block device is the one file `/VOLUME.img`. Tags of ours begin with
//! `drover.`; a snapshot without them was made by another program and is no backup of a volume.

use std::collections::BTreeMap;

use drover_backup_protocol::{Backup, Create, FailureKind, Selector, Source};
use rustic_core::Id;
use rustic_core::jiff::civil::Date;
use rustic_core::jiff::tz::TimeZone;
use rustic_core::jiff::{Timestamp, Zoned};
use rustic_core::repofile::SnapshotFile;

use crate::failure::{Result, failure, internal};
use crate::repository::Session;

/// What our tags begin with.
const OURS: &str = "drover.";
const VOLUME: &str = "drover.volume=";
const KIND: &str = "drover.kind=";
const SIZE: &str = "drover.size=";
const FACT: &str = "drover.fact.";

/// How many digits of an id are enough to mean it.
const SHORT: usize = 6;

/// The time of a backup that is ready now. A time that is asked for is a whole second; of two backups of one second the later one is the
/// newer, and a volume's are made behind each other.
fn time(asked: Option<i64>, now: Timestamp) -> Result<Timestamp> {
    let Some(second) = asked.filter(|second| *second != now.as_second()) else {
        return Ok(now);
    };
    Timestamp::new(second, 999_999_999).map_err(|error| {
        let message = format!("{second} is no time: {error}");
        failure(FailureKind::InvalidInput, message)
    })
}

/// The snapshot of a backup that is to be made, without its tree.
pub(crate) fn snapshot(create: &Create, size: u64) -> Result<SnapshotFile> {
    let time = time(create.time, Timestamp::now())?;
    let kind = match create.source {
        Source::Tree { .. } => "tree",
        Source::Block { .. } => "block",
    };
    let mut tags = vec![
        format!("{VOLUME}{}", create.volume),
        format!("{KIND}{kind}"),
        format!("{SIZE}{size}"),
    ];
    for (name, value) in &create.facts {
        tags.push(format!("{FACT}{name}={value}"));
    }
    for tag in &create.tags {
        if tag.starts_with(OURS) {
            return Err(failure(
                FailureKind::InvalidInput,
                format!("the tag `{tag}` begins with `{OURS}`, which is kept for Drover"),
            ));
        }
        tags.push(tag.clone());
    }
    if let Some(tag) = tags.iter().find(|tag| tag.contains(',')) {
        return Err(failure(
            FailureKind::InvalidInput,
            format!("the tag `{tag}` has a comma, which separates tags"),
        ));
    }
    let mut snapshot = SnapshotFile {
        time: Zoned::new(time, TimeZone::UTC),
        program_version: format!("drover {}", env!("CARGO_PKG_VERSION")),
        hostname: create.host.clone(),
        username: "root".to_owned(),
        ..SnapshotFile::default()
    };
    let list = |text: &str| text.parse().map_err(internal);
    snapshot.tags = list(&tags.join(","))?;
    snapshot.paths = list(&path_in_snapshot(create))?;
    Ok(snapshot)
}

/// Where a volume lies in the snapshots of its backups.
pub(crate) fn path_in_snapshot(create: &Create) -> String {
    match create.source {
        Source::Tree { .. } => format!("/{}", create.volume),
        Source::Block { .. } => format!("/{}.img", create.volume),
    }
}

/// The same of a backup that is there.
pub(crate) fn path_of(backup: &Backup) -> String {
    if backup.block {
        format!("/{}.img", backup.volume)
    } else {
        format!("/{}", backup.volume)
    }
}

/// A snapshot as a backup; `None` when it is of another program.
pub(crate) fn backup(snapshot: &SnapshotFile) -> Option<Backup> {
    let text = snapshot.tags.to_string();
    let all: Vec<&str> = text.split(',').filter(|tag| !tag.is_empty()).collect();
    let one = |name: &str| all.iter().find_map(|tag| tag.strip_prefix(name));
    let facts: BTreeMap<String, String> = all
        .iter()
        .filter_map(|tag| tag.strip_prefix(FACT)?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let size = snapshot
        .summary
        .as_ref()
        .map(|summary| summary.total_bytes_processed);
    Some(Backup {
        id: text_of(&snapshot.id),
        volume: one(VOLUME)?.to_owned(),
        host: snapshot.hostname.clone(),
        time: snapshot.time.timestamp().as_second(),
        block: one(KIND)? == "block",
        size: one(SIZE)
            .and_then(|size| size.parse().ok())
            .filter(|size| *size > 0)
            .or(size)
            .unwrap_or(0),
        tags: all
            .iter()
            .filter(|tag| !tag.starts_with(OURS))
            .map(|tag| (*tag).to_owned())
            .collect(),
        facts,
    })
}

/// An id as 64 digits.
pub(crate) fn text_of(id: &Id) -> String {
    id.to_hex().as_str().to_owned()
}

/// All backups, oldest first.
pub(crate) fn list(session: &Session, volume: Option<&str>) -> Result<Vec<Backup>> {
    let snapshots = session.snapshots()?;
    Ok(snapshots
        .iter()
        .filter_map(backup)
        .filter(|backup| volume.is_none_or(|volume| backup.volume == volume))
        .collect())
}

/// The backup that a selector means, with its snapshot.
pub(crate) fn select(session: &Session, selector: &Selector) -> Result<(Backup, SnapshotFile)> {
    let snapshots = session.snapshots()?;
    let known: Vec<(Backup, &SnapshotFile)> = snapshots
        .iter()
        .filter_map(|snapshot| Some((backup(snapshot)?, snapshot)))
        .collect();
    let backups: Vec<&Backup> = known.iter().map(|(backup, _)| backup).collect();
    let wanted = choose(&backups, selector)?.id.clone();
    known
        .into_iter()
        .find(|(backup, _)| backup.id == wanted)
        .map(|(backup, snapshot)| (backup, snapshot.clone()))
        .ok_or_else(|| internal("a backup that was chosen is not there"))
}

/// Which of these, oldest first, a selector means.
fn choose<'a>(backups: &[&'a Backup], selector: &Selector) -> Result<&'a Backup> {
    let volume = &selector.volume;
    let of_volume: Vec<&&Backup> = backups
        .iter()
        .filter(|backup| backup.volume == *volume)
        .filter(|backup| {
            selector
                .host
                .as_ref()
                .is_none_or(|host| backup.host == *host)
        })
        .collect();
    if of_volume.is_empty() {
        return Err(no_volume(backups, selector));
    }
    let when = selector.when.as_deref().unwrap_or("latest");
    if when == "latest" {
        return of_volume
            .last()
            .map(|backup| **backup)
            .ok_or_else(|| no_volume(backups, selector));
    }
    if when.len() >= SHORT && when.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = when.to_lowercase();
        let mut fitting = of_volume
            .iter()
            .filter(|backup| backup.id.starts_with(&digits));
        match (fitting.next(), fitting.next()) {
            (Some(_), Some(_)) => {
                let message = format!(
                    "`{when}` begins the ids of several backups of `{volume}`: write more of it"
                );
                return Err(failure(FailureKind::InvalidInput, message));
            }
            (Some(backup), None) => return Ok(backup),
            // 20260501 is a time too.
            (None, _) => {}
        }
    }
    let latest = moment(when).ok_or_else(|| {
        let message = format!("`{when}` is neither `latest`, nor the id of a backup of `{volume}`, nor a time such as 2026-05-01T10:00:00Z");
        failure(FailureKind::NotFound, message)
    })?;
    let not_younger = of_volume.iter().rev().find(|backup| backup.time <= latest);
    not_younger.map(|backup| **backup).ok_or_else(|| {
        let first = of_volume.first().map_or(0, |backup| backup.time);
        let first = Timestamp::from_second(first).unwrap_or_default();
        failure(
            FailureKind::NotFound,
            format!(
                "there is no backup of `{volume}` as old as `{when}`: the oldest is of {first}"
            ),
        )
    })
}

fn no_volume(backups: &[&Backup], selector: &Selector) -> drover_backup_protocol::Failure {
    let mut volumes: Vec<&str> = backups
        .iter()
        .map(|backup| backup.volume.as_str())
        .collect();
    volumes.sort_unstable();
    volumes.dedup();
    let others = match volumes.as_slice() {
        [] => "there is no backup of any volume".to_owned(),
        few => format!("there are backups of {}", few.join(", ")),
    };
    let host = selector
        .host
        .as_ref()
        .map_or_else(String::new, |host| format!(" of host `{host}`"));
    failure(
        FailureKind::NotFound,
        format!(
            "there is no backup of volume `{}`{host}: {others}",
            selector.volume
        ),
    )
}

/// The last second that a time means: a day means all of it. UTC where no zone is written.
fn moment(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_second());
    }
    if let Ok(day) = text.parse::<Date>()
        && !text.contains(['T', ' '])
    {
        let next = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
        return Some(next.timestamp().as_second() - 1);
    }
    let time = text.parse::<rustic_core::jiff::civil::DateTime>().ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rustic_core::jiff::SignedDuration;

    use super::*;

    fn made(id: &str, volume: &str, time: i64) -> Backup {
        Backup {
            id: id.repeat(32),
            volume: volume.to_owned(),
            host: "one".to_owned(),
            time,
            block: false,
            size: 0,
            tags: Vec::new(),
            facts: BTreeMap::new(),
        }
    }

    fn chosen(when: &str) -> Result<i64> {
        let made = [
            made("aa", "pg", 1_777_593_600),
            made("ab", "pg", 1_777_680_000),
            made("cc", "web", 1_777_700_000),
        ];
        let selector = Selector {
            volume: "pg".to_owned(),
            when: Some(when.to_owned()),
            host: None,
        };
        choose(&made.iter().collect::<Vec<_>>(), &selector).map(|backup| backup.time)
    }

    #[test]
    fn a_backup_is_chosen_by_time_or_id() {
        assert_eq!(chosen("latest"), Ok(1_777_680_000));
        assert_eq!(chosen("aaaaaa"), Ok(1_777_593_600));
        assert_eq!(chosen("2026-05-01"), Ok(1_777_593_600));
        assert_eq!(chosen("2026-05-02"), Ok(1_777_680_000));
        assert_eq!(chosen("2026-05-01T23:59:59Z"), Ok(1_777_593_600));
        assert_eq!(chosen("2026-05-02T00:00:00"), Ok(1_777_680_000));
        let kind = |when| chosen(when).unwrap_err().kind;
        assert_eq!(kind("2026-04-30"), FailureKind::NotFound);
        assert_eq!(kind("yesterday"), FailureKind::NotFound);
        assert_eq!(kind("dddddddd"), FailureKind::NotFound);
    }

    #[test]
    fn of_two_backups_of_one_second_the_later_one_is_newer() {
        let second = 1_777_593_600;
        let at = |nanoseconds| Timestamp::new(second, nanoseconds).unwrap();
        let times = [
            (Some(second), at(200)),
            (Some(second), at(300)),
            // It was ready in the next second only, and another is begun after that.
            (Some(second), at(100) + SignedDuration::from_secs(1)),
            (Some(second + 1), at(200) + SignedDuration::from_secs(1)),
            (None, at(300) + SignedDuration::from_secs(1)),
        ];
        let times = times.map(|(asked, now)| time(asked, now).unwrap());
        assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
        let seconds = times.map(Timestamp::as_second);
        assert_eq!(seconds, [second, second, second, second + 1, second + 1]);
        assert!(time(Some(i64::MAX), at(0)).is_err());
    }

    #[test]
    fn a_snapshot_tells_what_it_is_a_backup_of() {
        let create = Create {
            volume: "pg".to_owned(),
            host: "one".to_owned(),
            time: Some(1_777_593_600),
            tags: vec!["before upgrade".to_owned()],
            facts: BTreeMap::from([("fs".to_owned(), "ext4".to_owned())]),
            source: Source::Block {
                path: "/dev/x".into(),
                size: 4096,
                changed: None,
            },
            parent: None,
            init: false,
        };
        let told = backup(&snapshot(&create, 4096).unwrap()).unwrap();
        assert_eq!(told.volume, "pg");
        assert_eq!(told.time, 1_777_593_600);
        assert!(told.block);
        assert_eq!(told.size, 4096);
        assert_eq!(told.tags, create.tags);
        assert_eq!(told.facts, create.facts);
        assert_eq!(backup(&SnapshotFile::default()), None);
        let reserved = Create {
            tags: vec!["drover.kind=x".to_owned()],
            ..create
        };
        assert!(snapshot(&reserved, 0).is_err());
    }
}
