//! The fake engine notices what a real one would trip over, and retries as a real one does.
#![cfg(test)]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use drover_testkit::{ENGINES, FakeEngine, Fault, PluginSocket, sequences};
use serde_json::json;

/// Answers one connection after the other with these texts, dropping it where the text is empty, and
/// returns what was asked.
fn answering(
    answers: Vec<&'static str>,
) -> (tempfile::TempDir, PathBuf, thread::JoinHandle<Vec<String>>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 65536];
            let length = stream.read(&mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (directory, path, server)
}

fn engine(path: &Path, version: usize) -> FakeEngine {
    FakeEngine::new(ENGINES[version], path, path).with_pause(Duration::from_millis(1))
}

fn ok(body: &str) -> &'static str {
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{body}").leak()
}

#[test]
fn the_headers_are_those_that_were_recorded() {
    let (_directory, path, server) = answering(vec![ok("{}"), ok("{}")]);
    for version in [0, 3] {
        engine(&path, version)
            .network("Leave", Some(&json!({"a": 1})))
            .unwrap();
    }
    let asked = server.join().unwrap();
    assert!(asked[0].contains("\r\nHost: \r\n") && asked[0].ends_with("\r\n\r\n{\"a\":1}\n"));
    assert!(
        asked[1].contains("\r\nHost: plugin.moby.localhost\r\n"),
        "{}",
        asked[1]
    );
    assert!(
        !asked[0].to_lowercase().contains("content-type"),
        "{}",
        asked[0]
    );
}

#[test]
fn a_dropped_connection_costs_the_body() {
    let (_directory, path, server) = answering(vec!["", "", ok("{}")]);
    engine(&path, 2)
        .network("Leave", Some(&json!({"a": 1})))
        .unwrap();
    let asked = server.join().unwrap();
    assert!(asked[0].ends_with("{\"a\":1}\n"), "{}", asked[0]);
    for retry in &asked[1..] {
        assert!(
            retry.contains("Content-Length: 0\r\n") && retry.ends_with("\r\n\r\n"),
            "{retry}"
        );
    }
}

#[test]
fn a_socket_that_is_not_there_yet_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late.sock");
    let late = path.clone();
    let server = thread::spawn(move || {
        let listener = UnixListener::bind(late).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 65536];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(ok("{}").as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let socket = PluginSocket::new(&path, "").with_pause(Duration::from_millis(200));
    socket
        .post("/NetworkDriver.Leave", Some(&json!({"a": 1})))
        .unwrap();
    assert!(server.join().unwrap().ends_with("{\"a\":1}\n"));

    let nobody = PluginSocket::new("/nonexistent.sock", "").with_pause(Duration::from_millis(1));
    assert!(matches!(
        nobody.post("/a", None),
        Err(Fault::Transport { .. })
    ));
}

#[test]
fn what_no_engine_accepts_is_noticed() {
    let unusable = |answer: &'static str, ask: fn(&FakeEngine) -> Result<(), Fault>| {
        let (_directory, path, server) = answering(vec![answer]);
        let fault = ask(&engine(&path, 2)).unwrap_err();
        server.join().unwrap();
        fault.to_string()
    };
    let leave = |engine: &FakeEngine| engine.network("Leave", Some(&json!({}))).map(drop);
    assert!(unusable(ok(""), leave).contains("not a JSON object"));
    assert!(unusable(ok("[]"), leave).contains("not a JSON object"));
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    assert!(unusable(gone, leave).contains("status 404"));
    assert!(unusable(ok("{\"Err\":\"no\"}"), leave).contains("refused: no"));
    // An IPAM plugin's `Err` is not read.
    let pool = |engine: &FakeEngine| engine.request_pool(&Default::default()).map(drop);
    assert!(unusable(ok("{\"Err\":\"no\"}"), pool).contains("no local address space"));
    let scope = FakeEngine::network_capabilities;
    assert!(unusable(ok("{\"Scope\":\"planet\"}"), scope).contains("Scope is `planet`"));
    assert!(unusable(ok("{\"Implements\":[]}"), FakeEngine::activate_ipam).contains("IpamDriver"));
}

#[test]
fn about_forty_actions_of_each_engine_are_recorded() {
    for version in ENGINES {
        let sequences = sequences(version.name).unwrap();
        let ours = |method: &str| method.starts_with("Network") || method.starts_with("Ipam");
        let with_calls = sequences
            .iter()
            .filter(|it| it.steps.iter().any(|step| ours(&step.method)));
        assert!(with_calls.count() >= 30, "{}", version.name);
    }
}
