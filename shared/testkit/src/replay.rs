//! Plays recorded user actions against plugins: the calls in the recorded order, the bodies coherent.
//!
//! A recording names endpoints (`e1`), not networks, and its addresses are the recorder's. The player
//! keeps real networks, pools and endpoints behind those names. What an action presumes and the
//! recording does not contain (a container that was started before) is made first, off the record.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use crate::{
    Allocation, Endpoint, FakeEngine, Fault, Network, NetworkSpec, Pool, PoolSpec, Sequence, Step,
};

/// An endpoint and how far it is.
#[derive(Debug)]
struct Attachment {
    endpoint: Endpoint,
    network: usize,
    deleted: bool,
    released: bool,
}

/// Plays the actions of one recording session, in order.
#[derive(Debug)]
pub struct Player<'a> {
    engine: &'a FakeEngine,
    networks: Vec<Network>,
    attachments: BTreeMap<String, Attachment>,
    /// A pool whose network is not there yet, or will not be.
    pool: Option<Pool>,
    /// Addresses whose endpoint is not there yet, or will not be, and their network.
    allocation: Option<(usize, Allocation)>,
    calls: usize,
}

impl<'a> Player<'a> {
    /// A player for plugins that this engine has not used yet.
    #[must_use]
    pub fn new(engine: &'a FakeEngine) -> Self {
        Self {
            engine,
            networks: Vec::new(),
            attachments: BTreeMap::new(),
            pool: None,
            allocation: None,
            calls: 0,
        }
    }

    /// How many recorded calls were played.
    #[must_use]
    pub const fn calls(&self) -> usize {
        self.calls
    }

    /// Plays one action.
    ///
    /// # Errors
    /// When a plugin answers what the engine could not go on with.
    pub fn play(&mut self, sequence: &Sequence) -> Result<(), Fault> {
        for step in &sequence.steps {
            let of_ours = ["Plugin.", "NetworkDriver.", "IpamDriver."];
            if !of_ours
                .iter()
                .any(|interface| step.method.starts_with(interface))
            {
                continue;
            }
            self.step(&sequence.action, step)
                .map_err(|fault| Fault::Play {
                    action: sequence.action.clone(),
                    step: step.to_string(),
                    problem: fault.to_string(),
                })?;
            self.calls += 1;
        }
        self.settle()
    }

    /// Removes everything that is left.
    ///
    /// # Errors
    /// When an answer is unusable.
    pub fn clean_up(mut self) -> Result<(), Fault> {
        self.settle()?;
        for attachment in self.attachments.values().filter(|it| !it.deleted) {
            detach(self.engine, attachment)?;
        }
        self.networks
            .iter()
            .try_for_each(|network| self.engine.remove_network(network))
    }

    /// After an action: what it freed without it being recorded (Docker's own IPAM had it).
    fn settle(&mut self) -> Result<(), Fault> {
        if let Some((_, allocation)) = self.allocation.take() {
            self.engine.release_addresses(&allocation)?;
        }
        for attachment in self
            .attachments
            .values_mut()
            .filter(|it| it.deleted && !it.released)
        {
            self.engine
                .release_addresses(&attachment.endpoint.allocation)?;
            attachment.released = true;
        }
        self.attachments.retain(|_, attachment| !attachment.deleted);
        match self.pool.take() {
            Some(pool) => self.engine.release_pool_and_gateway(&pool),
            None => Ok(()),
        }
    }

    fn step(&mut self, action: &str, step: &Step) -> Result<(), Fault> {
        let argument = step.argument.as_deref();
        match step.method.as_str() {
            "Plugin.Activate" => self.activate(argument),
            "NetworkDriver.GetCapabilities" => self.engine.network_capabilities(),
            "IpamDriver.GetCapabilities" => self.engine.ipam_capabilities(),
            "IpamDriver.GetDefaultAddressSpaces" => self.engine.address_space().map(drop),
            "NetworkDriver.GwAllocCheck" => self.engine.check_gateways(&NetworkSpec::default()),
            "IpamDriver.RequestPool" => {
                let subnet = argument.map(ToOwned::to_owned);
                self.pool = Some(self.engine.request_pool(&PoolSpec {
                    subnet,
                    ..PoolSpec::default()
                })?);
                Ok(())
            }
            "IpamDriver.RequestAddress" => self.request_address(action, argument),
            "NetworkDriver.CreateNetwork" => self.create_network(action),
            "IpamDriver.ReleaseAddress" => self.release_address(argument),
            "IpamDriver.ReleasePool" => self.release_pool(),
            "NetworkDriver.DeleteNetwork" => self.delete_network(),
            "NetworkDriver.CreateEndpoint" => {
                self.create_endpoint(action, argument.unwrap_or_default())
            }
            method => self.with_endpoint(method, argument.unwrap_or_default()),
        }
    }

