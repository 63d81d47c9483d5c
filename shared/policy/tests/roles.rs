//! What each ready role may do, and what it may not.
#![cfg(test)]

use drover_authorization::{Call, Request};
use drover_policy::{Asked, Object, Policy, Principal};

const SETUP: &str = r#"
[groups]
team = ["alice", "bob"]
[roles]
admin = ["local"]
developer = ["group:team"]
ci-runner = ["ci"]
reader = ["traefik"]
updater = ["watchtower"]
backup = ["restic"]
[paths]
ci-runner = ["/srv/ci"]
"#;

/// What stands there in these tests: `hers` is alice's, `his` is bob's, `shared` is bob's and says so, `new` is not there.
fn object(id: &str) -> Object {
    let (owner, known) = match id {
        "hers" => (Some("alice"), true),
        "his" | "shared" => (Some("bob"), true),
        "cis" => (Some("ci"), true),
        "resticx" => (Some("restic"), true),
        "new" | "" => (None, false),
        _ => (None, true),
    };
    let mut labels = std::collections::BTreeMap::new();
    if id == "shared" {
        labels.insert("io.drover.shared".to_owned(), "true".to_owned());
    }
    Object {
        name: id.to_owned(),
        known,
        owner: owner.map(str::to_owned),
        labels,
    }
}

fn decide(policy: &Policy, user: &str, line: &str) -> Result<(), String> {
    let mut words = line.splitn(3, ' ');
    let (method, uri) = (words.next().unwrap(), words.next().unwrap());
    let body = words.next().unwrap_or_default();
    let call = Call {
        method,
        uri,
        content_type: (!body.is_empty()).then_some("application/json"),
        body: body.as_bytes(),
    };
    let request = Request::read(&call).map_err(|refusal| refusal.to_string())?;
    let objects: Vec<Object> = request
        .facets
        .iter()
        .map(|facet| object(&facet.resource.id))
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
    let principal = Principal {
        name: user.to_owned(),
        role: None,
    };
    let decision = policy.decide(&principal, request.endpoint.operation, &asked, false);
    match decision.denial() {
        None => Ok(()),
        Some((_, verdict)) => Err(verdict.reason.clone()),
    }
}

fn check(user: &str, allowed: &[&str], denied: &[&str]) {
    let policy = Policy::load(SETUP, &[]).unwrap();
    for line in allowed {
        let answer = decide(&policy, user, line);
        assert_eq!(answer, Ok(()), "{user}: {line}");
    }
    for line in denied {
        let answer = decide(&policy, user, line);
        assert!(answer.is_err(), "{user}: {line}");
        let reason = answer.unwrap_err();
        assert!(!reason.contains("bug"), "{user}: {line}: {reason}");
    }
}

/// Ways to the host that no developer has.
const HOST: &[&str] = &[
    r#"POST /containers/create {"Image":"a","HostConfig":{"Privileged":true}}"#,
    r#"POST /containers/create {"Image":"a","Privileged":true}"#,
    r#"POST /containers/create {"Image":"a","hostconfig":{"pRIVILEGED":true}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["/:/host"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["/srv/cia:/host"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/"}}}}]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"CapAdd":["SYS_ADMIN"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"CapAdd":"all"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"PidMode":"host"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"PidMode":"container:his"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"NetworkMode":"host"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{"host":{}}}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"IpcMode":"host"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"UTSMode":"host"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"UsernsMode":"host"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"CgroupnsMode":"host"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"MaskedPaths":[]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Devices":[{"PathOnHost":"/dev/sda"}]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"DeviceCgroupRules":["a *:* rwm"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"DeviceRequests":[{"Driver":"nvidia","Count":-1}]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Sysctls":{"kernel.shm_rmid_forced":"1"}}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"CgroupParent":"/"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Runtime":"sysbox"}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"VolumesFrom":["his"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"Links":["his:x"]}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"LogConfig":{"Type":"syslog"}}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"OptionOfTheFuture":{"x":1}}}"#,
    r#"POST /containers/create {"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"80"}]}}}"#,
    r#"POST /volumes/create {"Name":"new","DriverOpts":{"type":"none","o":"bind","device":"/"}}"#,
    r#"POST /volumes/create {"Name":"new","Driver":"local","DriverOpts":{"type":"nfs","device":":/x","o":"addr=198.51.100.1"}}"#,
    r#"POST /networks/create {"Name":"new","Driver":"macvlan"}"#,
    r#"POST /networks/create {"Name":"new","Options":{"com.docker.network.bridge.name":"br0"}}"#,
    "POST /build?networkmode=host",
    "POST /containers/create",
    "POST /v1.23/containers/hers/start",
    "POST /plugins/x/enable",
    "POST /swarm/leave",
    r#"POST /services/create {"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a"}}}"#,
];

