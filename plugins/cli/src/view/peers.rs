//! `drover peers`: how this host reaches each other one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_control_api::coordinator::{HostStatus, StatusAnswer};
use drover_control_api::plugin::{EncryptedPath, PacketCounters, PathEntry, PathTable, Paths};
use drover_daemon::Settings;
use drover_model::{Encapsulation, HostName};
use serde::Serialize;

use super::View;
use crate::ask::{self, CommandError, LIMIT};
use crate::process::Process;
use crate::table::{or_dash, table};

/// What `drover peers --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct PeersView {
    /// One entry a host of the cluster, without this one.
    peers: Vec<PeerView>,
    /// What this host has dropped for the sake of encryption, by cause.
    drops: BTreeMap<String, u64>,
    /// That this host has encrypted networks and cannot encrypt, and why; `null` otherwise.
    cannot_encrypt: Option<String>,
}

/// Another host.
#[derive(Debug, Serialize)]
pub(crate) struct PeerView {
    /// Its name.
    host: HostName,
    /// Where it is.
    address: IpAddr,
    /// Whether it holds its lease; `null` when the coordinator does not say.
    alive: Option<bool>,
    /// `direct`, `vxlan`, `ipsec`; `null` when there is no path to it.
    path: Option<Encapsulation>,
    /// The device in the overlay's namespace.
    device: Option<String>,
    /// The largest packet from a container.
    mtu: Option<u16>,
    /// How many of its blocks are routed there.
    blocks: Option<u32>,
    /// `sent`, `received`, `dropped`, since the path was made.
    packets: Option<PacketCounters>,
    /// The path of encrypted networks; `null` when they have none.
    encryption: Option<EncryptedPath>,
}

/// Asks `drover-net` for the paths and the coordinator for the hosts.
pub(crate) async fn gather(settings: &Settings) -> Result<PeersView, CommandError> {
    let (paths, status) = tokio::join!(
        ask::ask(settings, Process::Network, &Paths {}, LIMIT),
        ask::status(settings)
    );
    Ok(view(paths?, status?))
}

fn view(paths: PathTable, status: StatusAnswer) -> PeersView {
    let this = status.host;
    let others = status
        .hosts
        .into_iter()
        .filter(|host| host.host.name != this);
    let mut peers: Vec<PeerView> = others
        .map(|host| {
            let path = paths.paths.iter().find(|path| path.host == host.host.name);
            peer(&host, path)
        })
        .collect();
    let unknown = paths
        .paths
        .iter()
        .filter(|path| path.host != this && !peers.iter().any(|peer| peer.host == path.host));
    let unknown: Vec<PeerView> = unknown.map(gone).collect();
    peers.extend(unknown);
    PeersView {
        peers,
        drops: paths.drops,
        cannot_encrypt: paths.cannot_encrypt,
    }
}

fn peer(host: &HostStatus, path: Option<&PathEntry>) -> PeerView {
    PeerView {
        host: host.host.name.clone(),
        address: host.host.advertise,
        alive: Some(host.alive),
        path: path.map(|path| path.encapsulation),
        device: path.map(|path| path.device.clone()),
        mtu: path.map(|path| path.mtu.get()),
        blocks: path.map(|path| path.blocks),
        packets: path.map(|path| path.packets),
        encryption: path.and_then(|path| path.encryption.clone()),
    }
}

/// A path to a host that the cluster no longer has.
fn gone(path: &PathEntry) -> PeerView {
    PeerView {
        host: path.host.clone(),
        address: path.address,
        alive: None,
        path: Some(path.encapsulation),
        device: Some(path.device.clone()),
        mtu: Some(path.mtu.get()),
        blocks: Some(path.blocks),
        packets: Some(path.packets),
        encryption: path.encryption.clone(),
    }
}

impl View for PeersView {
    fn render(&self) -> String {
        if self.peers.is_empty() {
            return "no other hosts: `drover init` here and `drover join` there make a cluster"
                .to_owned();
        }
        let mut parts = vec![self.clear()];
        let encrypted = self.encrypted();
        if !encrypted.is_empty() {
            parts.push(String::new());
            parts.push("encrypted networks:".to_owned());
            parts.push(encrypted);
        }
        parts.extend(self.complaints());
        if !self.drops.is_empty() {
            parts.push(String::new());
            parts.push("packets dropped for the sake of encryption:".to_owned());
            let drops = self.drops.iter();
            let rows = drops.map(|(cause, count)| vec![count.to_string(), cause.clone()]);
            parts.push(table(&["PACKETS", "CAUSE"], &[0], rows.collect()));
        }
        parts.join("\n")
    }
}

