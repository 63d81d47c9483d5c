//! Networks, and the calls of a network driver that make and remove them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{FakeEngine, Pool, PoolSpec, random_id};
use crate::Fault;

/// A network as the user asks for it.
#[derive(Debug, Clone)]
pub struct NetworkSpec {
    /// Its pools.
    pub pools: Vec<PoolSpec>,
    /// `--internal`.
    pub internal: bool,
    /// `-o`.
    pub options: BTreeMap<String, String>,
}

impl Default for NetworkSpec {
    /// `docker network create NAME`.
    fn default() -> Self {
        Self {
            pools: vec![PoolSpec::default()],
            internal: false,
            options: BTreeMap::new(),
        }
    }
}

impl NetworkSpec {
    /// `docker network create --subnet SUBNET NAME`.
    #[must_use]
    pub fn with_subnet(subnet: &str) -> Self {
        let pool = PoolSpec {
            v6: subnet.contains(':'),
            subnet: Some(subnet.to_owned()),
            ..PoolSpec::default()
        };
        Self {
            pools: vec![pool],
            ..Self::default()
        }
    }

    /// The same with an option.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same, internal.
    #[must_use]
    pub fn internal(self) -> Self {
        Self {
            internal: true,
            ..self
        }
    }
}

/// A network that both drivers have agreed to.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its pools.
    pub pools: Vec<Pool>,
    /// Whether it is internal.
    pub internal: bool,
}

impl FakeEngine {
    /// The options of `CreateNetwork` and `GwAllocCheck`.
    pub(super) fn wire_options(&self, spec: &NetworkSpec) -> Value {
        let mut generic = self.options.clone();
        generic.extend(spec.options.clone());
        let has = |v6: bool| spec.pools.iter().any(|pool| pool.v6 == v6);
        let mut options = json!({
            "com.docker.network.enable_ipv6": has(true),
            "com.docker.network.generic": generic,
        });
        if let Some(options) = options.as_object_mut() {
            if self.version.checks_gateways {
                options.insert(
                    "com.docker.network.enable_ipv4".to_owned(),
                    has(false).into(),
                );
            }
            if spec.internal {
                options.insert("com.docker.network.internal".to_owned(), true.into());
            }
        }
        options
    }

    /// `CreateNetwork`.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn announce_network(&self, spec: &NetworkSpec, pools: Vec<Pool>) -> Result<Network, Fault> {
        let network = Network {
            id: random_id(),
            pools,
            internal: spec.internal,
        };
        let data = |v6: bool| {
            let pools = network
                .pools
                .iter()
                .filter(|pool| pool.prefix.addr().is_ipv6() == v6);
            pools.map(Pool::wire).collect::<Vec<_>>()
        };
        let body = json!({
            "NetworkID": network.id,
            "Options": self.wire_options(spec),
            "IPv4Data": data(false),
            "IPv6Data": data(true),
        });
        self.network("CreateNetwork", Some(&body))?;
        Ok(network)
    }

    /// `DeleteNetwork`.
    ///
    /// # Errors
    /// When the answer is unusable. Engines only log it.
    pub fn delete_network(&self, network: &Network) -> Result<(), Fault> {
        self.network("DeleteNetwork", Some(&json!({ "NetworkID": network.id })))
            .map(drop)
    }
}
