//! What is the same behind every plugin socket: who gets a request.

use drover_http::{Request, Response, Service};
use drover_plugin_protocol::ACTIVATE;

use crate::call::failure;

/// Under this prefix lie the plugin's own methods.
const OWN_METHODS: &str = "/Drover.";

/// Who a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The handshake.
    Handshake,
    /// The plugin's own methods.
    Own,
    /// The driver.
    Driver,
}

impl Destination {
    pub(crate) fn of(path: &str) -> Self {
        if path == ACTIVATE {
            Self::Handshake
        } else if path.starts_with(OWN_METHODS) {
            Self::Own
        } else {
            Self::Driver
        }
    }
}

/// `404` in the form that engines read.
pub(crate) fn unknown(interface: &str, path: &str) -> Response {
    let path: String = path.chars().take(200).collect();
    failure(404, &format!("`{path}` is not a method of {interface}"))
}

/// A plugin without methods of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMethods;

impl Service for NoMethods {
    async fn call(&self, request: Request) -> Response {
        Response::not_found(&request.path)
    }
}
