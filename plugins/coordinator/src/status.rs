//! Tables of what the cluster is, for the command line.

use std::time::Duration;

use drover_control_api::coordinator::{
    EngineStatus, HostStatus, NetworkStatus, NetworkTable, PoolTable, StatusAnswer, StoreStatus,
};
use drover_control_api::plugin::Identity;
use drover_control_api::record::{AttachmentRecord, CopyRecord, HostRecord, NetworkRecord};

use crate::context::StoreKind;
use crate::mirror::Snapshot;
use crate::{Coordinator, membership};

/// How long the engine may take to say which it is.
const ENGINE: Duration = Duration::from_secs(1);

/// See [`drover_control_api::coordinator::Status`].
pub async fn status(coordinator: &Coordinator) -> StatusAnswer {
    let context = &coordinator.context;
    let snapshot = context.cluster.borrow().clone();
    StatusAnswer {
        identity: identity(coordinator),
        host: context.host().clone(),
        store: store(coordinator, &snapshot),
        cluster: context.membership.cluster.clone(),
        hosts: hosts(coordinator, &snapshot),
        engine: engine(coordinator).await,
        certificate_expires_at: membership::certificate_expires_at(&context.settings),
        fenced: context.is_fenced(),
    }
}

/// See [`drover_control_api::plugin::WhoAreYou`].
#[must_use]
pub fn identity(coordinator: &Coordinator) -> Identity {
    let state = coordinator.networks.state();
    let snapshot = coordinator.context.cluster.borrow();
    let mut complaints = state.conflicts;
    complaints.extend(state.engine_problem);
    complaints.extend(snapshot.problem.clone());
    Identity {
        process: crate::NAME.to_owned(),
        version: drover_daemon::VERSION.to_owned(),
        pid: std::process::id(),
        complaints,
    }
}

fn store(coordinator: &Coordinator, snapshot: &Snapshot) -> StoreStatus {
    let (kind, endpoints) = match &coordinator.context.membership.kind {
        StoreKind::Embedded => ("embedded", Vec::new()),
        StoreKind::Etcd { .. } => ("etcd", coordinator.context.store().endpoints()),
    };
    StoreStatus {
        kind: kind.to_owned(),
        endpoints,
        reachable: snapshot.is_complete() && snapshot.problem.is_none(),
        problem: snapshot.problem.clone(),
    }
}

/// Every host and whether it is there.
#[must_use]
pub fn hosts(coordinator: &Coordinator, snapshot: &Snapshot) -> Vec<HostStatus> {
    let clocks = coordinator.clocks.offsets();
    let hosts = snapshot.records::<HostRecord>("hosts/");
    hosts
        .map(|(_, host)| HostStatus {
            alive: snapshot.entry(&format!("alive/{}", host.name)).is_some(),
            clock_offset: clocks.get(&host.name).copied(),
            host,
        })
        .collect()
}

/// Whether the engine answers, and which version it is.
pub async fn engine(coordinator: &Coordinator) -> EngineStatus {
    let engine = &coordinator.context.engine;
    let answer = tokio::time::timeout(ENGINE, engine.version()).await;
    let (version, problem) = match answer {
        Ok(Ok(version)) => (Some(version.version), None),
        Ok(Err(error)) => (None, Some(error.sentence())),
        Err(_) => (None, Some(format!("it did not answer within {ENGINE:?}"))),
    };
    EngineStatus {
        address: engine.address().to_owned(),
        version,
        problem,
    }
}

/// See [`drover_control_api::coordinator::Networks`].
#[must_use]
pub fn networks(snapshot: &Snapshot) -> NetworkTable {
    let networks = snapshot
        .records::<NetworkRecord>("networks/")
        .map(|(id, network)| {
            let copies = format!("copies/{id}/");
            let attachments = format!("attachments/{id}/");
            NetworkStatus {
                copies: snapshot
                    .records::<CopyRecord>(&copies)
                    .filter_map(|(host, copy)| Some((host.parse().ok()?, copy.network)))
                    .collect(),
                endpoints: snapshot
                    .records::<AttachmentRecord>(&attachments)
                    .filter_map(|(host, attachment)| {
                        Some((host.parse().ok()?, attachment.endpoints))
                    })
                    .collect(),
                network,
            }
        });
    let conflicts = snapshot.records::<Vec<String>>("conflicts/");
    NetworkTable {
        networks: networks.collect(),
        conflicts: conflicts
            .filter(|(host, _)| snapshot.entry(&format!("hosts/{host}")).is_some())
            .flat_map(|(_, conflicts)| conflicts)
            .collect(),
    }
}

/// See [`drover_control_api::coordinator::Pools`].
#[must_use]
pub fn pools(snapshot: &Snapshot) -> PoolTable {
    PoolTable {
        pools: snapshot.records("pools/").map(|(_, pool)| pool).collect(),
        blocks: snapshot
            .records("blocks/")
            .map(|(_, block)| block)
            .collect(),
    }
}
