//! `drover status`: this host, its processes, and the hosts of its cluster.

use std::net::IpAddr;

use drover_control_api::coordinator::{EngineStatus, HostStatus, StatusAnswer, StoreStatus};
use drover_control_api::plugin::Identity;
use drover_control_api::volume::{VolumeReport, VolumeStatus};
use drover_daemon::Settings;
use drover_model::HostName;
use serde::Serialize;

use super::View;
use super::volumes::bytes_text;
use crate::ask::{self, CommandError, LIMIT};
use crate::authorization;
use crate::process::Process;
use crate::table::{list, now, or_dash, table, until};

/// What `drover status --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    /// This host; `null` when the coordinator does not answer.
    host: Option<HostName>,
    /// The cluster's id.
    cluster: Option<String>,
    /// `kind` (`embedded`, `etcd`), `endpoints`, `reachable`, `problem`.
    store: Option<StoreStatus>,
    /// `address`, `version`, `problem`.
    engine: Option<EngineStatus>,
    /// Seconds since 1970; `null` on one host alone.
    certificate_expires_at: Option<u64>,
    /// Whether this host was removed from its cluster.
    fenced: bool,
    /// The volumes of this host; `null` when `drover-vol` does not answer.
    volumes: Option<VolumeReport>,
    /// The processes of this host.
    processes: Vec<ProcessView>,
    /// The hosts of the cluster, this one included.
    hosts: Vec<HostView>,
    #[serde(skip)]
    now: u64,
}

/// A process of this host.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessView {
    /// `drover-coordinator`, `drover-ipam`, `drover-net`.
    name: &'static str,
    /// Whether it answers.
    answers: bool,
    /// Its process id.
    pid: Option<u32>,
    /// Its version.
    version: Option<String>,
    /// What is not as it should be: its own words, or why it does not answer.
    complaints: Vec<String>,
}

impl ProcessView {
    /// Why it does not answer names the process already.
    fn complaint_lines(&self) -> impl Iterator<Item = String> {
        let who = if self.answers {
            format!("`{}`: ", self.name)
        } else {
            String::new()
        };
        self.complaints
            .iter()
            .map(move |text| format!("! {who}{text}"))
    }
}

/// A host of the cluster.
#[derive(Debug, Serialize)]
pub(crate) struct HostView {
    /// Its name.
    name: HostName,
    /// Its small number.
    index: u16,
    /// Where other hosts reach it.
    address: IpAddr,
    /// Whether it holds its lease.
    alive: bool,
    /// The MTU of its link.
    mtu: u16,
    /// The version of Drover it runs.
    version: String,
    /// How far its clock is off, seconds; `null` when not known.
    clock_offset: Option<i64>,
}

/// Asks every process. Those that do not answer are part of the answer.
pub(crate) async fn gather(settings: &Settings) -> (StatusView, Option<CommandError>) {
    let (coordinator, ipam, network, names, volumes, report) = tokio::join!(
        ask::status(settings),
        ask::identity(settings, Process::Ipam),
        ask::identity(settings, Process::Network),
        ask::identity(settings, Process::Names),
        ask::identity(settings, Process::Volumes),
        ask::ask(settings, Process::Volumes, &VolumeStatus {}, LIMIT),
    );
    let (status, trouble) = match coordinator {
        Ok(status) => (Ok(status), None),
        Err(error) => (Err(error.to_string()), Some(error)),
    };
    let identity = status
        .as_ref()
        .map(|status| status.identity.clone())
        .map_err(Clone::clone);
    let mut processes = vec![
        process(Process::Coordinator, identity),
        process(Process::Ipam, ipam.map_err(|error| error.to_string())),
        process(Process::Network, network.map_err(|error| error.to_string())),
        process(Process::Names, names.map_err(|error| error.to_string())),
        process(Process::Volumes, volumes.map_err(|error| error.to_string())),
    ];
    if authorization::is_set_up(settings) {
        let identity = ask::identity(settings, Process::Authorization).await;
        let identity = identity.map_err(|error| error.to_string());
        processes.push(process(Process::Authorization, identity));
    }
    let mut view = view(status.ok(), processes, now());
    view.volumes = report.ok();
    (view, trouble)
}

