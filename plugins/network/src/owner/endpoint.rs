//! Networks and endpoints, as Docker asks for them. Teardown succeeds for what is not there.

use std::collections::BTreeSet;

use drover_model::{Encryption, EndpointId, NetworkId};
use drover_overlay::name;
use drover_plugin_host::DriverError;
use drover_plugin_protocol::network::JoinAnswer;

use tracing::warn;

use super::Owner;
use super::settle::Settled;
use crate::record::{Endpoint, Joined, Network};
use crate::routes::join_answer;

fn unwritten(error: drover_store::Error) -> DriverError {
    DriverError::chain(&error)
}

impl Owner {
    fn refuse_after_tear_down(&self) -> Result<(), DriverError> {
        if self.torn_down {
            return Err(DriverError::new(
                "drover was reset on this host; start it again with `drover up`",
            ));
        }
        Ok(())
    }

    fn refuse_when_fenced(&self) -> Result<(), DriverError> {
        if self
            .cluster
            .this_host
            .as_ref()
            .is_some_and(|own| own.fenced)
        {
            return Err(DriverError::new(
                "this host was removed from its cluster, and its addresses may be in use elsewhere; run `drover leave`, then `drover join`",
            ));
        }
        Ok(())
    }

    /// What is to be encrypted and cannot be would reach nobody, and whoever asks is the one to be told.
    async fn refuse_without_encryption(
        &mut self,
        encryption: Encryption,
    ) -> Result<(), DriverError> {
        if encryption == Encryption::Off {
            return Ok(());
        }
        self.open_kernel().await?;
        self.try_encryption().await;
        match self.encryption.impossible() {
            None => Ok(()),
            Some(reason) => Err(DriverError::new(format!(
                "this host cannot encrypt: {reason}. A network that may be clear is made with `-o encryption=off` (Compose: `driver_opts: {{encryption: \"off\"}}`)"
            ))),
        }
    }

    pub(super) async fn create_network(
        &mut self,
        id: &NetworkId,
        network: Network,
    ) -> Result<(), DriverError> {
        self.refuse_after_tear_down()?;
        self.refuse_without_encryption(network.options.encryption)
            .await?;
        let replaced = self.networks_in_the_way(id, &network)?;
        self.records.remove_networks(&replaced).map_err(unwritten)?;
        self.records.put_network(id, network).map_err(unwritten)?;
        let settled = self.settle().await;
        let Err(error) = served(&settled, &[&name::bridge(id)]) else {
            return Ok(());
        };
        // Nothing else comes for a network that could not be made.
        self.records
            .remove_networks(&BTreeSet::from([id.clone()]))
            .map_err(unwritten)?;
        self.settle().await;
        Err(error)
    }

    /// A subnet is one network's. Another record of it is left from a network whose removal this
    /// plugin did not hear of, unless containers are on it.
    fn networks_in_the_way(
        &self,
        id: &NetworkId,
        network: &Network,
    ) -> Result<BTreeSet<NetworkId>, DriverError> {
        let overlapping = self
            .records
            .networks()
            .iter()
            .filter_map(|(other, record)| {
                let pools = network.subnets.iter().map(|subnet| subnet.pool);
                let theirs = record.subnets.iter().map(|subnet| subnet.pool);
                let mut pairs = pools.flat_map(|pool| theirs.clone().map(move |it| (pool, it)));
                let (pool, _) = pairs.find(|(pool, it)| pool.overlaps(it.prefix()))?;
                Some((other, pool)).filter(|(other, _)| *other != id)
            });
        let mut replaced = BTreeSet::new();
        for (other, pool) in overlapping {
            let mut endpoints = self.records.endpoints().values();
            if endpoints.any(|it| it.network == *other && it.joined.is_some()) {
                return Err(DriverError::new(format!(
                    "subnet `{pool}` overlaps that of network `{}`, which has containers; choose another `--subnet`",
                    other.short()
                )));
            }
            replaced.insert(other.clone());
        }
        Ok(replaced)
    }

    pub(super) async fn delete_network(&mut self, id: NetworkId) -> Result<(), DriverError> {
        self.records
            .remove_networks(&BTreeSet::from([id]))
            .map_err(unwritten)?;
        self.settle().await;
        Ok(())
    }

    pub(super) async fn create_endpoint(
        &mut self,
        id: &EndpointId,
        endpoint: Endpoint,
    ) -> Result<(), DriverError> {
        self.refuse_after_tear_down()?;
        self.refuse_when_fenced()?;
        self.check_endpoint(id, &endpoint)?;
        if let Some(before) = self.records.endpoints().get(id) {
            let same = Endpoint {
                joined: None,
                ..before.clone()
            } == endpoint;
            return if same {
                Ok(())
            } else {
                Err(DriverError::new(format!(
                    "endpoint `{}` exists with other addresses; remove it first",
                    id.short()
                )))
            };
        }
        let network = self.records.networks().get(&endpoint.network);
        let encryption = network.map_or(Encryption::Off, |it| it.options.encryption);
        self.refuse_without_encryption(encryption).await?;
        // A new endpoint with an address of an old one: the old one's end was not told, and the newer
        // one is right.
        let addresses: BTreeSet<_> = endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
        let older = self.records.endpoints().iter().filter(|(_, it)| {
            it.network == endpoint.network
                && it
                    .addresses
                    .iter()
                    .any(|address| addresses.contains(&address.addr()))
        });
        let older: BTreeSet<_> = older.map(|(id, _)| id.clone()).collect();
        self.records
            .put_endpoint(id, endpoint, &older)
            .map_err(unwritten)?;
        if !older.is_empty() {
            self.settle().await;
        }
        Ok(())
    }

