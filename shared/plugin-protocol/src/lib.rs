//! Exact JSON types of Docker's plugin protocols.
//!
//! What an engine sends and what it reads, for `Plugin.Activate`, `NetworkDriver.*` ([`network`]),
//! `IpamDriver.*` ([`ipam`]) and `VolumeDriver.*` ([`volume`]), checked against recordings of Docker Engine 20.10, 26.1, 28.5 and 29.7.
//! Fields that are not known are ignored, as the engine does it; a field that a call cannot do
//! without is required, so that a request that lost its body is never taken for one with defaults.
//!
//! Not here: sockets, dispatch, and what a driver does.

pub mod authorization;
pub mod ipam;
pub mod network;
pub mod volume;
mod wire;

use serde::{Deserialize, Serialize};

/// The path of the handshake.
pub const ACTIVATE: &str = "/Plugin.Activate";
/// The content type of an answer. The engine does not check it.
pub const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";
/// What the engine says it accepts.
pub const ACCEPT: &str = "application/vnd.docker.plugins.v1.2+json";

/// The answer to [`ACTIVATE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The interfaces behind the socket: [`network::INTERFACE`], [`ipam::INTERFACE`], [`volume::INTERFACE`].
    #[serde(rename = "Implements")]
    pub implements: Vec<String>,
}

impl Activation {
    /// A socket with one interface behind it.
    #[must_use]
    pub fn of(interface: &str) -> Self {
        Self {
            implements: vec![interface.to_owned()],
        }
    }
}

/// The answer of a call that has nothing to say: `{}`. An engine takes an empty body for a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The answer of a call that failed. Network and volume plugins' is read from `Err`, IPAM plugins' from `Error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What a network plugin's engine reads.
    #[serde(rename = "Err")]
    pub err: String,
    /// What an IPAM plugin's engine reads.
    #[serde(rename = "Error")]
    pub error: String,
}

impl ErrorAnswer {
    /// A failure in one sentence.
    #[must_use]
    pub fn new(sentence: impl Into<String>) -> Self {
        let err = sentence.into();
        Self {
            error: err.clone(),
            err,
        }
    }
}

/// Writes the table of an interface's methods.
macro_rules! methods {
    ($(#[$doc:meta])* $prefix:literal: $($(#[$method_doc:meta])* $method:ident),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $($(#[$method_doc])* $method),+
        }

        impl Method {
            /// Every method.
            pub const ALL: &'static [Self] = &[$(Self::$method),+];

            /// The path it is posted to.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$method => concat!("/", $prefix, ".", stringify!($method))),+
                }
            }

            /// Its name with the interface's, `Interface.Method`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$method => concat!($prefix, ".", stringify!($method))),+
                }
            }

            /// The method that is posted to this path.
            #[must_use]
            pub fn from_path(path: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|method| method.path() == path)
            }
        }
    };
}
pub(crate) use methods;