fn process(process: Process, identity: Result<Identity, String>) -> ProcessView {
    let name = process.name();
    match identity {
        Ok(identity) => ProcessView {
            name,
            answers: true,
            pid: Some(identity.pid),
            version: Some(identity.version),
            complaints: identity.complaints,
        },
        Err(reason) => ProcessView {
            name,
            answers: false,
            pid: None,
            version: None,
            complaints: vec![reason],
        },
    }
}

fn view(status: Option<StatusAnswer>, processes: Vec<ProcessView>, now: u64) -> StatusView {
    let mut view = StatusView {
        host: None,
        cluster: None,
        store: None,
        engine: None,
        certificate_expires_at: None,
        fenced: false,
        volumes: None,
        processes,
        hosts: Vec::new(),
        now,
    };
    if let Some(status) = status {
        view.host = Some(status.host);
        view.cluster = Some(status.cluster);
        view.store = Some(status.store);
        view.engine = Some(status.engine);
        view.certificate_expires_at = status.certificate_expires_at;
        view.fenced = status.fenced;
        view.hosts = status.hosts.into_iter().map(host).collect();
    }
    view
}

fn host(status: HostStatus) -> HostView {
    let host = status.host;
    HostView {
        name: host.name,
        index: host.index.get(),
        address: host.advertise,
        alive: status.alive,
        mtu: host.underlay_mtu.get(),
        version: host.software,
        clock_offset: status.clock_offset,
    }
}

impl View for StatusView {
    fn render(&self) -> String {
        let mut parts = vec![self.summary(), self.process_table()];
        if !self.hosts.is_empty() {
            parts.push(self.host_table());
        }
        let complaints = self.processes.iter().flat_map(ProcessView::complaint_lines);
        let complaints: Vec<String> = complaints.collect();
        if !complaints.is_empty() {
            parts.push(complaints.join("\n"));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n\n")
    }
}

impl StatusView {
    fn summary(&self) -> String {
        let mut lines = Vec::new();
        let mut say = |name: &str, text: String| lines.push(format!("{name:<13}{text}"));
        if let Some(host) = &self.host {
            let removed = if self.fenced {
                " (removed from its cluster: run `drover leave`)"
            } else {
                ""
            };
            say("host", format!("{host}{removed}"));
        }
        if let Some(cluster) = &self.cluster {
            let alive = self.hosts.iter().filter(|host| host.alive).count();
            say(
                "cluster",
                format!("{cluster}, {alive} of {} hosts alive", self.hosts.len()),
            );
        }
        if let Some(store) = &self.store {
            say("store", store_text(store));
        }
        if let Some(engine) = &self.engine {
            say("engine", engine_text(engine));
        }
        if let Some(end) = self.certificate_expires_at {
            say("certificate", format!("ends {}", until(self.now, end)));
        }
        if let Some(volumes) = &self.volumes {
            say("volumes", volume_text(volumes));
        }
        lines.join("\n")
    }

    fn process_table(&self) -> String {
        let rows = self.processes.iter().map(|process| {
            let state = if process.answers {
                "answers"
            } else {
                "does not answer"
            };
            let version = or_dash(process.version.as_deref());
            vec![
                process.name.to_owned(),
                state.to_owned(),
                or_dash(process.pid),
                version,
            ]
        });
        table(
            &["PROCESS", "STATE", "PID", "VERSION"],
            &[2],
            rows.collect(),
        )
    }

