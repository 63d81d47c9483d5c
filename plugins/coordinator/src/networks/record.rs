//! Steps that only change records, as transactions. Pure: from a snapshot of the store and the plan's
//! view to the transaction that does the step, on the condition that nothing it rests on has changed.

use std::collections::{BTreeMap, BTreeSet};

use drover_control_api::record::{
    AttachmentRecord, CopyRecord, NetworkRecord, NetworkState, PoolRecord, Subnet, UnixSeconds,
};
use drover_engine::{CreateNetwork, Ipam, IpamConfig};
use drover_model::{Encryption, HostName, LogicalNetworkId, NetworkId, NetworkOptions};
use drover_store::{Result, Transaction};

use super::view::{LocalNetwork, View};
use crate::mirror::Snapshot;

/// The name of our network driver in Docker.
pub const NETWORK_DRIVER: &str = "drover-net";
/// The name of our IPAM driver in Docker.
pub const IPAM_DRIVER: &str = "drover-ipam";

/// Who writes, and when.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// The store as the plan saw it.
    pub snapshot: &'a Snapshot,
    /// This host.
    pub host: &'a HostName,
    /// The time.
    pub now: UnixSeconds,
}

fn network_key(id: &LogicalNetworkId) -> String {
    format!("networks/{id}")
}

fn name_key(name: &str) -> String {
    format!("names/{name}")
}

/// Keys whose value is a bare network id.
fn encoded(id: &LogicalNetworkId) -> Vec<u8> {
    format!("\"{id}\"").into_bytes()
}

