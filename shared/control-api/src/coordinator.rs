//! What plugins and the command line ask of the coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_model::{Block, Family, HostName, NetworkId, Pool};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::encoding::base64_key;
use crate::plugin::Identity;
use crate::record::{BlockRecord, HostRecord, NetworkRecord, PoolRecord, UnixSeconds};
use crate::{Empty, method};

/// Claim a pool for a network that is being created on this host.
///
/// An automatic claim (`pool` is `None`) gets a pool that overlaps no other pool, no prefix that any
/// host has a route to, and none of `refused`. A claim of a pool that exists is granted when this host has
/// no copy of its network (the coordinator, or a user at the same moment, is making the copy), and
/// refused when it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimPool {
    /// The family of an automatic claim.
    pub family: Family,
    /// The subnet that the user named.
    pub pool: Option<Pool>,
    /// The `--ip-range` that the user named.
    pub sub_pool: Option<IpNet>,
    /// Pools that were offered and that the engine did not take.
    pub refused: BTreeSet<Pool>,
}
method!(ClaimPool, "/v1/ClaimPool", PoolRecord);

/// This host's copy of the pool's network was removed, or could not be created. The pool itself goes
/// when no network has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasePool {
    /// Which.
    pub pool: Pool,
}
method!(ReleasePool, "/v1/ReleasePool", Empty);

/// Keep an address of a pool from being given to a container: its gateway, or an `--aux-address`.
/// Asking again for one that is kept succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveAddress {
    /// The pool.
    pub pool: Pool,
    /// The address; `None` for the first address of the pool that can be a gateway.
    pub address: Option<IpAddr>,
}
method!(ReserveAddress, "/v1/ReserveAddress", ReservedAddress);

/// An address that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedAddress {
    /// Which.
    pub address: IpAddr,
}

/// Give this host a block of the pool that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimBlock {
    /// The pool.
    pub pool: Pool,
}
method!(ClaimBlock, "/v1/ClaimBlock", ClaimedBlock);

/// A block that is this host's now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedBlock {
    /// The pool as it was when the block was given: from then on nothing more of the block can be
    /// reserved.
    pub pool: PoolRecord,
    /// The block.
    pub block: BlockRecord,
}

/// This host uses nothing of the block any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseBlock {
    /// The pool.
    pub pool: Pool,
    /// The block.
    pub block: Block,
}
method!(ReleaseBlock, "/v1/ReleaseBlock", Empty);

/// Give this host a single address (an explicit `--ip`) of a block that it does not own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimAddress {
    /// The pool.
    pub pool: Pool,
    /// The address.
    pub address: IpAddr,
}
method!(ClaimAddress, "/v1/ClaimAddress", Empty);

/// This host no longer uses an address that it had claimed singly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAddress {
    /// The pool.
    pub pool: Pool,
    /// The address.
    pub address: IpAddr,
}
method!(ReleaseAddress, "/v1/ReleaseAddress", Empty);

/// The endpoints of this host, all of them, by Docker's network id. Networks without one are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAttachments {
    /// How many endpoints a network has here.
    pub networks: BTreeMap<NetworkId, u32>,
}
method!(ReportAttachments, "/v1/ReportAttachments", Empty);

/// Make a key of this host known to the others: the coordinator signs it with the host's certificate.
///
/// `generation` is the one that [`NextGeneration`] tells; any other is refused as a conflict, and the
/// message names the right one. Asking again with the generation and the public key that are known
/// already changes `lanes` and `udp_port`, if they differ, and succeeds.
///
/// A host alone has no certificate and nobody to encrypt for: refused as not found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishKey {
    /// Which of this member's keys it is.
    pub generation: u64,
    /// The X25519 public key.
    #[serde(with = "base64_key")]
    pub public: [u8; 32],
    /// How many lanes this host has for each peer: 1 to 8.
    pub lanes: u8,
    /// The first of the UDP ports at which this host takes encapsulated traffic, a port a lane; `None`
    /// when it takes none.
    pub udp_port: Option<u16>,
}
method!(PublishKey, "/v1/PublishKey", PublishedKey);

/// The key is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKey {}

/// Which generation this host's next key has. A host alone is refused as for [`PublishKey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextGeneration {}
method!(NextGeneration, "/v1/NextGeneration", NextGenerationAnswer);