    fn activate(&self, plugin: Option<&str>) -> Result<(), Fault> {
        match plugin {
            Some("network") => self.engine.activate_network(),
            Some("ipam") => self.engine.activate_ipam(),
            // A volume or authorization plugin.
            _ => Ok(()),
        }
    }

    fn request_address(&mut self, action: &str, address: Option<&str>) -> Result<(), Fault> {
        if let Some(pool) = self.pool.as_mut().filter(|pool| pool.gateway.is_none()) {
            return self.engine.request_gateway(pool, None);
        }
        let network = match address.and_then(|text| text.parse::<IpAddr>().ok()) {
            Some(address) => self.network_of(address)?,
            None => self.network_for(action)?,
        };
        let allocation = self.allocate(network, address)?;
        self.allocation = Some((network, allocation));
        Ok(())
    }

    fn allocate(&self, network: usize, address: Option<&str>) -> Result<Allocation, Fault> {
        let network = self.network(network)?;
        self.engine.request_addresses(network, address, "recorded")
    }

    fn create_network(&mut self, action: &str) -> Result<(), Fault> {
        let mut spec = NetworkSpec::default();
        if action.contains("CreateNetwork fails") {
            spec = spec.with_option("no.such.option", "at all");
            let pools = self.pool.iter().cloned().collect();
            return match self.engine.announce_network(&spec, pools) {
                Err(Fault::Refused { .. }) => Ok(()),
                Err(fault) => Err(fault),
                Ok(_) => Err(Fault::unusable(
                    "CreateNetwork",
                    "an unknown option was accepted",
                )),
            };
        }
        match self.pool.take() {
            Some(pool) => {
                let network = self.engine.announce_network(&spec, vec![pool])?;
                self.networks.push(network);
                Ok(())
            }
            None => self.make_network(&spec).map(drop),
        }
    }

    /// Makes a network off the record.
    fn make_network(&mut self, spec: &NetworkSpec) -> Result<usize, Fault> {
        self.networks.push(self.engine.create_network(spec)?);
        Ok(self.networks.len() - 1)
    }

    fn create_endpoint(&mut self, action: &str, name: &str) -> Result<(), Fault> {
        let (index, allocation) = match self.allocation.take() {
            Some(requested) => requested,
            None => {
                let network = self.network_for(action)?;
                (network, self.allocate(network, None)?)
            }
        };
        let mut network = self.network(index)?.clone();
        if action.contains("CreateEndpoint fails") {
            // A network that the driver was never told of.
            network.id = network.id.chars().rev().collect();
            let refused = self
                .engine
                .create_endpoint(&network, allocation.clone(), json!({}));
            self.allocation = Some((index, allocation));
            return match refused {
                Err(Fault::Refused { .. }) => Ok(()),
                Err(fault) => Err(fault),
                Ok(_) => Err(Fault::unusable("CreateEndpoint", "in an unknown network")),
            };
        }
        let endpoint = self
            .engine
            .create_endpoint(&network, allocation, json!({}))?;
        let attachment = Attachment {
            endpoint,
            network: index,
            deleted: false,
            released: false,
        };
        self.attachments.insert(name.to_owned(), attachment);
        Ok(())
    }

    fn with_endpoint(&mut self, method: &str, name: &str) -> Result<(), Fault> {
        if !self.attachments.contains_key(name) {
            self.make_endpoint(name)?;
        }
        let Some(attachment) = self.attachments.get_mut(name) else {
            return Ok(());
        };
        let endpoint = &attachment.endpoint;
        match method {
            "NetworkDriver.Join" => self.engine.join(endpoint).map(drop),
            "NetworkDriver.Leave" => self.engine.leave(endpoint),
            "NetworkDriver.ProgramExternalConnectivity" => self.engine.program(endpoint),
            "NetworkDriver.RevokeExternalConnectivity" => self.engine.revoke(endpoint),
            "NetworkDriver.EndpointOperInfo" => self.engine.information(endpoint),
            "NetworkDriver.DeleteEndpoint" => {
                attachment.deleted = true;
                self.engine.delete_endpoint(endpoint)
            }
            other => Err(Fault::unusable(other, "no such call is known")),
        }
    }

    /// Makes an endpoint off the record: its container was started before the recording.
    fn make_endpoint(&mut self, name: &str) -> Result<(), Fault> {
        let network = self.network_for("")?;
        let (endpoint, _) = self.engine.attach(self.network(network)?, name)?;
        let attachment = Attachment {
            endpoint,
            network,
            deleted: false,
            released: false,
        };
        self.attachments.insert(name.to_owned(), attachment);
        Ok(())
    }

