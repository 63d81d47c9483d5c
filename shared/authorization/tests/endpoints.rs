//! Every endpoint of every version of the Engine API is mapped. `tests/api` has the paths of each version's document; a new
//! version's are added there, and what it adds is missing here until the table has it.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "the documents are files")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use drover_authorization::{Body, Call, ENDPOINTS, OLDEST_VERSION, Request};

/// Endpoints that no document has: BuildKit's other stream, a trailing slash, and what is experimental.
const UNDOCUMENTED: &[&str] = &[
    "POST /grpc",
    "GET /networks/",
    "POST /build/cancel",
    "GET /containers/{id}/checkpoints",
    "POST /containers/{id}/checkpoints",
    "DELETE /containers/{id}/checkpoints/{id}",
    "POST /containers/{id}/copy",
];

fn versions() -> Vec<((u16, u16), String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api");
    let mut versions = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (major, minor) = name.trim_start_matches('v').split_once('.').unwrap();
        let version = (major.parse().unwrap(), minor.parse().unwrap());
        versions.push((version, fs::read_to_string(path).unwrap()));
    }
    versions.sort();
    versions
}

/// A path of a document with its placeholders filled in.
fn filled(path: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_endpoint_of_every_version_is_mapped() {
    let versions = versions();
    assert_eq!(versions.first().unwrap().0, OLDEST_VERSION);
    assert!(versions.len() >= 32, "{} versions", versions.len());
    let mut missing = Vec::new();
    for ((major, minor), text) in &versions {
        for line in text.lines() {
            let (method, path) = line.split_once(' ').unwrap();
            let path = filled(path);
            for uri in [format!("/v{major}.{minor}{path}"), path] {
                let call = Call {
                    method,
                    uri: &uri,
                    content_type: Some("application/json"),
                    body: b"{}",
                };
                if let Err(error) = Request::read(&call) {
                    missing.push(format!("{method} {uri}: {error}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn nothing_is_mapped_that_is_nowhere() {
    let mut known: BTreeSet<String> = UNDOCUMENTED.iter().map(|line| (*line).to_owned()).collect();
    for (_, text) in versions() {
        known.extend(text.lines().map(|line| {
            let (method, path) = line.split_once(' ').unwrap();
            format!("{method} {}", blank(path))
        }));
    }
    for row in ENDPOINTS {
        let key = format!("{} {}", row.method, blank(row.path));
        let undocumented = format!("{} {}", row.method, row.path);
        assert!(
            known.contains(&key) || known.contains(&undocumented),
            "{key}"
        );
    }
}

/// A path with every placeholder alike.
fn blank(path: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn what_needs_a_body_is_not_judged_without() {
    for row in ENDPOINTS.iter().filter(|row| row.body == Body::Json) {
        let uri = filled(row.path);
        for (content_type, body) in [
            (Some("application/json"), ""),
            (Some("application/json"), " \n"),
            (None, "{}"),
            (Some("text/plain"), "{}"),
            (Some("application/json"), "[1"),
            (Some("application/json"), "7"),
            (Some("application/json"), "{} {}"),
        ] {
            let call = Call {
                method: row.method,
                uri: &uri,
                content_type,
                body: body.as_bytes(),
            };
            assert!(
                Request::read(&call).is_err(),
                "{uri}: {content_type:?} {body}"
            );
        }
        let call = Call {
            method: row.method,
            uri: &uri,
            content_type: Some("Application/JSON; charset=utf-8"),
            body: b" {} \n",
        };
        assert!(Request::read(&call).is_ok(), "{uri}");
    }
}

#[test]
fn forms_and_old_versions_are_refused() {
    let read = |uri: &str, content_type: &str| {
        Request::read(&Call {
            method: "POST",
            uri,
            content_type: Some(content_type),
            body: b"",
        })
    };
    assert!(read("/images/create?fromImage=a", "text/plain").is_ok());
    for form in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded; a=b",
        "multipart/form-data; boundary=x",
    ] {
        assert!(read("/images/create?fromImage=a", form).is_err(), "{form}");
    }
    assert!(read("/v1.23/containers/a/start", "text/plain").is_err());
    assert!(read("/v1.24/containers/a/start", "text/plain").is_ok());
}
