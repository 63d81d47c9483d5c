//! Answers and bodies: what a role's socket says itself, and what it passes on.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

/// A body on its way: the engine's or the client's as it comes, or one from here.
pub(super) type Passed = UnsyncBoxBody<Bytes, hyper::Error>;

/// A body as it comes, piece by piece.
pub(super) fn incoming(body: Incoming) -> Passed {
    body.boxed_unsync()
}

/// A body that is whole.
pub(super) fn whole(bytes: Bytes) -> Passed {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A call that is not made, or whose answer is not passed on.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

/// A refusal.
pub(super) fn refusal(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal {
        status,
        message: message.into(),
    }
}

impl From<Refusal> for Response<Passed> {
    /// In the form that clients of the engine expect.
    fn from(refusal: Refusal) -> Self {
        let body = json!({"message": refusal.message}).to_string();
        let mut response = Self::new(whole(Bytes::from(body)));
        *response.status_mut() = refusal.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
