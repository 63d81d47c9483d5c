//! The forms in which a host keeps what it knows of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;
use drover_model::{Block, HostName, MacAddress};
use serde::{Deserialize, Serialize};

use crate::shape::PoolShape;

/// A pool of which this host has something, without its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Version of this record's form: 1.
    pub version: u32,
    /// What the pool is.
    pub shape: PoolShape,
    /// Addresses that no container gets.
    pub reserved: BTreeSet<IpAddr>,
    /// This host's blocks.
    pub blocks: Vec<HeldBlock>,
}

/// A block of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlock {
    /// Which.
    pub block: Block,
    /// Addresses that other hosts hold.
    pub set_aside: BTreeMap<IpAddr, HostName>,
    /// Whether it is being given back: nothing is given out of it any more.
    pub leaving: bool,
    /// Since when it is not known what is in use of it, if it is not.
    #[serde(default)]
    pub unconfirmed: Option<UnixSeconds>,
}

/// What an address is to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum AddressState {
    /// A container has it.
    Leased {
        /// The link address of the container, when the engine told.
        mac: Option<MacAddress>,
        /// When it was given.
        given_at: UnixSeconds,
    },
    /// It was given back, and is not given again before then.
    Resting {
        /// Until when.
        until: UnixSeconds,
        /// Whether it rests also for whoever names it: it was another host's, which may have been removed with
        /// its container still running.
        #[serde(default)]
        foreign: bool,
    },
    /// A single address that is being given back to the cluster.
    Leaving,
    /// A single address that the cluster says is this host's, and of which this host knows nothing: the answer to
    /// its claim was lost, or this host's state was. The engine will tell whether it is in use.
    Unconfirmed,
    /// A container has it, though it is not this host's any more: the host was removed from its cluster.
    Lost {
        /// The link address of the container, when the engine told.
        mac: Option<MacAddress>,
        /// When it was given.
        given_at: UnixSeconds,
        /// Until when another host's container may still have it, once it lies in a block of this host again;
        /// then it is this host's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<UnixSeconds>,
    },
}
