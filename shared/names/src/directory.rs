//! What is known of all containers, folded from the registry's events.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use drover_control_api::record::UnixSeconds;
use drover_control_api::registry::{ContainerRecord, RegistryEvent};
use drover_model::{HostName, LogicalNetworkId, Pool};

use crate::index::Network;
use crate::place::{HostStanding, Place, names_of};

/// All containers, by network and name.
#[derive(Debug, Default)]
pub struct Directory {
    this_host: Option<HostName>,
    hosts: BTreeMap<HostName, Host>,
    containers: BTreeMap<HostName, BTreeMap<String, ContainerRecord>>,
    networks: BTreeMap<LogicalNetworkId, Network>,
    /// Since when the coordinator has had no news.
    told_stale: Option<UnixSeconds>,
    /// Since when we have had no news of the coordinator.
    cut: Option<UnixSeconds>,
    is_complete: bool,
    /// What is being told since the last `Reset`, until it is complete.
    telling: Option<Box<Directory>>,
}

#[derive(Debug)]
struct Host {
    member: String,
    alive: bool,
}

impl Directory {
    /// Takes an event in. Between `Reset` and `Synced` the answers stay what they were.
    pub fn apply(&mut self, event: RegistryEvent) {
        match event {
            RegistryEvent::Reset { this_host } => {
                self.telling = Some(Box::new(Self {
                    this_host: Some(this_host),
                    ..Self::default()
                }));
            }
            RegistryEvent::Synced => {
                if let Some(told) = self.telling.take() {
                    *self = *told;
                    self.is_complete = true;
                }
            }
            event => {
                let telling = self.telling.as_deref_mut();
                let directory = match telling {
                    Some(directory) => directory,
                    None => self,
                };
                directory.take(event);
            }
        }
    }

    /// Says since when the coordinator's stream is cut; `None` when it is followed.
    ///
    /// It is cut until the next stream is complete: what half of one tells is not looked at.
    pub fn set_cut(&mut self, since: Option<UnixSeconds>) {
        self.cut = since;
        self.telling = None;
    }

    /// Since when what is known may be out of date; `None` when it is not.
    #[must_use]
    pub fn stale_since(&self) -> Option<UnixSeconds> {
        match (self.told_stale, self.cut) {
            (Some(told), Some(cut)) => Some(told.min(cut)),
            (told, cut) => told.or(cut),
        }
    }

    /// Whether everything that there is has been told once.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The host that answers.
    #[must_use]
    pub const fn this_host(&self) -> Option<&HostName> {
        self.this_host.as_ref()
    }