impl PeersView {
    /// The hosts, and how packets of clear networks get there.
    fn clear(&self) -> String {
        let rows = self.peers.iter().map(|peer| {
            let alive = peer.alive.map(|alive| if alive { "yes" } else { "no" });
            let packets = peer.packets;
            vec![
                peer.host.to_string(),
                peer.address.to_string(),
                or_dash(alive),
                or_dash(peer.path),
                or_dash(peer.device.as_ref()),
                or_dash(peer.mtu),
                or_dash(peer.blocks),
                or_dash(packets.map(|packets| packets.sent)),
                or_dash(packets.map(|packets| packets.received)),
                or_dash(packets.map(|packets| packets.dropped)),
            ]
        });
        let headers = [
            "HOST", "ADDRESS", "ALIVE", "PATH", "DEVICE", "MTU", "BLOCKS", "SENT", "RECEIVED",
            "DROPPED",
        ];
        table(&headers, &[5, 6, 7, 8, 9], rows.collect())
    }

    /// The paths of encrypted networks.
    fn encrypted(&self) -> String {
        let paths = self.peers.iter();
        let paths = paths.filter_map(|peer| Some((&peer.host, peer.encryption.as_ref()?)));
        let seconds = |count: Option<u64>| count.map(|count| format!("{count}s"));
        let rows: Vec<_> = paths
            .map(|(host, path)| {
                vec![
                    host.to_string(),
                    path.transport.clone(),
                    path.cipher.clone(),
                    endpoint(path),
                    or_dash(path.epoch.as_ref()),
                    or_dash(seconds(path.epoch_age)),
                    path.lanes.to_string(),
                    path.associations.to_string(),
                    mtu(path),
                    path.packets.sent.to_string(),
                    path.packets.received.to_string(),
                    path.packets.dropped.to_string(),
                    path.refused.replayed.to_string(),
                    path.refused.forged.to_string(),
                    or_dash(seconds(path.last_answer)),
                ]
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let headers = [
            "HOST",
            "TRANSPORT",
            "CIPHER",
            "ENDPOINT",
            "EPOCH",
            "AGE",
            "LANES",
            "ASSOCIATIONS",
            "MTU",
            "SENT",
            "RECEIVED",
            "DROPPED",
            "REPLAYED",
            "FORGED",
            "ANSWERED",
        ];
        table(&headers, &[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], rows)
    }

    /// What is wrong with them.
    fn complaints(&self) -> Vec<String> {
        let reasons = self.peers.iter().filter_map(|peer| {
            let reason = peer.encryption.as_ref()?.degraded.as_ref()?;
            Some(format!("{} is degraded: {reason}", peer.host))
        });
        self.cannot_encrypt.iter().cloned().chain(reasons).collect()
    }
}

/// With a mark where it is no address that the peer tells of itself.
fn endpoint(path: &EncryptedPath) -> String {
    let learned = if path.learned { " (learned)" } else { "" };
    let endpoint = path.endpoint.map(|it| format!("{it}{learned}"));
    or_dash(endpoint)
}

/// With a question mark while it is only what the devices say.
fn mtu(path: &EncryptedPath) -> String {
    let doubt = if path.mtu_found { "" } else { "?" };
    format!("{}{doubt}", path.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::golden::assert_golden;

    #[test]
    fn every_other_host_is_shown_with_its_path() {
        let paths = serde_json::from_str(include_str!("../../tests/answers/paths.json")).unwrap();
        let status = serde_json::from_str(include_str!("../../tests/answers/status.json")).unwrap();
        let view = view(paths, status);
        assert_golden("peers", &view.render());
        assert_golden("peers-json", &serde_json::to_string_pretty(&view).unwrap());
    }

    #[test]
    fn that_this_host_cannot_encrypt_is_said_with_the_reason() {
        let paths = serde_json::from_str(include_str!("../../tests/answers/paths.json")).unwrap();
        let status = serde_json::from_str(include_str!("../../tests/answers/status.json")).unwrap();
        let reason = "this host cannot encrypt: the kernel lacks ESP".to_owned();
        let view = view(
            PathTable {
                cannot_encrypt: Some(reason.clone()),
                ..paths
            },
            status,
        );
        assert!(view.render().lines().any(|line| line == reason));
    }

    #[test]
    fn one_host_alone_is_told_how_to_get_company() {
        let view = PeersView {
            peers: Vec::new(),
            drops: BTreeMap::new(),
            cannot_encrypt: None,
        };
        assert!(view.render().contains("drover join"));
    }
}
