//! An engine as its plugins see it: what it asks, in which order, and what it makes of the answers.

mod endpoint;
mod network;
mod pool;
mod version;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::{Fault, PluginSocket, Recording, Reply};

pub use endpoint::{Endpoint, Joined};
pub use network::{Network, NetworkSpec};
pub use pool::{Allocation, Pool, PoolSpec};
pub use version::{ENGINES, EngineVersion};

/// A Docker Engine, as far as its network and IPAM plugins can tell.
#[derive(Debug)]
pub struct FakeEngine {
    /// Which one.
    pub version: EngineVersion,
    /// The network plugin's socket.
    pub network: PluginSocket,
    /// The IPAM plugin's socket.
    pub ipam: PluginSocket,
    options: BTreeMap<String, String>,
    gateway_check: AtomicBool,
    sends_mac: AtomicBool,
}

impl FakeEngine {
    /// An engine with these two plugin sockets.
    #[must_use]
    pub fn new(version: EngineVersion, network: &Path, ipam: &Path) -> Self {
        Self {
            version,
            network: PluginSocket::new(network, version.host),
            ipam: PluginSocket::new(ipam, version.host),
            options: BTreeMap::new(),
            gateway_check: AtomicBool::new(false),
            sends_mac: AtomicBool::new(false),
        }
    }

    /// Sets the unit of the pauses between tries; a second in an engine.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        let (network, ipam) = (self.network.with_pause(pause), self.ipam.with_pause(pause));
        Self {
            network,
            ipam,
            ..self
        }
    }

    /// Gives every network this `-o` option, unless its own say otherwise.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The engine's first use of the network plugin.
    ///
    /// # Errors
    /// When the handshake or the capabilities would leave the driver unusable.
    pub fn activate_network(&self) -> Result<(), Fault> {
        implements(
            &call(&self.network, "/Plugin.Activate", None, "Err")?,
            "NetworkDriver",
        )?;
        self.network_capabilities()
    }

    /// The engine's first use of the IPAM plugin.
    ///
    /// # Errors
    /// When the handshake or the capabilities would leave the driver unusable.
    pub fn activate_ipam(&self) -> Result<(), Fault> {
        implements(
            &call(&self.ipam, "/Plugin.Activate", None, "Error")?,
            "IpamDriver",
        )?;
        self.ipam_capabilities()
    }

    /// Asks for the network driver's capabilities.
    ///
    /// # Errors
    /// When they name no scope that an engine knows.
    pub fn network_capabilities(&self) -> Result<(), Fault> {
        let method = "/NetworkDriver.GetCapabilities";
        let answer = call(&self.network, method, None, "Err")?;
        for field in ["Scope", "ConnectivityScope"] {
            let scope = answer
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !["local", "global"].contains(&scope) {
                return Err(Fault::unusable(method, format!("{field} is `{scope}`")));
            }
        }
        let checks = answer
            .get("GwAllocChecker")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        let checks = checks && self.version.checks_gateways;
        self.gateway_check.store(checks, Ordering::SeqCst);
        Ok(())
    }

    /// Asks for the IPAM driver's capabilities.
    ///
    /// # Errors
    /// When they are not what an engine reads.
    pub fn ipam_capabilities(&self) -> Result<(), Fault> {
        let answer = self.ipam("GetCapabilities", None)?;
        let flag = |name: &str| {
            answer
                .get(name)
                .and_then(Value::as_bool)
                .unwrap_or_default()
        };
        self.sends_mac
            .store(flag("RequiresMACAddress"), Ordering::SeqCst);
        Ok(())
    }

    /// Asks for the IPAM driver's address spaces and returns the local one.
    ///
    /// # Errors
    /// When there is none.
    pub fn address_space(&self) -> Result<String, Fault> {
        let answer = self.ipam("GetDefaultAddressSpaces", None)?;
        let space = answer
            .get("LocalDefaultAddressSpace")
            .and_then(Value::as_str);
        let space = space
            .filter(|space| !space.is_empty())
            .map(ToOwned::to_owned);
        space.ok_or_else(|| Fault::unusable("GetDefaultAddressSpaces", "no local address space"))
    }

    /// `docker network create`: checks, pools, gateways, and the network; all taken back if it fails.
    ///
    /// # Errors
    /// When a plugin refuses.
    pub fn create_network(&self, spec: &NetworkSpec) -> Result<Network, Fault> {
        self.check_gateways(spec)?;
        let mut pools = Vec::new();
        let made = spec.pools.iter().try_for_each(|pool| {
            pools.push(self.request_pool(pool)?);
            let Some(made) = pools.last_mut() else {
                return Ok(());
            };
            self.request_gateway(made, pool.gateway.as_deref())?;
            for (name, address) in &pool.auxiliary {
                self.request_auxiliary(made, name, address)?;
            }
            Ok(())
        });
        let made = made.and_then(|()| self.announce_network(spec, pools.clone()));
        if made.is_err() {
            for pool in &pools {
                self.release_pool_and_gateway(pool)?;
            }
        }
        made
    }

    /// `docker network rm`: addresses and pool first, the network last.
    ///
    /// # Errors
    /// When an answer is unusable. Engines only log it.
    pub fn remove_network(&self, network: &Network) -> Result<(), Fault> {
        for pool in &network.pools {
            self.release_pool_and_gateway(pool)?;
        }
        self.delete_network(network)
    }

    /// `docker run`, up to where the process starts: address, endpoint, join, and what else is due.
    ///
    /// # Errors
    /// When a plugin refuses; what was made is then taken back as this engine does it.
    pub fn attach(&self, network: &Network, name: &str) -> Result<(Endpoint, Joined), Fault> {
        let allocation = self.request_addresses(network, None, name)?;
        let endpoint = match self.create_endpoint(network, allocation.clone(), json!({})) {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                // No DeleteEndpoint comes after a CreateEndpoint that failed.
                self.release_addresses(&allocation)?;
                return Err(fault);
            }
        };
        match self.join(&endpoint) {
            Ok(joined) => {
                if !network.internal || self.version.programs_internal {
                    self.program(&endpoint)?;
                }
                for _ in 0..self.version.information_calls {
                    self.information(&endpoint)?;
                }
                Ok((endpoint, joined))
            }
            Err(fault) => {
                if self.version.leaves_after_failed_join {
                    self.leave(&endpoint)?;
                }
                self.delete_endpoint(&endpoint)?;
                self.release_addresses(&endpoint.allocation)?;
                Err(fault)
            }
        }
    }

    /// `docker stop`.
    ///
    /// # Errors
    /// When an answer is unusable. Engines only log it.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        self.revoke(endpoint)?;
        self.leave(endpoint)?;
        self.delete_endpoint(endpoint)?;
        self.release_addresses(&endpoint.allocation)
    }

    /// Sends a recorded request as it was recorded. The answer is a JSON object with status 200, or this fails.
    ///
    /// # Errors
    /// When no engine would accept the answer.
    pub fn send_recorded(&self, recording: &Recording) -> Result<Map<String, Value>, Fault> {
        let ipam = recording.path.starts_with("/IpamDriver.");
        let socket = if ipam { &self.ipam } else { &self.network };
        object(
            &recording.path,
            &socket.post(&recording.path, recording.body.as_ref())?,
        )
    }

    /// Calls the network driver.
    ///
    /// # Errors
    /// When it refuses, or the answer is unusable.
    pub fn network(&self, method: &str, body: Option<&Value>) -> Result<Map<String, Value>, Fault> {
        call(
            &self.network,
            &format!("/NetworkDriver.{method}"),
            body,
            "Err",
        )
    }

    /// Calls the IPAM driver.
    ///
    /// # Errors
    /// When it refuses, or the answer is unusable.
    pub fn ipam(&self, method: &str, body: Option<&Value>) -> Result<Map<String, Value>, Fault> {
        call(&self.ipam, &format!("/IpamDriver.{method}"), body, "Error")
    }

    /// `GwAllocCheck`, from engines that know it to drivers that announce it.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn check_gateways(&self, spec: &NetworkSpec) -> Result<(), Fault> {
        if self.gateway_check.load(Ordering::SeqCst) {
            let body = json!({ "Options": self.wire_options(spec) });
            self.network("GwAllocCheck", Some(&body))?;
        }
        Ok(())
    }

    fn sends_mac(&self) -> bool {
        self.sends_mac.load(Ordering::SeqCst)
    }
}

