//! Reads a call of the Engine API as the engine reads it, and tells what it asks for.
//!
//! ```text
//! Call (method, URI, headers, body) --> Request: the operation, and a list of facets
//!        |                                  each an action on a resource, with facts
//!        +--> Refusal: what no two readers need agree on is not judged
//! ```
//! A call is allowed when each of its facets is. Whatever a body holds that this crate does not know becomes a facet, too
//! ([`action::SET_OPTION`]), so that a newer engine's options are asked for by name and never slip through.
//!
//! Not here: who asks, policies, and what the targets are (owner, labels, where a symbolic link leads).

mod call;
mod create;
mod endpoint;
mod facet;
mod json;
mod mount;
mod network;
mod reference;
mod swarm;
mod uri;

pub use call::{Call, OWNER_LABEL, Refusal, Request};
pub use endpoint::{Body, ENDPOINTS, Endpoint, OLDEST_VERSION};
pub use facet::{Facet, Fact, Facts, Kind, Resource, action};
pub use json::{Json, JsonError, Object};
pub use mount::local_volume_device;
pub use reference::canonical;
pub use uri::{Query, Target, UriError};
