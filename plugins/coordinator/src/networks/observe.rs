//! From the store and the engine to the planner's view. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::{AttachmentRecord, CopyRecord, NetworkRecord, PoolRecord, Subnet};
use drover_engine::{IpamConfig, Network as EngineNetwork};
use drover_model::{HostName, LogicalNetworkId, NetworkId};

use super::record::NETWORK_DRIVER;
use super::view::{LocalNetwork, Network, View};
use crate::mirror::Snapshot;

/// What is known besides the store and the engine's list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// How many endpoints each of the engine's networks has, by `drover-net`.
    pub endpoints: Option<BTreeMap<NetworkId, u32>>,
    /// Networks whose last endpoint has been gone for long enough.
    pub settled: BTreeSet<NetworkId>,
    /// Networks that the engine has removed for certain.
    pub gone: BTreeSet<NetworkId>,
    /// What the engine refused, while it is too early to try again.
    pub refused: BTreeMap<LogicalNetworkId, String>,
    /// The network that a copy of this name was being made for when the process ended.
    pub intended: BTreeMap<String, LogicalNetworkId>,
    /// This engine's networks of a cluster that this host has left.
    pub left: BTreeSet<NetworkId>,
    /// Whether the engine was set up anew.
    pub engine_is_new: bool,
}

/// The view.
#[must_use]
pub fn view(host: &HostName, snapshot: &Snapshot, engine: &[EngineNetwork], known: &Known) -> View {
    let (ours, others): (Vec<_>, Vec<_>) = engine
        .iter()
        .partition(|network| network.driver == NETWORK_DRIVER);
    let local = ours.into_iter().filter_map(|network| {
        let id: NetworkId = network.id.parse().ok()?;
        let endpoints = known
            .endpoints
            .as_ref()
            .and_then(|all| all.get(&id))
            .copied();
        let mut local = local(network);
        local.in_use |= endpoints.unwrap_or(0) > 0;
        local.left = known.left.contains(&id);
        local.made_for = known.intended.get(&local.name).cloned();
        Some((id, local))
    });
    let networks = snapshot
        .records::<NetworkRecord>("networks/")
        .map(|(_, record)| (record.id.clone(), network(host, snapshot, known, record)));
    let alive = snapshot
        .under("alive/")
        .filter_map(|(name, _)| name.parse().ok());
    let names = snapshot
        .records("names/")
        .map(|(name, id)| (name.to_owned(), id));
    let pools = snapshot
        .records::<PoolRecord>("pools/")
        .map(|(_, record)| (record.pool, record.network));
    View {
        host: host.clone(),
        alive: alive.collect(),
        networks: networks.collect(),
        names: names.collect(),
        pools: pools.collect(),
        local: local.collect(),
        foreign: others
            .into_iter()
            .map(|network| network.name.clone())
            .collect(),
        intended: known.intended.keys().cloned().collect(),
        engine_is_new: known.engine_is_new,
    }
}

fn network(host: &HostName, snapshot: &Snapshot, known: &Known, record: NetworkRecord) -> Network {
    let id = &record.id;
    let present = |name: &str| snapshot.entry(&format!("hosts/{name}")).is_some();
    let copies: BTreeMap<HostName, NetworkId> = snapshot
        .records::<CopyRecord>(&format!("copies/{id}/"))
        .filter(|(name, _)| present(name))
        .filter_map(|(name, copy)| Some((name.parse().ok()?, copy.network)))
        .collect();
    let attachments = snapshot
        .records::<AttachmentRecord>(&format!("attachments/{id}/"))
        .filter(|(name, _)| present(name))
        .filter_map(|(name, attachment)| Some((name.parse().ok()?, attachment.endpoints)))
        .collect();
    let copy = copies.get(host);
    let endpoints = known
        .endpoints
        .as_ref()
        .map(|all| copy.and_then(|copy| all.get(copy)).copied().unwrap_or(0));
    Network {
        settled: copy.is_none_or(|copy| known.settled.contains(copy)),
        gone_for_certain: copy.is_some_and(|copy| known.gone.contains(copy)),
        refused: known.refused.get(id).cloned(),
        endpoints,
        copies,
        attachments,
        record,
    }
}

fn local(network: &EngineNetwork) -> LocalNetwork {
    LocalNetwork {
        name: network.name.clone(),
        subnets: network.ipam.config.iter().filter_map(subnet).collect(),
        labels: network.labels.clone(),
        options: network.options.clone(),
        internal: network.internal,
        attachable: network.attachable,
        ipv6: network.enable_ipv6,
        in_use: !network.containers.is_empty(),
        made_for: None,
        left: false,
    }
}

fn subnet(config: &IpamConfig) -> Option<Subnet> {
    let auxiliary = config.auxiliary_addresses.iter();
    Some(Subnet {
        pool: config.subnet.parse().ok()?,
        sub_pool: config.ip_range.parse().ok(),
        gateway: address(&config.gateway),
        auxiliary: auxiliary
            .filter_map(|(name, text)| Some((name.clone(), address(text)?)))
            .collect(),
    })
}

/// An address, with or without a prefix length: some engines print one with a chosen gateway.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next().and_then(|text| text.parse().ok())
}