#[test]
fn admins_may_do_everything_that_can_be_read() {
    let all: Vec<&str> = HOST
        .iter()
        .copied()
        .filter(|line| *line != "POST /containers/create" && !line.contains("v1.23"))
        .collect();
    check("local", &all, &["POST /containers/create", "GET /nowhere"]);
    check("nobody", &[], &all);
}

#[test]
fn developers_have_what_is_theirs_and_no_way_to_the_host() {
    let allowed = [
        "GET /containers/json?all=1",
        "HEAD /_ping",
        "GET /events",
        r#"POST /containers/create?name=x {"Image":"alpine","Cmd":["sh"],"Env":["A=b"],"HostConfig":{"Binds":["new:/data","hers:/y:ro"],"NetworkMode":"default","RestartPolicy":{"Name":"always"},"Memory":1000000,"PortBindings":{"80/tcp":[{"HostPort":"8080"}]},"MaskedPaths":null,"LogConfig":{"Type":"","Config":{}},"SecurityOpt":["no-new-privileges"]},"NetworkingConfig":{"EndpointsConfig":{"hers":{}}}}"#,
        r#"POST /containers/create {"Image":"a","Labels":{"io.drover.owner":"alice"}}"#,
        r#"POST /containers/create {"Image":"a","HostConfig":{"NetworkMode":"shared"}}"#,
        "POST /containers/hers/start",
        "DELETE /containers/hers",
        r#"POST /containers/hers/exec {"Cmd":["sh"]}"#,
        "POST /exec/hers/start",
        "GET /containers/new/json",
        r#"POST /networks/create {"Name":"new"}"#,
        r#"POST /volumes/create {"Name":"new"}"#,
        r#"POST /networks/hers/connect {"Container":"hers"}"#,
        "POST /images/create?fromImage=alpine&tag=3",
        "POST /build?t=x",
        r#"POST /commit?container=hers {}"#,
    ];
    let denied = [
        "POST /containers/his/start",
        "GET /containers/his/json",
        "GET /containers/his/logs",
        "GET /containers/his/archive?path=/",
        r#"POST /containers/his/exec {"Cmd":["sh"]}"#,
        r#"POST /containers/hers/exec {"Cmd":["sh"],"Privileged":true}"#,
        "POST /exec/his/start",
        r#"POST /containers/create {"Image":"a","Labels":{"io.drover.owner":"bob"}}"#,
        r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["his:/data"]}}"#,
        r#"POST /containers/create {"Image":"a","HostConfig":{"NetworkMode":"his"}}"#,
        r#"POST /networks/hers/connect {"Container":"his"}"#,
        r#"POST /volumes/create {"Name":"his"}"#,
        r#"POST /commit?container=his {}"#,
        "POST /build?version=2",
        "POST /session",
        "POST /containers/prune",
        "DELETE /images/alpine",
    ];
    check("alice", &allowed, &denied);
    check("alice", &[], HOST);
}

#[test]
fn runners_build_and_bind_where_they_may() {
    let allowed = [
        "POST /session",
        "POST /grpc",
        "POST /build?version=2&remote=client-session",
        r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["/srv/ci/job:/w","/srv/ci:/x:ro"]}}"#,
        r#"POST /containers/cis/exec {"Cmd":["sh"]}"#,
    ];
    let denied: Vec<&str> = HOST.to_vec();
    check("ci", &allowed, &denied);
    check(
        "ci",
        &[],
        &[
            r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["/srv:/w"]}}"#,
            r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["/srv/ci:/w:rshared"]}}"#,
            "POST /containers/hers/kill",
        ],
    );
}

