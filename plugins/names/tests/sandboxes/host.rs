//! A host: the real process, and a coordinator and a network plugin that say what the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_control_api::names::{NameReport, NameStatus, SandboxEntry};
use drover_control_api::plugin::{EndpointEntry, EndpointTable, Endpoints, NetworkEntry};
use drover_control_api::registry::{Attachment, ContainerRecord, PATH, RegistryEvent};
use drover_control_api::{Failure, Method as _};
use drover_daemon::Settings;
use drover_http::{Client, Limits, Request, Response, Service, control, serve};
use drover_model::{MacAddress, Mtu};
use drover_testkit::shell::wait_for;
use tokio::sync::{mpsc, watch};

/// The digit of the network's id in Docker.
const NETWORK: &str = "f";

/// What the others say.
#[derive(Default)]
struct Said {
    events: Vec<RegistryEvent>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    /// And the sandboxes that they are joined to.
    endpoints: BTreeMap<IpAddr, Option<String>>,
}

/// The coordinator and the network plugin.
#[derive(Clone, Default)]
struct Others(Arc<Mutex<Said>>);

fn line(event: &RegistryEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap();
    line.push(b'\n');
    line.into()
}

impl Service for Others {
    async fn call(&self, request: Request) -> Response {
        let mut said = self.0.lock().unwrap();
        match request.path.as_str() {
            PATH => {
                let (sender, response) = Response::stream("application/x-ndjson", 4096);
                for event in &said.events {
                    sender.try_send(line(event)).unwrap();
                }
                said.listeners.push(sender);
                response
            }
            Endpoints::PATH => control::answer::<Endpoints>(Ok::<_, Failure>(EndpointTable {
                networks: vec![network()],
                endpoints: said.endpoints.iter().map(endpoint).collect(),
            })),
            other => Response::not_found(other),
        }
    }
}

/// The one network: all that the tests call `app`.
fn network() -> NetworkEntry {
    NetworkEntry {
        network: NETWORK.repeat(64).parse().unwrap(),
        pools: vec!["10.64.0.0/16".parse().unwrap()],
        bridge: "br-app".to_owned(),
        mtu: Mtu::new(1450).unwrap(),
    }
}

fn endpoint((address, sandbox): (&IpAddr, &Option<String>)) -> EndpointEntry {
    EndpointEntry {
        endpoint: "e".repeat(64).parse().unwrap(),
        network: NETWORK.repeat(64).parse().unwrap(),
        addresses: vec![(*address).into()],
        mac: MacAddress::new([2, 0, 0, 0, 0, 1]),
        sandbox: sandbox.clone(),
        present: true,
    }
}

fn serve_on(path: &Path, others: &Others) -> watch::Sender<bool> {
    let (stop, stopped) = watch::channel(false);
    let others = Arc::new(others.clone());
    drop(std::fs::remove_file(path));
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            serve(listener, others, Limits::default(), stopped).await;
        });
    });
    stop
}

/// A host whose name is `a`.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    settings: Settings,
    others: Others,
    process: Option<Child>,
    coordinator: Option<watch::Sender<bool>>,
    _network: watch::Sender<bool>,
}

