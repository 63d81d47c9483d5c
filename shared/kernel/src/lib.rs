//! Observes the network data path in the kernel and applies a plan to it, choosing nothing.
//!
//! Two verbs, [`Kernel::observe`] and [`Kernel::apply`], over the values of `drover-overlay`. Links,
//! addresses, routes and neighbours by rtnetlink; rules by `nft` (text in, JSON out); settings by
//! `/proc/sys`. What is to happen in another network namespace happens on a thread of its own that
//! enters the namespace and ends: a thread of the runtime never does.

mod addresses;
mod announce;
mod apply;
mod drops;
mod error;
mod interception;
mod kernel;
mod message;
mod namespace;
mod netlink;
mod nft;
mod observe;
mod probe;
mod receiver;
mod security;
mod socket_option;
mod too_big;

pub use addresses::Addresses;
pub use drops::Drops;
pub use error::Error;
pub use interception::{Hold, Interception, MARK, Ports};
pub use kernel::{Counters, Failed, Kernel};
pub use namespace::{Namespace, NamespaceId};
pub use probe::{Probed, Prober, Target};
pub use receiver::{Receiver, ReceiverSeen, Source};
pub use security::AssociationCounters;
pub use too_big::TooBig;
