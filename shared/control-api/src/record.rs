//! The records in the store. Each has a version field so that a later Drover can read an earlier one's.
//!
//! | key | record |
//! |---|---|
//! | `cluster` | [`ClusterRecord`] |
//! | `hosts/<name>` | [`HostRecord`] |
//! | `members/<member id>` | the name of the host; a host can change nothing once its own is gone |
//! | `alive/<name>` | [`AliveRecord`], bound to a lease |
//! | `pools/<pool>` | [`PoolRecord`] |
//! | `blocks/<pool>/<block>` | [`BlockRecord`] |
//! | `networks/<id>` | [`NetworkRecord`] |
//! | `names/<network name>` | the id of the network of that name |
//! | `copies/<id>/<host>` | [`CopyRecord`] |
//! | `attachments/<id>/<host>` | [`AttachmentRecord`] |
//! | `conflicts/<host>` | a list of sentences: what this host cannot reconcile without a person |
//! | `containers/<host>/<container id>` | [`ContainerRecord`](crate::registry::ContainerRecord) |
//! | `keys/<host>` | [`KeyRecord`]: public, and believed for its signature, not for its place |
//! | `tokens/<hash>` | [`TokenRecord`] |
//! | `claims/pools` | the pool that was claimed last: pools are claimed one after the other |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_model::{
    Block, Encryption, HostIndex, HostName, LogicalNetworkId, Mtu, NetworkId, Pool,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::encoding::{base64_bytes, base64_key};

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = u64;

/// What a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// Random, 32 hexadecimal digits. IPv6 pools and tokens follow from it.
    pub id: String,
    /// When it was made.
    pub created_at: UnixSeconds,
}

/// A host of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// Its name, unique in the cluster.
    pub name: HostName,
    /// Random at every join: a host that was removed and joined again is another member.
    pub member: String,
    /// Its small number, unique among the present hosts.
    pub index: HostIndex,
    /// Where other hosts reach it.
    pub advertise: IpAddr,
    /// The prefix of the link that address is on: hosts in one prefix share a link. `None` when it
    /// could not be learned, and then nobody assumes a shared link.
    pub link: Option<IpNet>,
    /// The MTU of that link, bytes.
    pub underlay_mtu: Mtu,
    /// The prefixes this host has routes to; pools that are chosen automatically keep clear of them.
    pub prefixes: BTreeSet<IpNet>,
    /// Its addresses of global scope, `advertise` among them, on devices that are no engine's.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// The version of Drover it runs.
    pub software: String,
    /// When it joined.
    pub joined_at: UnixSeconds,
}

/// A sign of life of a host, removed by the store when the host's lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliveRecord {
    /// Which member says so.
    pub member: String,
    /// When the coordinator that holds the lease started.
    pub since: UnixSeconds,
    /// The host's clock when it wrote this; it writes it again once a minute, so that the others can
    /// tell how far off the clock is. 0 when it is not told.
    #[serde(default)]
    pub clock: UnixSeconds,
}

/// A pool: the subnet of a network, unique in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// The subnet.
    pub pool: Pool,
    /// The part that addresses are chosen from (`--ip-range`), if not all of it.
    pub sub_pool: Option<IpNet>,
    /// The prefix length of its blocks.
    pub block_prefix: u8,
    /// Addresses no container gets by itself: the gateway and `--aux-address`.
    pub reserved: BTreeSet<IpAddr>,
    /// Which host claimed it first.
    pub claimed_by: HostName,
    /// When.
    pub claimed_at: UnixSeconds,
    /// The network it belongs to, once the coordinator has seen the network.
    pub network: Option<LogicalNetworkId>,
}

/// A block of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// The pool it is a part of.
    pub pool: Pool,
    /// Its prefix.
    pub block: Block,
    /// Who allocates from it; `None` when nobody does, and then only `claims` are in use.
    pub owner: Option<HostName>,
    /// The owner's member id, so that a host of the same name that joined anew is not the owner.
    pub owner_member: Option<String>,
    /// Until when nobody may own it, after a change of owner: `0` for not at all.
    pub quarantined_until: UnixSeconds,
    /// Single addresses in it that belong to another host than the owner (an explicit `--ip`).
    pub claims: BTreeMap<IpAddr, AddressClaim>,
}

/// A single address, held by a host that does not own the block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressClaim {
    /// Who holds it.
    pub host: HostName,
    /// Whether the block's owner has set it aside.
    pub state: ClaimState,
}

/// How far a claim of a single address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// Asked for; the owner of the block has not answered yet.
    Requested,
    /// The address is the claimant's.
    Granted,
    /// The owner has given the address to a container of its own.
    Refused,
}

/// A network, as it is the same on every host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// Its id in the cluster.
    pub id: LogicalNetworkId,
    /// Its name in Docker.
    pub name: String,
    /// Its subnets, in Docker's order.
    pub subnets: Vec<Subnet>,
    /// Docker's labels.
    pub labels: BTreeMap<String, String>,
    /// The `-o` pairs.
    pub options: BTreeMap<String, String>,
    /// `--internal`.
    pub internal: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// Whether it is encrypted.
    pub encryption: Encryption,
    /// Where it was created.
    pub created_by: HostName,
    /// When.
    pub created_at: UnixSeconds,
    /// Whether it is wanted.
    pub state: NetworkState,
}

/// A subnet of a network, in the words of `docker network create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// `--subnet`.
    pub pool: Pool,
    /// `--ip-range`.
    pub sub_pool: Option<IpNet>,
    /// `--gateway`, or what was chosen.
    pub gateway: Option<IpAddr>,
    /// `--aux-address`.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// Whether a network is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum NetworkState {
    /// Every host has a copy.
    Active,
    /// Somebody ran `docker network rm`, but a host still has endpoints: it lives on, and goes when
    /// the last endpoint has gone, unless somebody attaches before.
    RemovalRequested {
        /// Where the removal was asked for.
        by: HostName,
        /// When.
        at: UnixSeconds,
    },
    /// No host has endpoints: every copy is being removed.
    Removing,
}

/// One host's copy of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// Docker's id of the copy.
    pub network: NetworkId,
}

/// One host's endpoints on a network; there is no record when there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// How many, at least 1.
    pub endpoints: u32,
}

/// A host's key for encrypted traffic: the public half, signed with the key of the host's certificate.
///
/// The signature is over all of it but `version`, `certificate` and `signature`, and over the
/// cluster's id. Who reads it checks that the certificate is of the cluster's authority and of `host`,
/// and that `member` is the host's present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// Whose it is.
    pub host: HostName,
    /// The host's member id.
    pub member: String,
    /// Which of the member's keys it is: 1 for the first, and always the one before and 1.
    pub generation: u64,
    /// The X25519 public key.
    #[serde(with = "base64_key")]
    pub public: [u8; 32],
    /// When the key was made.
    pub created_at: UnixSeconds,
    /// How many lanes the host has for each peer: 1 to 8.
    pub lanes: u8,
    /// The first of the UDP ports at which the host takes encapsulated traffic, a port a lane; `None`
    /// when it takes none.
    pub udp_port: Option<u16>,
    /// The certificate of the host, PEM.
    pub certificate: String,
    /// ECDSA with P-256 and SHA-256, in DER form.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

/// A join token, kept as the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// After this it is refused.
    pub expires_at: UnixSeconds,
    /// The host that joined with it, once one has.
    pub used_by: Option<HostName>,
}
