//! Plans the network data path of one host: what should be there ([`Desired`]), what that means as
//! kernel objects ([`State`]), and the steps from what is there to what should be ([`plan`]).
//!
//! ```text
//! Desired --lower--> State (desired) --+
//!                                      +--plan--> Plan (steps in order) --drover-kernel--> kernel
//! kernel --drover-kernel--> State -----+                                                     |
//!              ^                                                                             |
//!              +-----------------------------------------------------------------------------+
//! ```
//!
//! Nothing here does anything: a plan is a value that can be printed, simulated and compared. A
//! second plan after the first was carried out is empty, and any part of a plan that was carried
//! out leads, planned anew, to the same end.
//!
//! The overlay lives in its own network namespace (`drover`): a bridge for each network with the
//! containers' ports on it, and the devices that lead to the other hosts. Only the outer ends of
//! those devices, and the associations and policies of IPsec, are in the root namespace.

mod desired;
#[cfg(test)]
mod example;
mod lower;
pub mod name;
mod path_mtu;
mod plan;
mod ruleset;
mod simulate;
mod state;
mod step;
mod way;

pub use desired::{
    BlockHolder, Desired, Endpoint, IpsecPath, Network, NetworkPool, Peer, RemoteBlock, ThisHost,
    UdpPorts,
};
pub use lower::{lower, sysctl_names};
pub use path_mtu::PathMtu;
pub use plan::{Plan, plan};
pub use ruleset::tables;
pub use simulate::simulate;
pub use state::{
    AssociationId, Bridge, Direct, Element, Ipsec, Link, Place, PolicyDirection, PolicyKey,
    PolicyTemplate, Port, Sandbox, SecurityAssociation, Set, State, Table, TableFamily, TableName,
    Target, Vxlan,
};
pub use step::{ElementChange, Step};
pub use way::{Way, Ways};
