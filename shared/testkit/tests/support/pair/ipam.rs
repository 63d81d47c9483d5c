//! The IPAM plugin of a pair.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;

use drover_plugin_host::IpamDriver;
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::ipam::{
    AddressAnswer, AddressSpaces, Capabilities, PoolAnswer, ReleaseAddress, ReleasePool,
    RequestAddress, RequestPool,
};
use ipnet::IpNet;

use super::{Answer, Flaw, refused};

struct Pool {
    prefix: IpNet,
    range: IpNet,
    used: BTreeSet<IpAddr>,
}

pub(super) struct MemoryIpam {
    flaw: Option<Flaw>,
    pools: Mutex<BTreeMap<String, Pool>>,
    requests: Mutex<u32>,
}

impl MemoryIpam {
    pub(super) fn new(flaw: Option<Flaw>) -> Self {
        Self {
            flaw,
            pools: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl IpamDriver for MemoryIpam {
    async fn get_capabilities(&self) -> Answer<Capabilities> {
        Ok(Capabilities {
            requires_mac_address: true,
            requires_request_replay: false,
        })
    }

    async fn get_default_address_spaces(&self) -> Answer<AddressSpaces> {
        Ok(AddressSpaces {
            local_default: "m".to_owned(),
            global_default: "m".to_owned(),
        })
    }

    async fn request_pool(&self, request: RequestPool) -> Answer<PoolAnswer> {
        let mut pools = self.pools.lock().unwrap();
        let taken = |prefix: IpNet| {
            let overlap = |pool: &Pool| {
                pool.prefix.contains(&prefix.network()) || prefix.contains(&pool.prefix.network())
            };
            !self.has(Flaw::Overlaps) && pools.values().any(overlap)
        };
        let automatic = || {
            let mut candidates = (64..128).map(|part| format!("10.{part}.0.0/16").parse().unwrap());
            candidates.find(|prefix| !taken(*prefix)).unwrap()
        };
        let prefix: IpNet = request.pool.unwrap_or_else(automatic);
        if prefix.addr() != prefix.network() || prefix.network().is_loopback() || taken(prefix) {
            return refused(format!(
                "subnet {prefix} is taken or cannot be had; use another"
            ));
        }
        let mut requests = self.requests.lock().unwrap();
        *requests += 1;
        let unnamed = self.has(Flaw::Renames) || self.has(Flaw::Overlaps);
        let pool_id = if unnamed {
            format!("{prefix}#{requests}")
        } else {
            prefix.to_string()
        };
        let (range, used) = (request.sub_pool.unwrap_or(prefix), BTreeSet::new());
        pools.insert(
            pool_id.clone(),
            Pool {
                prefix,
                range,
                used,
            },
        );
        Ok(PoolAnswer {
            pool_id,
            pool: prefix,
            data: BTreeMap::new(),
        })
    }

    async fn release_pool(&self, request: ReleasePool) -> Answer<Empty> {
        let gone = self.pools.lock().unwrap().remove(&request.pool_id);
        if gone.is_none() && self.has(Flaw::RefusesTheUnknown) {
            return refused("there is no such pool");
        }
        Ok(Empty {})
    }

    async fn request_address(&self, request: RequestAddress) -> Answer<AddressAnswer> {
        let mut pools = self.pools.lock().unwrap();
        let Some(pool) = pools.get_mut(&request.pool_id) else {
            return refused(format!("pool `{}` is not known", request.pool_id));
        };
        let free = pool.range.hosts().find(|it| !pool.used.contains(it));
        let Some(address) = request.address.or(free) else {
            return refused("the pool is full");
        };
        let home = if self.has(Flaw::KeepsToTheRange) {
            pool.range
        } else {
            pool.prefix
        };
        let fresh = pool.used.insert(address) || self.has(Flaw::GivesTwice);
        if !home.contains(&address) || !fresh {
            return refused(format!("address {address} cannot be had"));
        }
        let address = IpNet::new(address, pool.prefix.prefix_len()).unwrap();
        Ok(AddressAnswer {
            address,
            data: BTreeMap::new(),
        })
    }

    async fn release_address(&self, request: ReleaseAddress) -> Answer<Empty> {
        if let Some(pool) = self.pools.lock().unwrap().get_mut(&request.pool_id) {
            pool.used.remove(&request.address);
        }
        Ok(Empty {})
    }
}
