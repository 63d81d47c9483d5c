//! The cluster's catalogue follows a repository: what was forgotten, or removed by restic, is listed no longer.
//!
//! What is listed is asked for before the repository is read. A backup is in its repository before it is listed, so that
//! one which is listed and then not found was removed.

use drover_backup_protocol::{Backup, Operation, Outcome};
use drover_control_api::catalogue::{
    Catalogue, CatalogueBackup, ForgetBackups, ForgottenBackup, HostBackup, MOST_FORGOTTEN,
};
use drover_daemon::Settings;
use drover_model::HostName;

use crate::ask::{LIMIT, ask, status};
use crate::output;
use crate::process::Process;

/// What was listed before.
pub(super) struct Listed {
    own: HostName,
    url: String,
    backups: Vec<HostBackup>,
    /// The one volume whose backups are looked at.
    volume: Option<String>,
}

/// What a repository was found to have.
#[derive(Clone, Copy)]
struct Found<'a> {
    there: &'a [Backup],
    /// What it had until now.
    gone: &'a [Backup],
}

impl Listed {
    /// Asks for what is listed of a repository, when the operation will tell which backups it has. A repository is used
    /// without a coordinator, too.
    pub(super) async fn before(
        settings: &Settings,
        url: &str,
        operation: &Operation,
    ) -> Option<Self> {
        let volume = match operation {
            Operation::List { volume } => volume,
            Operation::Forget {
                volume,
                dry_run: false,
                ..
            } => volume,
            Operation::Prune => &None,
            _ => return None,
        };
        let asked = Catalogue {
            volume: volume.as_ref().and_then(|name| name.parse().ok()),
        };
        let table = ask(settings, Process::Coordinator, &asked, LIMIT).await;
        let mut backups = table.ok()?.backups;
        backups.retain(|it| place(&it.backup.to) == place(url));
        if backups.is_empty() {
            return None;
        }
        Some(Self {
            own: status(settings).await.ok()?.host,
            url: url.to_owned(),
            backups,
            volume: volume.clone(),
        })
    }

    /// Has the catalogue list what is there. When it cannot be told, the next command that lists the repository does.
    pub(super) async fn follow(self, settings: &Settings, outcome: &Outcome) {
        let found = match outcome {
            Outcome::Listed { backups } => Found {
                there: backups,
                gone: &[],
            },
            Outcome::Forgotten(done) => Found {
                there: &done.kept,
                gone: &done.forgotten,
            },
            Outcome::Pruned(done) => Found {
                there: &done.backups,
                gone: &[],
            },
            _ => return,
        };
        let forgotten = self.forgotten(found);
        for backups in forgotten.chunks(MOST_FORGOTTEN) {
            let told = ForgetBackups {
                backups: backups.to_vec(),
            };
            if let Err(error) = ask(settings, Process::Coordinator, &told, LIMIT).await {
                output::note(&format!(
                    "! the catalogue lists backups that are gone, until `drover backup ls` is given again: {error}"
                ));
                return;
            }
        }
    }

    /// What is listed and not there.
    fn forgotten(&self, found: Found<'_>) -> Vec<ForgottenBackup> {
        let listed = self.backups.iter().filter(|it| {
            let is_asked = self.volume.as_ref();
            is_asked.is_none_or(|name| *name == *it.backup.volume.as_str())
        });
        let gone = listed.filter(|it| {
            let is_it = |backup: &Backup| backup.id == it.backup.id;
            found.gone.iter().any(is_it)
                || (self.knows(it, found) && !found.there.iter().any(is_it))
        });
        gone.map(|it| ForgottenBackup {
            host: it.host.clone(),
            backup: it.backup.clone(),
            left: left(&it.backup, found.there),
        })
        .collect()
    }

    /// Whether the repository is the one that a host means by its URL. A directory is another one on every host, unless it
    /// is shared; and a bucket may be another one where the options say so, but not when it has backups of that host.
    fn knows(&self, listed: &HostBackup, found: Found<'_>) -> bool {
        if listed.host == self.own {
            return true;
        }
        let is_directory = !place(&self.url).contains("://");
        let mut all = found.there.iter().chain(found.gone);
        !is_directory && all.any(|backup| backup.host == listed.backup.by)
    }
}