impl Writer<'_> {
    fn copy_key(&self, id: &LogicalNetworkId) -> String {
        format!("copies/{id}/{}", self.host)
    }

    fn attachment_key(&self, id: &LogicalNetworkId) -> String {
        format!("attachments/{id}/{}", self.host)
    }

    /// On the condition that `key` is as the snapshot has it, absent included.
    fn if_same(&self, transaction: Transaction, key: &str) -> Transaction {
        match self.snapshot.revision(key) {
            0 => transaction.if_absent(key),
            revision => transaction.if_unchanged(key, revision),
        }
    }

    fn network(&self, id: &LogicalNetworkId) -> Option<NetworkRecord> {
        self.snapshot.record(&network_key(id))
    }

    /// The record of a network changes its state.
    fn in_state(&self, id: &LogicalNetworkId, state: NetworkState) -> Result<Transaction> {
        let key = network_key(id);
        match self.network(id) {
            Some(record) => self
                .if_same(Transaction::new(), &key)
                .put_record(&key, &NetworkRecord { state, ..record }),
            None => Ok(Transaction::new()),
        }
    }

    /// A network of the cluster from this engine's, bound to its name and its pools. A name or a pool
    /// that a network on its way out has is taken over.
    pub fn record(
        &self,
        id: &LogicalNetworkId,
        docker: &NetworkId,
        local: &LocalNetwork,
    ) -> Result<Transaction> {
        let name = name_key(&local.name);
        let record = NetworkRecord {
            version: 1,
            id: id.clone(),
            name: local.name.clone(),
            subnets: local.subnets.clone(),
            labels: local.labels.clone(),
            options: local.options.clone(),
            internal: local.internal,
            attachable: local.attachable,
            ipv6: local.ipv6,
            // The driver has refused what cannot be read.
            encryption: NetworkOptions::parse(&local.options)
                .map_or(Encryption::Ipsec, |options| options.encryption),
            created_by: self.host.clone(),
            created_at: self.now,
            state: NetworkState::Active,
        };
        let mut transaction = self
            .if_same(Transaction::new(), &name)
            .put(&name, encoded(id))
            .put_record(network_key(id), &record)?
            .put_record(
                self.copy_key(id),
                &CopyRecord {
                    network: docker.clone(),
                },
            )?;
        for pool in local.pools() {
            let key = format!("pools/{}", pool.key());
            transaction = self.if_same(transaction, &key);
            if let Some(pool) = self.snapshot.record::<PoolRecord>(&key) {
                let pool = PoolRecord {
                    network: Some(id.clone()),
                    ..pool
                };
                transaction = transaction.put_record(&key, &pool)?;
            }
        }
        Ok(transaction)
    }

    /// This engine's network is this host's copy. On the condition that the network's record is the
    /// same; one that is going is written anew, so that nobody deletes it who has not seen this copy.
    pub fn adopt(&self, id: &LogicalNetworkId, docker: &NetworkId) -> Result<Transaction> {
        let transaction = match self.network(id).map(|record| record.state) {
            Some(NetworkState::Removing) => self.in_state(id, NetworkState::Removing)?,
            Some(_) => self.if_same(Transaction::new(), &network_key(id)),
            None => Transaction::new().if_present(network_key(id)),
        };
        transaction.put_record(
            self.copy_key(id),
            &CopyRecord {
                network: docker.clone(),
            },
        )
    }

    /// This host has no copy.
    pub fn forget(&self, id: &LogicalNetworkId) -> Transaction {
        let key = self.copy_key(id);
        self.if_same(Transaction::new(), &key).delete(key)
    }

    /// This host has so many endpoints.
    pub fn attach(&self, id: &LogicalNetworkId, endpoints: u32) -> Result<Transaction> {
        let key = self.attachment_key(id);
        let noted = self
            .snapshot
            .record::<AttachmentRecord>(&key)
            .map_or(0, |r| r.endpoints);
        let unwanted = self
            .network(id)
            .is_some_and(|record| record.state != NetworkState::Active);
        let transaction = if endpoints > noted && unwanted {
            self.keep(id)?
        } else {
            Transaction::new().if_present(network_key(id))
        };
        if endpoints == 0 {
            return Ok(transaction.delete(key));
        }
        transaction.put_record(key, &AttachmentRecord { endpoints })
    }

    /// Somebody removed this host's copy.
    pub fn request_removal(&self, id: &LogicalNetworkId) -> Result<Transaction> {
        let state = NetworkState::RemovalRequested {
            by: self.host.clone(),
            at: self.now,
        };
        let copy = self.copy_key(id);
        Ok(self.if_same(self.in_state(id, state)?, &copy).delete(copy))
    }

    /// Nobody uses it: it goes. A host where somebody begins to at this moment has a copy, and keeps it.
    pub fn begin_removal(&self, id: &LogicalNetworkId) -> Result<Transaction> {
        self.in_state(id, NetworkState::Removing)
    }

    /// It stays, and has its name, unless another network has that.
    pub fn keep(&self, id: &LogicalNetworkId) -> Result<Transaction> {
        let transaction = self.in_state(id, NetworkState::Active)?;
        let Some(record) = self.network(id) else {
            return Ok(transaction);
        };
        let name = name_key(&record.name);
        match self.snapshot.record::<LogicalNetworkId>(&name) {
            Some(holder) if &holder != id => Ok(Transaction::new().if_present(network_key(id))),
            _ => Ok(self.if_same(transaction, &name).put(&name, encoded(id))),
        }
    }

    /// Its name can be used again.
    pub fn release_name(&self, id: &LogicalNetworkId) -> Transaction {
        let Some(record) = self.network(id) else {
            return Transaction::new();
        };
        let (name, key) = (name_key(&record.name), network_key(id));
        let transaction = self.if_same(self.if_same(Transaction::new(), &name), &key);
        transaction.delete(name)
    }

    /// All that the cluster knows of a network without copies, in the order in which it is to be
    /// deleted: the blocks may be many.
    pub fn delete(&self, id: &LogicalNetworkId) -> Vec<Transaction> {
        let Some(record) = self.network(id) else {
            return Vec::new();
        };
        let key = network_key(id);
        let begin = || self.if_same(Transaction::new(), &key);
        let mut all = Vec::new();
        let mut last = begin().delete(&key);
        let name = name_key(&record.name);
        if self.snapshot.record::<LogicalNetworkId>(&name).as_ref() == Some(id) {
            last = self.if_same(last, &name).delete(name);
        }
        for part in ["attachments", "copies"] {
            // Of hosts that are no more.
            let prefix = format!("{part}/{id}/");
            for (rest, _) in self.snapshot.under(&prefix).take(50) {
                last = last.delete(format!("{prefix}{rest}"));
            }
        }
        for subnet in &record.subnets {
            let pool = format!("pools/{}", subnet.pool.key());
            let owner = self
                .snapshot
                .record::<PoolRecord>(&pool)
                .and_then(|pool| pool.network);
            if owner.as_ref() != Some(id) {
                continue;
            }
            let prefix = format!("blocks/{}/", subnet.pool.key());
            let blocks: Vec<_> = self
                .snapshot
                .under(&prefix)
                .map(|(block, _)| block)
                .collect();
            for some in blocks.chunks(100) {
                let delete = |transaction: Transaction, block: &&str| {
                    transaction.delete(format!("{prefix}{block}"))
                };
                all.push(some.iter().fold(begin(), delete));
            }
            last = self.if_same(last, &pool).delete(pool);
        }
        all.push(last);
        all
    }
}

/// What the engine is to be asked for, so that it makes the same network.
#[must_use]
pub fn creation(record: &NetworkRecord) -> CreateNetwork {
    CreateNetwork {
        name: record.name.clone(),
        check_duplicate: true,
        driver: NETWORK_DRIVER.to_owned(),
        internal: record.internal,
        attachable: record.attachable,
        enable_ipv6: record.ipv6,
        ipam: Ipam {
            driver: IPAM_DRIVER.to_owned(),
            options: BTreeMap::new(),
            config: record.subnets.iter().map(configuration).collect(),
        },
        options: record.options.clone(),
        labels: record.labels.clone(),
    }
}

fn configuration(subnet: &Subnet) -> IpamConfig {
    let text = |value: Option<String>| value.unwrap_or_default();
    IpamConfig {
        subnet: subnet.pool.to_string(),
        ip_range: text(subnet.sub_pool.map(|range| range.to_string())),
        gateway: text(subnet.gateway.map(|address| address.to_string())),
        auxiliary_addresses: subnet
            .auxiliary
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    }
}

/// The pools of the view that belong to no network that exists, for tests of the whole.
#[must_use]
pub fn orphaned_pools(view: &View) -> BTreeSet<drover_model::Pool> {
    let orphaned = view.pools.iter().filter(|(_, owner)| {
        owner
            .as_ref()
            .is_some_and(|owner| !view.networks.contains_key(owner))
    });
    orphaned.map(|(pool, _)| *pool).collect()
}
