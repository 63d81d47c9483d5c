//! What the owner tells of itself: paths, endpoints and complaints.

use std::collections::BTreeMap;

use drover_control_api::plugin::{
    EndpointEntry, EndpointTable, NetworkEntry, PacketCounters, PathEntry, PathTable,
};
use drover_model::{Encapsulation, Family};
use drover_overlay::{BlockHolder, name};
use drover_plugin_host::DriverError;

use super::Owner;
use super::settle::Settled;

impl Owner {
    pub(super) fn complain(&self, settled: &Settled) {
        let mut complaints = Vec::new();
        let failed = settled.failed.iter();
        complaints.extend(failed.map(|(step, reason)| format!("cannot {step}: {reason}")));
        if let Some(own) = self.cluster.own() {
            if self.underlay.is_none() && self.cluster.others().next().is_some() {
                complaints.push(format!(
                    "no device of this host has the advertised address `{}`, so no host is reached directly; set `--advertise-addr` to an address of this host",
                    own.advertise
                ));
            }
            let six = own.advertise.is_ipv6();
            let strangers = self
                .cluster
                .others()
                .filter(|host| host.advertise.is_ipv6() != six);
            complaints.extend(strangers.map(|host| {
                format!(
                    "host `{}` advertises `{}`, of another family than this host's `{}`, and cannot be reached; advertise one family everywhere",
                    host.name, host.advertise, own.advertise
                )
            }));
        }
        if self
            .cluster
            .this_host
            .as_ref()
            .is_some_and(|own| own.fenced)
        {
            complaints
                .push("this host was removed from its cluster; run `drover leave`".to_owned());
        }
        complaints.extend(self.fallback_complaints());
        complaints.extend(self.encryption_complaints());
        self.complaints.send_if_modified(|now| {
            let changed = *now != complaints;
            *now = complaints;
            changed
        });
    }

    pub(super) async fn paths(&mut self) -> Result<PathTable, DriverError> {
        let (counters, associations) = match &self.kernel {
            Some(kernel) => {
                let counters = kernel.counters().await;
                let associations = kernel.association_counters().await;
                (
                    counters.map_err(|error| DriverError::chain(&error))?,
                    associations.map_err(|error| DriverError::chain(&error))?,
                )
            }
            None => (BTreeMap::new(), Vec::new()),
        };
        let desired = self.sources().desired();
        let Some(own) = self.cluster.own() else {
            return Ok(PathTable::default());
        };
        let family = Family::of(own.advertise);
        let paths = desired.peers.iter().map(|(host, peer)| {
            let encapsulation = desired.encapsulation(peer, family);
            let device = match encapsulation {
                Encapsulation::Direct => name::DIRECT.to_owned(),
                _ => name::vxlan(peer.index),
            };
            let owned = desired.blocks.values();
            let owned = owned
                .filter(|it| it.owner == BlockHolder::Peer(host.clone()))
                .count();
            let counted = counters.get(&device).copied().unwrap_or_default();
            PathEntry {
                host: host.clone(),
                address: peer.advertise,
                encapsulation,
                mtu: peer
                    .underlay_mtu
                    .inside(encapsulation, family == Family::V6),
                blocks: u32::try_from(owned).unwrap_or(u32::MAX),
                packets: packets(counted),
                device,
                encryption: self.encrypted_path(host, peer, &counters, &associations),
            }
        });
        let paths = paths.collect();
        let drops = self.encryption_drops().await?;
        Ok(PathTable {
            paths,
            drops,
            cannot_encrypt: self.cannot_encrypt(),
        })
    }

    pub(super) async fn endpoints(&mut self) -> Result<EndpointTable, DriverError> {
        let present = match &self.kernel {
            Some(kernel) => kernel
                .counters()
                .await
                .map_err(|error| DriverError::chain(&error))?,
            None => BTreeMap::new(),
        };
        let networks = self
            .records
            .networks()
            .iter()
            .map(|(id, network)| NetworkEntry {
                network: id.clone(),
                pools: network.subnets.iter().map(|subnet| subnet.pool).collect(),
                bridge: name::bridge(id),
                mtu: self.sources().mtu(network),
            });
        let endpoints = self
            .records
            .endpoints()
            .iter()
            .map(|(id, endpoint)| EndpointEntry {
                endpoint: id.clone(),
                network: endpoint.network.clone(),
                addresses: endpoint.addresses.iter().copied().collect(),
                mac: endpoint.mac,
                sandbox: endpoint.joined.as_ref().map(|it| it.sandbox.clone()),
                present: present.contains_key(&id.port_link()),
            });
        Ok(EndpointTable {
            networks: networks.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

/// What a device has counted, to be told.
pub(super) fn packets(counted: drover_kernel::Counters) -> PacketCounters {
    PacketCounters {
        sent: counted.sent,
        received: counted.received,
        dropped: counted.dropped,
    }
}
