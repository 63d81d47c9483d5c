//! `--all`: the volumes, snapshots and backups of every host of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use drover_control_api::catalogue::{
    CatalogueSnapshot, CatalogueTable, HostBackup, HostVolume, Presence,
};
use drover_control_api::record::UnixSeconds;
use drover_model::{HostName, VolumeName};
use serde::Serialize;

use super::View;
use super::volumes::bytes_text;
use crate::table::{NOTHING_TO_SAY, list, now, or_dash, table, until};

/// How much of a backup's id names it.
const SHORT: usize = 8;

/// What is not as it is now.
#[derive(Debug, Serialize)]
struct Doubts {
    /// Hosts that give no sign of life: what is told of them is as it was.
    away: BTreeSet<HostName>,
    /// Why the store of the cluster cannot be reached.
    problem: Option<String>,
    /// Since when.
    problem_since: Option<UnixSeconds>,
}

/// What `drover volume ls --all --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct EveryVolumeView {
    /// One entry a volume of a host.
    volumes: Vec<HostVolume>,
    #[serde(flatten)]
    doubts: Doubts,
    /// When a volume of that name was backed up last, by host.
    #[serde(skip)]
    backups: BTreeMap<(HostName, VolumeName), UnixSeconds>,
    #[serde(skip)]
    now: u64,
}

/// What `drover volume snapshot ls --all --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct EverySnapshotView {
    /// One entry a snapshot of a volume of a host.
    snapshots: Vec<HostSnapshot>,
    /// How many there are that are older than those that are listed.
    older: u64,
    #[serde(flatten)]
    doubts: Doubts,
    #[serde(skip)]
    now: u64,
}

/// A snapshot, and where it is.
#[derive(Debug, Serialize)]
struct HostSnapshot {
    host: HostName,
    presence: Presence,
    volume: VolumeName,
    #[serde(flatten)]
    snapshot: CatalogueSnapshot,
}

/// What `drover backup ls --all --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct EveryBackupView {
    /// The last backup of each volume of a host to each repository.
    backups: Vec<HostBackup>,
    #[serde(flatten)]
    doubts: Doubts,
    #[serde(skip)]
    now: u64,
}

impl Doubts {
    fn of_volumes(table: &CatalogueTable) -> Self {
        let volumes = table.volumes.iter();
        Self::new(table, volumes.map(|it| (&it.host, it.presence)))
    }

    fn of_backups(table: &CatalogueTable) -> Self {
        let backups = table.backups.iter();
        Self::new(table, backups.map(|it| (&it.host, it.presence)))
    }

    fn new<'a>(
        table: &CatalogueTable,
        hosts: impl Iterator<Item = (&'a HostName, Presence)>,
    ) -> Self {
        let away = hosts.filter(|(_, presence)| *presence == Presence::Away);
        Self {
            away: away.map(|(host, _)| host.clone()).collect(),
            problem: table.problem.clone(),
            problem_since: table.problem_since,
        }
    }

    /// What is listed, and what is to be doubted of it.
    fn below(&self, listed: Vec<String>, now: u64) -> String {
        let mut lines = listed;
        if !self.away.is_empty() {
            let hosts = list(&self.away);
            lines.push(format!(
                "! no sign of life of {hosts}: what is listed of it is as it was told last"
            ));
        }
        if let Some(problem) = &self.problem {
            let since = self.problem_since.map(|since| until(now, since));
            let since = since.map_or_else(String::new, |since| format!(", since {since}"));
            lines.push(format!(
                "! the store of the cluster cannot be reached{since}: all this is as it was then ({problem})"
            ));
        }
        lines.join("\n")
    }
}

/// The host, with what is to be known of it.
fn host_text(host: &HostName, presence: Presence) -> String {
    match presence {
        Presence::Present => host.to_string(),
        Presence::Away => format!("{host} (away)"),
        Presence::Removed => format!("{host} (removed)"),
    }
}

impl EveryVolumeView {
    /// Without `removed`, only of volumes that are there.
    pub(crate) fn new(mut table: CatalogueTable, removed: bool) -> Self {
        table
            .volumes
            .retain(|it| removed || it.volume.state == "ready");
        let mut backups = BTreeMap::new();
        for it in &table.backups {
            let volume = (it.host.clone(), it.backup.volume.clone());
            let last: &mut UnixSeconds = backups.entry(volume).or_default();
            *last = it.backup.taken_at.max(*last);
        }
        Self {
            doubts: Doubts::of_volumes(&table),
            volumes: table.volumes,
            backups,
            now: now(),
        }
    }

    fn last_backup(&self, of: &HostVolume) -> Option<UnixSeconds> {
        let volume = (of.host.clone(), of.volume.name.clone());
        let last = self.backups.get(&volume).copied();
        // One of an earlier volume of that name says nothing of this one.
        last.filter(|taken_at| *taken_at >= of.volume.created_at)
    }
}