    fn check_endpoint(&self, id: &EndpointId, endpoint: &Endpoint) -> Result<(), DriverError> {
        let Some(network) = self.records.networks().get(&endpoint.network) else {
            return Err(DriverError::new(format!(
                "network `{}` is not known to drover-net on this host; remove it with `docker network rm` and create it again",
                endpoint.network.short()
            )));
        };
        if endpoint.addresses.is_empty() {
            return Err(DriverError::new(format!(
                "endpoint `{}` has no address",
                id.short()
            )));
        }
        for address in &endpoint.addresses {
            let mut pools = network.subnets.iter().map(|subnet| subnet.pool);
            if !pools.any(|pool| pool.contains(address.addr())) {
                return Err(DriverError::new(format!(
                    "address `{}` is in no subnet of network `{}`",
                    address.addr(),
                    endpoint.network.short()
                )));
            }
        }
        Ok(())
    }

    pub(super) async fn delete_endpoint(&mut self, id: EndpointId) -> Result<(), DriverError> {
        self.records
            .remove_endpoints(&BTreeSet::from([id]))
            .map_err(unwritten)?;
        self.settle().await;
        Ok(())
    }

    pub(super) async fn join(
        &mut self,
        id: &EndpointId,
        sandbox: String,
    ) -> Result<JoinAnswer, DriverError> {
        self.refuse_after_tear_down()?;
        let known = self.records.endpoints().get(id).and_then(|endpoint| {
            Some((
                endpoint.clone(),
                self.records.networks().get(&endpoint.network)?.clone(),
            ))
        });
        let Some((endpoint, network)) = known else {
            return Err(DriverError::new(format!(
                "endpoint `{}` is not known to drover-net; start the container again",
                id.short()
            )));
        };
        match &endpoint.joined {
            Some(joined) if joined.sandbox != sandbox => {
                return Err(DriverError::new(format!(
                    "endpoint `{}` is joined to sandbox `{}` already; it must leave that first",
                    id.short(),
                    joined.sandbox
                )));
            }
            Some(_) => {}
            None => {
                self.clear_port(id).await?;
                let mtu = self.sources().mtu(&network);
                let joined = Some(Joined { sandbox, mtu });
                self.records.set_joined(id, joined).map_err(unwritten)?;
            }
        }
        let settled = self.settle().await;
        let needed = [&id.port_link(), &name::bridge(&endpoint.network)];
        match served(&settled, &needed) {
            Ok(()) => {
                self.announce(&endpoint).await;
                Ok(join_answer(id, &endpoint, &network))
            }
            Err(error) => {
                self.records.set_joined(id, None).map_err(unwritten)?;
                self.settle().await;
                Err(error)
            }
        }
    }

    /// The sandbox that an endpoint is joined to.
    pub(super) fn sandbox_of(&self, id: &EndpointId) -> Option<String> {
        let endpoint = self.records.endpoints().get(id)?;
        Some(endpoint.joined.as_ref()?.sandbox.clone())
    }

    /// Those who talked to an earlier container with this address learn the new link address.
    async fn announce(&self, endpoint: &Endpoint) {
        let Some(kernel) = &self.kernel else { return };
        let addresses = endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
        let bridge = name::bridge(&endpoint.network);
        if let Err(error) = kernel.announce(&bridge, endpoint.mac, addresses).await {
            warn!(%error, "the neighbours were not told of a new link address");
        }
    }

    pub(super) async fn leave(&mut self, id: &EndpointId) -> Result<(), DriverError> {
        if self
            .records
            .endpoints()
            .get(id)
            .is_some_and(|endpoint| endpoint.joined.is_some())
        {
            self.records.set_joined(id, None).map_err(unwritten)?;
            self.settle().await;
        }
        Ok(())
    }
}

/// Whether no step failed that the named links need. A path to another host that could not be made is
/// a complaint, and no reason to keep a container from starting.
fn served(settled: &Settled, links: &[&String]) -> Result<(), DriverError> {
    let concerns = |step: &str| {
        step == "everything"
            || step.contains("(overlay)")
            || links.iter().any(|link| step.contains(link.as_str()))
    };
    match settled.failed.iter().find(|(step, _)| concerns(step)) {
        Some((step, reason)) => Err(DriverError::new(format!("cannot {step}: {reason}"))),
        None => Ok(()),
    }
}
