//! `AuthZPlugin.*`: an engine asks before a call, and tells after it.
//!
//! Only `Allow` decides: the engine ignores `Err` beside it. What comes after a call comes too late to deny it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::methods;

/// What the handshake says.
pub const INTERFACE: &str = "authz";

methods! {
    /// The methods of an authorization plugin.
    "AuthZPlugin":
    /// Before a call.
    AuthZReq,
    /// After it.
    AuthZRes,
}

/// A call, before and after. Fields that are empty are left out by the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthorizationRequest {
    /// The common name of the client's certificate; empty at a unix socket.
    pub user: String,
    /// `TLS`, or empty.
    #[serde(rename = "UserAuthNMethod")]
    pub user_authn_method: String,
    /// The method.
    pub request_method: String,
    /// The URI as it came.
    pub request_uri: String,
    /// The body in base64; missing when it was not JSON, and when an engine hides it.
    pub request_body: Option<String>,
    /// The headers without credentials; of one that came twice, the last.
    pub request_headers: BTreeMap<String, String>,
    /// Afterwards: the status.
    pub response_status_code: u16,
    /// Afterwards: the body in base64, unless it was streamed.
    pub response_body: Option<String>,
}

impl AuthorizationRequest {
    /// A header, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.request_headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// The answer to both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AuthorizationAnswer {
    /// Whether the call is made.
    pub allow: bool,
    /// Why not, for the user.
    #[serde(default)]
    pub msg: String,
    /// Read by nobody when the call is allowed.
    #[serde(default)]
    pub err: String,
}

impl AuthorizationAnswer {
    /// Yes.
    #[must_use]
    pub const fn allow() -> Self {
        Self {
            allow: true,
            msg: String::new(),
            err: String::new(),
        }
    }

    /// No, and why.
    #[must_use]
    pub fn deny(reason: impl Into<String>) -> Self {
        Self {
            allow: false,
            msg: reason.into(),
            err: String::new(),
        }
    }
}
