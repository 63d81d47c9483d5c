//! Backups are forgotten, and what nobody needs any more is removed.

use std::collections::{BTreeMap, BTreeSet};

use drover_backup_protocol::{Backup, FailureKind, Forgotten, Keep, Phase, Pruned, Unit};
use rustic_core::jiff::Timestamp;
use rustic_core::jiff::tz::TimeZone;
use rustic_core::repofile::{PackId, SnapshotId};
use rustic_core::{FileType, Id, PruneOptions};

use crate::adopt::adopt;
use crate::catalog;
use crate::failure::{Result, failure, internal};
use crate::files::path_of;
use crate::index::Index;
use crate::lock::Mode;
use crate::repository::Session;

/// Which backups are to be forgotten.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// Of which volume.
    pub(crate) volume: Option<&'a str>,
    /// These, by the beginnings of their ids.
    pub(crate) backups: &'a [String],
    /// All but those which this keeps.
    pub(crate) keep: Option<Keep>,
    /// Only says what would be done.
    pub(crate) dry_run: bool,
}

/// Forgets backups.
pub(crate) fn forget(session: &Session, wish: &Wish<'_>) -> Result<Forgotten> {
    if wish.backups.is_empty() && wish.keep.is_none() {
        return Err(failure(
            FailureKind::InvalidInput,
            "nothing says which backups are to be forgotten: name them, or say what is kept",
        ));
    }
    let mode = if wish.dry_run {
        Mode::Shared
    } else {
        Mode::Exclusive
    };
    let lock = session.lock(mode)?;
    let all = catalog::list(session, wish.volume)?;
    let doomed = doomed(&all, wish)?;
    if !wish.dry_run {
        for id in &doomed {
            let id: Id = id.parse().map_err(internal)?;
            let id = SnapshotId::from(id);
            session
                .files
                .remove_path(&path_of(FileType::Snapshot, &id))?;
        }
    }
    lock.held()?;
    let (forgotten, kept) = all
        .into_iter()
        .partition(|backup| doomed.contains(&backup.id));
    Ok(Forgotten { kept, forgotten })
}

fn doomed(all: &[Backup], wish: &Wish<'_>) -> Result<BTreeSet<String>> {
    let mut doomed = BTreeSet::new();
    for wanted in wish.backups {
        let mut fitting = all
            .iter()
            .filter(|backup| backup.id.starts_with(wanted.as_str()));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) if wanted.len() >= 6 => doomed.insert(one.id.clone()),
            (Some(_), _) => {
                let message =
                    format!("`{wanted}` means more than one backup: write more of its id");
                return Err(failure(FailureKind::InvalidInput, message));
            }
            (None, _) => {
                let message = format!("there is no backup with the id `{wanted}`");
                return Err(failure(FailureKind::NotFound, message));
            }
        };
    }
    if let Some(keep) = &wish.keep {
        let mut groups: BTreeMap<(&str, &str), Vec<&Backup>> = BTreeMap::new();
        for backup in all {
            let group = (backup.volume.as_str(), backup.host.as_str());
            groups.entry(group).or_default().push(backup);
        }
        for group in groups.values() {
            let kept = kept(group, keep);
            let gone = group
                .iter()
                .filter(|backup| !kept.contains(backup.id.as_str()));
            doomed.extend(gone.map(|backup| backup.id.clone()));
        }
    }
    Ok(doomed)
}

/// Which of a volume's backups, oldest first, are kept: the newest of each span, for the newest so many spans that have
/// one.
fn kept<'a>(backups: &[&'a Backup], keep: &Keep) -> BTreeSet<&'a str> {
    let spans: [(u32, &str); 6] = [
        (keep.last, "%s%N"),
        (keep.hourly, "%Y%j%H"),
        (keep.daily, "%Y%j"),
        (keep.weekly, "%G%V"),
        (keep.monthly, "%Y%m"),
        (keep.yearly, "%Y"),
    ];
    let mut kept = BTreeSet::new();
    for (count, format) in spans {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut seen = BTreeSet::new();
        for backup in backups.iter().rev() {
            let time = Timestamp::from_second(backup.time).unwrap_or_default();
            let mut span = time.to_zoned(TimeZone::UTC).strftime(format).to_string();
            if format == "%s%N" {
                span.clone_from(&backup.id);
            }
            if seen.len() < count && seen.insert(span) {
                kept.insert(backup.id.as_str());
            }
        }
    }
    kept
}

