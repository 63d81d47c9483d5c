//! Pools and addresses, and the calls of an IPAM driver that give them out and take them back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{FakeEngine, Network, prefix, random};
use crate::Fault;

const MAC_OPTION: &str = "com.docker.network.endpoint.macaddress";
const NAME_OPTION: &str = "com.docker.network.endpoint.name";
const GATEWAY: &str = "com.docker.network.gateway";

/// A pool as the user asks for it.
#[derive(Debug, Clone, Default)]
pub struct PoolSpec {
    /// Whether it is IPv6.
    pub v6: bool,
    /// `--subnet`.
    pub subnet: Option<String>,
    /// `--ip-range`.
    pub ip_range: Option<String>,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// `--aux-address`.
    pub auxiliary: BTreeMap<String, String>,
    /// Whether the options are `null`, as Compose leaves them.
    pub null_options: bool,
}

/// A pool that the IPAM driver has given.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The driver's name for it.
    pub id: String,
    /// The address space it was asked for in.
    pub space: String,
    /// Its prefix.
    pub prefix: IpNet,
    /// Its gateway.
    pub gateway: Option<IpNet>,
    /// Its auxiliary addresses.
    pub auxiliary: BTreeMap<String, IpNet>,
}

impl Pool {
    pub(super) fn wire(&self) -> Value {
        let mut data = Map::new();
        data.insert("AddressSpace".to_owned(), json!(self.space));
        data.insert("Pool".to_owned(), json!(self.prefix.to_string()));
        if let Some(gateway) = self.gateway {
            data.insert("Gateway".to_owned(), json!(gateway.to_string()));
        }
        if !self.auxiliary.is_empty() {
            data.insert("AuxAddresses".to_owned(), json!(self.auxiliary));
        }
        data.into()
    }
}

/// The addresses of an endpoint that is about to be.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// An address of each pool, with the pool's id.
    pub addresses: Vec<(String, IpNet)>,
    /// The link address, if the engine made one.
    pub mac: Option<String>,
}

