//! What a container is told when it asks for a name: decided here, from what is handed in. No I/O, no clock.
//!
//! ```text
//! RegistryEvent --> Directory (by network: names -> containers)
//!                      ^
//! query, asker's View --+--> answer --> Answer | PassOn | Drop
//!                       +--> explain, table, refused (the same decisions, for a person)
//! ```
//!
//! # Names
//! A container has, on each of its networks and nowhere else: its name, its id and the first twelve digits of it,
//! its Compose service's name, and its network aliases; each also with `.NETWORK` behind it. Case does not count.
//! What is no DNS name (empty labels, other characters than letters, digits, `-`, `_` and dots, a label over 63 bytes,
//! 253 bytes in all) is not given, and [`Directory::refused`] says so.
//!
//! A container's id comes before its name, and both before services and aliases: **a label or alias never
//! takes another container's own name or id away**. While a container that is called so runs, others have the
//! name only if they are called so, too, or are of its Compose service. Several containers with one alias share
//! it, as in Docker. An alias with dots never takes `NAME.NETWORK` away.
//!
//! # Who is handed out
//! 1. A container *counts* if it runs, or is paused, on a host that is alive. If nobody counts who has a
//!    name, the question goes to Docker's resolver, as does every question for a name that nobody has.
//! 2. Of those that count, the *well* ones are handed out: without a health check, while running; with one, while
//!    healthy.
//! 3. **Storm**: if nobody is well, those are handed out that are unhealthy or paused. Checks that all fail at
//!    once say more about the checks, or about what everybody depends on, than about each container; an empty answer would turn a
//!    slow service into one that is gone. Containers that have not become healthy since they were started
//!    are never handed out to others. This depends on nothing but the registry, so that all hosts answer alike, before
//!    and after a restart.
//! 4. A container that asks for its own name is always among those that it is told.
//! 5. The same host comes first, then the others; each in an order of its own for every answer.
//!
//! A name that somebody has who counts, without an address of the kind that is asked for, gets an empty answer (NODATA).
//! Answers are good for [`TTL`] seconds. While the registry may be out of date they carry the extended error
//! "Stale Answer" (RFC 8914), if the asker speaks EDNS.

mod directory;
mod explain;
mod index;
mod metadata;
mod name;
mod place;
mod resolve;
mod wire;

// hickory-proto without its random numbers wants a lock of whoever links it; the feature `std` of this crate is one.
use critical_section as _;

pub use directory::Directory;
pub use metadata::{Page, page};
pub use name::NameError;
pub use resolve::View;
pub use wire::{Answer, Outcome, Reply, Transport, answer, refusal};

/// How long an answer may be kept, seconds.
pub const TTL: u32 = 1;

/// Where a container asks about itself over HTTP. Nobody else can be called so.
pub const METADATA_NAME: &str = "drover.internal";

/// The address of that name: the resolver's, in every container.
pub const METADATA_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);
