//! What can go wrong with a call of the engine.

use drover_http::ClientError;

/// A call of the engine that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the engine is not usable.
    #[error("engine address `{address}` is not usable: give unix:///path or tcp://host:port")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        #[source]
        source: ClientError,
    },
    /// The engine could not be reached, or the connection broke.
    #[error("the engine does not answer `{call}`")]
    Unreachable {
        /// Method and path.
        call: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The engine refused.
    #[error("the engine refused `{call}` with status {status}: {message}")]
    Refused {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The engine's own sentence.
        message: String,
    },
    /// The engine's answer has another form than its documentation says.
    #[error("the engine's answer to `{call}` cannot be read")]
    Unreadable {
        /// Method and path.
        call: String,
        /// Where it departs.
        #[source]
        source: serde_json::Error,
    },
    /// The answer names no usable version of the API.
    #[error("the engine named no API version in its answer to `/version`: {0}")]
    NoApiVersion(String),
}

impl Error {
    /// Whether the engine says that what the call names is not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine says that a network of this name is there already.
    #[must_use]
    pub const fn is_name_taken(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether the engine says that the network has endpoints.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Refused { status: 403 | 409, message, .. } if message.contains("active endpoints"))
    }

    /// Whether the engine did not answer at all; asking again may help.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// What the engine said, or what stands for it: for a person who reads one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Refused { message, .. } => message.clone(),
            other => {
                let mut text = other.to_string();
                let mut cause = std::error::Error::source(other);
                while let Some(error) = cause {
                    text.push_str(": ");
                    text.push_str(&error.to_string());
                    cause = error.source();
                }
                text
            }
        }
    }
}
