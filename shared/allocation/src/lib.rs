//! Decides which pool, block and address is given. Nothing here reads a clock, a file or a socket:
//! time, records and settings are arguments, and a decision is a value.
//!
//! Two sides meet in it:
//! - the *cluster* side is functions over the records in the store ([`pool`], [`block`], [`claim`]): each
//!   takes records as they were read and gives the record to write if they are unchanged;
//! - the *host* side ([`lease`]) is what one host knows of one pool: its blocks, the addresses it has
//!   given, and those that rest before they are given again.
//!
//! The rule that keeps an address from being given twice: an address is given by the host that owns
//! its block, or by the host that has a granted claim on it; an owner sets an address aside, durably,
//! before the claim of another host is granted; and whoever gives something up forgets it, durably,
//! before it tells the cluster.

pub mod block;
pub mod claim;
pub mod lease;
pub mod pool;
mod range;
mod shape;

pub use shape::{AddressError, PoolShape};
