//! What the engine has is told to the plugins, which must not ask it themselves: addresses in use to
//! `drover-ipam`, so that leaked leases are released; and the endpoints that `drover-net` has are asked for
//! now and then, in case a report was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::plugin::{ConfirmLeases, Endpoints, Reconcile};
use drover_engine::Engine;
use drover_http::control;
use drover_model::NetworkId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Coordinator;
use crate::context::now;
use crate::mirror::chain;
use crate::networks::record::NETWORK_DRIVER;

/// How often leases are confirmed.
const LEASES: Duration = Duration::from_secs(300);
/// How long after a new engine process leases are confirmed and endpoints compared again: by then it has restored its
/// containers.
const ENGINE_SETTLES: Duration = Duration::from_secs(10);
/// How long after a new engine process endpoints are compared again and again; a slow one is not done sooner.
const ENGINE_IS_SETTLED: Duration = Duration::from_secs(150);
/// Leases that are younger, in seconds, may belong to a container that is being started.
const YOUNG: u64 = 60;
/// How often endpoints are asked for.
const ENDPOINTS: Duration = Duration::from_secs(60);
/// How soon to ask again when there was no answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Confirms until the shutdown.
pub async fn serve(coordinator: Arc<Coordinator>, mut shutdown: watch::Receiver<bool>) {
    let work = async {
        tokio::join!(confirm_leases(&coordinator), ask_endpoints(&coordinator));
    };
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

async fn confirm_leases(coordinator: &Coordinator) {
    let mut started = coordinator.networks.engine_starts();
    let mut next = Instant::now() + ENGINE_SETTLES;
    loop {
        // Both arms are cancel-safe.
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                confirm(coordinator).await;
                next = Instant::now() + LEASES;
            }
            changed = started.changed() => {
                if changed.is_err() {
                    return;
                }
                next = Instant::now() + ENGINE_SETTLES;
            }
        }
    }
}

/// Tells `drover-ipam` which addresses are in use, if the engine has answered everything.
async fn confirm(coordinator: &Coordinator) {
    let before = now().saturating_sub(YOUNG);
    let in_use = match addresses_in_use(&coordinator.context.engine).await {
        Ok(in_use) => in_use,
        Err(error) => {
            tracing::info!(
                error = chain(&error),
                "leases are not confirmed: the engine did not tell all"
            );
            return;
        }
    };
    let request = ConfirmLeases { in_use, before };
    match control::call(&coordinator.context.ipam, &request, LIMIT).await {
        Ok(leaked) if leaked.released.is_empty() => {}
        Ok(leaked) => {
            tracing::warn!(addresses = ?leaked.released, "leases had leaked and were released")
        }
        Err(error) => tracing::info!(error = chain(&error), "leases are not confirmed"),
    }
}

/// Every address that a container of this engine has on a network of ours.
///
/// # Errors
/// When the engine does not answer every question.
pub async fn addresses_in_use(engine: &Engine) -> Result<BTreeSet<IpAddr>, drover_engine::Error> {
    let mut texts = Vec::new();
    let mut ours = BTreeSet::new();
    for network in engine.networks().await? {
        if network.driver != NETWORK_DRIVER {
            continue;
        }
        match engine.network(&network.id).await {
            Ok(detail) => {
                for endpoint in detail.containers.into_values() {
                    texts.extend([endpoint.ipv4_address, endpoint.ipv6_address]);
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        ours.insert(network.id);
    }
    // A container that is being started is listed before its network tells of it.
    for container in engine.running_containers().await? {
        for endpoint in container.network_settings.networks.into_values() {
            if ours.contains(&endpoint.network_id) {
                texts.extend([endpoint.ip_address, endpoint.global_ipv6_address]);
            }
        }
    }
    let addresses = texts
        .iter()
        .filter_map(|text| text.split('/').next()?.parse().ok());
    Ok(addresses.collect())
}

async fn ask_endpoints(coordinator: &Coordinator) {
    let mut started = coordinator.networks.engine_starts();
    // When to compare again, and how long after the engine's start that is.
    let mut settles: Option<(Instant, Duration)> = None;
    loop {
        // An engine that crashed has removed what it had of its containers, and told nobody. While it starts it may
        // still be removing.
        if started.has_changed().unwrap_or(false) {
            started.mark_unchanged();
            settles = Some((Instant::now() + ENGINE_SETTLES, ENGINE_SETTLES));
            compare(coordinator).await;
        } else if let Some((at, after)) = settles.filter(|(at, _)| *at <= Instant::now()) {
            // Twice as long after the start as the last time.
            settles = (after < ENGINE_IS_SETTLED).then(|| (at + after, after * 2));
            compare(coordinator).await;
        }
        let answer = control::call(&coordinator.context.network, &Endpoints {}, LIMIT).await;
        let pause = match answer {
            Ok(table) => {
                let mut counts: BTreeMap<NetworkId, u32> = BTreeMap::new();
                for endpoint in table.endpoints {
                    let count = counts.entry(endpoint.network).or_default();
                    *count = count.saturating_add(1);
                }
                coordinator.networks.report(counts);
                ENDPOINTS
            }
            Err(error) => {
                tracing::debug!(
                    error = chain(&error),
                    "drover-net does not tell its endpoints"
                );
                RETRY
            }
        };
        let next = Instant::now() + pause;
        let next = settles.map_or(next, |(at, _)| at.min(next));
        // Both arms are cancel-safe.
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            changed = started.changed() => {
                if changed.is_err() {
                    return;
                }
                started.mark_changed();
            }
        }
    }
}

async fn compare(coordinator: &Coordinator) {
    match control::call(&coordinator.context.network, &Reconcile {}, LIMIT).await {
        Ok(_) => {}
        Err(error) => tracing::debug!(error = chain(&error), "drover-net does not compare"),
    }
}
