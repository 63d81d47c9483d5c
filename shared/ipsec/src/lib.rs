//! Which IPsec associations a host has with each of its peers, and the keys of each.
//!
//! A host makes a short-lived X25519 key, a *generation*, and publishes its public half. A generation of
//! one host and one of another make an *epoch* of the pair: for every lane an association each
//! way, whose keys both derive without a word. A new epoch is received before it is sent with, and
//! an old one is received until nothing comes by it any more.
//!
//! Nothing here does anything, reads a clock or makes a random number.

mod association;
mod derive;
mod exchange;
mod material;
mod spi;

pub use association::{Association, Direction};
pub use derive::{Flow, LowOrderKey, Party, PrivateKey, PublicKey, SharedSecret};
pub use exchange::{
    Adopted, AssociationId, Counted, Due, Exchange, Identity, Moment, PeerAssociations, PeerKey,
    Refusal, RefusedKey, Schedule, StaleGeneration,
};
pub use material::KeyMaterial;
pub use spi::{Epoch, Lane, Spi, Tag};
