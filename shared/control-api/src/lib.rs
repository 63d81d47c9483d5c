//! What Drover's processes say to each other, and the records that the coordinator keeps.
//!
//! Three parties speak it, all as JSON over HTTP/1.1 on unix sockets:
//! - plugins and the command line ask the coordinator: `POST /v1/<Method>` on its control socket
//!   ([`coordinator`]), tell it of volumes ([`catalogue`]), and watch the fabric ([`fabric`]) and the containers ([`registry`]);
//! - the coordinator and the command line ask a plugin: `POST /Drover.<Method>` on the plugin's own
//!   socket ([`plugin`], [`names`], [`volume`]);
//! - the records themselves ([`record`]) are the values in the store, each with its key.
//!
//! An answer is `200` with the method's answer, or another status with a [`Failure`].

pub mod catalogue;
pub mod coordinator;
mod encoding;
pub mod fabric;
pub mod names;
pub mod owners;
pub mod plugin;
pub mod record;
pub mod registry;
pub mod volume;

use serde::{Deserialize, Serialize};

/// What kind of failure an answer reports: callers branch on this and on nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request itself is wrong; it will not get better by asking again.
    InvalidInput,
    /// What it names is not there.
    NotFound,
    /// It contradicts something that is already there.
    Conflict,
    /// The asker may not do this.
    Denied,
    /// Something that is needed does not answer now; asking again may help.
    Unavailable,
    /// A bug, or a file that cannot be read.
    Internal,
}

/// The body of an answer that is not `200`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// One sentence for a person: the object, what is wrong, what to change.
    pub message: String,
}

impl Failure {
    /// A failure with a message.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The HTTP status that carries this failure.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self.kind {
            FailureKind::InvalidInput => 400,
            FailureKind::NotFound => 404,
            FailureKind::Conflict => 409,
            FailureKind::Denied => 403,
            FailureKind::Unavailable => 503,
            FailureKind::Internal => 500,
        }
    }
}

/// A method: the types of its request and answer, and its path.
pub trait Method: Serialize + serde::de::DeserializeOwned + Send + 'static {
    /// The path it is posted to, with the leading slash.
    const PATH: &'static str;
    /// What a `200` carries.
    type Answer: Serialize + serde::de::DeserializeOwned + Send + 'static;
}

macro_rules! method {
    ($request:ty, $path:literal, $answer:ty) => {
        impl $crate::Method for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    };
}
pub(crate) use method;

/// The answer of a method that has nothing to say: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
