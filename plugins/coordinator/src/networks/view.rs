//! What the planner sees: the cluster's networks and this host's, side by side. Values only.

use std::collections::{BTreeMap, BTreeSet};

use drover_control_api::record::{NetworkRecord, NetworkState, Subnet};
use drover_model::{HostName, LogicalNetworkId, NetworkId, Pool};

/// Everything a plan follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// This host.
    pub host: HostName,
    /// The hosts that give a sign of life.
    pub alive: BTreeSet<HostName>,
    /// The networks of the cluster.
    pub networks: BTreeMap<LogicalNetworkId, Network>,
    /// Which network has a name.
    pub names: BTreeMap<String, LogicalNetworkId>,
    /// Every pool of the cluster, and the network it belongs to.
    pub pools: BTreeMap<Pool, Option<LogicalNetworkId>>,
    /// This engine's networks of our driver.
    pub local: BTreeMap<NetworkId, LocalNetwork>,
    /// The names of this engine's other networks.
    pub foreign: BTreeSet<String>,
    /// The copies, by name, that this process was making when it ended.
    pub intended: BTreeSet<String>,
    /// Whether the engine has lost its networks since it was last looked at: it was set up anew.
    pub engine_is_new: bool,
}

/// A network of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its record.
    pub record: NetworkRecord,
    /// Which hosts have a copy, by the records.
    pub copies: BTreeMap<HostName, NetworkId>,
    /// Which hosts have endpoints, and how many, by the records.
    pub attachments: BTreeMap<HostName, u32>,
    /// How many endpoints this host has on it, by `drover-net`; `None` while it has not told.
    pub endpoints: Option<u32>,
    /// Whether the last endpoint here has been gone for long enough not to be a restart.
    pub settled: bool,
    /// Whether our copy, if the engine does not have it, is gone for certain: an engine that is removing a
    /// network hides it before it has told the drivers.
    pub gone_for_certain: bool,
    /// Why the copy could not be made or removed last, while it is too early to try again.
    pub refused: Option<String>,
}

impl Network {
    /// Whether any host has endpoints, by the records or by what is known here.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attachments.values().any(|count| *count > 0) || self.endpoints.unwrap_or(0) > 0
    }

    /// Whether somebody asked for its removal and it waits for its last endpoint.
    #[must_use]
    pub const fn is_unwanted(&self) -> bool {
        matches!(self.record.state, NetworkState::RemovalRequested { .. })
    }

    /// Whether it is being removed.
    #[must_use]
    pub const fn is_removing(&self) -> bool {
        matches!(self.record.state, NetworkState::Removing)
    }
}

/// A network of this engine, of our driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNetwork {
    /// Its name.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its `-o` pairs.
    pub options: BTreeMap<String, String>,
    /// `--internal`.
    pub internal: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// Whether it has endpoints.
    pub in_use: bool,
    /// The network it was made for by this process, when it ended before it could say so.
    pub made_for: Option<LogicalNetworkId>,
    /// Whether it is of a cluster that this host has left.
    pub left: bool,
}

impl LocalNetwork {
    /// Its pools, in order of address.
    #[must_use]
    pub fn pools(&self) -> BTreeSet<Pool> {
        pools(&self.subnets)
    }

    /// Whether it has the name and the pools of `record`.
    #[must_use]
    pub fn is_copy_of(&self, record: &NetworkRecord) -> bool {
        self.name == record.name && self.pools() == pools(&record.subnets)
    }
}

/// The pools of some subnets.
#[must_use]
pub fn pools(subnets: &[Subnet]) -> BTreeSet<Pool> {
    subnets.iter().map(|subnet| subnet.pool).collect()
}

/// Pools as a person reads them: `10.64.0.0/16, fd00::/64`.
#[must_use]
pub fn list(pools: &BTreeSet<Pool>) -> String {
    pools
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
