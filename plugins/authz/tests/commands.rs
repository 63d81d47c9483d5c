//! `drover-authz policy ...` as an operator runs it: what it prints, where, and how it ends.
#![cfg(test)]

use std::fs;
use std::path::Path;
use std::process::Command;

const SETUP: &str = r#"
[roles]
developer = ["ann"]
ci-runner = ["ci"]
[paths]
ci-runner = ["/srv/ci"]
"#;

const SITE: &str = r#"
@id("our-images") @reason("only images of our registry")
forbid (principal, action == Action::"RunImage", resource)
unless { resource.name like "registry.example.org/*" };
"#;

const CASES: &str = r#"[
    {"name": "not from the hub", "user": "ann", "method": "POST", "uri": "/v1.47/containers/create",
     "body": {"Image": "nginx"}, "expect": "deny"},
    {"name": "not out of the folder", "user": "ci", "method": "POST", "uri": "/v1.47/containers/create",
     "body": {"Image": "registry.example.org/x", "HostConfig": {"Binds": ["/srv/ci/../../etc:/x"]}}, "expect": "deny"},
    {"name": "in the folder", "user": "ci", "method": "POST", "uri": "/v1.47/containers/create",
     "body": {"Image": "registry.example.org/x", "HostConfig": {"Binds": ["/srv/ci/a:/x"]}}, "expect": "allow"},
    {"name": "her own", "user": "ann", "method": "POST", "uri": "/v1.47/containers/web/start",
     "objects": {"web": {"owner": "ann"}}, "expect": "allow"}
]"#;

/// A policy folder, and files beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path().join("policy")).unwrap();
        place.write("policy/authorization.toml", SETUP);
        place.write("policy/site.cedar", SITE);
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// The exit code, standard output, standard error.
    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_drover-authz"))
            .arg("policy")
            .args(words)
            .env("DROVER_CONFIG", "/dev/null")
            .env("DROVER_STATE_DIR", self.path().join("state"))
            .env(
                "DROVER_AUTHORIZATION_POLICY_DIR",
                self.path().join("policy"),
            )
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// What a command complains of.
    fn fault(&self, words: &[&str]) -> String {
        let (code, said, fault) = self.run(words);
        assert_eq!((code, said.as_str()), (1, ""), "{fault}");
        assert!(fault.starts_with("drover: "), "{fault}");
        fault
    }
}