/// Removes data that no backup needs.
pub(crate) fn prune(session: &Session) -> Result<Pruned> {
    let lock = session.lock(Mode::Exclusive)?;
    session.reporter.begin(Phase::Pruning, Unit::Items, None);
    let before = size(session)?;
    // What an interrupted run has left is known to the library only by its index.
    let mut index = Index::load(session)?;
    adopt(session, &lock, &mut index)?;
    remove_broken(session, &index)?;
    let options = PruneOptions::default()
        // Nobody else is there: the lock says so.
        .instant_delete(true);
    let explain = |error: Box<rustic_core::RusticError>| session.explain(&error);
    let plan = session.repository.prune_plan(&options).map_err(explain)?;
    lock.held()?;
    session.repository.prune(&options, plan).map_err(explain)?;
    if let Some(failed) = session.files.take_failure() {
        return Err(failed);
    }
    let left = size(session)?;
    Ok(Pruned {
        backups: catalog::list(session, None)?,
        removed: before.saturating_sub(left),
        left,
    })
}

/// Removes packs that were cut off, which no index knows and nobody can read, and files that never got their names.
fn remove_broken(session: &Session, index: &Index) -> Result<()> {
    for (id, _) in session.files.list(FileType::Pack)? {
        if !index.knows_pack(&id) {
            let id = PackId::from(id);
            session.files.remove_path(&path_of(FileType::Pack, &id))?;
        }
    }
    session.files.sweep()
}

/// The size of everything that prune may change.
fn size(session: &Session) -> Result<u64> {
    let mut size = 0;
    for kind in [FileType::Pack, FileType::Index] {
        size += session
            .files
            .list(kind)?
            .iter()
            .map(|(_, size)| size)
            .sum::<u64>();
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn made(hours: impl IntoIterator<Item = i64>) -> Vec<Backup> {
        hours
            .into_iter()
            .map(|hour| Backup {
                id: format!("{hour:064x}"),
                volume: "pg".to_owned(),
                host: "one".to_owned(),
                // 2026-05-01 00:00
                time: 1_777_593_600 + hour * HOUR,
                block: false,
                size: 0,
                tags: Vec::new(),
                facts: BTreeMap::new(),
            })
            .collect()
    }

    fn kept_hours(backups: &[Backup], keep: &str) -> Vec<i64> {
        let backups: Vec<&Backup> = backups.iter().collect();
        let kept = kept(&backups, &keep.parse().unwrap());
        backups
            .iter()
            .filter(|backup| kept.contains(backup.id.as_str()))
            .map(|backup| (backup.time - 1_777_593_600) / HOUR)
            .collect()
    }

    #[test]
    fn the_newest_of_each_span_is_kept() {
        let backups = made(0..72);
        assert_eq!(kept_hours(&backups, "3h"), [69, 70, 71]);
        assert_eq!(kept_hours(&backups, "2d"), [47, 71]);
        assert_eq!(kept_hours(&backups, "2"), [70, 71]);
        assert_eq!(kept_hours(&backups, "1h 5d"), [23, 47, 71]);
        // 2026-05-04, a Monday, begins another week.
        assert_eq!(kept_hours(&made(0..73), "2w"), [71, 72]);
        assert_eq!(kept_hours(&backups, "12m"), [71]);
    }

    #[test]
    fn of_backups_of_one_second_the_last_is_the_newest() {
        let mut backups = made([1, 2, 3]);
        for backup in &mut backups {
            backup.time = 1_777_593_600;
        }
        backups[0].id = "f".repeat(64);
        let in_order: Vec<&Backup> = backups.iter().collect();
        let kept = kept(&in_order, &"1".parse().unwrap());
        assert_eq!(kept, BTreeSet::from([backups[2].id.as_str()]));
    }

    #[test]
    fn spans_without_a_backup_do_not_count() {
        assert_eq!(kept_hours(&made([0, 24 * 5, 24 * 9]), "2d"), [120, 216]);
    }

    #[test]
    fn an_id_means_one_backup() {
        let backups = made([1, 2]);
        let wish = |id: &str| {
            let backups = [id.to_owned()];
            let wish = Wish {
                volume: None,
                backups: &backups,
                keep: None,
                dry_run: false,
            };
            doomed(&made([1, 2]), &wish)
        };
        assert_eq!(wish(&backups[0].id).unwrap().len(), 1);
        assert!(wish("000000").is_err());
        assert!(wish("ffffff").is_err());
    }
}
