//! `drover networks`: the networks of the cluster and where they are.

use std::collections::BTreeMap;

use drover_control_api::coordinator::{NetworkStatus, NetworkTable, Networks};
use drover_control_api::record::NetworkState;
use drover_daemon::Settings;
use drover_model::{Encryption, HostName, LogicalNetworkId, NetworkId, Pool};
use serde::Serialize;

use super::View;
use crate::ask::{self, CommandError, LIMIT};
use crate::process::Process;
use crate::table::{list, short_list, table};

/// What `drover networks --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct NetworksView {
    /// One entry a network.
    networks: Vec<NetworkView>,
    /// What only a person can settle, a sentence each.
    conflicts: Vec<String>,
}

/// A network.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkView {
    /// Its name in Docker.
    name: String,
    /// Its id in the cluster.
    id: LogicalNetworkId,
    /// Its subnets.
    subnets: Vec<Pool>,
    /// `ipsec` or `off`.
    encryption: Encryption,
    /// `--internal`.
    internal: bool,
    /// Docker's id on each host that has a copy.
    copies: BTreeMap<HostName, NetworkId>,
    /// How many endpoints each host has, where there are any.
    endpoints: BTreeMap<HostName, u32>,
    /// `active`, `removal_requested`, `removing`.
    state: &'static str,
    /// Who asked for the removal.
    removal_requested_by: Option<HostName>,
    /// When, seconds since 1970.
    removal_requested_at: Option<u64>,
}

/// Asks the coordinator.
pub(crate) async fn gather(settings: &Settings) -> Result<NetworksView, CommandError> {
    Ok(view(
        ask::ask(settings, Process::Coordinator, &Networks {}, LIMIT).await?,
    ))
}

fn view(table: NetworkTable) -> NetworksView {
    let mut networks: Vec<NetworkView> = table.networks.into_iter().map(network).collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
    NetworksView {
        networks,
        conflicts: table.conflicts,
    }
}

fn network(status: NetworkStatus) -> NetworkView {
    let record = status.network;
    let (state, by, at) = match record.state {
        NetworkState::Active => ("active", None, None),
        NetworkState::RemovalRequested { by, at } => ("removal_requested", Some(by), Some(at)),
        NetworkState::Removing => ("removing", None, None),
    };
    NetworkView {
        name: record.name,
        id: record.id,
        subnets: record.subnets.iter().map(|subnet| subnet.pool).collect(),
        encryption: record.encryption,
        internal: record.internal,
        copies: status.copies,
        endpoints: status.endpoints,
        state,
        removal_requested_by: by,
        removal_requested_at: at,
    }
}

impl NetworkView {
    fn state_text(&self) -> String {
        match (self.state, &self.removal_requested_by) {
            ("removal_requested", Some(by)) => format!("removal requested by {by}"),
            (state, _) => state.to_owned(),
        }
    }
}

impl View for NetworksView {
    fn render(&self) -> String {
        let mut parts = Vec::new();
        if self.networks.is_empty() {
            parts.push(
                "no networks: `docker network create -d drover-net --ipam-driver drover-ipam -o encryption=off NAME`"
                    .to_owned(),
            );
        } else {
            let rows = self.networks.iter().map(|network| {
                let endpoints = network
                    .endpoints
                    .iter()
                    .map(|(host, count)| format!("{host}: {count}"));
                vec![
                    network.name.clone(),
                    list(&network.subnets),
                    encryption_text(network.encryption).to_owned(),
                    short_list(network.copies.keys()),
                    short_list(endpoints),
                    network.state_text(),
                ]
            });
            let headers = [
                "NETWORK",
                "SUBNETS",
                "ENCRYPTION",
                "HOSTS",
                "ENDPOINTS",
                "STATE",
            ];
            parts.push(table(&headers, &[], rows.collect()));
        }
        if !self.conflicts.is_empty() {
            let conflicts: Vec<String> = self
                .conflicts
                .iter()
                .map(|text| format!("! {text}"))
                .collect();
            parts.push(conflicts.join("\n"));
        }
        parts.join("\n\n")
    }
}

const fn encryption_text(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Ipsec => "ipsec",
        Encryption::Off => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::golden::assert_golden;

    #[test]
    fn a_network_says_where_it_is_and_whether_it_goes() {
        let table =
            serde_json::from_str(include_str!("../../tests/answers/networks.json")).unwrap();
        let view = view(table);
        assert_golden("networks", &view.render());
        assert_golden(
            "networks-json",
            &serde_json::to_string_pretty(&view).unwrap(),
        );
    }
}
