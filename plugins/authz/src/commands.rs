//! `drover-authz policy ...`: what `drover policy` starts, so that Cedar is linked here alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_authorization::{Call, Request, action};
use drover_daemon::{Exit, Overrides, Settings};
use drover_plugin_protocol::authorization::AuthorizationRequest;
use drover_policy::{Asked, Object, Policy, Principal, Seen, Source, Verdict, propose};
use serde::Deserialize;
use serde_json::Value;

use crate::{identity, in_force, paths};

/// The exit code of a check that has found something.
const FOUND: u8 = 1;

const USAGE: &str = "\
usage: drover policy check [FILE|DIR]         whether policies can be put in force
       drover policy test FILE|DIR CASES      whether they decide cases as expected
       drover policy explain REQUEST [DIR]    what they decide, by which rule and fact
       drover policy learn [LOG]...           rules that permit what monitor mode has let through
       drover policy schema                   the types, facts and actions that policies may name";

/// A call that is asked about, in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows.
    #[serde(default)]
    name: String,
    /// Who asks; `local` when nobody is named.
    user: Option<String>,
    /// A role that the user has besides.
    role: Option<String>,
    /// The method.
    method: String,
    /// The URI.
    uri: String,
    /// The body.
    body: Option<Value>,
    /// The body as an engine has sent it, with its type: to be read as it is.
    #[serde(skip)]
    sent: Option<Sent>,
    /// What is there, by name; all else is not.
    #[serde(default)]
    objects: BTreeMap<String, Stands>,
    /// `allow` or `deny`.
    expect: Option<Expected>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

/// Runs a command about policies.
pub fn run(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => folder().and_then(|folder| check(&folder)),
        ["check", path] => check(Path::new(path)),
        ["test", path, cases] => test(Path::new(path), Path::new(cases)),
        ["explain", request] => folder().and_then(|folder| explain(Path::new(request), &folder)),
        ["explain", request, path] => explain(Path::new(request), Path::new(path)),
        ["learn", logs @ ..] => learn(logs),
        ["schema"] => Ok((drover_policy::schema(), true)),
        ["help" | "-h" | "--help"] => Ok((USAGE.to_owned(), true)),
        _ => {
            say(&mut std::io::stderr(), USAGE);
            return Exit::Usage.into();
        }
    };
    match done {
        Ok((text, well)) => {
            say(&mut std::io::stdout(), text.trim_end());
            ExitCode::from(if well { 0 } else { FOUND })
        }
        Err(fault) => {
            say(&mut std::io::stderr(), &format!("drover: {fault}"));
            ExitCode::from(FOUND)
        }
    }
}

/// What a command says, and whether all is well; or why there is nothing to say.
type Said = Result<(String, bool), String>;

fn say(stream: &mut impl std::io::Write, text: &str) {
    // Nobody is left to tell that nobody listens.
    drop(writeln!(stream, "{text}"));
}

fn folder() -> Result<PathBuf, String> {
    let settings = Settings::load(&Overrides::default()).map_err(|error| error.to_string())?;
    Ok(settings.authorization.policy_dir)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))
}

/// The policies of a folder, or of one file, with the setup beside it if there is one.
fn load(path: &Path) -> Result<Policy, String> {
    if path.is_dir() {
        return in_force::read(path);
    }
    if path.ends_with("authorization.toml") {
        // A name alone has the empty path for its folder.
        let folder = path.parent().filter(|folder| folder.is_dir());
        return in_force::read(folder.unwrap_or_else(|| Path::new(".")));
    }
    let setup = path.with_file_name("authorization.toml");
    let setup = if setup.exists() {
        read(&setup)?
    } else {
        String::new()
    };
    let source = Source {
        name: path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        text: read(path)?,
    };
    Policy::load(&setup, &[source]).map_err(|error| error.to_string())
}

fn check(path: &Path) -> Said {
    let policy = load(path)?;
    let mut lines = policy.doubts();
    lines.push(format!("{} rules can be put in force", policy.rules()));
    Ok((lines.join("\n"), true))
}

fn test(path: &Path, cases_path: &Path) -> Said {
    let cases: Vec<Case> = serde_json::from_str(&read(cases_path)?)
        .map_err(|error| format!("`{}` is no list of cases: {error}", cases_path.display()))?;
    if cases.is_empty() {
        return Err(format!("there are no cases in `{}`", cases_path.display()));
    }
    if let Some(case) = cases.iter().find(|case| case.expect.is_none()) {
        return Err(format!(
            "the case `{}` ({} {}) does not say what it expects: add \"expect\": \"allow\" or \"deny\"",
            case.name, case.method, case.uri
        ));
    }
    let policy = load(path)?;
    let mut lines = Vec::new();
    let mut failed = 0;
    for case in &cases {
        let (allowed, reason) = decide(&policy, case);
        if allowed != (case.expect == Some(Expected::Allow)) {
            failed += 1;
            let came = if allowed {
                "was allowed".to_owned()
            } else {
                format!("was denied: {reason}")
            };
            lines.push(format!(
                "FAILED  {} ({} {}) {came}",
                case.name, case.method, case.uri
            ));
        }
    }
    let plural = if cases.len() == 1 { "" } else { "s" };
    lines.push(format!("{} case{plural}, {failed} failed", cases.len()));
    Ok((lines.join("\n"), failed == 0))
}