    /// How many networks, containers and names there are, a name once a network.
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize) {
        let containers = self.containers.values().map(BTreeMap::len).sum();
        let names = self.networks.values().map(Network::len).sum();
        (self.networks.len(), containers, names)
    }

    /// Every record there is.
    pub fn records(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.containers.values().flat_map(BTreeMap::values)
    }

    /// What is known, as events that tell it again.
    pub fn events(&self) -> impl Iterator<Item = RegistryEvent> {
        let this_host = self.this_host.clone();
        let begin = this_host.map(|this_host| RegistryEvent::Reset { this_host });
        let hosts = self.hosts.iter().map(|(name, host)| RegistryEvent::Host {
            name: name.clone(),
            member: host.member.clone(),
            alive: host.alive,
        });
        let containers = self.records().cloned();
        let containers = containers.map(|record| RegistryEvent::Container(Box::new(record)));
        let end = begin.is_some().then_some(RegistryEvent::Synced);
        begin.into_iter().chain(hosts).chain(containers).chain(end)
    }

    /// The container of this host that has an address; the one that was started last if it was given anew.
    #[must_use]
    pub fn local_at(&self, address: IpAddr) -> Option<&ContainerRecord> {
        let local = self.containers.get(self.this_host.as_ref()?)?;
        let networks = self.networks.values();
        let holders = networks.flat_map(|network| network.holders(address));
        let near = holders.filter(|place| place.near && place.standing.counts());
        let records = near.filter_map(|place| local.get(&place.id));
        records.max_by_key(|record| record.started_at)
    }

    /// The network whose addresses are in a pool: pools are one network's. `None` while nobody is known there.
    #[must_use]
    pub fn network_in(&self, pool: Pool) -> Option<&LogicalNetworkId> {
        let mut networks = self.networks.iter();
        let found = networks.find(|(_, network)| network.is_in(pool));
        found.map(|(id, _)| id)
    }

    /// A network by its name in Docker; the one with the smallest id if there are several.
    #[must_use]
    pub fn network_called(&self, name: &str) -> Option<&LogicalNetworkId> {
        let mut networks = self.networks.iter();
        let found = networks.find(|(_, network)| network.name() == name);
        found.map(|(id, _)| id)
    }

    /// A network's name in Docker.
    #[must_use]
    pub fn network_name(&self, id: &LogicalNetworkId) -> Option<&str> {
        self.networks.get(id).map(Network::name)
    }

    pub(crate) fn network(&self, id: &LogicalNetworkId) -> Option<&Network> {
        self.networks.get(id)
    }

    pub(crate) const fn networks(&self) -> &BTreeMap<LogicalNetworkId, Network> {
        &self.networks
    }

    fn take(&mut self, event: RegistryEvent) {
        match event {
            RegistryEvent::Host {
                name,
                member,
                alive,
            } => {
                self.hosts.insert(name.clone(), Host { member, alive });
                self.place_again(&name);
            }
            RegistryEvent::HostGone { name } => {
                self.hosts.remove(&name);
                for record in self.containers.remove(&name).unwrap_or_default().values() {
                    self.take_out(record);
                }
            }
            RegistryEvent::Container(record) => self.put(*record),
            RegistryEvent::ContainerGone { host, id } => self.forget(&host, &id),
            RegistryEvent::Stale { since } => self.told_stale = (since != 0).then_some(since),
            RegistryEvent::Reset { .. } | RegistryEvent::Synced => {}
        }
    }

    fn put(&mut self, record: ContainerRecord) {
        self.forget(&record.host, &record.id);
        self.put_in(&record);
        let containers = self.containers.entry(record.host.clone()).or_default();
        containers.insert(record.id.clone(), record);
    }

    fn forget(&mut self, host: &HostName, id: &str) {
        let Some(containers) = self.containers.get_mut(host) else {
            return;
        };
        let gone = containers.remove(id);
        if containers.is_empty() {
            self.containers.remove(host);
        }
        if let Some(record) = gone {
            self.take_out(&record);
        }
    }

    /// Works out anew how the containers of a host stand.
    fn place_again(&mut self, host: &HostName) {
        let Some(containers) = self.containers.remove(host) else {
            return;
        };
        for record in containers.values() {
            self.take_out(record);
            self.put_in(record);
        }
        self.containers.insert(host.clone(), containers);
    }

    fn put_in(&mut self, record: &ContainerRecord) {
        let host = self.standing(record);
        let near = self.this_host.as_ref() == Some(&record.host);
        for (id, attachment) in &record.attachments {
            let place = Arc::new(Place::of(record, attachment, host, near));
            let network = self.networks.entry(id.clone()).or_default();
            network.call(&attachment.network);
            network.insert(&place, names_of(record, attachment).0);
        }
    }

    fn take_out(&mut self, record: &ContainerRecord) {
        for (id, attachment) in &record.attachments {
            let Some(network) = self.networks.get_mut(id) else {
                continue;
            };
            let names = names_of(record, attachment).0;
            let container = (&record.host, record.id.as_str());
            network.remove(container, names.keys(), &attachment.addresses);
            if network.is_empty() {
                self.networks.remove(id);
            }
        }
    }

    /// Whether a host gives signs of life.
    pub(crate) fn standing_of(&self, host: &HostName) -> HostStanding {
        match self.hosts.get(host) {
            Some(host) if host.alive => HostStanding::Alive,
            Some(_) => HostStanding::Away,
            None => HostStanding::Gone,
        }
    }

    fn standing(&self, record: &ContainerRecord) -> HostStanding {
        match self.hosts.get(&record.host) {
            Some(host) if host.member != record.member => HostStanding::Gone,
            Some(host) if host.alive => HostStanding::Alive,
            Some(_) => HostStanding::Away,
            None => HostStanding::Gone,
        }
    }
}
