//! Why Docker gets no pool or address.

use drover_allocation::lease::LeaseError;
use drover_control_api::Failure;
use drover_model::{Pool, PoolError};
use drover_plugin_host::DriverError;

/// Why Docker gets no pool or address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Prefix(#[from] PoolError),
    #[error(
        "unknown pool `{0}`: its network is not known to Drover; remove the network and create it again"
    )]
    UnknownPool(String),
    #[error("unknown IPAM option `{0}`: drover-ipam has none; leave out --ipam-opt")]
    Option(String),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("{lease}, and no further block is to be had: {block}")]
    NoBlock { lease: LeaseError, block: Failure },
    #[error(transparent)]
    Coordinator(#[from] Failure),
    #[error(
        "this host was removed from its cluster and gives out nothing; run `drover leave` here, then join again"
    )]
    Fenced,
    #[error(
        "this host has just joined its cluster, and what it has given out is not compared with it yet; try again in a moment"
    )]
    Unproven,
    #[error(
        "subnet `{0}` has changed while addresses of it are in use here; remove its containers and try again"
    )]
    Reshaped(Pool),
    #[error("the leases cannot be written to disk")]
    State(#[from] drover_store::Error),
}

impl From<Error> for DriverError {
    fn from(error: Error) -> Self {
        Self::chain(&error)
    }
}
