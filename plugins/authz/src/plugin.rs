//! The socket: the engine's questions, and those of the command line.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use drover_authorization::Call;
use drover_control_api::Method as _;
use drover_control_api::plugin::{Identity, WhoAreYou};
use drover_daemon::{AUTHORIZATION_HEADER, VERSION};
use drover_http::{Request, Response, Service, control};
use drover_plugin_protocol::authorization::{
    AuthorizationAnswer, AuthorizationRequest, INTERFACE, Method,
};
use drover_plugin_protocol::{ACTIVATE, Activation, CONTENT_TYPE};
use tracing::{info, warn};

use crate::judge::Judge;
use crate::role_socket::RoleSockets;
use crate::{NAME, identity};

/// A body of 50 kB is otherwise decoded as long as it is decided on.
static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));

/// The service behind the socket.
#[derive(Debug)]
pub(crate) struct Plugin {
    judge: Arc<Judge>,
    sockets: Arc<RoleSockets>,
    token: String,
}

impl Plugin {
    pub(crate) const fn new(judge: Arc<Judge>, sockets: Arc<RoleSockets>, token: String) -> Self {
        Self {
            judge,
            sockets,
            token,
        }
    }

    /// Whether a call is Drover's own.
    fn is_ours(&self, request: &AuthorizationRequest) -> bool {
        request
            .header(AUTHORIZATION_HEADER)
            .is_some_and(|token| identity::is_same(token, &self.token))
    }

    async fn before(&self, body: &[u8]) -> AuthorizationAnswer {
        let request = match decode(body) {
            Ok(request) => request,
            Err(fault) => {
                warn!(%fault, "a question of the engine was not understood, and is denied");
                return AuthorizationAnswer::deny(format!("drover: {fault}"));
            }
        };
        if self.is_ours(&request) {
            return AuthorizationAnswer::allow();
        }
        let principal = match identity::of(&request) {
            Ok(principal) => principal,
            Err(fault) => return AuthorizationAnswer::deny(format!("drover: {fault}")),
        };
        let Ok(body) = decode_body(request.request_body.as_deref()) else {
            return AuthorizationAnswer::deny("drover: the body was not handed over in base64");
        };
        let judgement = self
            .judge
            .judge(&principal, &call(&request, &body), None)
            .await;
        if judgement.allow {
            AuthorizationAnswer::allow()
        } else {
            AuthorizationAnswer::deny(judgement.message)
        }
    }

    /// Nothing is denied here: the deed is done.
    async fn after(&self, body: &[u8]) -> AuthorizationAnswer {
        if let Ok(request) = decode(body)
            && !matches!(request.request_method.as_str(), "GET" | "HEAD")
            && !self.is_ours(&request)
            && let Ok(principal) = identity::of(&request)
            && let Ok(body) = decode_body(request.request_body.as_deref())
            && let Ok(answer) = decode_body(request.response_body.as_deref())
        {
            let call = call(&request, &body);
            let status = request.response_status_code;
            self.judge.note(&principal, &call, status, &answer);
        }
        AuthorizationAnswer::allow()
    }

    fn identity(&self) -> Identity {
        let mut complaints = Vec::new();
        if let Some(fault) = self.judge.in_force.fault() {
            let instead = if self.judge.in_force.policy().is_some() {
                "those from before stay in force"
            } else {
                "every call is denied"
            };
            complaints.push(format!("policies are not usable, {instead}: {fault}"));
        }
        complaints.extend(self.sockets.faults());
        let lost = self.judge.log.lost();
        if lost > 0 {
            complaints.push(format!(
                "{lost} decisions were not logged: the disk is too slow"
            ));
        }
        Identity {
            process: NAME.to_owned(),
            version: VERSION.to_owned(),
            pid: std::process::id(),
            complaints,
        }
    }
}

fn call<'a>(request: &'a AuthorizationRequest, body: &'a [u8]) -> Call<'a> {
    Call {
        method: &request.request_method,
        uri: &request.request_uri,
        content_type: request.header("Content-Type"),
        body,
    }
}

fn decode(body: &[u8]) -> Result<AuthorizationRequest, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        // What an engine sends when it tries again after a dropped connection.
        return Err("the engine's question came without its body: try again".to_owned());
    }
    let request: AuthorizationRequest = serde_json::from_slice(body)
        .map_err(|error| format!("the engine's question is not understood: {error}"))?;
    if request.request_method.is_empty() || request.request_uri.is_empty() {
        return Err("the engine's question names no call".to_owned());
    }
    Ok(request)
}

fn decode_body(text: Option<&str>) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(text.unwrap_or_default())
}

fn answer(answer: &AuthorizationAnswer) -> Response {
    Response::json(200, answer).with_content_type(CONTENT_TYPE)
}

impl Service for Plugin {
    async fn call(&self, request: Request) -> Response {
        let path = request.path.as_str();
        if path == ACTIVATE {
            info!("an engine has begun to ask");
            self.judge.inventory.look_soon();
            return Response::json(200, &Activation::of(INTERFACE)).with_content_type(CONTENT_TYPE);
        }
        if path == WhoAreYou::PATH {
            let asked = control::decode::<WhoAreYou>(&request.body);
            return control::answer::<WhoAreYou>(asked.map(|_| self.identity()));
        }
        match Method::from_path(path) {
            Some(Method::AuthZReq) => answer(&self.before(&request.body).await),
            Some(Method::AuthZRes) => answer(&self.after(&request.body).await),
            None => Response::not_found(path),
        }
    }

    fn refuse(&self, _status: u16, reason: &str) -> Response {
        answer(&AuthorizationAnswer::deny(format!("drover: {reason}")))
    }
}
