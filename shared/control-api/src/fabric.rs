//! The fabric: which hosts there are, which blocks lead to them and which keys they have, as a stream
//! of changes.
//!
//! `GET /v1/fabric` answers with one JSON object a line. It begins with [`FabricEvent::Reset`], then
//! everything that is known, then [`FabricEvent::Synced`], then changes as they come. A watcher
//! that falls behind or is cut off connects again and gets all of it anew; between a `Reset` and
//! its `Synced` it must not remove what it has not heard of yet. An empty line is a sign of life.

use drover_model::{Block, HostName};
use serde::{Deserialize, Serialize};

use crate::encoding::base64_key;
use crate::record::{BlockRecord, HostRecord, KeyRecord, UnixSeconds};

/// The path of the stream.
pub const PATH: &str = "/v1/fabric";

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum FabricEvent {
    /// What follows is complete; forget what is not in it once `Synced` has come.
    Reset {
        /// The name of the host this is.
        this_host: HostName,
        /// Whether this host was removed from its cluster and must give out nothing more.
        fenced: bool,
        /// The cluster's id; empty from a coordinator of a version that tells no keys.
        #[serde(default)]
        cluster: String,
    },
    /// A host is there, or has changed. The watcher's own host is among them.
    Host(HostRecord),
    /// A host was removed.
    HostGone {
        /// Which.
        name: HostName,
    },
    /// A block is there, or has changed.
    Block(BlockRecord),
    /// A block was removed.
    BlockGone {
        /// Which.
        block: Block,
    },
    /// A host has a key for encrypted traffic, or another one. The watcher's own host is among them. The
    /// coordinator has checked that it is the host's; a key that it could not check is not told.
    Key(PeerKey),
    /// A host's key counts no more: the host or the key was removed, or the key is not believed any
    /// longer.
    KeyGone {
        /// Whose.
        host: HostName,
    },
    /// Everything has been said that was known when the stream began.
    Synced,
}

/// A host's key for encrypted traffic, checked: what a peer derives keys from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerKey {
    /// Whose it is.
    pub host: HostName,
    /// The host's member id.
    pub member: String,
    /// Which of the member's keys it is: 1 for the first, and higher for each that follows.
    pub generation: u64,
    /// The X25519 public key.
    #[serde(with = "base64_key")]
    pub public: [u8; 32],
    /// How many lanes the host has for each peer: 1 to 8.
    pub lanes: u8,
    /// The first of the UDP ports at which the host takes encapsulated traffic, a port a lane; `None`
    /// when it takes none.
    pub udp_port: Option<u16>,
    /// When the key was made, by the host's own clock.
    pub created_at: UnixSeconds,
}

impl From<KeyRecord> for PeerKey {
    /// What a record says; whoever calls this has checked it.
    fn from(record: KeyRecord) -> Self {
        Self {
            host: record.host,
            member: record.member,
            generation: record.generation,
            public: record.public,
            lanes: record.lanes,
            udp_port: record.udp_port,
            created_at: record.created_at,
        }
    }
}
