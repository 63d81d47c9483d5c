//! The steps of a plan, as a person reads them.

use std::fmt;

use drover_model::{LogicalNetworkId, NetworkId};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make a network of the cluster of this engine's network, which nobody knows yet.
    Record {
        /// The engine's network.
        local: NetworkId,
    },
    /// Note that this engine's network is this host's copy.
    Adopt {
        /// The network.
        network: LogicalNetworkId,
        /// The engine's network.
        local: NetworkId,
    },
    /// Note that this host has no copy.
    Forget {
        /// The network.
        network: LogicalNetworkId,
    },
    /// Note how many endpoints this host has; more than before keep the network from going.
    Attach {
        /// The network.
        network: LogicalNetworkId,
        /// How many; 0 deletes the note.
        endpoints: u32,
    },
    /// Note that somebody removed this host's copy.
    RequestRemoval {
        /// The network.
        network: LogicalNetworkId,
    },
    /// Nobody uses a network that is not wanted: let every host remove its copy.
    BeginRemoval {
        /// The network.
        network: LogicalNetworkId,
    },
    /// A network that was to go is in use: keep it.
    Keep {
        /// The network.
        network: LogicalNetworkId,
    },
    /// Only hosts that are away have copies of a network that is going: let its name be used again.
    ReleaseName {
        /// The network.
        network: LogicalNetworkId,
    },
    /// Delete what the cluster knows of a network without copies, and free its pools.
    Delete {
        /// The network.
        network: LogicalNetworkId,
    },
    /// Create this host's copy in the engine.
    Create {
        /// The network.
        network: LogicalNetworkId,
    },
    /// Remove this host's copy from the engine.
    Remove {
        /// The network.
        network: LogicalNetworkId,
        /// The engine's network.
        local: NetworkId,
    },
    /// Forget that a copy of this name was being made: nothing came of it, or it is noted.
    ForgetIntent {
        /// The name.
        name: String,
    },
    /// Remove a network from the engine that cannot be part of the cluster and that nobody uses.
    Discard {
        /// The engine's network.
        local: NetworkId,
        /// Why, a sentence for the log and for `drover networks`.
        reason: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { local } => write!(formatter, "record {} for the cluster", local.short()),
            Self::Adopt { network, local } => {
                write!(formatter, "note {} as the copy of {network}", local.short())
            }
            Self::Forget { network } => write!(formatter, "note that {network} has no copy here"),
            Self::Attach { network, endpoints } => {
                write!(formatter, "note {endpoints} endpoints on {network}")
            }
            Self::RequestRemoval { network } => {
                write!(formatter, "ask for the removal of {network}")
            }
            Self::BeginRemoval { network } => write!(formatter, "begin the removal of {network}"),
            Self::Keep { network } => write!(formatter, "keep {network}"),
            Self::ReleaseName { network } => write!(formatter, "release the name of {network}"),
            Self::Delete { network } => write!(formatter, "delete {network}"),
            Self::Create { network } => write!(formatter, "create the copy of {network}"),
            Self::Remove { network, local } => {
                write!(formatter, "remove {}, the copy of {network}", local.short())
            }
            Self::ForgetIntent { name } => {
                write!(formatter, "forget that a copy called {name} was being made")
            }
            Self::Discard { local, reason } => {
                write!(formatter, "remove {}: {reason}", local.short())
            }
        }
    }
}