#[test]
fn check_finds_what_cannot_be_put_in_force_and_what_is_hardly_meant() {
    let place = Place::new();
    for words in [&["check"][..], &["check", "policy/authorization.toml"]] {
        let (code, said, fault) = place.run(words);
        assert!(
            code == 0 && said.ends_with(" rules can be put in force\n"),
            "{said}{fault}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    place.write(
        "policy/authorization.toml",
        "[roles]\ndevelper = [\"ann\"]\n[paths]\nci = [\"/a\"]\n",
    );
    let (code, said, _) = place.run(&["check"]);
    assert_eq!(code, 0);
    assert!(said.contains("no rule names the role `develper`"), "{said}");
    assert!(said.contains("no rule names the paths of `ci`"), "{said}");

    for (text, said) in [
        (
            "permit (principal, action == Action::\"RunImge\", resource);",
            "RunImge",
        ),
        (
            "\npermit (principal action, resource);",
            "site.cedar: line 2",
        ),
    ] {
        place.write("site.cedar", text);
        let fault = place.fault(&["check", "site.cedar"]);
        assert!(fault.contains(said), "{fault}");
    }
    assert!(
        place
            .fault(&["check", "nothing.cedar"])
            .contains("`nothing.cedar`")
    );
    place.write("policy/authorization.toml", "mode = \"off\"\n");
    assert!(place.fault(&["check"]).contains("authorization.toml"));
}

#[test]
fn test_runs_cases_and_names_those_that_fail() {
    let place = Place::new();
    place.write("cases.json", CASES);
    let (code, said, fault) = place.run(&["test", "policy", "cases.json"]);
    assert_eq!((code, said.as_str()), (0, "4 cases, 0 failed\n"), "{fault}");

    place.write("cases.json", &CASES.replace("\"deny\"", "\"allow\""));
    let (code, said, _) = place.run(&["test", "policy", "cases.json"]);
    assert!(code == 1 && said.ends_with("4 cases, 2 failed\n"), "{said}");
    assert!(said.contains("FAILED  not from the hub (POST /v1.47/containers/create) was denied: rule `site:our-images` forbids"), "{said}");

    for (text, said) in [
        ("[]", "no cases"),
        ("{", "no list of cases"),
        (
            r#"[{"name":"x","method":"GET","uri":"/_ping"}]"#,
            "`x` (GET /_ping) does not say what it expects",
        ),
        (
            r#"[{"name":"x","uri":"/_ping","expect":"deny"}]"#,
            "missing field `method`",
        ),
        (r#"[{"name":"x","methd":"GET"}]"#, "`methd`"),
    ] {
        place.write("cases.json", text);
        let fault = place.fault(&["test", "policy", "cases.json"]);
        assert!(fault.contains(said), "{fault}");
    }
}

#[test]
fn explain_shows_every_question_and_the_rule_that_decides() {
    let place = Place::new();
    place.write(
        "request.json",
        r#"{"user":"ann","method":"POST","uri":"/v1.47/containers/create",
            "body":{"Image":"registry.example.org/x","HostConfig":{"Privileged":true}}}"#,
    );
    let (code, said, fault) = place.run(&["explain", "request.json"]);
    assert_eq!(code, 1, "{fault}");
    for line in [
        "`ann` asks for POST /v1.47/containers/create",
        "allowed by own-things:create",
        "RunPrivileged on Setting `privileged`",
        "denied: no rule permits `RunPrivileged` on Setting `privileged` to `ann`",
        "denied\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }

    // As an engine asks it; the body is read as it is, with what is named twice.
    place.write(
        "request.json",
        r#"{"User":"ann","RequestMethod":"POST","RequestUri":"/v1.47/containers/create",
            "RequestHeaders":{"Content-Type":"application/json"},"RequestBody":"eyJJbWFnZSI6ImEiLCJJbWFnZSI6ImIifQ=="}"#,
    );
    let (code, said, _) = place.run(&["explain", "request.json", "policy"]);
    assert!(
        code == 1 && said.contains("denied before any rule") && said.contains("named twice"),
        "{said}"
    );

    place.write(
        "request.json",
        r#"{"user":"ann","method":"GET","uri":"/v1.47/containers/json"}"#,
    );
    let (code, said, _) = place.run(&["explain", "request.json"]);
    assert!(code == 0 && said.ends_with("\nallowed\n"), "{said}");
    place.write("request.json", r#"{"engine":"28.5.2"}"#);
    assert!(
        place
            .fault(&["explain", "request.json"])
            .contains("no request")
    );
}

#[test]
fn learn_and_schema_say_what_there_is_and_usage_what_to_type() {
    let place = Place::new();
    assert!(
        place
            .fault(&["learn"])
            .contains("has drover-authz run on this host")
    );
    place.write("quiet.log", "{\"user\":\"ann\",\"decision\":\"allow\"}\n");
    let (code, said, _) = place.run(&["learn", "quiet.log"]);
    assert!(
        code == 0 && said.starts_with("// nothing was let through"),
        "{said}"
    );
    let (code, said, _) = place.run(&["schema"]);
    assert!(
        code == 0 && said.contains("action ContainerCreate in [Run]"),
        "{said}"
    );
    let (code, said, fault) = place.run(&["--help"]);
    assert!(
        code == 0 && said.starts_with("usage: drover policy check") && fault.is_empty(),
        "{said}"
    );
    for words in [&[][..], &["frobnicate"], &["test", "policy"]] {
        let (code, said, fault) = place.run(words);
        assert!(
            code == 64 && said.is_empty() && fault.starts_with("usage: "),
            "{fault}"
        );
    }
}
