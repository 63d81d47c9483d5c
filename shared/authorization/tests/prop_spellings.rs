//! A call has many spellings. Whatever is asked for, every spelling that the engine takes for it asks for the same.
#![cfg(test)]

use drover_authorization::{Call, Facet, Request};
use drover_testkit::spelling::{self, Choices};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// Calls, the bodies of which say as much as possible.
fn originals() -> Vec<(&'static str, &'static str, Value)> {
    let host = json!({
        "Binds": ["/srv:/data:ro", "volume:/v"], "Privileged": true, "CapAdd": ["NET_ADMIN", "cap_sys_admin"],
        "PidMode": "host", "IpcMode": "container:other", "NetworkMode": "shop", "SecurityOpt": ["label=disable"],
        "Devices": [{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm", "CgroupPermissions": "rwm"}],
        "Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/e", "ReadOnly": true}],
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, "VolumesFrom": ["old:ro"],
        "RestartPolicy": {"Name": "always"}, "Sysctls": {"net.core.somaxconn": "1024"}, "Option": {"of": "tomorrow"},
        "MaskedPaths": []
    });
    vec![
        (
            "POST",
            "/containers/create?name=web",
            json!({
                "Image": "alpine:3", "Cmd": ["sh"], "Env": ["A=b"], "User": "1000", "Labels": {"a": "b", "io.drover.owner": "me"},
                "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": {"shop": {"Aliases": ["w"]}, "other": {}}}
            }),
        ),
        (
            "POST",
            "/containers/web/update",
            json!({"Memory": 1, "Devices": [{"PathOnHost": "/dev/kvm"}]}),
        ),
        (
            "POST",
            "/containers/web/exec",
            json!({"Cmd": ["id"], "Privileged": true, "User": "root"}),
        ),
        (
            "POST",
            "/volumes/create",
            json!({"Name": "v", "DriverOpts": {"type": "none", "o": "bind", "device": "/etc"}}),
        ),
        (
            "POST",
            "/networks/create",
            json!({"Name": "n", "Driver": "macvlan", "Options": {"parent": "eth0"}}),
        ),
        (
            "POST",
            "/networks/n/connect",
            json!({"Container": "web", "EndpointConfig": {"Links": ["db:d"]}}),
        ),
        (
            "POST",
            "/services/create",
            json!({"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "a", "CapabilityAdd": ["ALL"],
            "Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}]}}}),
        ),
        (
            "POST",
            "/commit?container=web&repo=x",
            json!({"Cmd": ["sh"]}),
        ),
        ("GET", "/containers/web/logs?stdout=1", Value::Null),
        ("GET", "/containers/json?all=1", Value::Null),
        ("DELETE", "/images/ghcr.io/a/b:1", Value::Null),
        ("POST", "/images/create?fromImage=alpine&tag=3", Value::Null),
        ("POST", "/build?t=a&networkmode=host&remote=x", Value::Null),
        ("POST", "/exec/0123/start", Value::Null),
    ]
}

fn facets(method: &str, uri: &str, body: &str, content_type: &str) -> Result<Vec<Facet>, String> {
    let call = Call {
        method,
        uri,
        content_type: (!body.is_empty()).then_some(content_type),
        body: body.as_bytes(),
    };
    Request::read(&call)
        .map(|request| request.facets)
        .map_err(|refusal| refusal.to_string())
}

/// The facets in an order of their own: members of an object have none.
fn sorted(facets: Vec<Facet>) -> Vec<String> {
    let mut texts: Vec<String> = facets
        .into_iter()
        .map(|facet| {
            let mut facts = facet.facts;
            for fact in facts.values_mut() {
                if let drover_authorization::Fact::Texts(texts) = fact {
                    texts.sort();
                }
            }
            format!("{} {:?} {facts:?}", facet.action, facet.resource)
        })
        .collect();
    texts.sort();
    texts
}

#[test]
fn equivalent_spellings_ask_for_the_same() {
    let originals = originals();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(3000)
    });
    let strategy = (
        0..originals.len(),
        prop::collection::vec(any::<u8>(), 64..512),
    );
    runner
        .run(&strategy, |(which, numbers)| {
            let (method, uri, body) = &originals[which];
            let plain = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            let expected = facets(method, uri, &plain, "application/json").unwrap();
            let mut choices = Choices::new(numbers);
            let other_uri = spelling::uri(uri, &mut choices);
            let other_body = if body.is_null() {
                String::new()
            } else {
                spelling::body(body, &mut choices)
            };
            let kind = [
                "application/json",
                "Application/Json",
                "application/json; charset=utf-8",
            ][usize::from(choices.of(3))];
            let other = facets(method, &other_uri, &other_body, kind);
            prop_assert!(
                other.is_ok(),
                "{other:?}: {method} {other_uri}\n{other_body}"
            );
            prop_assert_eq!(
                sorted(other.unwrap()),
                sorted(expected),
                "{} {}\n{}",
                method,
                other_uri,
                other_body
            );
            Ok(())
        })
        .unwrap();
}

/// Whatever comes, the reader ends with an answer.
#[test]
fn anything_is_read_or_refused() {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(2000)
    });
    let strategy = (
        prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "HEAD", ""]),
        "(/v1\\.[0-9]{1,3})?/(containers|images|networks|volumes|build|x)(/[a-z%./]{0,12})?(\\?[a-z=&%;]{0,12})?",
        "[\\[\\]{}\":,a-zA-Z0-9\\\\ ]{0,80}",
    );
    runner
        .run(&strategy, |(method, uri, body)| {
            let call = Call {
                method,
                uri: &uri,
                content_type: Some("application/json"),
                body: body.as_bytes(),
            };
            if let Ok(request) = Request::read(&call) {
                prop_assert!(!request.facets.is_empty());
            }
            Ok(())
        })
        .unwrap();
}
