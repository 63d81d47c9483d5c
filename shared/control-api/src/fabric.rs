//! The fabric: which hosts there are and which blocks lead to them, as a stream of changes.
//!
//! `GET /v1/fabric` answers with one JSON object a line. It begins with [`FabricEvent::Reset`], then
//! everything that is known, then [`FabricEvent::Synced`], then changes as they come. A watcher
//! that falls behind or is cut off connects again and gets all of it anew; between a `Reset` and
//! its `Synced` it must not remove what it has not heard of yet. An empty line is a sign of life.

use drover_model::{Block, HostName};
use serde::{Deserialize, Serialize};

use crate::record::{BlockRecord, HostRecord};

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
    /// Everything has been said that was known when the stream began.
    Synced,
}
