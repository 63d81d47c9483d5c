//! The coordinator of a host: cluster state, membership, this host's facts, copies of networks.
//!
//! ```text
//!   drover-ipam, drover-net, drover --control.sock--> server --> claims ----\
//!                                                        |-----> membership -+--> store
//!                     fabric stream <--------------------+-----> fabric ----/       ^
//!                                                                                   |
//!   engine --events, lists--> networks (observe -> plan -> steps) ------------------+
//! ```
//!
//! It is not in the data path: with this process stopped, packets flow and containers run.

pub mod context;
pub mod host;
pub mod mirror;
pub mod networks;
