//! Who has made what: `drover-authz` tells the coordinator, which keeps it in the cluster's store for all hosts.
//!
//! A record is at `owners/<host>/<kind>/<id>`, written by its own host alone. It is there as long as what it is about is. A network of
//! Drover's has a copy on each host with an id of its own; the copies belong to who owns any of them, the one first that was made first.

use serde::{Deserialize, Serialize};

use crate::{Empty, method};

/// The path of the stream: one JSON object a line, an empty line as a sign of life.
pub const PATH: &str = "/v1/owners";

/// Kinds of things that have owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnedKind {
    /// A container, by the engine's id.
    Container,
    /// A network, by the engine's id.
    Network,
    /// A volume, by its name.
    Volume,
}

impl OwnedKind {
    /// Its name in keys of the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// Something on this host that may have an owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owned {
    /// What it is.
    pub kind: OwnedKind,
    /// The engine's id of it; a volume's name.
    pub id: String,
}

/// Something, and who has made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// What.
    #[serde(flatten)]
    pub owned: Owned,
    /// The name of the user, as policies have it.
    pub owner: String,
}

/// The record in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// Version of this record's form: 1.
    pub version: u32,
    /// The host's member id: records of a host that was removed and joined again are void.
    pub member: String,
    /// What it is about, and whose that is.
    #[serde(flatten)]
    pub ownership: Ownership,
}

/// Writes down who has made what on this host, and forgets what is gone.
///
/// Refused as denied on a host that was removed from its cluster, as unavailable while the store does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOwners {
    /// What has an owner.
    pub owned: Vec<Ownership>,
    /// What is not there any more.
    pub gone: Vec<Owned>,
}
method!(RecordOwners, "/v1/RecordOwners", Empty);

/// One line of the stream: everything that has an owner on this host, and again after each change of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum OwnersEvent {
    /// What follows is complete.
    Reset,
    /// As this host has written it down.
    Recorded(Ownership),
    /// A copy of a network that belongs to who owns the network on another host.
    Copy(Ownership),
    /// Everything has been said.
    Synced,
}
