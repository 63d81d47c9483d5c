//! An association: one direction of one lane of an epoch.

use crate::material::KeyMaterial;
use crate::spi::{Epoch, Lane, Spi};

/// Which way an association carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the peer to this host.
    Receive,
    /// From this host to the peer.
    Send,
}

/// A security association (RFC 4301) of this host with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Its index, by which the receiver finds it.
    pub spi: Spi,
    /// Which way it carries packets.
    pub direction: Direction,
    /// The lane it belongs to.
    pub lane: Lane,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Its key; `None` for one that an earlier process has made. It is kept while it is there and can never be made
    /// again: its sequence numbers would begin anew under the same key, and so would the nonces.
    pub key: Option<KeyMaterial>,
}
