//! IPsec in the kernel: adds, removes and lists associations (RFC 4301; the kernel calls them states) and policies.
//!
//! A typed library over netlink that chooses nothing and knows one shape of each: ESP in tunnel mode with AES-256-GCM,
//! extended sequence numbers and an interface's number. Keys go one way only. What is sent with a key is wiped when it
//! has gone, what the kernel tells of a state is read without its key, and no message is ever logged or part of an error.

mod connection;
mod error;
mod message;
mod policy;
mod state;
mod value;

pub use connection::Xfrm;
pub use error::Error;
pub use policy::{PolicyDirection, PolicyId, PolicySpec};
pub use state::{SeenState, Shape, StateSpec};
