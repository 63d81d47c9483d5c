//! The engine's side of a reset: our networks, and who still uses them.

use drover_daemon::Settings;
use drover_engine::{Error, Network};

use super::Done;
use crate::ask::{CommandError, engine};
use crate::table::list;

/// Our drivers, as the engine calls them.
const NETWORK_DRIVER: &str = "drover-net";
const IPAM_DRIVER: &str = "drover-ipam";

/// The Drover networks of the engine, none of them with a running container.
pub(super) async fn idle_networks(settings: &Settings) -> Result<Vec<Network>, CommandError> {
    let unreachable = |error: Error| {
        CommandError::unavailable(format!(
            "the engine does not answer at `{}`: {:#}; start it, so that its Drover networks can be removed",
            settings.docker_host,
            anyhow::Error::new(error)
        ))
    };
    let engine = engine(settings).map_err(unreachable)?;
    let mut networks = engine.networks().await.map_err(unreachable)?;
    networks.retain(is_ours);
    let containers = engine.running_containers().await.map_err(unreachable)?;
    let on_ours = containers.iter().filter(|container| {
        let mut endpoints = container.endpoints().values();
        endpoints.any(|endpoint| {
            networks
                .iter()
                .any(|network| network.id == endpoint.network_id)
        })
    });
    let names: Vec<&str> = on_ours
        .map(|container| {
            let name = container.names.first().unwrap_or(&container.id);
            name.trim_start_matches('/')
        })
        .collect();
    if names.is_empty() {
        return Ok(networks);
    }
    Err(CommandError::refused(format!(
        "containers run on Drover networks: {}; stop them first: docker stop {}",
        list(&names),
        names.join(" ")
    )))
}

fn is_ours(network: &Network) -> bool {
    network.driver == NETWORK_DRIVER || network.ipam.driver == IPAM_DRIVER
}

/// Removes networks from the engine.
pub(super) async fn remove(settings: &Settings, networks: &[Network], done: &mut Done) {
    let Ok(engine) = engine(settings) else {
        return;
    };
    for network in networks {
        let (name, id) = (&network.name, network.id.get(..12).unwrap_or(&network.id));
        match engine.remove_network(&network.id).await {
            Ok(()) => done.removed(format!("removed network `{name}` ({id}) from the engine")),
            // The coordinator removes copies too when its host leaves a cluster.
            Err(error) if error.is_not_found() => {}
            Err(error) => done.left(format!(
                "network `{name}` ({id}) is still in the engine: {:#}; try: docker network rm {id}",
                anyhow::Error::new(error)
            )),
        }
    }
}
