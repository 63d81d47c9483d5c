//! What came of a worker's work, for a person.

use drover_backup_protocol::{Backup, Checked, Created, Forgotten, Outcome};

use crate::table::{list, table};

/// An outcome as text, without a line break at its end.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Initialised { id, made: true } => format!("repository {} is made", short(id)),
        Outcome::Initialised { id, made: false } => {
            format!("repository {} is there already", short(id))
        }
        Outcome::Created(created) => self::created(created),
        Outcome::Listed { backups } if backups.is_empty() => "there are no backups".to_owned(),
        Outcome::Listed { backups } => self::backups(backups),
        Outcome::Found(found) => backups(std::slice::from_ref(found)),
        Outcome::Restored(restored) => format!(
            "restored {} of {}: {} in {} files",
            restored.backup.volume,
            moment(restored.backup.time),
            size(restored.bytes),
            restored.files
        ),
        Outcome::Verified(verified) => format!(
            "{} of {} is whole: {} read",
            verified.backup.volume,
            moment(verified.backup.time),
            size(verified.bytes)
        ),
        Outcome::Forgotten(forgotten) => self::forgotten(forgotten),
        Outcome::Pruned(pruned) => {
            format!(
                "{} removed, {} left",
                size(pruned.removed),
                size(pruned.left)
            )
        }
        Outcome::Checked(checked) => self::checked(checked),
        Outcome::Unlocked { removed } => format!("{removed} locks removed"),
    }
}

fn created(created: &Created) -> String {
    let mut text = format!(
        "{} is backed up as {}: {} read, {} new, {} sent",
        created.backup.volume,
        short(&created.backup.id),
        size(created.read),
        size(created.new),
        size(created.sent)
    );
    if created.resumed > 0 {
        text.push_str(&format!(
            "; {} of an earlier run were there already",
            size(created.resumed)
        ));
    }
    text
}

fn backups(backups: &[Backup]) -> String {
    let rows = backups.iter().map(|backup| {
        let kind = if backup.block { "device" } else { "files" };
        vec![
            short(&backup.id).to_owned(),
            backup.volume.clone(),
            moment(backup.time),
            backup.host.clone(),
            kind.to_owned(),
            size(backup.size),
            list(&backup.tags),
        ]
    });
    table(
        &["ID", "VOLUME", "TIME", "HOST", "KIND", "SIZE", "TAGS"],
        &[5],
        rows.collect(),
    )
}

fn forgotten(forgotten: &Forgotten) -> String {
    let mut text = format!(
        "{} forgotten, {} kept",
        forgotten.forgotten.len(),
        forgotten.kept.len()
    );
    if !forgotten.forgotten.is_empty() {
        text.push('\n');
        text.push_str(&backups(&forgotten.forgotten));
    }
    text
}

fn checked(checked: &Checked) -> String {
    if checked.problems.is_empty() {
        return format!("no damage in {} files", checked.files);
    }
    let mut lines = vec![format!(
        "{} problems in {} files",
        checked.problems.len(),
        checked.files
    )];
    for problem in &checked.problems {
        let file = problem.file.as_deref().unwrap_or("repository");
        let mut line = format!("  {file}: {}", problem.what);
        if !problem.backups.is_empty() {
            let ids = problem.backups.iter().map(|id| short(id));
            line.push_str(&format!("; needed by {}", list(ids)));
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// The beginning of an id, which is enough to name it.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A time in UTC, to the second.
fn moment(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| seconds.to_string(),
        |time| {
            let (date, hour, minute, second) =
                (time.date(), time.hour(), time.minute(), time.second());
            format!("{date} {hour:02}:{minute:02}:{second:02}Z")
        },
    )
}

#[cfg(test)]
mod tests {
    use drover_backup_protocol::Problem;

    use super::*;

    #[test]
    fn backups_are_a_table() {
        let backup = Backup {
            id: "0123456789".repeat(6),
            volume: "pg".to_owned(),
            host: "web-1".to_owned(),
            time: 1_777_593_600,
            block: true,
            size: 1 << 30,
            tags: vec!["before upgrade".to_owned()],
            facts: std::collections::BTreeMap::new(),
        };
        let text = outcome(&Outcome::Listed {
            backups: vec![backup],
        });
        let row = text.lines().nth(1).unwrap();
        for word in [
            "01234567",
            "2026-05-01 00:00:00Z",
            "1.00 GiB",
            "before upgrade",
        ] {
            assert!(row.contains(word), "{text}");
        }
    }

    #[test]
    fn damage_names_the_file_and_the_backups() {
        let text = outcome(&Outcome::Checked(Checked {
            files: 7,
            problems: vec![Problem {
                file: Some("data/ab/abcd".to_owned()),
                what: "its content is not what was written".to_owned(),
                backups: vec!["0123456789".to_owned()],
            }],
        }));
        assert_eq!(
            text,
            "1 problems in 7 files\n  data/ab/abcd: its content is not what was written; needed by 01234567"
        );
    }
}