/// Calls a plugin as an engine does: status 200, a JSON object, and a refusal only in one field.
fn call(
    socket: &PluginSocket,
    method: &str,
    body: Option<&Value>,
    refusal: &str,
) -> Result<Map<String, Value>, Fault> {
    let answer = object(method, &socket.post(method, body)?)?;
    match answer.get(refusal).and_then(Value::as_str) {
        None | Some("") => Ok(answer),
        Some(sentence) => Err(Fault::Refused {
            method: method.to_owned(),
            sentence: sentence.to_owned(),
        }),
    }
}

fn object(method: &str, reply: &Reply) -> Result<Map<String, Value>, Fault> {
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status != 200 {
        return Err(Fault::unusable(
            method,
            format!("status {}: {text}", reply.status),
        ));
    }
    serde_json::from_slice(&reply.body)
        .map_err(|error| Fault::unusable(method, format!("not a JSON object: {error}: {text}")))
}

fn implements(answer: &Map<String, Value>, interface: &str) -> Result<(), Fault> {
    let listed = answer.get("Implements").and_then(Value::as_array);
    if listed.is_some_and(|listed| listed.iter().any(|it| it == interface)) {
        Ok(())
    } else {
        Err(Fault::unusable(
            "/Plugin.Activate",
            format!("{interface} is not in {answer:?}"),
        ))
    }
}

/// A prefix in an answer.
fn prefix(method: &str, answer: &Map<String, Value>, field: &str) -> Result<IpNet, Fault> {
    let text = answer
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default();
    text.parse()
        .map_err(|error| Fault::unusable(method, format!("{field} is `{text}`: {error}")))
}

/// Sixty-four random hexadecimal digits.
fn random_id() -> String {
    (0..4).map(|_| format!("{:016x}", random())).collect()
}

fn random() -> u64 {
    // Every new state has keys of its own.
    RandomState::new().hash_one(0)
}
