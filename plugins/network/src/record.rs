//! What this plugin has promised Docker, on the disk before it is done: networks and endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use drover_model::{EndpointId, HostName, MacAddress, Mtu, NetworkId, NetworkOptions, Pool};
use drover_store::local::{Batch, Database, Table};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A network that Docker has created here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Version of this record's form: 1.
    pub(crate) version: u32,
    /// Its subnets.
    pub(crate) subnets: Vec<Subnet>,
    /// What the user said with `-o`.
    pub(crate) options: NetworkOptions,
    /// Whether it has no way out.
    pub(crate) internal: bool,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subnet {
    /// The subnet.
    pub(crate) pool: Pool,
    /// Its gateway, if Docker has reserved one.
    pub(crate) gateway: Option<IpAddr>,
}

/// An endpoint that Docker has created here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Version of this record's form: 1.
    pub(crate) version: u32,
    /// Its network.
    pub(crate) network: NetworkId,
    /// Its link address.
    pub(crate) mac: MacAddress,
    /// Its addresses.
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Where it is joined.
    pub(crate) joined: Option<Joined>,
}

/// That the engine has taken an endpoint's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// The sandbox, as the engine names it.
    pub(crate) sandbox: String,
    /// The MTU its link was made with.
    pub(crate) mtu: Mtu,
}

/// All records, in memory and on the disk.
#[derive(Debug)]
pub(crate) struct Records {
    database: Database,
    network_table: Table<Network>,
    endpoint_table: Table<Endpoint>,
    fallback_table: Table<String>,
    networks: BTreeMap<NetworkId, Network>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    fallbacks: BTreeMap<HostName, String>,
}

impl Records {
    /// Reads the records.
    pub(crate) fn open(database: &Database) -> anyhow::Result<Self> {
        let network_table = Table::open(database, "networks").context("cannot read networks")?;
        let endpoint_table = Table::open(database, "endpoints").context("cannot read endpoints")?;
        let mut networks = BTreeMap::new();
        for (key, network) in network_table.list().context("cannot read networks")? {
            networks.insert(key.parse().context("cannot read networks")?, network);
        }
        let mut endpoints = BTreeMap::new();
        for (key, endpoint) in endpoint_table.list().context("cannot read endpoints")? {
            endpoints.insert(key.parse().context("cannot read endpoints")?, endpoint);
        }
        let fallback_table = Table::open(database, "fallbacks").context("cannot read paths")?;
        let mut fallbacks = BTreeMap::new();
        for (key, member) in fallback_table.list().context("cannot read paths")? {
            fallbacks.insert(key.parse().context("cannot read paths")?, member);
        }
        let database = database.clone();
        Ok(Self {
            fallback_table,
            fallbacks,
            database,
            network_table,
            endpoint_table,
            networks,
            endpoints,
        })
    }

    /// The networks.
    pub(crate) const fn networks(&self) -> &BTreeMap<NetworkId, Network> {
        &self.networks
    }

    /// The endpoints.
    pub(crate) const fn endpoints(&self) -> &BTreeMap<EndpointId, Endpoint> {
        &self.endpoints
    }

    /// The members, by host, that are not reached directly although they share a link.
    pub(crate) const fn fallbacks(&self) -> &BTreeMap<HostName, String> {
        &self.fallbacks
    }

    /// Records whether a member is reached by VXLAN although it shares a link.
    pub(crate) fn set_fallback(
        &mut self,
        host: &HostName,
        member: Option<&String>,
    ) -> Result<(), drover_store::Error> {
        match member {
            Some(member) => {
                self.fallback_table.put(host.as_str(), member)?;
                self.fallbacks.insert(host.clone(), member.clone());
            }
            None => {
                self.fallback_table.delete(host.as_str())?;
                self.fallbacks.remove(host);
            }
        }
        Ok(())
    }

    /// How many endpoints each network has.
    pub(crate) fn attachments(&self) -> BTreeMap<NetworkId, u32> {
        let mut counts = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            let count: &mut u32 = counts.entry(endpoint.network.clone()).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Records a network.
    pub(crate) fn put_network(
        &mut self,
        id: &NetworkId,
        network: Network,
    ) -> Result<(), drover_store::Error> {
        self.network_table.put(id.as_str(), &network)?;
        self.networks.insert(id.clone(), network);
        Ok(())
    }

    /// Forgets networks, with their endpoints.
    pub(crate) fn remove_networks(
        &mut self,
        ids: &BTreeSet<NetworkId>,
    ) -> Result<(), drover_store::Error> {
        let endpoints = self
            .endpoints
            .iter()
            .filter(|(_, it)| ids.contains(&it.network));
        let endpoints: BTreeSet<_> = endpoints.map(|(id, _)| id.clone()).collect();
        let mut batch = Batch::new();
        for id in ids {
            batch = batch.delete(&self.network_table, id.as_str());
        }
        for id in &endpoints {
            batch = batch.delete(&self.endpoint_table, id.as_str());
        }
        self.database.commit(batch)?;
        self.networks.retain(|id, _| !ids.contains(id));
        self.endpoints.retain(|id, _| !endpoints.contains(id));
        Ok(())
    }

    /// Records an endpoint in the place of others.
    pub(crate) fn put_endpoint(
        &mut self,
        id: &EndpointId,
        endpoint: Endpoint,
        instead_of: &BTreeSet<EndpointId>,
    ) -> Result<(), drover_store::Error> {
        let mut batch = Batch::new();
        for old in instead_of {
            batch = batch.delete(&self.endpoint_table, old.as_str());
        }
        let batch = batch.put(&self.endpoint_table, id.as_str(), &endpoint)?;
        self.database.commit(batch)?;
        self.endpoints.retain(|id, _| !instead_of.contains(id));
        self.endpoints.insert(id.clone(), endpoint);
        Ok(())
    }

    /// Records where an endpoint is joined, or that it is not. One that is not known stays so.
    pub(crate) fn set_joined(
        &mut self,
        id: &EndpointId,
        joined: Option<Joined>,
    ) -> Result<(), drover_store::Error> {
        let Some(endpoint) = self.endpoints.get(id) else {
            return Ok(());
        };
        let endpoint = Endpoint {
            joined,
            ..endpoint.clone()
        };
        self.put_endpoint(id, endpoint, &BTreeSet::new())
    }

    /// Forgets endpoints.
    pub(crate) fn remove_endpoints(
        &mut self,
        ids: &BTreeSet<EndpointId>,
    ) -> Result<(), drover_store::Error> {
        let mut batch = Batch::new();
        for id in ids {
            batch = batch.delete(&self.endpoint_table, id.as_str());
        }
        if !batch.is_empty() {
            self.database.commit(batch)?;
        }
        self.endpoints.retain(|id, _| !ids.contains(id));
        Ok(())
    }
}