fn decide(policy: &Policy, case: &Case) -> (bool, String) {
    match verdicts(policy, case) {
        Err(refusal) => (false, refusal),
        Ok(rows) => match rows.iter().find(|(_, verdict)| !verdict.allowed) {
            Some((_, verdict)) => (false, verdict.reason.clone()),
            None => (true, String::new()),
        },
    }
}

/// Every facet of a case, in words, with its verdict.
fn verdicts(policy: &Policy, case: &Case) -> Result<Vec<(String, Verdict)>, String> {
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
fn is_silent(fact: &drover_authorization::Fact) -> bool {
    match fact {
        drover_authorization::Fact::Bool(value) => !value,
        drover_authorization::Fact::Long(_) => false,
        drover_authorization::Fact::Text(text) => text.is_empty(),
        drover_authorization::Fact::Texts(texts) => texts.is_empty(),
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

fn explain(request: &Path, policies: &Path) -> Said {
    let text = read(request)?;
    let case = read_case(&text)
        .map_err(|fault| format!("`{}` is no request: {fault}", request.display()))?;
    let policy = load(policies)?;
    let user = case.user.as_deref().unwrap_or(identity::LOCAL);
    let mut lines = vec![format!("`{user}` asks for {} {}", case.method, case.uri)];
    match verdicts(&policy, &case) {
        Err(refusal) => {
            lines.push(format!("denied before any rule: {refusal}"));
            Ok((lines.join("\n"), false))
        }
        Ok(rows) => {
            for (facet, verdict) in &rows {
                let by = match (verdict.allowed, verdict.rules.join(", ")) {
                    (true, rules) => format!("allowed by {rules}"),
                    (false, _) => format!("denied: {}", verdict.reason),
                };
                lines.push(format!("  {}\n      {by}", facet.trim_end()));
            }
            let well = rows.iter().all(|(_, verdict)| verdict.allowed);
            lines.push(if well { "allowed" } else { "denied" }.to_owned());
            Ok((lines.join("\n"), well))
        }
    }
}

/// A case, or a question as an engine asks it.
fn read_case(text: &str) -> Result<Case, String> {
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

/// A line of the log, as far as it is read here.
#[derive(Deserialize)]
struct Logged {
    user: String,
    decision: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    denied: Vec<Value>,
}

fn learn(logs: &[&str]) -> Said {
    let mut paths: Vec<PathBuf> = logs.iter().map(PathBuf::from).collect();
    if paths.is_empty() {
        let settings = Settings::load(&Overrides::default()).map_err(|error| error.to_string())?;
        let log = settings.state_dir.join("authz/decisions.log");
        let shown = log.display().to_string();
        if !log.exists() {
            return Err(format!(
                "there is no log of decisions at `{shown}`: has drover-authz run on this host, in monitor mode?"
            ));
        }
        let older = (1..10).map(|number| PathBuf::from(format!("{shown}.{number}")));
        paths.push(log);
        paths.extend(older.filter(|path| path.exists()));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        for line in read(&path)?.lines() {
            let Ok(logged) = serde_json::from_str::<Logged>(line) else {
                continue;
            };
            if logged.decision != "monitor" {
                continue;
            }
            if logged.denied.is_empty() {
                *refused.entry(logged.reason).or_default() += 1;
            }
            for mut question in logged.denied {
                if let Some(question) = question.as_object_mut() {
                    question.insert("user".to_owned(), Value::from(logged.user.clone()));
                }
                let Ok(question) = serde_json::from_value::<Seen>(question) else {
                    continue;
                };
                if paths::is_uncertain(&question.id) && question.action == action::MOUNT_HOST_PATH {
                    let path = question.id.trim_start_matches('?');
                    let reason = format!("the path `{path}` leads nowhere certain");
                    *refused.entry(reason).or_default() += 1;
                    continue;
                }
                seen.insert(question);
            }
        }
    }
    let mut parts: Vec<String> = refused
        .iter()
        .map(|(reason, count)| {
            format!(
                "// {count} calls that no rule can permit: {}",
                reason.escape_debug()
            )
        })
        .collect();
    if seen.is_empty() {
        parts.push("// nothing was let through that a rule could permit".to_owned());
        return Ok((parts.join("\n"), true));
    }
    let seen: Vec<Seen> = seen.into_iter().collect();
    parts.push(propose(&seen));
    let text = parts.join("\n");
    let source = Source {
        name: "learned".to_owned(),
        text: text.clone(),
    };
    Policy::load("", &[source])
        .map_err(|error| format!("what was learned is no policy: {error}"))?;
    Ok((text, true))
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

    #[test]
    fn monitor_mode_teaches() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("decisions.log");
        let line = |decision: &str, id: &str| {
            format!(
                r#"{{"user":"ann","decision":"{decision}","denied":[{{"action":"MountHostPath","kind":"HostPath","id":"{id}","own":false}}]}}"#
            )
        };
        let text = [
            line("monitor", "/a"),
            line("deny", "/b"),
            "garbage".to_owned(),
        ]
        .join("\n");
        fs::write(&log, text).unwrap();
        let (said, well) = learn(&[log.to_str().unwrap()]).unwrap();
        assert!(
            well && said.contains("/a") && !said.contains("/b"),
            "{said}"
        );
    }
}