    /// Which of what is there the recorder's address stands for.
    fn release_address(&mut self, address: Option<&str>) -> Result<(), Fault> {
        let address = address.and_then(|text| text.parse::<IpAddr>().ok());
        let Some(address) = address else {
            return Err(Fault::unusable("ReleaseAddress", "no address is recorded"));
        };
        let exact = self.attachments.values_mut().find(|it| {
            it.deleted
                && !it.released
                && it
                    .endpoint
                    .allocation
                    .addresses
                    .iter()
                    .any(|(_, given)| given.addr() == address)
        });
        if let Some(attachment) = exact {
            attachment.released = true;
            return self
                .engine
                .release_addresses(&attachment.endpoint.allocation);
        }
        let pools = self
            .pool
            .iter()
            .chain(self.networks.iter().flat_map(|it| &it.pools));
        for pool in pools {
            if pool
                .gateway
                .is_some_and(|gateway| gateway.addr() == address)
            {
                return self.engine.release_address(&pool.id, address);
            }
        }
        if let Some((_, allocation)) = self.allocation.take() {
            return self.engine.release_addresses(&allocation);
        }
        // A deleted endpoint's, or, after a crash, that of one that nobody deleted.
        let deleted = self
            .attachments
            .values()
            .any(|it| it.deleted && !it.released);
        let stale = self
            .attachments
            .values_mut()
            .find(|it| it.deleted == deleted && !it.released);
        match stale {
            Some(attachment) => {
                attachment.released = true;
                self.engine
                    .release_addresses(&attachment.endpoint.allocation)
            }
            None => self.engine.release_address(self.any_pool()?, address),
        }
    }

    fn any_pool(&self) -> Result<&str, Fault> {
        let pool = self
            .networks
            .iter()
            .flat_map(|network| &network.pools)
            .next();
        pool.map(|pool| pool.id.as_str())
            .ok_or_else(|| Fault::unusable("ReleaseAddress", "no pool is known"))
    }

    fn release_pool(&mut self) -> Result<(), Fault> {
        let removed = match self.pool.take() {
            Some(pool) => pool,
            None => {
                let index = self.removable()?;
                self.network(index)?
                    .pools
                    .first()
                    .cloned()
                    .ok_or_else(no_network)?
            }
        };
        self.engine
            .ipam("ReleasePool", Some(&json!({ "PoolID": removed.id })))
            .map(drop)
    }

    /// The network that an action removes: the first without endpoints, or else the first, whose
    /// containers were then removed off the record.
    fn removable(&mut self) -> Result<usize, Fault> {
        let used = |index: usize| {
            self.attachments
                .values()
                .any(|it| it.network == index && !it.deleted)
        };
        if let Some(index) = (0..self.networks.len()).find(|index| !used(*index)) {
            return Ok(index);
        }
        for attachment in self.attachments.values().filter(|it| it.network == 0) {
            detach(self.engine, attachment)?;
        }
        self.attachments
            .retain(|_, attachment| attachment.network != 0);
        if self.networks.is_empty() {
            Err(no_network())
        } else {
            Ok(0)
        }
    }

    fn delete_network(&mut self) -> Result<(), Fault> {
        let index = self.removable()?;
        let network = self.networks.remove(index);
        for attachment in self
            .attachments
            .values_mut()
            .filter(|it| it.network > index)
        {
            attachment.network -= 1;
        }
        // The release of the pool was recorded for one of two networks only; it may come twice.
        self.engine.remove_network(&network)
    }

    fn network(&self, index: usize) -> Result<&Network, Fault> {
        self.networks.get(index).ok_or_else(no_network)
    }

    /// The network of an address that the user chose.
    fn network_of(&mut self, address: IpAddr) -> Result<usize, Fault> {
        let holds = |network: &Network| network.pools.iter().any(|it| it.prefix.contains(&address));
        match self.networks.iter().position(holds) {
            Some(index) => Ok(index),
            None => {
                let length = if address.is_ipv4() { 24 } else { 64 };
                let subnet = IpNet::new(address, length)
                    .map(|prefix| prefix.trunc().to_string())
                    .map_err(|error| Fault::unusable("RequestAddress", error.to_string()))?;
                self.make_network(&NetworkSpec::with_subnet(&subnet))
            }
        }
    }

    /// The network of the next endpoint: the internal one where the action says so, and never one
    /// that the action has used already.
    fn network_for(&mut self, action: &str) -> Result<usize, Fault> {
        let alone = action.contains("on an internal network");
        if !alone && self.networks.is_empty() {
            return self.make_network(&NetworkSpec::default());
        }
        let second = alone
            || action.contains("network connect")
            || (action.contains("two networks") && self.attachments.values().any(|it| !it.deleted));
        if !second {
            return Ok(0);
        }
        match self.networks.iter().position(|network| network.internal) {
            Some(internal) => Ok(internal),
            None => self.make_network(&NetworkSpec::default().internal()),
        }
    }
}

/// A container's end that was not recorded.
fn detach(engine: &FakeEngine, attachment: &Attachment) -> Result<(), Fault> {
    let endpoint = &attachment.endpoint;
    engine.revoke(endpoint)?;
    engine.leave(endpoint)?;
    engine.delete_endpoint(endpoint)?;
    if attachment.released {
        return Ok(());
    }
    engine.release_addresses(&endpoint.allocation)
}

fn no_network() -> Fault {
    Fault::unusable("network", "none is known that could be meant")
}
