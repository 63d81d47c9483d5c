//! What a plugin answers to Drover itself, on its own socket, beside Docker's protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use drover_model::{Block, Encapsulation, EndpointId, HostName, MacAddress, Mtu, NetworkId, Pool};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::record::UnixSeconds;
use crate::{Empty, method};

/// Who is answering, for `drover status` and the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAreYou {}
method!(WhoAreYou, "/Drover.WhoAreYou", Identity);

/// A process of Drover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `drover-net`, `drover-ipam`, `drover-coordinator`.
    pub process: String,
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// What is not as it should be, a sentence each; empty when all is well.
    pub complaints: Vec<String>,
}

/// To `drover-ipam`: what it has given out on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {}
method!(Leases, "/Drover.Leases", LeaseTable);

/// The addresses of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTable {
    /// One entry a pool in use here.
    pub pools: Vec<PoolUse>,
}

/// What a host uses of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUse {
    /// The pool.
    pub pool: Pool,
    /// This host's blocks of it.
    pub blocks: Vec<BlockUse>,
    /// The addresses that containers here hold, single claims included.
    pub leases: Vec<LeaseEntry>,
    /// Addresses that were given back and are not given again yet.
    pub quarantined: Vec<IpAddr>,
}

/// What is used of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockUse {
    /// The block.
    pub block: Block,
    /// Addresses that containers can have at all.
    pub usable: u64,
    /// Addresses that are given out.
    pub used: u64,
}

/// An address that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// The address.
    pub address: IpAddr,
    /// The link address it was given with, when the engine told.
    pub mac: Option<MacAddress>,
    /// When it was given.
    pub given_at: UnixSeconds,
}

/// To `drover-ipam`: keep this address of a block of yours for another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The pool.
    pub pool: Pool,
    /// The address.
    pub address: IpAddr,
    /// The other host.
    pub holder: HostName,
}
method!(SetAside, "/Drover.SetAside", SetAsideAnswer);

/// Whether an address was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideAnswer {
    /// `false` when a container here has it.
    pub granted: bool,
}

/// To `drover-ipam`: another host no longer holds this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBack {
    /// The pool.
    pub pool: Pool,
    /// The address.
    pub address: IpAddr,
    /// The other host.
    pub holder: HostName,
}
method!(TakeBack, "/Drover.TakeBack", Empty);

/// To `drover-ipam`: the engine, asked outside of any call, has exactly these addresses in use.
/// Leases that were given before `before` and are not among them have leaked, and are released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmLeases {
    /// The addresses in use.
    pub in_use: BTreeSet<IpAddr>,
    /// Leases given at or after this are too young to judge.
    pub before: UnixSeconds,
}
method!(ConfirmLeases, "/Drover.ConfirmLeases", LeakedLeases);

/// The leases that had leaked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakedLeases {
    /// Released by this call.
    pub released: Vec<IpAddr>,
}

/// To `drover-net`: how other hosts are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {}
method!(Paths, "/Drover.Paths", PathTable);

/// The paths of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTable {
    /// One entry a peer.
    pub paths: Vec<PathEntry>,
    /// Packets that this host has dropped for the sake of encryption, by cause, a few words each. IPsec of somebody
    /// else on this host is counted with ours.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// That this host has encrypted networks and cannot encrypt, and why.
    #[serde(default)]
    pub cannot_encrypt: Option<String>,
}

/// The path to a peer: how packets of clear networks get there, and how those of encrypted ones do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEntry {
    /// The peer.
    pub host: HostName,
    /// Where it is.
    pub address: IpAddr,
    /// How packets get there.
    pub encapsulation: Encapsulation,
    /// The device in the `drover` namespace.
    pub device: String,
    /// The largest packet from a container, bytes.
    pub mtu: Mtu,
    /// How many of its blocks are routed there.
    pub blocks: u32,
    /// Packets sent and received by the device, and dropped by it, since it was made.
    pub packets: PacketCounters,
    /// How packets of encrypted networks get there; `None` when one of the two hosts cannot encrypt, and then
    /// they do not.
    #[serde(default)]
    pub encryption: Option<EncryptedPath>,
}

