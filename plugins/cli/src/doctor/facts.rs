//! What is known of a host before anything is judged.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use drover_control_api::coordinator::{Examination, Examine, StatusAnswer};
use drover_control_api::names::{NameReport, NameStatus};
use drover_control_api::plugin::{
    EndpointTable, Endpoints, Identity, LeaseTable, Leases, PathTable, Paths,
};
use drover_daemon::Settings;
use tokio::time::sleep;

use super::boot::{self, Supervision};
use super::kernel::{self, KernelFacts};
use super::overlay::{self, OverlayFacts};
use super::port::{self, PortFact};
use super::socket::{self, SocketState};
use crate::ask::{LIMIT, ask, engine, identity, status};
use crate::authorization;
use crate::process::Process;
use crate::table::now;

/// A container that is starting has an endpoint before it counts as running: look twice.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// The facts. What could not be learned is `None`, or an error in words.
pub(crate) struct Facts {
    pub(crate) processes: Vec<ProcessFact>,
    pub(crate) supervision: Supervision,
    pub(crate) dead_sockets: Vec<PathBuf>,
    pub(crate) engine_address: String,
    pub(crate) engine: Result<String, String>,
    pub(crate) authorization: AuthorizationFact,
    pub(crate) kernel: Result<KernelFacts, String>,
    pub(crate) overlay: Result<OverlayFacts, String>,
    pub(crate) has_etcd_program: bool,
    pub(crate) status: Option<StatusAnswer>,
    pub(crate) ports: Vec<PortFact>,
    pub(crate) paths: Option<PathTable>,
    pub(crate) endpoints: Option<EndpointTable>,
    /// The endpoints that running containers have; `None` when the engine did not say.
    pub(crate) engine_endpoints: Option<BTreeSet<String>>,
    pub(crate) leases: Option<LeaseTable>,
    pub(crate) names: Option<NameReport>,
    pub(crate) examination: Option<Examination>,
    pub(crate) vxlan_port: u16,
    pub(crate) now: u64,
}

/// The authorization plugin.
pub(crate) struct AuthorizationFact {
    /// Whether it runs on this host, or should.
    pub(crate) is_set_up: bool,
    /// Whether the engine's settings name it.
    pub(crate) engine_is_told: bool,
    pub(crate) state: SocketState,
}

/// A process of this host.
pub(crate) struct ProcessFact {
    pub(crate) process: Process,
    pub(crate) socket: PathBuf,
    pub(crate) state: SocketState,
    pub(crate) identity: Result<Identity, String>,
}

pub(crate) async fn gather(settings: &Settings) -> Facts {
    let mut processes = Vec::new();
    for process in Process::of(settings) {
        processes.push(ProcessFact {
            process,
            socket: process.socket(settings),
            state: socket::state(&process.socket(settings)),
            identity: identity(settings, process)
                .await
                .map_err(|error| error.to_string()),
        });
    }
    let status = status(settings).await.ok();
    let ports = match &status {
        Some(status) => port::probe(status, settings).await,
        None => Vec::new(),
    };
    let (endpoints, engine_endpoints) = gather_endpoints(settings).await;
    let (coordinator, network) = (Process::Coordinator, Process::Network);
    Facts {
        processes,
        supervision: boot::look(settings),
        dead_sockets: socket::dead(&settings.plugin_dir),
        engine_address: settings.docker_host.clone(),
        engine: engine_version(settings).await,
        authorization: AuthorizationFact {
            is_set_up: authorization::is_set_up(settings),
            engine_is_told: authorization::engine_is_told(),
            state: socket::state(&Process::Authorization.socket(settings)),
        },
        kernel: kernel::probe(),
        overlay: overlay::look(&settings.overlay_namespace()),
        has_etcd_program: kernel::program("etcd").is_some(),
        ports,
        paths: ask(settings, network, &Paths {}, LIMIT).await.ok(),
        endpoints,
        engine_endpoints,
        leases: ask(settings, Process::Ipam, &Leases {}, LIMIT).await.ok(),
        names: ask(settings, Process::Names, &NameStatus {}, LIMIT)
            .await
            .ok(),
        examination: ask(settings, coordinator, &Examine {}, LIMIT).await.ok(),
        status,
        vxlan_port: settings.overlay.vxlan_port,
        now: now(),
    }
}

async fn engine_version(settings: &Settings) -> Result<String, String> {
    let words = |error: drover_engine::Error| format!("{:#}", anyhow::Error::new(error));
    let engine = engine(settings).map_err(words)?;
    Ok(engine.version().await.map_err(words)?.version)
}

/// The endpoints of `drover-net`, and those of the engine's running containers. Endpoints that only one
/// of two looks has seen are coming or going, and are left out.
async fn gather_endpoints(
    settings: &Settings,
) -> (Option<EndpointTable>, Option<BTreeSet<String>>) {
    let first = ask(settings, Process::Network, &Endpoints {}, LIMIT)
        .await
        .ok();
    let running = engine_endpoints(settings).await;
    let (mut table, known) = match (first, running.clone()) {
        (Some(table), Some(known)) => (table, known),
        (first, _) => return (first, running),
    };
    if table
        .endpoints
        .iter()
        .all(|endpoint| known.contains(endpoint.endpoint.as_str()))
    {
        return (Some(table), running);
    }
    sleep(SECOND_LOOK).await;
    let second = ask(settings, Process::Network, &Endpoints {}, LIMIT)
        .await
        .ok();
    let Some(second) = second else {
        return (Some(table), running);
    };
    table.endpoints.retain(|endpoint| {
        second
            .endpoints
            .iter()
            .any(|again| again.endpoint == endpoint.endpoint)
    });
    let mut known = known;
    known.extend(engine_endpoints(settings).await.unwrap_or_default());
    (Some(table), Some(known))
}

async fn engine_endpoints(settings: &Settings) -> Option<BTreeSet<String>> {
    let engine = engine(settings).ok()?;
    let containers = engine.running_containers().await.ok()?;
    let endpoints = containers
        .iter()
        .flat_map(|container| container.endpoints().values());
    Some(
        endpoints
            .map(|endpoint| endpoint.endpoint_id.clone())
            .collect(),
    )
}
