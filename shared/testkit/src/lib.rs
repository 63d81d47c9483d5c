//! Test helpers: a fake engine, capability probe, namespace guards.
//!
//! - [`FakeEngine`] speaks to plugin sockets as a Docker Engine of a given version was recorded to: the
//!   same headers, the same order of calls, the same retry that forgets the body.
//! - [`Recording`]s are what was recorded; [`replay`] plays a recorded user action against plugins.
//! - [`contract`] is what every pair of a network and an IPAM plugin must do, trap by trap.
//! - [`capability`] tells what the machine can be tested with; [`shell`] runs command lines.
//! - [`spelling`] writes a call of the Engine API in other ways that ask for the same.
//!
//! Blocking throughout: a test calls it from a thread of its own, and parallel calls are threads.

pub mod capability;
pub mod contract;
mod engine;
mod fault;
mod recording;
pub mod replay;
pub mod shell;
mod socket;
pub mod spelling;

pub use engine::{
    Allocation, ENGINES, Endpoint, EngineVersion, FakeEngine, Joined, Network, NetworkSpec, Pool,
    PoolSpec,
};
pub use fault::Fault;
pub use recording::{Recording, Sequence, Step, recordings, sequences};
pub use socket::{PluginSocket, Reply};
