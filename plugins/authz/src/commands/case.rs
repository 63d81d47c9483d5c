//! A call in a file that is asked about, and what a policy says to it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_authorization::{Call, Fact, Request, action};
use drover_plugin_protocol::authorization::AuthorizationRequest;
use drover_policy::{Asked, Object, Policy, Principal, Verdict};
use serde::Deserialize;
use serde_json::Value;

use crate::{identity, paths};

/// A call that is asked about, in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows.
    #[serde(default)]
    pub(super) name: String,
    /// Who asks; `local` when nobody is named.
    pub(super) user: Option<String>,
    /// A role that the user has besides.
    role: Option<String>,
    /// The method.
    pub(super) method: String,
    /// The URI.
    pub(super) uri: String,
    /// The body.
    body: Option<Value>,
    /// The body as an engine has sent it, with its type: to be read as it is.
    #[serde(skip)]
    sent: Option<Sent>,
    /// What is there, by name; all else is not.
    #[serde(default)]
    objects: BTreeMap<String, Stands>,
    /// `allow` or `deny`.
    pub(super) expect: Option<Expected>,
}

/// A body as it came.
#[derive(Debug)]
struct Sent {
    content_type: Option<String>,
    bytes: Vec<u8>,
}

/// Something that is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stands {
    /// Whose it is.
    owner: Option<String>,
    /// Its labels.
    labels: BTreeMap<String, String>,
}

/// What a case says that is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expected {
    Allow,
    Deny,
}

/// Whether a policy permits a case, else why not.
pub(super) fn decide(policy: &Policy, case: &Case) -> (bool, String) {
    match verdicts(policy, case) {
        Err(refusal) => (false, refusal),
        Ok(rows) => match rows.iter().find(|(_, verdict)| !verdict.allowed) {
            Some((_, verdict)) => (false, verdict.reason.clone()),
            None => (true, String::new()),
        },
    }
}

/// Every facet of a case, in words, with its verdict.
pub(super) fn verdicts(policy: &Policy, case: &Case) -> Result<Vec<(String, Verdict)>, String> {
    let written = case.body.as_ref().map(Value::to_string).unwrap_or_default();
    let (content_type, body) = case.sent.as_ref().map_or_else(
        || {
            (
                case.body.as_ref().map(|_| "application/json"),
                written.as_bytes(),
            )
        },
        |sent| (sent.content_type.as_deref(), sent.bytes.as_slice()),
    );
    let call = Call {
        method: &case.method,
        uri: &case.uri,
        content_type,
        body,
    };
    let mut request = Request::read(&call).map_err(|refusal| refusal.to_string())?;
    for facet in &mut request.facets {
        if facet.action == action::MOUNT_HOST_PATH {
            facet.resource.id = paths::to_decide_on(&facet.resource.id);
        }
    }
    let principal = Principal {
        name: case
            .user
            .clone()
            .unwrap_or_else(|| identity::LOCAL.to_owned()),
        role: case.role.clone(),
    };
    let objects: Vec<Object> = request
        .facets
        .iter()
        .map(|facet| object(case, &facet.resource.id))
        .collect();
    let asked: Vec<Asked<'_>> = request
        .facets
        .iter()
        .zip(&objects)
        .map(|(facet, object)| Asked {
            facet,
            object: Some(object),
        })
        .collect();
    let decision = policy.decide(&principal, request.endpoint.operation, &asked, true);
    let words = request.facets.iter().map(|facet| {
        let facts = facet.facts.iter().filter(|(_, fact)| !is_silent(fact));
        let facts: Vec<String> = facts
            .map(|(name, fact)| {
                format!("{name}={}", serde_json::to_string(fact).unwrap_or_default())
            })
            .collect();
        let resource = format!("{} `{}`", facet.resource.kind.name(), facet.resource.id);
        format!("{} on {resource} {}", facet.action, facts.join(" "))
    });
    Ok(words.zip(decision.verdicts).collect())
}

/// Whether a fact says only that there is nothing.
fn is_silent(fact: &Fact) -> bool {
    match fact {
        Fact::Bool(value) => !value,
        Fact::Long(_) => false,
        Fact::Text(text) => text.is_empty(),
        Fact::Texts(texts) => texts.is_empty(),
    }
}

fn object(case: &Case, id: &str) -> Object {
    let stands = case.objects.get(id);
    Object {
        name: id.to_owned(),
        known: stands.is_some(),
        owner: stands.and_then(|stands| stands.owner.clone()),
        labels: stands
            .map(|stands| stands.labels.clone())
            .unwrap_or_default(),
    }
}

/// A case, or a question as an engine asks it.
pub(super) fn read_case(text: &str) -> Result<Case, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.get("RequestMethod").is_none() {
        return serde_json::from_value(value).map_err(|error| error.to_string());
    }
    let asked: AuthorizationRequest =
        serde_json::from_value(value).map_err(|error| error.to_string())?;
    let body = STANDARD
        .decode(asked.request_body.as_deref().unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let sent = Sent {
        content_type: asked.header("Content-Type").map(str::to_owned),
        bytes: body,
    };
    Ok(Case {
        user: Some(asked.user).filter(|user| !user.is_empty()),
        method: asked.request_method,
        uri: asked.request_uri,
        sent: Some(sent),
        ..Case::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_of_an_engine_is_a_case() {
        let body = STANDARD.encode(r#"{"Image":"a","HostConfig":{"Privileged":true}}"#);
        let text = format!(
            r#"{{"User":"ann","RequestMethod":"POST","RequestUri":"/containers/create","RequestHeaders":{{"Content-Type":"application/json"}},"RequestBody":"{body}"}}"#
        );
        let case = read_case(&text).unwrap();
        let policy = Policy::load("[roles]\ndeveloper = [\"ann\"]", &[]).unwrap();
        let (allowed, reason) = decide(&policy, &case);
        assert!(!allowed && reason.contains("RunPrivileged"), "{reason}");
        assert!(read_case("{\"methid\":1}").is_err());
    }
}
