#![cfg(test)]
//! The commands as a user runs them, over sockets that give recorded answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_http::{Client, Limits, Method, Request, Response, Service};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A host whose sockets are answered from tables.
struct Host {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    _stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

type Reply = Box<dyn Fn(&Request) -> (u16, Value) + Send + Sync>;

/// Answers by path.
struct Table(BTreeMap<&'static str, Reply>);

impl Service for Table {
    async fn call(&self, request: Request) -> Response {
        match self.0.get(request.path.as_str()) {
            Some(reply) => {
                let (status, body) = reply(&request);
                Response::json(status, &body)
            }
            None => Response::not_found(&request.path),
        }
    }
}

fn always(body: Value) -> Reply {
    Box::new(move |_| (200, body.clone()))
}

fn recorded(name: &str) -> Value {
    let file = format!("{}/tests/answers/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn identity(process: &str) -> Value {
    json!({"process": process, "version": drover_daemon::VERSION, "pid": 7, "complaints": []})
}

/// A coordinator's answer with this kind of store.
fn status(kind: &str) -> Value {
    let mut status = recorded("status");
    status["store"]["kind"] = json!(kind);
    status
}

impl Host {
    fn new() -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            folder: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            _stop: stop,
            stopped,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, socket: &str, replies: Vec<(&'static str, Reply)>) {
        self.serve_with(socket, Table(replies.into_iter().collect()));
    }

    fn serve_with(&self, socket: &str, service: impl Service) {
        let _guard = self.runtime.enter();
        let listener = drover_daemon::listener(socket, &self.path(socket)).unwrap();
        let service = Arc::new(service);
        let serving =
            drover_http::serve(listener, service, Limits::default(), self.stopped.clone());
        self.runtime.spawn(serving);
    }

    /// Both plugins and a coordinator of a cluster, all well.
    fn whole() -> Self {
        let host = Self::new();
        host.serve(
            "control.sock",
            vec![
                ("/v1/Status", always(status("etcd"))),
                ("/v1/Networks", always(recorded("networks"))),
                ("/v1/Pools", always(recorded("pools"))),
                ("/v1/Examine", always(json!({"findings": []}))),
            ],
        );
        host.serve(
            "plugins/drover-net.sock",
            vec![
                ("/Drover.WhoAreYou", always(identity("drover-net"))),
                ("/Drover.Paths", always(recorded("paths"))),
                (
                    "/Drover.Endpoints",
                    always(json!({"networks": [], "endpoints": []})),
                ),
            ],
        );
        host.serve(
            "names.sock",
            vec![("/Drover.WhoAreYou", always(identity("drover-names")))],
        );
        host.serve(
            "plugins/drover-vol.sock",
            vec![
                ("/Drover.WhoAreYou", always(identity("drover-vol"))),
                ("/Drover.VolumeStatus", always(recorded("volume-status"))),
                ("/Drover.Volumes", always(recorded("volumes"))),
                ("/Drover.Snapshots", always(recorded("snapshots"))),
            ],
        );
        host.serve(
            "plugins/drover-ipam.sock",
            vec![
                ("/Drover.WhoAreYou", always(identity("drover-ipam"))),
                ("/Drover.Leases", always(recorded("leases"))),
            ],
        );
        host
    }

    fn drover(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        self.prepare(&mut command).args(words).output().unwrap()
    }

    fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("DROVER_RUN_DIR", self.folder.path())
            .env("DROVER_PLUGIN_DIR", self.path("plugins"))
            .env("DROVER_STATE_DIR", self.path("state"))
            .env(
                "DROVER_DOCKER_HOST",
                format!("unix://{}", self.path("docker.sock").display()),
            )
            .stdin(Stdio::null())
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_view_is_a_table_or_json() {
    let host = Host::whole();
    for (command, word, field) in [
        ("status", "web-2", "/hosts/1/name"),
        ("peers", "dvr-direct", "/peers/0/device"),
        (
            "networks",
            "removal requested by web-2",
            "/networks/2/removal_requested_by",
        ),
        ("ipam", "3 of 256 (1 %)", "/pools/0/blocks_taken"),
    ] {
        let table = host.drover(&[command]);
        assert_eq!(code(&table), 0, "{command}: {}", complained(&table));
        assert!(said(&table).contains(word), "{command}: {}", said(&table));
        let answer: Value =
            serde_json::from_str(&said(&host.drover(&[command, "--json"]))).unwrap();
        assert!(
            answer.pointer(field).is_some_and(|value| !value.is_null()),
            "{command}: {answer}"
        );
    }
}

#[test]
fn without_drover_running_every_command_says_so() {
    let host = Host::new();
    for words in [
        &["peers"] as &[&str],
        &["networks"],
        &["ipam"],
        &["init"],
        &["leave"],
        &["join", "--token", "t", "192.0.2.1:4748"],
        &["host", "rm", "web-2"],
    ] {
        let output = host.drover(words);
        assert_eq!(code(&output), 69, "{words:?}");
        assert!(
            complained(&output).contains("is `drover up` running?"),
            "{}",
            complained(&output)
        );
        assert!(said(&output).is_empty());
    }
    let status = host.drover(&["status"]);
    assert_eq!(code(&status), 69);
    assert!(said(&status).contains("does not answer"));
    let doctor = host.drover(&["doctor", "--json"]);
    assert_eq!(code(&doctor), 1);
    let report: Value = serde_json::from_str(&said(&doctor)).unwrap();
    assert!(
        report["findings"][0]["remedy"]
            .as_str()
            .unwrap()
            .contains("drover up")
    );
}

#[test]
fn wrong_words_and_wrong_settings_have_their_codes() {
    let host = Host::new();
    assert_eq!(code(&host.drover(&["statsu"])), 64);
    assert_eq!(code(&host.drover(&["host", "rm", "Not_A_Name"])), 64);
    assert_eq!(code(&host.drover(&["--version"])), 0);
    assert_eq!(code(&host.drover(&["help", "exit-codes"])), 0);
    let output = host.drover(&[
        "status",
        "--run-dir",
        "relative",
        "--docker-host",
        "http://x",
    ]);
    assert_eq!(code(&output), 78);
    let text = complained(&output);
    assert!(
        text.contains("`run_dir` is `relative` in --run-dir") && text.contains("`docker_host`"),
        "{text}"
    );
}

#[test]
fn init_waits_for_the_coordinator_and_prints_the_line_alone() {
    let host = Host::new();
    let asked = Arc::new(AtomicU32::new(0));
    let (seen, after) = (asked.clone(), asked);
    let init: Reply = Box::new(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["advertise"], "192.0.2.1");
        assert_eq!(
            body["etcd_endpoints"],
            json!(["https://a:1", "https://b:2"])
        );
        seen.store(1, Ordering::SeqCst);
        (
            200,
            json!({"token": "SECRET", "address": "192.0.2.1:4748", "expires_at": 4_000_000_000_u64}),
        )
    });
    // Embedded before, and for a few more questions after: the process is restarting.
    let answers: Reply = Box::new(move |_| {
        let before = after.load(Ordering::SeqCst);
        if before > 0 {
            after.store(before + 1, Ordering::SeqCst);
        }
        (200, status(if before > 3 { "etcd" } else { "embedded" }))
    });
    host.serve(
        "control.sock",
        vec![("/v1/Init", init), ("/v1/Status", answers)],
    );
    let output = host.drover(&[
        "init",
        "--advertise-addr",
        "192.0.2.1",
        "--etcd-endpoints",
        "https://a:1,https://b:2",
    ]);
    assert_eq!(code(&output), 0, "{}", complained(&output));
    assert_eq!(said(&output), "drover join --token SECRET 192.0.2.1:4748\n");
    assert!(
        complained(&output).contains("cluster of one"),
        "{}",
        complained(&output)
    );
}

#[test]
fn a_refusal_is_said_in_the_coordinators_words() {
    let host = Host::new();
    let refuse = |kind: &'static str, status: u16, message: &'static str| -> Reply {
        Box::new(move |_| (status, json!({"kind": kind, "message": message})))
    };
    host.serve(
        "control.sock",
        vec![
            (
                "/v1/Join",
                refuse(
                    "denied",
                    403,
                    "the token has expired: run `drover init` again",
                ),
            ),
            (
                "/v1/RemoveHost",
                refuse("not_found", 404, "there is no host `web-9`"),
            ),
            ("/v1/Status", always(status("embedded"))),
        ],
    );
    let join = host.drover(&["join", "--token", "old", "192.0.2.1:4748"]);
    assert_eq!((code(&join), said(&join)), (1, String::new()));
    assert_eq!(
        complained(&join),
        "drover: the token has expired: run `drover init` again\n"
    );
    assert_eq!(code(&host.drover(&["host", "rm", "web-9"])), 1);
}

/// An engine with one network, which tells the plugins when it is removed, as engines do.
struct Engine {
    plugins: PathBuf,
    network: Mutex<Option<Value>>,
    container: bool,
}

impl Service for Engine {
    async fn call(&self, request: Request) -> Response {
        let path = request
            .path
            .trim_start_matches("/v1.41")
            .trim_start_matches("/v1.40");
        let path = path.split_once("/networks").map_or(path, |_| "/networks");
        match (request.method.as_str(), path) {
            ("GET", "/networks") => {
                let networks: Vec<Value> = self.network.lock().unwrap().iter().cloned().collect();
                Response::json(200, &networks)
            }
            ("DELETE", "/networks") => {
                for (plugin, method) in [
                    ("drover-net", "/NetworkDriver.DeleteNetwork"),
                    ("drover-ipam", "/IpamDriver.ReleasePool"),
                ] {
                    let client = Client::unix(self.plugins.join(format!("{plugin}.sock")));
                    let body = Some(b"{}".to_vec());
                    let limit = Duration::from_secs(5);
                    let answer = client
                        .send(Method::POST, method, body, limit)
                        .await
                        .unwrap();
                    assert_eq!(&answer.body[..], b"{}");
                }
                self.network.lock().unwrap().take();
                Response::json(200, &json!({}))
            }
            ("GET", path) if path.ends_with("/version") => {
                Response::json(200, &json!({"Version": "20.10.24", "ApiVersion": "1.41"}))
            }
            ("GET", path) if path.ends_with("/containers/json") && self.container => {
                let networks = json!({"app": {"NetworkID": "n".repeat(64), "EndpointID": "e"}});
                let container = json!({"Id": "c", "Names": ["/web"], "NetworkSettings": {"Networks": networks}});
                Response::json(200, &json!([container]))
            }
            ("GET", path) if path.ends_with("/containers/json") => Response::json(200, &json!([])),
            (_, other) => Response::not_found(other),
        }
    }
}

fn engine(host: &Host, container: bool) {
    let network = json!({"Id": "n".repeat(64), "Name": "app", "Driver": "drover-net"});
    let engine = Engine {
        plugins: host.path("plugins"),
        network: Mutex::new(Some(network)),
        container,
    };
    host.serve_with("docker.sock", engine);
}

#[test]
fn reset_stops_before_containers_and_without_a_word_of_consent() {
    let host = Host::new();
    engine(&host, true);
    let output = host.drover(&["reset", "--yes"]);
    assert_eq!(code(&output), 1);
    assert!(
        complained(&output).contains("docker stop web"),
        "{}",
        complained(&output)
    );
    let host = Host::new();
    engine(&host, false);
    let output = host.drover(&["reset"]);
    assert_eq!(code(&output), 64);
    assert!(complained(&output).contains("--yes"));
}

#[test]
fn reset_removes_everything_with_the_processes_gone() {
    // In a network namespace of its own: it removes links and filters by their names.
    let probe = Command::new("unshare").args(["--net", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a network namespace cannot be made here");
        return;
    }
    let host = Host::new();
    engine(&host, false);
    std::fs::create_dir(host.path("state")).unwrap();
    for file in ["state/.drover", "state/leases.redb", "other"] {
        std::fs::write(host.path(file), "").unwrap();
    }
    std::fs::create_dir_all(host.path("plugins")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(host.path("plugins/drover-net.sock")).unwrap());
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        env!("CARGO_BIN_EXE_drover"),
        "reset",
        "--yes",
        "--json",
    ]);
    let output = host.prepare(&mut command).output().unwrap();
    assert_eq!(code(&output), 0, "{}", complained(&output));
    let done: Value = serde_json::from_str(&said(&output)).unwrap();
    assert_eq!(done["left"], json!([]));
    assert!(
        done["removed"][0]
            .as_str()
            .unwrap()
            .contains("network `app`"),
        "{done}"
    );
    assert!(!host.path("state").exists());
    assert!(!host.path("plugins/drover-net.sock").exists());
    assert!(host.path("other").exists(), "what is not ours stays");
}
