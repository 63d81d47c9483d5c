//! Reading a call: as far as it decides, and what is judged is what is sent.

use std::time::Duration;

use bytes::Bytes;
use drover_authorization::{Body, Call, Endpoint, Target};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;

use crate::role_socket::answer::{Refusal, refusal};

/// The longest body that is read: that of the engine itself, for its plugins.
const LONGEST_BODY: usize = 4 << 20;
/// How long it may take.
const BODY_TIME: Duration = Duration::from_secs(60);
/// A call that was read as far as it has to be.
pub(super) struct Read {
    pub(super) uri: String,
    pub(super) operation: Option<&'static str>,
    /// The body, where it decides; else it is passed as it comes.
    pub(super) body: Option<Bytes>,
    content_type: Option<String>,
}

impl Read {
    /// What is judged.
    pub(super) fn call<'a>(&'a self, head: &'a Parts) -> Call<'a> {
        Call {
            method: head.method.as_str(),
            uri: &self.uri,
            content_type: self.content_type.as_deref(),
            body: self.body.as_deref().unwrap_or_default(),
        }
    }
}

/// Reads of a call what decides about it.
pub(super) async fn read(head: &Parts, body: &mut Option<Incoming>) -> Result<Read, Refusal> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, message);
    // What is judged is what is sent: no scheme, no authority, no fragment.
    let uri = head
        .uri
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let mut types = head.headers.get_all(CONTENT_TYPE).iter();
    let content_type = types.next().map(HeaderValue::to_str);
    if types.next().is_some() {
        return Err(bad("drover: the call has two content types: send one"));
    }
    let content_type = content_type
        .transpose()
        .map_err(|_unreadable| bad("drover: the content type is not readable"))?
        .map(str::to_owned);
    let target = Target::parse(&uri).ok();
    let endpoint = target
        .as_ref()
        .and_then(|target| Endpoint::find(head.method.as_str(), &target.path))
        .map(|(endpoint, _)| endpoint);
    let is_read = endpoint.is_some_and(|endpoint| endpoint.body == Body::Json);
    let body = match body.take_if(|_| is_read) {
        Some(body) => Some(read_body(body).await?),
        None => None,
    };
    Ok(Read {
        uri,
        operation: endpoint.map(|endpoint| endpoint.operation),
        body,
        content_type,
    })
}

async fn read_body(body: Incoming) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, LONGEST_BODY).collect();
    match tokio::time::timeout(BODY_TIME, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("drover: the body is longer than {LONGEST_BODY} bytes"),
        )),
        Ok(Err(_)) => Err(refusal(
            StatusCode::BAD_REQUEST,
            "drover: the body is not whole",
        )),
        Err(_) => Err(refusal(
            StatusCode::REQUEST_TIMEOUT,
            "drover: the body did not arrive in time",
        )),
    }
}