impl EverySnapshotView {
    pub(crate) fn new(table: CatalogueTable) -> Self {
        let doubts = Doubts::of_volumes(&table);
        let older = table.volumes.iter().map(|it| it.volume.older_snapshots);
        let older = older.sum();
        let snapshots = table.volumes.into_iter().flat_map(|it| {
            let HostVolume {
                host,
                presence,
                volume,
            } = it;
            let own = volume.snapshots.into_iter();
            own.map(move |snapshot| HostSnapshot {
                host: host.clone(),
                presence,
                volume: volume.name.clone(),
                snapshot,
            })
        });
        Self {
            snapshots: snapshots.collect(),
            older,
            doubts,
            now: now(),
        }
    }
}

impl EveryBackupView {
    pub(crate) fn new(table: CatalogueTable) -> Self {
        Self {
            doubts: Doubts::of_backups(&table),
            backups: table.backups,
            now: now(),
        }
    }
}

/// A table, or what is said instead of one without rows.
fn table_or(none: &str, headers: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    table(headers, right, rows)
}

impl View for EveryVolumeView {
    fn render(&self) -> String {
        let rows = self.volumes.iter().map(|it| {
            let volume = &it.volume;
            let count = volume.older_snapshots + volume.snapshots.len() as u64;
            let latest = volume.snapshots.last();
            let state = match volume.state.as_str() {
                "ready" => NOTHING_TO_SAY,
                "trashed" => "in the trash",
                other => other,
            };
            vec![
                host_text(&it.host, it.presence),
                volume.name.to_string(),
                volume.backend.to_string(),
                or_dash(volume.size),
                until(self.now, volume.created_at),
                count.to_string(),
                or_dash(latest.map(|it| until(self.now, it.taken_at))),
                or_dash(self.last_backup(it).map(|time| until(self.now, time))),
                state.to_owned(),
            ]
        });
        let headers = [
            "HOST",
            "VOLUME",
            "BACKEND",
            "SIZE",
            "CREATED",
            "SNAPSHOTS",
            "LATEST",
            "BACKUP",
            "STATE",
        ];
        let none = "no volumes: `docker volume create -d drover-vol NAME`";
        let text = table_or(none, &headers, &[3, 5], rows.collect());
        self.doubts.below(vec![text], self.now)
    }
}

impl View for EverySnapshotView {
    fn render(&self) -> String {
        let rows = self.snapshots.iter().map(|it| {
            let consistency = if it.snapshot.application_consistent {
                "application"
            } else {
                "crash"
            };
            vec![
                host_text(&it.host, it.presence),
                format!("{}@{}", it.volume, it.snapshot.name),
                until(self.now, it.snapshot.taken_at),
                it.snapshot.reason.clone(),
                consistency.to_owned(),
            ]
        });
        let headers = ["HOST", "SNAPSHOT", "TAKEN", "WHY", "CONSISTENT"];
        let none = "no snapshots: `drover volume snapshot create VOLUME@NAME`";
        let mut lines = vec![table_or(none, &headers, &[], rows.collect())];
        if self.older > 0 {
            lines.push(format!(
                "and {} older ones, which `drover volume snapshot ls` lists on their hosts",
                self.older
            ));
        }
        self.doubts.below(lines, self.now)
    }
}

impl View for EveryBackupView {
    fn render(&self) -> String {
        let rows = self.backups.iter().map(|it| {
            let backup = &it.backup;
            vec![
                backup.volume.to_string(),
                host_text(&it.host, it.presence),
                until(self.now, backup.taken_at),
                backup.id.get(..SHORT).unwrap_or(&backup.id).to_owned(),
                bytes_text(backup.size),
                backup.to.clone(),
            ]
        });
        let headers = ["VOLUME", "HOST", "LATEST", "ID", "SIZE", "REPOSITORY"];
        let none = "no host of the cluster has backed up a volume";
        let text = table_or(none, &headers, &[4], rows.collect());
        self.doubts.below(vec![text], self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::golden::assert_golden;

    const NOW: u64 = 1_796_000_000;

    fn catalogue() -> CatalogueTable {
        serde_json::from_str(include_str!("../../tests/answers/catalogue.json")).unwrap()
    }

    #[test]
    fn what_is_on_other_hosts_says_where_and_how_old_it_is() {
        let mut view = EveryVolumeView::new(catalogue(), false);
        view.now = NOW;
        assert_golden("volumes-all", &view.render());
        let mut view = EverySnapshotView::new(catalogue());
        view.now = NOW;
        assert_golden("snapshots-all", &view.render());
        let mut view = EveryBackupView::new(catalogue());
        view.now = NOW;
        assert_golden("backups-all", &view.render());
        assert_golden(
            "backups-all-json",
            &serde_json::to_string_pretty(&view).unwrap(),
        );
    }

    #[test]
    fn what_is_in_the_trash_is_listed_when_it_is_asked_for() {
        let text = EveryVolumeView::new(catalogue(), true).render();
        assert!(text.contains("in the trash"), "{text}");
    }
}
