//! A call has many spellings. Whatever is asked for, every spelling that the engine takes for it asks for the same.
#![cfg(test)]

use drover_authorization::{Call, Facet, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

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

/// A source of choices: each is one of the numbers that proptest gives, in turn.
struct Choices {
    numbers: Vec<u8>,
    next: usize,
}

impl Choices {
    fn of(&mut self, count: u8) -> u8 {
        let number = self.numbers[self.next % self.numbers.len()];
        self.next += 1;
        number % count
    }
}

/// Another spelling of a URI: encoded letters, a version or none, the absolute form.
fn respell_uri(uri: &str, choices: &mut Choices) -> String {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let encode = |text: &str, choices: &mut Choices, slash: bool| {
        let mut out = String::new();
        for (place, letter) in text.chars().enumerate() {
            let may = letter.is_ascii_alphanumeric() || (letter == '/' && slash && place > 0);
            match choices.of(6) {
                0 if may => out.push_str(&format!("%{:02x}", u32::from(letter))),
                1 if may => out.push_str(&format!("%{:02X}", u32::from(letter))),
                _ => out.push(letter),
            }
        }
        out
    };
    let version = ["", "/v1.24", "/v1.41", "/v1.51", "/v1.55"][usize::from(choices.of(5))];
    let mut out = encode(&format!("{version}{path}"), choices, true);
    if !query.is_empty() {
        let parts = query.split('&').map(|part| {
            let (key, value) = part.split_once('=').unwrap();
            format!(
                "{}={}",
                encode(key, choices, false),
                encode(value, choices, true)
            )
        });
        let mut parts: Vec<String> = parts.collect();
        if choices.of(2) == 1 {
            parts.reverse();
        }
        out = format!("{out}?{}", parts.join("&"));
    }
    match choices.of(4) {
        0 => format!("http://elsewhere{out}"),
        1 => format!("unix+Http://a:1{out}"),
        _ => out,
    }
}

/// Another spelling of a body: cases of names, order, nulls, escapes, spaces.
fn respell(value: &Value, exact: bool, choices: &mut Choices) -> String {
    match value {
        Value::Object(map) => respell_object(map, exact, choices),
        Value::Array(list) => {
            let parts: Vec<String> = list
                .iter()
                .map(|each| respell(each, false, choices))
                .collect();
            format!(
                "[{}{}]",
                parts.join(" , "),
                if choices.of(2) == 0 { " " } else { "" }
            )
        }
        Value::String(text) => respell_text(text, choices),
        other => other.to_string(),
    }
}

/// Objects that are maps to the engine: their names are what they are.
const MAPS: &[&str] = &[
    "Labels",
    "EndpointsConfig",
    "PortBindings",
    "Sysctls",
    "DriverOpts",
    "Options",
];

fn respell_object(map: &Map<String, Value>, exact: bool, choices: &mut Choices) -> String {
    let mut members: Vec<String> = Vec::new();
    for (key, value) in map {
        let name = if exact {
            key.clone()
        } else {
            recase(key, choices)
        };
        let inner = MAPS.contains(&key.as_str()) || key == "Option";
        members.push(format!(
            "{}: {}",
            respell_text(&name, choices),
            respell(value, inner, choices)
        ));
    }
    if !exact {
        // What is null is missing.
        match choices.of(4) {
            0 => members.push("\"Hostname\":null".to_owned()),
            1 => members.push("\"never heard of\" : null".to_owned()),
            _ => {}
        }
    }
    format!("{{{}}}", members.join(",\n"))
}

fn recase(key: &str, choices: &mut Choices) -> String {
    key.chars()
        .map(|letter| match choices.of(6) {
            0 => letter.to_ascii_lowercase(),
            1 => letter.to_ascii_uppercase(),
            2 if letter.eq_ignore_ascii_case(&'s') => 'ſ',
            3 if letter.eq_ignore_ascii_case(&'k') => '\u{212a}',
            _ => letter,
        })
        .collect()
}

fn respell_text(text: &str, choices: &mut Choices) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match choices.of(8) {
            0 => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            1 if letter == '/' => out.push_str("\\/"),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
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
            let mut choices = Choices { numbers, next: 0 };
            let other_uri = respell_uri(uri, &mut choices);
            let other_body = if body.is_null() {
                String::new()
            } else {
                respell(body, false, &mut choices)
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
