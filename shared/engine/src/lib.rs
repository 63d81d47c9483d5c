//! A thin client of the Docker Engine API: networks, containers, volumes, events. Nothing it does not need.
//!
//! Every path carries an API version: the lower of ours and the engine's, learned from `/version`. A
//! path without one would be answered in the engine's newest form, and an authorization plugin
//! would see a path of another shape than from other clients.
//!
//! It must never be called from inside a driver call: the engine holds locks meanwhile.

mod api_version;
mod client;
mod container;
mod error;
mod event;
mod network;
mod nullable;
mod volume;

pub use api_version::ApiVersion;
pub use client::{Engine, Executed, Prepared, Version};
pub use container::{
    Container, ContainerConfig, ContainerDetail, ContainerEndpoint, ContainerHealth,
    ContainerMount, ContainerState, NetworkSettings, Nothing,
};
pub use error::Error;
pub use event::{Actor, Event, EventFilter, Events};
pub use network::{CreateNetwork, Ipam, IpamConfig, Network, NetworkEndpoint};
pub use volume::Volume;
