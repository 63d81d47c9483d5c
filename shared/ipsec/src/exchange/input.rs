//! What an exchange is told, and what it answers.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_model::{HostIndex, HostName};

use crate::association::{Association, Direction};
use crate::derive::PublicKey;
use crate::spi::{Epoch, Spi};

/// A time: so long after an arbitrary start, by a clock that only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the start.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long this is after another; nothing when it is before.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// So much later.
    #[must_use]
    pub const fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// When keys change, and how long what they replace stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// A generation is replaced so long after it was published. Different from host to host, or all rotate at once.
    pub rotate_after: Duration,
    /// A generation is replaced when one association has sent so much.
    pub rotate_bytes: u64,
    /// A private key is wiped so long after the next generation was published: until then a peer that has not seen
    /// that one still gets an epoch.
    pub wipe_after: Duration,
    /// An epoch goes when the sending one has been received by for so long without it. Longer than a probe
    /// takes to be answered or to be lost.
    pub idle_before_removal: Duration,
    /// A peer that is there has made an epoch of a new generation by so long after this host has. It is not asked by it
    /// earlier, as long as both have another: what it has no association for, it drops and counts.
    pub follow_within: Duration,
}

/// Who this host is. When any of it changes, the exchange is another, and nothing is adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id of the cluster.
    pub cluster: String,
    /// This host's member id.
    pub member: String,
    /// Its index.
    pub index: HostIndex,
    /// How many lanes it asks for, as it publishes it.
    pub lanes: u8,
}

/// The newest generation of a peer, as the cluster has verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKey {
    /// The peer's member id.
    pub member: String,
    /// Its index.
    pub index: HostIndex,
    /// The number of the generation.
    pub generation: u64,
    /// Its public key.
    pub public: PublicKey,
    /// How many lanes the peer asks for.
    pub lanes: u8,
}

/// What an earlier process has left in the kernel for one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The member id of the peer when they were made: the associations of a host that has joined anew are not its.
    pub member: String,
    /// The peer's index.
    pub index: HostIndex,
    /// All that the kernel has.
    pub associations: BTreeSet<(Direction, Spi)>,
    /// The epoch that the policies name.
    pub send: Option<Epoch>,
}

/// What tells an association from every other of this host. The index alone does not: those by
/// which this host sends to two peers may have the same, and differ by destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssociationId {
    /// The peer's index.
    pub peer: HostIndex,
    /// Which way.
    pub direction: Direction,
    /// The security parameter index.
    pub spi: Spi,
}

/// What an association has carried, as the kernel counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Why a new generation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// There is none.
    First,
    /// The time has come.
    Schedule,
    /// An association has sent enough.
    Bytes,
    /// A peer has no epoch of the newest generation any more, and can have none: an association is gone.
    Lost,
    /// Somebody asked.
    Asked,
}

/// Why a generation cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("generation {number} does not follow generation {newest}: take a higher number")]
pub struct StaleGeneration {
    /// The number.
    pub number: u64,
    /// The newest there is.
    pub newest: u64,
}

/// A key of a peer that is not used; what was there before stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whose key.
    pub host: HostName,
    /// Why.
    pub reason: RefusedKey,
}

/// Why a peer's key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedKey {
    /// A generation of the same member that is older than one seen.
    #[error(
        "generation {offered} was offered after generation {known}: an earlier record was put back"
    )]
    Older {
        /// The newest seen.
        known: u64,
        /// What was offered.
        offered: u64,
    },
    /// Another key under the same number.
    #[error("generation {0} was seen with another key: two machines publish as one host")]
    Changed(u64),
    /// The key is a point of low order.
    #[error(transparent)]
    LowOrder(crate::derive::LowOrderKey),
    /// Another host has its index.
    #[error("index {0} is another host's")]
    Index(HostIndex),
}

/// What is to be in the kernel for a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerAssociations {
    /// Every association, to be made in this order. Those an epoch is received by come before those it is sent by: what
    /// comes by an epoch says that its sender can receive by it. The first lane is the last that is received by: a
    /// probe that comes in it says that all can be.
    pub associations: Vec<Association>,
    /// The epoch to send by, once its associations are there.
    pub send: Option<Epoch>,
    /// How many lanes that epoch has; 0 when there is none.
    pub lanes: u8,
    /// Whether the peer is known to receive by it.
    pub confirmed: bool,
    /// When that epoch began, or was adopted.
    pub since: Option<Moment>,
    /// The newest epoch, as long as the peer is not known to receive by it: to be probed.
    pub candidate: Option<Epoch>,
}
