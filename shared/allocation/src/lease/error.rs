//! Why an address was not given, for whoever asked.

use std::net::IpAddr;

use drover_model::{MacAddress, Pool};

use crate::shape::AddressError;

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No container can have it.
    #[error(transparent)]
    Unusable(#[from] AddressError),
    /// A container here has it.
    #[error("address `{address}` is in use on this host{}; choose another", holder(.mac.as_ref()))]
    Taken {
        /// The address.
        address: IpAddr,
        /// The link address of the container.
        mac: Option<MacAddress>,
    },
    /// Another host has it.
    #[error("address `{address}` is in use on another host; choose another")]
    SetAside {
        /// The address.
        address: IpAddr,
    },
    /// Another host had it a moment ago.
    #[error(
        "address `{address}` was in use on another host and is not given again for {seconds} s; wait, or choose another"
    )]
    Resting {
        /// The address.
        address: IpAddr,
        /// For how long.
        seconds: u64,
    },
    /// It is not known whether it is in use.
    #[error(
        "address `{address}` lies in a block of which it is not known yet what is in use here; try again in a few minutes, or choose another"
    )]
    Unconfirmed {
        /// The address.
        address: IpAddr,
    },
    /// It is being claimed for another container.
    #[error("address `{address}` is being claimed for another container; choose another")]
    Pending {
        /// The address.
        address: IpAddr,
    },
    /// The blocks of this host are used up.
    #[error("no address of subnet `{pool}` is free on this host ({leased} in use{})", waiting(*.resting, *.next))]
    Exhausted {
        /// The pool.
        pool: Pool,
        /// How many are in use.
        leased: usize,
        /// How many were given back and rest.
        resting: usize,
        /// When the first of these is free, seconds.
        next: Option<u64>,
    },
}

fn holder(mac: Option<&MacAddress>) -> String {
    mac.map(|mac| format!(" by the container with link address {mac}"))
        .unwrap_or_default()
}

fn waiting(resting: usize, next: Option<u64>) -> String {
    next.map(|seconds| format!(", {resting} not given again yet, the first in {seconds} s"))
        .unwrap_or_default()
}
