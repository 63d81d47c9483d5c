//! `drover volume`: volumes, snapshots, and what differs between them.

use drover_control_api::volume::{
    Differences, SnapshotEntry, SnapshotTable, VolumeEntry, VolumeTable,
};
use serde::Serialize;

use super::View;
use crate::table::{NOTHING_TO_SAY, now, or_dash, table, until};

/// What `drover volume ls --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct VolumesView {
    /// One entry a volume.
    volumes: Vec<VolumeEntry>,
    #[serde(skip)]
    now: u64,
}

/// What `drover volume inspect --json` writes.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct VolumeView(pub(crate) VolumeEntry);

/// What `drover volume snapshot ls --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotsView {
    /// One entry a snapshot.
    snapshots: Vec<SnapshotEntry>,
    /// What programs said that were asked to write everything down, where that failed.
    complaints: Vec<String>,
    #[serde(skip)]
    now: u64,
}

/// What `drover volume snapshot diff --json` writes.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct DifferenceView(pub(crate) Differences);

impl VolumesView {
    pub(crate) fn new(table: VolumeTable) -> Self {
        Self {
            volumes: table.volumes,
            now: now(),
        }
    }
}

impl SnapshotsView {
    pub(crate) fn new(table: SnapshotTable) -> Self {
        Self {
            snapshots: table.snapshots,
            complaints: table.complaints,
            now: now(),
        }
    }
}

/// A number of bytes in the largest unit that leaves something before the point.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < units.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 || whole >= 100 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{tenths} {name}")
    }
}

fn state_text(volume: &VolumeEntry, now: u64) -> String {
    match (volume.state.as_str(), volume.restorable_until) {
        ("trashed", Some(end)) => format!("in the trash, goes {}", until(now, end)),
        ("ready", _) if volume.health != "ok" => format!("! {}", volume.health),
        ("ready", _) if volume.mount_point.is_some() => "attached".to_owned(),
        ("ready", _) => NOTHING_TO_SAY.to_owned(),
        (other, _) => other.to_owned(),
    }
}

impl View for VolumesView {
    fn render(&self) -> String {
        if self.volumes.is_empty() {
            return "no volumes: `docker volume create -d drover-vol NAME`".to_owned();
        }
        let rows = self.volumes.iter().map(|volume| {
            vec![
                volume.name.to_string(),
                volume.backend.to_string(),
                or_dash(volume.size),
                or_dash(volume.used.map(bytes_text)),
                volume.snapshots.to_string(),
                or_dash(volume.last_snapshot.map(|time| until(self.now, time))),
                state_text(volume, self.now),
            ]
        });
        let headers = [
            "VOLUME",
            "BACKEND",
            "SIZE",
            "USED",
            "SNAPSHOTS",
            "LATEST",
            "STATE",
        ];
        table(&headers, &[2, 3, 4], rows.collect())
    }
}

impl View for VolumeView {
    fn render(&self) -> String {
        let (volume, now) = (&self.0, now());
        let mut lines = Vec::new();
        let mut say = |name: &str, text: String| lines.push(format!("{name:<15}{text}"));
        say("volume", volume.name.to_string());
        say("id", volume.id.to_string());
        say("backend", volume.backend.to_string());
        let size = volume.size.map(|size| size.to_string());
        say(
            "size",
            size.unwrap_or_else(|| "as much as the pool holds".to_owned()),
        );
        say("used", or_dash(volume.used.map(bytes_text)));
        say("created", until(now, volume.created_at));
        say("state", volume.state.clone());
        let at = volume
            .mount_point
            .as_ref()
            .map(|at| at.display().to_string());
        say("attached", or_dash(at));
        say("snapshots", volume.snapshots.to_string());
        if let Some(last) = volume.last_snapshot {
            say("last snapshot", until(now, last));
        }
        if let Some(next) = volume.next_snapshot {
            say("next snapshot", until(now, next));
        }
        if volume.paused {
            say("schedules", "paused".to_owned());
        }
        let backup = volume.last_backup.map(|last| until(now, last));
        say("last backup", backup.unwrap_or_else(|| "never".to_owned()));
        say("health", volume.health.clone());
        for (name, value) in &volume.options {
            say("option", format!("{name}={value}"));
        }
        lines.join("\n")
    }
}

impl View for SnapshotsView {
    fn render(&self) -> String {
        let mut parts = Vec::new();
        if self.snapshots.is_empty() {
            parts.push("no snapshots: `drover volume snapshot create VOLUME@NAME`".to_owned());
        } else {
            let rows = self.snapshots.iter().map(|snapshot| {
                let consistency = if snapshot.application_consistent {
                    "application"
                } else {
                    "crash"
                };
                let at = snapshot.mount_point.as_ref();
                vec![
                    format!("{}@{}", snapshot.volume, snapshot.name),
                    until(self.now, snapshot.taken_at),
                    or_dash(snapshot.exclusive.map(bytes_text)),
                    snapshot.reason.clone(),
                    consistency.to_owned(),
                    or_dash(at.map(|at| at.display().to_string())),
                ]
            });
            let headers = ["SNAPSHOT", "TAKEN", "OWN", "WHY", "CONSISTENT", "MOUNTED"];
            parts.push(table(&headers, &[2], rows.collect()));
        }
        let complaints = self.complaints.iter().map(|text| format!("! {text}"));
        let complaints: Vec<String> = complaints.collect();
        if !complaints.is_empty() {
            parts.push(complaints.join("\n"));
        }
        parts.join("\n\n")
    }
}

impl View for DifferenceView {
    fn render(&self) -> String {
        if self.0.differences.is_empty() {
            return "nothing differs".to_owned();
        }
        let lines = self.0.differences.iter().map(|it| {
            let sign = match it.change.as_str() {
                "added" => '+',
                "removed" => '-',
                _ => 'M',
            };
            format!("{sign} {:>10}  {}", bytes_text(it.size), it.path)
        });
        let mut lines: Vec<String> = lines.collect();
        if !self.0.complete {
            lines.push("and more".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::golden::assert_golden;

    const NOW: u64 = 1_796_000_000;

    #[test]
    fn a_volume_says_how_full_it_is_and_when_it_goes() {
        let table: VolumeTable =
            serde_json::from_str(include_str!("../../tests/answers/volumes.json")).unwrap();
        let mut view = VolumesView::new(table);
        view.now = NOW;
        assert_golden("volumes", &view.render());
        assert_golden(
            "volumes-json",
            &serde_json::to_string_pretty(&view).unwrap(),
        );
    }

    #[test]
    fn a_snapshot_says_what_it_is_good_for() {
        let table: SnapshotTable =
            serde_json::from_str(include_str!("../../tests/answers/snapshots.json")).unwrap();
        let mut view = SnapshotsView::new(table);
        view.now = NOW;
        assert_golden("snapshots", &view.render());
    }

    #[test]
    fn bytes_are_told_in_one_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 << 30, "10.0 GiB"),
            (500 << 20, "500 MiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
