//! `drover-authz policy ...`: what `drover policy` starts, so that Cedar is linked here alone.

mod case;
mod learn;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drover_daemon::{Exit, Overrides, Settings};
use drover_policy::{Policy, Source};

use crate::{identity, in_force};
use case::{Case, Expected, decide, read_case, verdicts};
use learn::learn;

/// The exit code of a check that has found something.
const FOUND: u8 = 1;

const USAGE: &str = "\
usage: drover policy check [FILE|DIR]         whether policies can be put in force
       drover policy test FILE|DIR CASES      whether they decide cases as expected
       drover policy explain REQUEST [DIR]    what they decide, by which rule and fact
       drover policy learn [LOG]...           rules that permit what monitor mode has let through
       drover policy schema                   the types, facts and actions that policies may name";

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