impl FakeEngine {
    /// `RequestPool`.
    ///
    /// # Errors
    /// When the driver refuses, or the answer is not the pool that was asked for.
    pub fn request_pool(&self, spec: &PoolSpec) -> Result<Pool, Fault> {
        let space = self.address_space()?;
        let body = json!({
            "AddressSpace": space,
            "Pool": spec.subnet.clone().unwrap_or_default(),
            "SubPool": spec.ip_range.clone().unwrap_or_default(),
            "Options": if spec.null_options { Value::Null } else { json!({}) },
            "V6": spec.v6,
        });
        let answer = self.ipam("RequestPool", Some(&body))?;
        let given = prefix("RequestPool", &answer, "Pool")?;
        let asked = spec
            .subnet
            .as_ref()
            .and_then(|subnet| subnet.parse::<IpNet>().ok());
        let text = |field: &str| {
            answer
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (id, asked) = (text("PoolID").to_owned(), asked.unwrap_or(given));
        if id.is_empty() || asked != given || given.addr().is_ipv6() != spec.v6 {
            let problem = format!("pool `{id}` {given} is not what was asked for");
            return Err(Fault::unusable("RequestPool", problem));
        }
        let gateway = answer.get("Data").and_then(|data| data.get(GATEWAY));
        let gateway = gateway
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        Ok(Pool {
            id,
            space,
            prefix: given,
            gateway,
            auxiliary: BTreeMap::new(),
        })
    }

    /// `RequestAddress` for a gateway, unless it came with the pool.
    ///
    /// # Errors
    /// When the driver refuses, or the address is not in the pool.
    pub fn request_gateway(&self, pool: &mut Pool, address: Option<&str>) -> Result<(), Fault> {
        if pool.gateway.is_none() {
            let options = json!({ "RequestAddressType": GATEWAY });
            pool.gateway = Some(self.request_address(pool, address, options)?);
        }
        Ok(())
    }

    /// `RequestAddress` for an auxiliary address.
    ///
    /// # Errors
    /// When the driver refuses, or the address is not in the pool.
    pub fn request_auxiliary(
        &self,
        pool: &mut Pool,
        name: &str,
        address: &str,
    ) -> Result<(), Fault> {
        let given = self.request_address(pool, Some(address), Value::Null)?;
        pool.auxiliary.insert(name.to_owned(), given);
        Ok(())
    }

    fn request_address(
        &self,
        pool: &Pool,
        address: Option<&str>,
        options: Value,
    ) -> Result<IpNet, Fault> {
        let asked = address.unwrap_or_default();
        let body = json!({ "PoolID": pool.id, "Address": asked, "Options": options });
        let answer = self.ipam("RequestAddress", Some(&body))?;
        let given = prefix("RequestAddress", &answer, "Address")?;
        let wanted = asked.parse::<IpAddr>().unwrap_or(given.addr());
        if !pool.prefix.contains(&given.addr()) || given.addr() != wanted {
            let problem = format!("{given} is not what was asked for of {}", pool.prefix);
            return Err(Fault::unusable("RequestAddress", problem));
        }
        Ok(given)
    }

    /// `RequestAddress` for an endpoint, of the first pool of each family.
    ///
    /// # Errors
    /// When the driver refuses, or an address is not in its pool.
    pub fn request_addresses(
        &self,
        network: &Network,
        address: Option<&str>,
        name: &str,
    ) -> Result<Allocation, Fault> {
        let mac = self.sends_mac().then(|| self.new_mac());
        let mut options = Map::new();
        if let Some(mac) = &mac {
            options.insert(MAC_OPTION.to_owned(), json!(mac));
        }
        if self.version.names_endpoints {
            options.insert(NAME_OPTION.to_owned(), json!(name));
        }
        let options = if options.is_empty() {
            Value::Null
        } else {
            options.into()
        };
        let mut addresses = Vec::new();
        for v6 in [false, true] {
            let of_family = |pool: &&Pool| pool.prefix.addr().is_ipv6() == v6;
            let fits = |pool: &&Pool| {
                let asked = address.and_then(|text| text.parse::<IpAddr>().ok());
                asked.is_none_or(|asked| asked.is_ipv6() != v6 || pool.prefix.contains(&asked))
            };
            if let Some(pool) = network.pools.iter().filter(of_family).find(fits) {
                let asked = address.filter(|text| text.contains(':') == v6);
                let given = self.request_address(pool, asked, options.clone())?;
                addresses.push((pool.id.clone(), given));
            }
        }
        Ok(Allocation { addresses, mac })
    }

    /// `ReleaseAddress` for what an endpoint had.
    ///
    /// # Errors
    /// When an answer is unusable. Engines only log it.
    pub fn release_addresses(&self, allocation: &Allocation) -> Result<(), Fault> {
        for (pool, address) in &allocation.addresses {
            self.release_address(pool, address.addr())?;
        }
        Ok(())
    }

    /// `ReleaseAddress`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn release_address(&self, pool: &str, address: IpAddr) -> Result<(), Fault> {
        let body = json!({ "PoolID": pool, "Address": address.to_string() });
        self.ipam("ReleaseAddress", Some(&body)).map(drop)
    }

    /// `ReleaseAddress` for gateway and auxiliary addresses, then `ReleasePool`.
    ///
    /// # Errors
    /// When an answer is unusable. Engines only log it.
    pub fn release_pool_and_gateway(&self, pool: &Pool) -> Result<(), Fault> {
        for address in pool.gateway.iter().chain(pool.auxiliary.values()) {
            self.release_address(&pool.id, address.addr())?;
        }
        self.ipam("ReleasePool", Some(&json!({ "PoolID": pool.id })))
            .map(drop)
    }

    fn new_mac(&self) -> String {
        let [a, b, c, d, e, f, ..] = random().to_be_bytes();
        let (a, b) = if self.version.macs_begin_with_0242 {
            (2, 0x42)
        } else {
            (a & 0xfe | 2, b)
        };
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}
