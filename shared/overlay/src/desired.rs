//! What should be, in the words of the cluster: networks, endpoints, peers and blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_ipsec::{Association, Epoch, Lane};
use drover_model::{
    Block, Encapsulation, Encryption, EndpointId, Family, HostIndex, HostName, MacAddress, Mtu,
    NetworkId, Pool,
};
use ipnet::IpNet;

use crate::way::Way;

/// Everything that this host's data path follows from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// This host's place in the cluster; `None` until it is known, and then no peer is reached.
    pub host: Option<ThisHost>,
    /// The networks that Docker has created here.
    pub networks: BTreeMap<NetworkId, Network>,
    /// The endpoints that are joined here.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// The other hosts.
    pub peers: BTreeMap<HostName, Peer>,
    /// The blocks of all pools.
    pub blocks: BTreeMap<Block, RemoteBlock>,
}

/// This host's place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThisHost {
    /// Its small number.
    pub index: HostIndex,
    /// Where other hosts reach it.
    pub advertise: IpAddr,
    /// The device in the root namespace that has that address; `None` when no device has it, and
    /// then no peer is reached directly.
    pub underlay: Option<String>,
    /// The UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Whether its kernel can encrypt. If not, encrypted networks reach no peer.
    pub encrypts: bool,
    /// Whether its packet filter can ask where the source of a packet is routed to. A host that encrypts can.
    pub checks_sources: bool,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its subnets.
    pub pools: Vec<NetworkPool>,
    /// Whether it may leave the host in clear.
    pub encryption: Encryption,
    /// The largest packet of its containers.
    pub mtu: Mtu,
}

/// A subnet of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkPool {
    /// The subnet.
    pub pool: Pool,
    /// The gateway's address, which every host has on its bridge.
    pub gateway: Option<IpAddr>,
}

/// An endpoint that the engine has joined to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its network.
    pub network: NetworkId,
    /// Its link address.
    pub mac: MacAddress,
    /// Its addresses, each with the prefix length of its block, or full length for a single claim.
    pub addresses: BTreeSet<IpNet>,
    /// The MTU it was joined with: that of a link does not change under a running container.
    pub mtu: Mtu,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its small number.
    pub index: HostIndex,
    /// Where it is reached.
    pub advertise: IpAddr,
    /// How clear networks reach it.
    pub encapsulation: Encapsulation,
    /// The largest packet of the path to it.
    pub underlay_mtu: Mtu,
    /// Whether it is to be reached directly for probes, whatever way containers' packets take.
    pub watched: bool,
    /// Whether its VXLAN device is to be there, though nothing may travel by it yet.
    pub standby: bool,
    /// How encrypted networks reach it; `None` while they are not to, and then they do not at all.
    pub ipsec: Option<IpsecPath>,
}

/// The encrypted path to a peer. Its device is there and its routes lead to it even while nothing can
/// be sent by it: what is not encrypted is dropped by the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpsecPath {
    /// How many lanes flows are spread over.
    pub lanes: u8,
    /// The UDP ports that packets are sent from and to; `None` to send ESP as it is.
    pub udp: Option<UdpPorts>,
    /// The associations of all epochs. One with a key is made, if it is not there; the key is given until it
    /// was made the first time, and never after: its sequence numbers would begin anew.
    pub associations: Vec<Association>,
    /// The epoch to send by; `None` to send nothing.
    pub send: Option<Epoch>,
    /// The epoch that probes with [`crate::name::CANDIDATE_MARK`] are sent by.
    pub candidate: Option<Epoch>,
    /// The largest packet of containers that was seen to get through, if it is less than the device takes.
    pub mtu: Option<Mtu>,
    /// The lanes that take another way than to the address that the peer advertises.
    pub ways: BTreeMap<Lane, Way>,
    /// The ways that probes with [`crate::name::TRIAL_MARK`] try.
    pub trials: BTreeMap<Lane, Way>,
}

/// The UDP ports of the first lane; each lane after it has the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpPorts {
    /// This host's.
    pub source: u16,
    /// The peer's.
    pub destination: u16,
}

/// A block and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBlock {
    /// The pool it is cut from.
    pub pool: Pool,
    /// Who allocates from it.
    pub owner: BlockHolder,
    /// Single addresses that another host than the owner holds.
    pub claims: BTreeMap<IpAddr, BlockHolder>,
}

/// Who holds a block or a single address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockHolder {
    /// This host.
    Here,
    /// Another host.
    Peer(HostName),
    /// Nobody.
    Nobody,
}

impl Desired {
    /// This host's blocks of each pool: those it owns by the fabric, and those that its endpoints'
    /// addresses are in, which are its own even when the fabric is late to say so.
    #[must_use]
    pub fn own_blocks(&self) -> BTreeMap<Pool, BTreeSet<Block>> {
        let mut own: BTreeMap<Pool, BTreeSet<Block>> = BTreeMap::new();
        for (block, held) in &self.blocks {
            if held.owner == BlockHolder::Here {
                own.entry(held.pool).or_default().insert(*block);
            }
        }
        for endpoint in self.endpoints.values() {
            let Some(network) = self.networks.get(&endpoint.network) else {
                continue;
            };
            for address in endpoint.addresses.iter().filter(|it| !is_single(**it)) {
                let mut pools = network.pools.iter().map(|it| it.pool);
                if let Some(pool) = pools.find(|pool| pool.contains(address.addr())) {
                    own.entry(pool).or_default().insert(Block::new(*address));
                }
            }
        }
        own
    }

    /// How packets of a family travel to a peer.
    ///
    /// A direct path carries the family of the underlay alone: the kernel's `fwd` finds the link
    /// address of the next hop in the neighbour table of the packet's own family
    /// (`nft_fwd_neigh_eval`), where an IPv6 packet has no entry for an IPv4 next hop. The
    /// other family travels by VXLAN.
    #[must_use]
    pub fn encapsulation(&self, peer: &Peer, family: Family) -> Encapsulation {
        let direct = self
            .host
            .as_ref()
            .is_some_and(|host| host.underlay.is_some())
            && Family::of(peer.advertise) == family;
        match peer.encapsulation {
            Encapsulation::Direct if !direct => Encapsulation::Vxlan,
            other => other,
        }
    }
}

impl Desired {
    /// The peers that the direct path leads to: those whose packets take it, and those that are
    /// watched on it.
    pub(crate) fn direct_peers(&self) -> impl Iterator<Item = &Peer> {
        let host = self.host.as_ref().filter(|host| host.underlay.is_some());
        let family = host.map(|host| Family::of(host.advertise));
        self.peers.values().filter(move |peer| {
            family.is_some_and(|family| {
                Family::of(peer.advertise) == family
                    && (peer.watched || self.encapsulation(peer, family) == Encapsulation::Direct)
            })
        })
    }
}

/// Whether an address stands for itself alone, and not for a place in a block.
pub(crate) fn is_single(address: IpNet) -> bool {
    address.prefix_len() == address.max_prefix_len()
}