/// How packets of encrypted networks get to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptedPath {
    /// The device in the `drover` namespace.
    pub device: String,
    /// The cipher of every association.
    pub cipher: String,
    /// `udp PORT-PORT`, or `esp` where the peer takes no UDP.
    pub transport: String,
    /// Where packets of the first lane are sent to; `None` where they are not in UDP, or none is sent yet.
    #[serde(default)]
    pub endpoint: Option<SocketAddr>,
    /// Whether that, or another lane's, is no address that the peer tells of itself: packets came from there, and it answered
    /// there.
    #[serde(default)]
    pub learned: bool,
    /// The largest packet from a container that gets through, bytes.
    pub mtu: Mtu,
    /// Whether that was found by packets of this size that came back, and is not only what the devices say.
    #[serde(default)]
    pub mtu_found: bool,
    /// How many associations flows are spread over, each way.
    pub lanes: u8,
    /// The associations that there are, of all epochs and both ways.
    pub associations: u32,
    /// The epoch that packets are sent with: this host's generation and the peer's, by their tags, as in
    /// `12/7`; `None` while there is none, and then packets are dropped.
    pub epoch: Option<String>,
    /// How long ago that epoch began, seconds; `None` when an earlier process began it.
    pub epoch_age: Option<u64>,
    /// How long ago the peer last answered on this path, seconds.
    pub last_answer: Option<u64>,
    /// Packets sent and received by the device, and dropped by it, since it was made.
    pub packets: PacketCounters,
    /// Packets from the peer that were refused, by cause.
    pub refused: RefusedPackets,
    /// Why it is not as it should be, a sentence; `None` when all is well.
    pub degraded: Option<String>,
}

/// Packets from a peer that its associations refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPackets {
    /// Seen before, or too old to tell (RFC 4303, section 3.4.3).
    pub replayed: u64,
    /// Changed on the way, or made by somebody without the key.
    pub forged: u64,
}

/// Counters of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounters {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
    /// Dropped, either way.
    pub dropped: u64,
}

/// To `drover-net`: the endpoints it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {}
method!(Endpoints, "/Drover.Endpoints", EndpointTable);

/// The endpoints of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTable {
    /// The networks that were created here.
    pub networks: Vec<NetworkEntry>,
    /// One entry an endpoint.
    pub endpoints: Vec<EndpointEntry>,
}

/// A network as `drover-net` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEntry {
    /// Docker's id.
    pub network: NetworkId,
    /// Its pools.
    pub pools: Vec<Pool>,
    /// Its bridge in the `drover` namespace.
    pub bridge: String,
    /// The MTU that containers get.
    pub mtu: Mtu,
}

/// An endpoint as `drover-net` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointEntry {
    /// Docker's id of the endpoint.
    pub endpoint: EndpointId,
    /// Docker's id of its network.
    pub network: NetworkId,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its link address.
    pub mac: MacAddress,
    /// The sandbox that the engine has joined it to, by the path of its file as the engine names it. Up to Engine 27 the
    /// sandbox is made after that.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// Whether its port is there in the kernel.
    pub present: bool,
}

/// To `drover-net`: compare what should be with what is, now, and mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {}
method!(Reconcile, "/Drover.Reconcile", Reconciled);

/// What a reconciliation did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// The steps that were taken, as a person reads them.
    pub steps: Vec<String>,
}

/// To `drover-net`: remove everything of ours from the kernel, and forget every network and endpoint.
/// For `drover reset`; the process does nothing more until it is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TearDown {}
method!(TearDown, "/Drover.TearDown", TornDown);

/// What a tear-down did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// What was removed, as a person reads it.
    pub removed: Vec<String>,
}