#[test]
fn readers_look_and_change_nothing() {
    check(
        "traefik",
        &[
            "GET /containers/json",
            "GET /containers/his/json",
            "GET /events",
            "GET /networks",
            "GET /services",
            "GET /info",
        ],
        &[
            "POST /containers/his/start",
            "GET /containers/his/logs",
            "GET /containers/his/archive?path=/",
            "GET /containers/his/export",
            "POST /containers/his/attach",
            r#"POST /containers/create {"Image":"a"}"#,
            "POST /images/create?fromImage=a",
            "POST /auth",
            "POST /session",
            "GET /secrets",
            "GET /swarm/unlockkey",
        ],
    );
}

#[test]
fn updaters_replace_and_do_not_climb() {
    check(
        "watchtower",
        &[
            "POST /images/create?fromImage=a&tag=1",
            "POST /containers/his/stop",
            "DELETE /containers/his",
            "POST /containers/his/rename?name=x",
            r#"POST /containers/create?name=x {"Image":"a","HostConfig":{"Binds":["his:/d"],"NetworkMode":"his","PortBindings":{"80/tcp":[{"HostPort":"80"}]}}}"#,
            "DELETE /images/sha256:00",
        ],
        &[
            r#"POST /containers/create {"Image":"a","HostConfig":{"Privileged":true}}"#,
            r#"POST /containers/create {"Image":"a","HostConfig":{"Binds":["/:/h"]}}"#,
            r#"POST /containers/create {"Image":"a","HostConfig":{"PidMode":"container:his"}}"#,
            r#"POST /containers/create {"Image":"a","HostConfig":{"VolumesFrom":["his"]}}"#,
            r#"POST /containers/his/exec {"Cmd":["sh"]}"#,
            "GET /containers/his/logs",
        ],
    );
}

#[test]
fn backups_read_and_write_nothing() {
    check(
        "restic",
        &[
            "GET /volumes",
            "GET /containers/his/archive?path=/",
            "GET /containers/his/export",
            "POST /containers/his/pause",
            "POST /containers/his/unpause",
            r#"POST /containers/create {"Image":"restic","HostConfig":{"Binds":["his:/d:ro"]}}"#,
            "DELETE /containers/resticx",
        ],
        &[
            "PUT /containers/his/archive?path=/",
            "DELETE /containers/his",
            r#"POST /containers/create {"Image":"restic","HostConfig":{"Binds":["his:/d"]}}"#,
            r#"POST /containers/create {"Image":"restic","HostConfig":{"Binds":["/etc:/d:ro"]}}"#,
            r#"POST /containers/his/exec {"Cmd":["sh"]}"#,
        ],
    );
}

#[test]
fn a_denial_says_which_rule_and_what() {
    let policy = Policy::load(SETUP, &[]).unwrap();
    let reason = decide(&policy, "alice", HOST[0]).unwrap_err();
    assert_eq!(
        reason,
        "no rule permits `RunPrivileged` on Setting `privileged` to `alice`"
    );
    let source = drover_policy::Source {
        name: "site".to_owned(),
        text: "@id(\"signed\") @reason(\"only images of ours\")\nforbid (principal, action == Action::\"RunImage\", resource)\nunless { resource.name like \"registry.example.org/*\" };".to_owned(),
    };
    let policy = Policy::load(SETUP, &[source]).unwrap();
    let reason = decide(&policy, "local", HOST[0]).unwrap_err();
    assert_eq!(
        reason,
        "rule `site:signed` forbids `RunImage` on Image `docker.io/library/a:latest`: only images of ours"
    );
}

#[test]
fn faults_in_policies_are_found_when_they_are_loaded() {
    for (text, said) in [
        ("permit (principal, action, resource", "site.cedar: line 1"),
        (
            "permit (principal, action == Action::\"ContainerFly\", resource);",
            "ContainerFly",
        ),
        (
            "permit (principal, action == Action::\"ContainerCreate\", resource) when { context.privilegd };",
            "privilegd",
        ),
        (
            "permit (principal, action == Action::\"ContainerCreate\", resource) when { context.privileged };",
            "privileged",
        ),
        (
            "@id(\"a\") permit (principal, action, resource); @id(\"a\") permit (principal, action, resource);",
            "`a` is there twice",
        ),
    ] {
        let source = drover_policy::Source {
            name: "site".to_owned(),
            text: text.to_owned(),
        };
        let error = Policy::load(SETUP, &[source]).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}
