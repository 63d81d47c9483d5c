//! From records, cluster and settings to what the data path should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::{BlockRecord, ClaimState, HostRecord};
use drover_daemon::{EncapsulationChoice, OverlaySettings};
use drover_model::{Encapsulation, Encryption, Family, HostName, Mtu};
use drover_overlay::{BlockHolder, Desired, Endpoint, NetworkPool, Peer, RemoteBlock, ThisHost};

use crate::cluster::Cluster;
use crate::owner;
use crate::record::{Network, Records};

/// What the data path follows from.
pub(crate) struct Sources<'a> {
    pub(crate) records: &'a Records,
    pub(crate) cluster: &'a Cluster,
    pub(crate) settings: &'a OverlaySettings,
    /// The device that has the advertised address, if there is one.
    pub(crate) underlay: Option<&'a str>,
    /// Hosts whose direct path did not answer, and whose VXLAN path is being tried.
    pub(crate) doubted: &'a BTreeSet<HostName>,
    /// What there is for encrypted paths.
    pub(crate) encryption: &'a owner::Encryption,
}

impl Sources<'_> {
    /// What the data path should be.
    pub(crate) fn desired(&self) -> Desired {
        let own = self.cluster.own();
        Desired {
            host: own.map(|own| ThisHost {
                index: own.index,
                advertise: own.advertise,
                underlay: self.underlay.map(ToOwned::to_owned),
                vxlan_port: self.settings.vxlan_port,
                encrypts: self.encryption.is_possible(),
                checks_sources: self.encryption.checks_sources(),
            }),
            networks: self.networks(),
            endpoints: self.endpoints(),
            peers: own.map(|own| self.peers(own)).unwrap_or_default(),
            blocks: self.blocks(),
        }
    }

    fn networks(&self) -> BTreeMap<drover_model::NetworkId, drover_overlay::Network> {
        let networks = self.records.networks().iter().map(|(id, network)| {
            let pools = network.subnets.iter();
            let pools = pools.map(|it| NetworkPool {
                pool: it.pool,
                gateway: it.gateway,
            });
            let lowered = drover_overlay::Network {
                pools: pools.collect(),
                encryption: network.options.encryption,
                mtu: self.mtu(network),
            };
            (id.clone(), lowered)
        });
        networks.collect()
    }

    fn endpoints(&self) -> BTreeMap<drover_model::EndpointId, Endpoint> {
        let endpoints = self
            .records
            .endpoints()
            .iter()
            .filter_map(|(id, endpoint)| {
                let joined = endpoint.joined.as_ref()?;
                let lowered = Endpoint {
                    network: endpoint.network.clone(),
                    mac: endpoint.mac,
                    addresses: endpoint.addresses.clone(),
                    mtu: joined.mtu,
                };
                Some((id.clone(), lowered))
            });
        endpoints.collect()
    }

    fn peers(&self, own: &HostRecord) -> BTreeMap<HostName, Peer> {
        let peers = self.cluster.others().map(|host| {
            let peer = Peer {
                index: host.index,
                advertise: host.advertise,
                encapsulation: self.encapsulation(own, host),
                watched: self.is_watched(own, host),
                standby: self.doubted.contains(&host.name),
                ipsec: self
                    .encryption
                    .path(&host.name, self.cluster.keys.get(&host.name)),
                underlay_mtu: own.underlay_mtu.min(host.underlay_mtu),
            };
            (host.name.clone(), peer)
        });
        peers.collect()
    }

    /// Two hosts share a link when each one's prefix has the other's address in it.
    fn encapsulation(&self, own: &HostRecord, other: &HostRecord) -> Encapsulation {
        match self.settings.encapsulation {
            EncapsulationChoice::Direct => Encapsulation::Direct,
            EncapsulationChoice::Vxlan => Encapsulation::Vxlan,
            EncapsulationChoice::Auto => {
                if self.is_watched(own, other) && !self.has_fallen_back(other) {
                    Encapsulation::Direct
                } else {
                    Encapsulation::Vxlan
                }
            }
        }
    }

    /// Whether the direct path to a host was chosen by its address, and so may turn out not to work.
    pub(crate) fn is_watched(&self, own: &HostRecord, other: &HostRecord) -> bool {
        let near = |host: &HostRecord, address: IpAddr| {
            host.link.is_some_and(|link| link.contains(&address))
        };
        self.settings.encapsulation == EncapsulationChoice::Auto
            && self.underlay.is_some()
            && near(own, other.advertise)
            && near(other, own.advertise)
    }

    /// Whether the direct path to a host was found not to work.
    pub(crate) fn has_fallen_back(&self, host: &HostRecord) -> bool {
        self.records.fallbacks().get(&host.name) == Some(&host.member)
    }

    fn blocks(&self) -> BTreeMap<drover_model::Block, RemoteBlock> {
        let blocks = self.cluster.blocks.iter().map(|(block, record)| {
            let granted = record
                .claims
                .iter()
                .filter(|(_, it)| it.state == ClaimState::Granted);
            let held = RemoteBlock {
                pool: record.pool,
                owner: self.owner(record),
                claims: granted
                    .map(|(address, it)| (*address, self.holder(&it.host)))
                    .collect(),
            };
            (*block, held)
        });
        blocks.collect()
    }

    /// A host of the same name that joined anew is not the owner.
    fn owner(&self, block: &BlockRecord) -> BlockHolder {
        let Some(owner) = &block.owner else {
            return BlockHolder::Nobody;
        };
        let member = self.cluster.hosts.get(owner).map(|host| &host.member);
        if block.owner_member.is_some() && block.owner_member.as_ref() != member {
            return BlockHolder::Nobody;
        }
        self.holder(owner)
    }

    fn holder(&self, host: &HostName) -> BlockHolder {
        if self
            .cluster
            .this_host
            .as_ref()
            .is_some_and(|own| own.name == *host)
        {
            BlockHolder::Here
        } else {
            BlockHolder::Peer(host.clone())
        }
    }

    /// The MTU of a network: what the user said, else what fits inside of VXLAN on every host, so that
    /// a host that joins later, by whatever path, needs no change to running containers.
    pub(crate) fn mtu(&self, network: &Network) -> Mtu {
        if let Some(mtu) = network.options.mtu {
            return mtu;
        }
        let hosts = self.cluster.hosts.values();
        let underlay = hosts
            .map(|host| host.underlay_mtu)
            .min()
            .unwrap_or(Mtu::ETHERNET);
        let six = self
            .cluster
            .own()
            .is_some_and(|own| own.advertise.is_ipv6());
        if network.options.encryption == Encryption::Ipsec {
            return wide_enough(underlay.inside(Encapsulation::Ipsec, six), network);
        }
        let family = if six { Family::V6 } else { Family::V4 };
        // Packets of the other family than the underlay's travel by VXLAN even then.
        let direct = self.settings.encapsulation == EncapsulationChoice::Direct
            && network
                .subnets
                .iter()
                .all(|subnet| subnet.pool.family() == family);
        let mtu = if direct {
            underlay
        } else {
            underlay.inside(Encapsulation::Vxlan, six)
        };
        wide_enough(mtu, network)
    }
}

/// IPv6 needs 1280 bytes (RFC 8200, section 5).
fn wide_enough(mtu: Mtu, network: &Network) -> Mtu {
    let mut families = network.subnets.iter().map(|it| it.pool.family());
    let smallest = if families.any(|family| family == Family::V6) {
        1280
    } else {
        Mtu::MIN
    };
    Mtu::new(mtu.get().max(smallest)).unwrap_or(mtu)
}
