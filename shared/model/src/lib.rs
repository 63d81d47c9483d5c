//! The vocabulary of Drover: ids, names, addresses, options and the errors of making them.
//!
//! Everything here is a value with a validating constructor. Nothing here reads a clock, a file or a
//! socket, and no `String` leaves this crate for a thing that has a rule.

mod address;
mod host;
mod id;
mod network;
mod option;
mod size;
mod text;
mod volume;

pub use address::{Block, Family, MacAddress, Pool, PoolError};
pub use host::{HostIndex, HostName, HostNameError};
pub use id::{EndpointId, IdError, LogicalNetworkId, NetworkId};
pub use network::{Encapsulation, Encryption, Mtu, NetworkOptions, OptionError};
pub use option::nearest;
pub use size::{ByteSize, SizeError};
pub use volume::{
    BackendKind, FileSystem, SnapshotId, SnapshotName, VolumeId, VolumeName, VolumeNameError,
};
