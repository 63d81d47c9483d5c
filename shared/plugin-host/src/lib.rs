//! Serves Docker plugin protocols on a unix socket.
//!
//! A driver implements [`NetworkDriver`], [`IpamDriver`] or [`VolumeDriver`]; [`NetworkService`], [`IpamService`] or
//! [`VolumeService`], a [`PluginService`] each, puts it behind a socket:
//!
//! - `Plugin.Activate` is answered at once, whatever the driver is doing;
//! - a request that is not what its method takes, an empty one above all, is an error and never a
//!   request with defaults: an engine that lost its connection sends the call again without the body;
//! - every call has a time limit, as the engine has none; a call that exceeds it, or whose asker has
//!   gone, still runs to its end, in a task of its own;
//! - a failure is a sentence, in both of the fields where engines look for it;
//! - paths under `/Drover.` go to another service: the plugin's own control methods.

mod call;
mod error;
mod ipam;
mod network;
mod service;
mod volume;

pub use error::DriverError;
pub use ipam::{IpamDriver, IpamService};
pub use network::{NetworkDriver, NetworkService};
pub use service::{NoMethods, PluginService};
pub use volume::{VolumeDriver, VolumeService};
