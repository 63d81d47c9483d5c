//! What Drover keeps: the replicated store of a cluster, and durable tables of one process.
//!
//! [`Store`] is the coordinator's. It has two implementations that behave alike, and one suite that
//! holds both to it (`tests/conformance.rs`): embedded in this process (redb; one host alone), and
//! etcd (a cluster). Keys are text, values are bytes (JSON by convention), every change has a
//! revision, and a watch delivers every change from a revision on, in order.
//!
//! [`local`] is every process's own: typed tables in one file, durable when a write returns.

mod embedded;
mod error;
mod etcd;
pub mod local;
mod store;
mod transaction;
mod watch;

pub use embedded::EmbeddedOptions;
pub use error::{Error, Result};
pub use etcd::EtcdConfig;
pub use store::{Entry, LeaseId, Listing, Store};
pub use transaction::{MAX_OPERATIONS, MAX_VALUE_BYTES, Outcome, Transaction};
pub use watch::{Change, Watch, WatchError};