    fn host_table(&self) -> String {
        let rows = self.hosts.iter().map(|host| {
            let clock = host.clock_offset.map(|offset| format!("{offset:+} s"));
            vec![
                host.name.to_string(),
                host.index.to_string(),
                host.address.to_string(),
                if host.alive { "yes" } else { "no" }.to_owned(),
                host.mtu.to_string(),
                host.version.clone(),
                or_dash(clock),
            ]
        });
        let headers = [
            "HOST", "INDEX", "ADDRESS", "ALIVE", "MTU", "VERSION", "CLOCK",
        ];
        table(&headers, &[1, 4, 6], rows.collect())
    }
}

fn volume_text(report: &VolumeReport) -> String {
    let Some(pool) = &report.pool else {
        if report.planned {
            return "none; the first has a btrfs in a loop file made".to_owned();
        }
        return format!("{}, and no place for new ones", report.volumes);
    };
    let trash = match report.trashed {
        0 => String::new(),
        trashed => format!(", {trashed} more in the trash"),
    };
    let limits = if pool.snapshots {
        ""
    } else {
        ", without snapshots and limits of size"
    };
    format!(
        "{} on {}{limits} ({}, {} of {} used){trash}; {}",
        report.volumes,
        pool.backend,
        pool.place,
        bytes_text(pool.used),
        bytes_text(pool.capacity),
        pool.reason,
    )
}

fn store_text(store: &StoreStatus) -> String {
    let place = match store.endpoints.as_slice() {
        [] => store.kind.clone(),
        endpoints => format!("{} at {}", store.kind, list(endpoints)),
    };
    match (&store.problem, store.reachable) {
        (Some(problem), _) => format!("{place}: {problem}"),
        (None, false) => format!("{place}: does not answer"),
        (None, true) => place,
    }
}

fn engine_text(engine: &EngineStatus) -> String {
    match (&engine.version, &engine.problem) {
        (Some(version), None) => format!("Docker {version} at {}", engine.address),
        (_, Some(problem)) => format!("{}: {problem}", engine.address),
        (None, None) => format!("{}: not asked yet", engine.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::golden::assert_golden;

    fn answer() -> StatusAnswer {
        serde_json::from_str(include_str!("../../tests/answers/status.json")).unwrap()
    }

    fn identity(name: &str, complaints: &[&str]) -> Identity {
        Identity {
            process: name.to_owned(),
            version: "0.1.0".to_owned(),
            pid: 812,
            complaints: complaints.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_cluster_at_a_glance() {
        let answer = answer();
        let processes = vec![
            process(Process::Coordinator, Ok(answer.identity.clone())),
            process(Process::Ipam, Ok(identity("drover-ipam", &[]))),
            process(
                Process::Network,
                Ok(identity("drover-net", &["the engine never asked"])),
            ),
        ];
        let view = view(Some(answer), processes, 1_790_000_000);
        assert_golden("status", &view.render());
        assert_golden("status-json", &serde_json::to_string_pretty(&view).unwrap());
    }

    #[test]
    fn where_volumes_lie_is_told_with_the_reason() {
        let told = include_str!("../../tests/answers/volume-status.json");
        let mut report: VolumeReport = serde_json::from_str(told).unwrap();
        let text = volume_text(&report);
        assert!(
            text.ends_with("; the state directory is on no btrfs, so there is one in a loop file"),
            "{text}"
        );
        let reason = "no btrfs is to be had: install the package btrfs-progs";
        let pool = report.pool.as_mut().unwrap();
        pool.snapshots = false;
        pool.reason = reason.to_owned();
        let text = volume_text(&report);
        for part in ["without snapshots and limits of size", reason] {
            assert!(text.contains(part), "no `{part}`: {text}");
        }
    }

    #[test]
    fn without_a_coordinator_it_says_who_is_missing() {
        let processes = vec![
            process(Process::Coordinator, Err("no answer".to_owned())),
            process(Process::Ipam, Ok(identity("drover-ipam", &[]))),
        ];
        assert_golden("status-down", &view(None, processes, 0).render());
    }
}