impl Host {
    /// With the process running, and hosts `a` and `b` alive.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            state_dir: folder.path().join("state"),
            run_dir: folder.path().join("run"),
            plugin_dir: folder.path().join("docker/plugins"),
            ..Settings::default()
        };
        for path in [
            &settings.run_dir,
            &settings.plugin_dir,
            &settings.sandbox_dir(),
        ] {
            std::fs::create_dir_all(path).unwrap();
        }
        let others = Others::default();
        let this_host = "a".parse().unwrap();
        let mut events = vec![RegistryEvent::Reset { this_host }];
        for name in ["a", "b"] {
            events.push(RegistryEvent::Host {
                name: name.parse().unwrap(),
                member: "m".to_owned(),
                alive: true,
            });
        }
        events.push(RegistryEvent::Synced);
        others.0.lock().unwrap().events = events;
        let coordinator = serve_on(&settings.control_socket(), &others);
        let network = serve_on(&settings.plugin_socket("drover-net"), &others);
        let mut host = Self {
            folder,
            settings,
            others,
            process: None,
            coordinator: Some(coordinator),
            _network: network,
        };
        host.begin();
        host
    }

    /// Where sandboxes are.
    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.settings.sandbox_dir()
    }

    /// Starts the process.
    pub(crate) fn begin(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_drover-names"))
            .env_clear()
            .envs(self.settings.to_environment())
            .env("DROVER_LOG_LEVEL", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(child.unwrap());
        wait_for("the registry is followed", || {
            self.ask(&NameStatus {})
                .is_some_and(|report| report.followed)
        });
    }

    /// Kills the process, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Cuts the registry's stream.
    pub(crate) fn stop_coordinator(&mut self) {
        self.coordinator = None;
        self.others.0.lock().unwrap().listeners.clear();
    }

    /// Asks the process on its own socket; `None` when it does not answer.
    pub(crate) fn ask<M: drover_control_api::Method>(&self, method: &M) -> Option<M::Answer> {
        let client = Client::unix(self.settings.names_socket());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let answer = control::call(&client, method, Duration::from_secs(5));
        runtime.unwrap().block_on(answer).ok()
    }

    /// How often its threads have been woken.
    pub(crate) fn wake_ups(&self) -> u64 {
        let process = self.process.as_ref().expect("it runs").id();
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        // A thread that ends meanwhile has no status.
        let statuses = threads
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
        let counts = statuses.filter_map(|status| {
            let mut lines = status.lines();
            let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            count.trim().parse::<u64>().ok()
        });
        counts.sum()
    }

    /// What it answers at a path of its own socket.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.settings.names_socket()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: drover\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// How the process is.
    pub(crate) fn report(&self) -> NameReport {
        self.ask(&NameStatus {}).expect("a report")
    }

    /// The sandbox at a path, if it is served.
    pub(crate) fn served(&self, path: &Path) -> Option<SandboxEntry> {
        let sandboxes = self.report().sandboxes.into_iter();
        let path = path.display().to_string();
        sandboxes
            .into_iter()
            .find(|sandbox| sandbox.sandbox == path)
    }

    /// Says something to everybody who listens, and to whoever will.
    pub(crate) fn say(&self, event: RegistryEvent) {
        let mut said = self.others.0.lock().unwrap();
        said.listeners
            .retain(|listener| listener.try_send(line(&event)).is_ok());
        let end = said.events.len() - 1;
        said.events.insert(end, event);
    }

    /// The network plugin has an endpoint with this address.
    pub(crate) fn endpoint(&self, address: &str) {
        let address = address.parse().unwrap();
        let mut said = self.others.0.lock().unwrap();
        said.endpoints.insert(address, None);
    }

    /// There is an endpoint with this address, which is joined to the sandbox of this name.
    pub(crate) fn joined(&self, address: &str, sandbox: &str) {
        let (address, sandbox) = (address.parse().unwrap(), format!("/elsewhere/{sandbox}"));
        let mut said = self.others.0.lock().unwrap();
        said.endpoints.insert(address, Some(sandbox));
    }

    /// What the process has written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A container that runs on network `app`.
pub(crate) fn container(number: u32, name: &str, host: &str, address: &str) -> ContainerRecord {
    let attachment = Attachment {
        network: "app".to_owned(),
        endpoint: None,
        addresses: BTreeSet::from([address.parse().unwrap()]),
        mac: None,
        aliases: BTreeSet::new(),
    };
    let record = serde_json::json!({
        "version": 1, "id": format!("{number:064x}"), "host": host, "member": "m", "name": name,
        "service": null, "image": "image", "labels": {}, "state": "running", "health": null,
        "started_at": 1, "attachments": {"aaaaaaaaaaaaaaaa": attachment}, "ports": [],
    });
    serde_json::from_value(record).unwrap()
}

/// That a container is there.
pub(crate) fn is_there(record: ContainerRecord) -> RegistryEvent {
    RegistryEvent::Container(Box::new(record))
}