/// The last backup of the same volume by the same host.
fn left(listed: &CatalogueBackup, there: &[Backup]) -> Option<CatalogueBackup> {
    let same = there
        .iter()
        .filter(|it| it.host == listed.by && *it.volume == *listed.volume.as_str());
    let last = same.max_by_key(|it| it.time)?;
    Some(CatalogueBackup {
        id: last.id.clone(),
        taken_at: u64::try_from(last.time).unwrap_or(0),
        size: last.size,
        ..listed.clone()
    })
}

/// A URL as it is compared: a directory may be written in several ways.
fn place(url: &str) -> &str {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use drover_control_api::catalogue::Presence;

    fn listed(host: &str, id: &str) -> HostBackup {
        HostBackup {
            host: host.parse().unwrap(),
            presence: Presence::Present,
            backup: CatalogueBackup {
                volume: "pg".parse().unwrap(),
                to: "/b".to_owned(),
                id: id.to_owned(),
                by: host.to_owned(),
                taken_at: 9,
                size: 1,
            },
        }
    }

    fn backup(host: &str, volume: &str, id: &str, time: i64) -> Backup {
        Backup {
            id: id.to_owned(),
            volume: volume.to_owned(),
            host: host.to_owned(),
            time,
            block: false,
            size: 2,
            tags: Vec::new(),
            facts: BTreeMap::new(),
        }
    }

    fn before(url: &str) -> Listed {
        Listed {
            own: "one".parse().unwrap(),
            url: url.to_owned(),
            backups: vec![listed("one", "aa"), listed("two", "bb")],
            volume: None,
        }
    }

    /// Each as `host lost left`.
    fn words(listed: &Listed, there: &[Backup], gone: &[Backup]) -> Vec<String> {
        let forgotten = listed.forgotten(Found { there, gone });
        let word = |it: &ForgottenBackup| {
            let left = it.left.as_ref().map_or("-", |left| left.id.as_str());
            format!("{} {} {left}", it.host, it.backup.id)
        };
        forgotten.iter().map(word).collect()
    }

    #[test]
    fn what_is_forgotten_gives_way_to_the_last_that_is_left() {
        let there = [
            backup("one", "pg", "a1", 1),
            backup("one", "pg", "a2", 2),
            backup("one", "other", "a3", 3),
            backup("two", "pg", "bb", 9),
        ];
        let gone = [backup("one", "pg", "aa", 9)];
        assert_eq!(words(&before("/b/"), &there, &gone), ["one aa a2"]);
        let gone = [backup("one", "pg", "aa", 9), backup("two", "pg", "bb", 9)];
        assert_eq!(words(&before("/b"), &[], &gone), ["one aa -", "two bb -"]);
        // One that was listed no longer, too: the listed one is not there either.
        let gone = [backup("one", "pg", "a0", 1)];
        assert_eq!(words(&before("/b"), &[], &gone), ["one aa -"]);
    }

    #[test]
    fn a_directory_on_another_host_may_be_another_one() {
        let there = [backup("two", "pg", "b1", 1)];
        assert_eq!(words(&before("/b"), &there, &[]), ["one aa -"]);
        let everywhere = before("s3://bucket/b");
        assert_eq!(words(&everywhere, &there, &[]), ["one aa -", "two bb b1"]);
        assert_eq!(words(&everywhere, &[], &[]), ["one aa -"]);
    }

    #[test]
    fn other_volumes_are_not_looked_at() {
        let listed = Listed {
            volume: Some("other".to_owned()),
            ..before("/b")
        };
        assert!(words(&listed, &[], &[]).is_empty());
    }

    #[test]
    fn a_directory_is_the_same_however_it_is_written() {
        assert_eq!(place("file:///srv/b/"), place("/srv/b"));
        assert_ne!(place("s3://b/x"), place("s3://b/y"));
    }
}