/// The generation of the next key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextGenerationAnswer {
    /// What [`PublishKey`] takes.
    pub generation: u64,
}

/// A new engine process has activated a plugin: what the engine has may differ from what we know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStarted {}
method!(EngineStarted, "/v1/EngineStarted", Empty);

/// How the coordinator is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}
method!(Status, "/v1/Status", StatusAnswer);

/// How the coordinator is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The process.
    pub identity: Identity,
    /// This host's name.
    pub host: HostName,
    /// The store: `embedded`, or `etcd` with its endpoints.
    pub store: StoreStatus,
    /// The cluster's id.
    pub cluster: String,
    /// Every host, this one included.
    pub hosts: Vec<HostStatus>,
    /// Whether the engine answers, and which version it is.
    pub engine: EngineStatus,
    /// When this host's certificate ends; `None` on one host alone.
    pub certificate_expires_at: Option<UnixSeconds>,
    /// Whether this host was removed from its cluster.
    pub fenced: bool,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `embedded` or `etcd`.
    pub kind: String,
    /// Where it is; empty for the embedded store.
    pub endpoints: Vec<String>,
    /// Whether it answered last.
    pub reachable: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// How the engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Where it is.
    pub address: String,
    /// Its version, when it answered.
    pub version: Option<String>,
    /// Why it did not answer.
    pub problem: Option<String>,
}

/// A host and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The host.
    pub host: HostRecord,
    /// Whether it holds its lease.
    pub alive: bool,
    /// How far its clock is from the store's, seconds, when known.
    pub clock_offset: Option<i64>,
}

/// Every network of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {}
method!(Networks, "/v1/Networks", NetworkTable);

/// The networks of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTable {
    /// One entry a network.
    pub networks: Vec<NetworkStatus>,
    /// What cannot be reconciled without a person, a sentence each with the remedy.
    pub conflicts: Vec<String>,
}

/// A network and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network.
    pub network: NetworkRecord,
    /// Docker's id on each host that has a copy.
    pub copies: BTreeMap<HostName, NetworkId>,
    /// How many endpoints each host has, where there are any.
    pub endpoints: BTreeMap<HostName, u32>,
}

/// Every pool and who owns its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {}
method!(Pools, "/v1/Pools", PoolTable);

/// The pools of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTable {
    /// The pools.
    pub pools: Vec<PoolRecord>,
    /// The blocks of all of them.
    pub blocks: Vec<BlockRecord>,
}

/// Make this host a cluster of one on etcd, or, where that is done already, issue another token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Where other hosts reach this one; `None` to take the address of the default route.
    pub advertise: Option<IpAddr>,
    /// An etcd cluster that exists; empty to start one here.
    pub etcd_endpoints: Vec<String>,
}
method!(Init, "/v1/Init", Invitation);

/// What another host needs to join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The token: a secret, good for one host.
    pub token: String,
    /// Where to join, `HOST:PORT`.
    pub address: String,
    /// When the token ends.
    pub expires_at: UnixSeconds,
}

/// Join this host to a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The token.
    pub token: String,
    /// Where, `HOST:PORT`.
    pub address: String,
    /// Where other hosts reach this one; `None` to take the address it reaches the cluster from.
    pub advertise: Option<IpAddr>,
}
method!(Join, "/v1/Join", Joined);

/// The cluster that was joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The cluster's id.
    pub cluster: String,
    /// This host's name in it.
    pub host: HostName,
    /// Its hosts.
    pub hosts: Vec<HostName>,
}

/// Take this host out of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {}
method!(Leave, "/v1/Leave", Empty);

/// Remove a host that will not come back: fence it, and release what it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveHost {
    /// Which.
    pub name: HostName,
}
method!(RemoveHost, "/v1/RemoveHost", RemovedHost);

/// What a removed host held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedHost {
    /// Blocks that are free again after quarantine.
    pub blocks: Vec<Block>,
    /// Networks it had endpoints on, by name.
    pub networks: Vec<String>,
}

/// What the coordinator knows to be wrong, for `drover doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examine {}
method!(Examine, "/v1/Examine", Examination);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// One finding a fault.
    pub findings: Vec<Finding>,
}

/// A fault, its cause and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, naming the object.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Works now, and may not later.
    Warning,
    /// Something does not work.
    Error,
}
