//! Decides what a call of the Engine API may do: Cedar policies over the facets of a request.
//!
//! ```text
//! authorization.toml (who is in which role) --> Setup --+
//! ready roles, *.cedar --validated by the schema--> Policy --decide(principal, facets)--> Decision
//! ```
//! One question a facet: Cedar has no "for all" over sets, and a question by facet says which of them was denied, and by which
//! rule. The questions never see a body: only facts that [`drover_authorization`] made of it.
//!
//! Not here: files, sockets, and what the targets are, which the caller tells ([`Object`]).

mod decide;
mod groups;
mod learn;
mod load;
mod memo;
mod reads;
mod ready;
mod schema;
mod setup;

pub use decide::{Asked, Decision, Object, Principal, Verdict};
pub use learn::{Seen, propose};
pub use load::{LoadError, Policy, Source};
pub use ready::ROLES;
pub use schema::text as schema;
pub use setup::{Mode, Setup, SetupError};
