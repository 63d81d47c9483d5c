//! A host: a network namespace, the real plugin in it, and a coordinator that says what the test says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_control_api::coordinator::{EngineStarted, ReportAttachments};
use drover_control_api::fabric::{FabricEvent, PATH};
use drover_control_api::{Empty, Method as _};
use drover_http::{Limits, Request, Response, Service, control, serve};
use drover_testkit::PluginSocket;
use drover_testkit::shell::{run, wait_for};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// What the coordinator was told, and what it tells.
#[derive(Default)]
struct Told {
    /// Everything that it says to whoever begins to listen.
    events: Vec<FabricEvent>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    attachments: Option<BTreeMap<String, u32>>,
    engines: u32,
}

fn line(event: &FabricEvent) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap();
    line.push(b'\n');
    line.into()
}

/// A coordinator that says what the test says.
#[derive(Clone, Default)]
pub(crate) struct Coordinator(Arc<Mutex<Told>>);

impl Service for Coordinator {
    async fn call(&self, request: Request) -> Response {
        let mut told = self.0.lock().unwrap();
        match request.path.as_str() {
            PATH => {
                let (sender, response) = Response::stream("application/x-ndjson", 4096);
                for event in &told.events {
                    sender.try_send(line(event)).unwrap();
                }
                told.listeners.push(sender);
                response
            }
            ReportAttachments::PATH => {
                let report: ReportAttachments = serde_json::from_slice(&request.body).unwrap();
                let networks = report.networks.into_iter();
                told.attachments = Some(
                    networks
                        .map(|(id, count)| (id.as_str().to_owned(), count))
                        .collect(),
                );
                control::answer::<ReportAttachments>(Ok(Empty {}))
            }
            EngineStarted::PATH => {
                told.engines += 1;
                control::answer::<EngineStarted>(Ok(Empty {}))
            }
            other => Response::not_found(other),
        }
    }
}

impl Coordinator {
    /// Serves on a socket until the returned sender is dropped.
    fn serve(&self, path: &Path) -> watch::Sender<bool> {
        let (stop, stopped) = watch::channel(false);
        let (service, path) = (Arc::new(self.clone()), path.to_owned());
        drop(std::fs::remove_file(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                serve(listener, service, Limits::default(), stopped).await;
            });
        });
        stop
    }

    /// Says something to everybody who listens, and to whoever will.
    pub(crate) fn say(&self, event: FabricEvent) {
        let mut told = self.0.lock().unwrap();
        told.listeners
            .retain(|listener| listener.try_send(line(&event)).is_ok());
        told.events.push(event);
    }

    /// What it was told last of a network.
    pub(crate) fn attachments(&self, network: &str) -> Option<u32> {
        let told = self.0.lock().unwrap();
        told.attachments
            .as_ref()
            .map(|all| all.get(network).copied().unwrap_or(0))
    }

    /// How many engines it was told of.
    pub(crate) fn engines(&self) -> u32 {
        self.0.lock().unwrap().engines
    }
}

/// A host.
pub(crate) struct Host {
    /// Its number, and the last octet of its address.
    pub(crate) number: u8,
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
    process: Option<Child>,
    /// Its coordinator.
    pub(crate) coordinator: Coordinator,
    serving: Option<watch::Sender<bool>>,
}

impl Host {
    /// Starts a host on the bridge of the lab.
    pub(crate) fn start(number: u8, folder: &Path, encapsulation: &str) -> Self {
        let name = format!("h{number}");
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        run(&format!(
            "ip link add p{number} type veth peer name eth0 netns {name}"
        ));
        run(&format!("ip link set p{number} master lab up"));
        run(&format!(
            "ip -n {name} addr add 192.0.2.{number}/24 dev eth0"
        ));
        run(&format!("ip -n {name} link set eth0 up"));
        let folder = folder.join(&name);
        for part in ["state", "run", "plugins"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        let of = |part: &str| folder.join(part).to_str().unwrap().to_owned();
        let variables = vec![
            ("DROVER_STATE_DIR", of("state")),
            ("DROVER_RUN_DIR", of("run")),
            ("DROVER_PLUGIN_DIR", of("plugins")),
            ("DROVER_OVERLAY_ENCAPSULATION", encapsulation.to_owned()),
            ("DROVER_LOG_LEVEL", "debug".to_owned()),
        ];
        let coordinator = Coordinator::default();
        let serving = None;
        let mut host = Self {
            number,
            folder,
            variables,
            process: None,
            coordinator,
            serving,
        };
        host.start_coordinator();
        host.start_plugin();
        host
    }

    /// Starts the coordinator.
    pub(crate) fn start_coordinator(&mut self) {
        let path = self.folder.join("run/control.sock");
        self.serving = Some(self.coordinator.serve(&path));
    }

    /// Ends the coordinator.
    pub(crate) fn stop_coordinator(&mut self) {
        self.serving = None;
        drop(std::fs::remove_file(self.folder.join("run/control.sock")));
    }

    /// Starts the plugin's process.
    pub(crate) fn start_plugin(&mut self) {
        let log = self.folder.join("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/h{}", self.number));
        command.arg(env!("CARGO_BIN_EXE_drover-net"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .stdin(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        wait_for("the plugin answers", || {
            self.try_post("Plugin.Activate", None).is_some()
        });
    }

    /// Ends it as the kernel does when there is no memory left.
    pub(crate) fn kill_plugin(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Where what it remembers is.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state/network.redb")
    }

    /// Where its overlay is.
    pub(crate) fn overlay(&self) -> PathBuf {
        self.folder.join("run/netns/overlay")
    }

    fn try_post(&self, method: &str, body: Option<&Value>) -> Option<Value> {
        let path = self.folder.join("plugins/drover-net.sock");
        let socket = PluginSocket::new(path, "plugin.moby.localhost");
        if !socket.path().exists() {
            return None;
        }
        let reply = socket
            .with_pause(Duration::from_millis(1))
            .post(&format!("/{method}"), body)
            .ok()?;
        serde_json::from_slice(&reply.body).ok()
    }

    /// Calls a method and expects an answer that is no error.
    pub(crate) fn call(&self, method: &str, body: Value) -> Value {
        let began = Instant::now();
        let answer = self.try_post(method, Some(&body)).unwrap();
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap();
        assert!(answer.get("Err").is_none(), "{method}: {answer}\n{}", log());
        eprintln!("h{} {method}: {:?}", self.number, began.elapsed());
        answer
    }

    /// Calls a method and expects an error.
    pub(crate) fn refused(&self, method: &str, body: Value) -> String {
        let answer = self.try_post(method, Some(&body)).unwrap();
        answer["Err"]
            .as_str()
            .unwrap_or_else(|| panic!("{method} was not refused: {answer}"))
            .to_owned()
    }

    /// Creates a network.
    pub(crate) fn create_network(&self, id: &str, pools: &[(&str, &str)], internal: bool) {
        let data = |six: bool| {
            let pools = pools.iter().filter(|(pool, _)| pool.contains(':') == six);
            let data = pools.map(|(pool, gateway)| {
                json!({"AddressSpace": "drover", "Pool": pool, "Gateway": gateway})
            });
            data.collect::<Vec<_>>()
        };
        let options = json!({
            "com.docker.network.generic": {"encryption": "off"},
            "com.docker.network.internal": internal,
        });
        let (four, six) = (data(false), data(true));
        let body = json!({"NetworkID": id, "Options": options, "IPv4Data": four, "IPv6Data": six});
        self.call("NetworkDriver.CreateNetwork", body);
    }

    /// Does what an engine does to start a container: makes the endpoint, joins it, takes its link into
    /// a namespace and sets it up as it was told.
    pub(crate) fn start_container(&self, name: &str, network: &str, id: &str, addresses: &[&str]) {
        self.create_endpoint(network, id, addresses);
        let answer = self.join(network, id, &format!("/sandbox/{name}"));
        run(&format!("ip netns add {name}"));
        let link = answer["InterfaceName"]["SrcName"].as_str().unwrap();
        run(&format!(
            "ip -n h{} link set {link} netns {name} name eth0",
            self.number
        ));
        run(&format!("ip -n {name} link set lo up"));
        for address in addresses {
            run(&format!("ip -n {name} addr add {address} dev eth0 nodad"));
        }
        run(&format!("ip -n {name} link set eth0 up"));
        for route in answer["StaticRoutes"].as_array().unwrap() {
            let destination = route["Destination"].as_str().unwrap();
            match route["NextHop"].as_str().filter(|hop| !hop.is_empty()) {
                Some(hop) => run(&format!("ip -n {name} route add {destination} via {hop}")),
                None => run(&format!("ip -n {name} route add {destination} dev eth0")),
            };
        }
    }

    /// Creates an endpoint.
    pub(crate) fn create_endpoint(&self, network: &str, id: &str, addresses: &[&str]) {
        let find = |six: bool| addresses.iter().find(|it| it.contains(':') == six);
        let mac = format!("02:42:00:0{}:{}:{}", self.number, &id[..2], &id[2..4]);
        let interface = json!({
            "Address": find(false).unwrap_or(&""), "AddressIPv6": find(true).unwrap_or(&""),
            "MacAddress": mac,
        });
        let body = json!({
            "NetworkID": network, "EndpointID": id, "Interface": interface, "Options": {},
        });
        let answer = self.call("NetworkDriver.CreateEndpoint", body);
        assert!(
            answer["Interface"]
                .get("MacAddress")
                .is_none_or(|mac| mac == ""),
            "{answer}"
        );
    }

    /// Joins an endpoint.
    pub(crate) fn join(&self, network: &str, id: &str, sandbox: &str) -> Value {
        let body = json!({
            "NetworkID": network, "EndpointID": id, "SandboxKey": sandbox, "Options": {},
        });
        self.call("NetworkDriver.Join", body)
    }

    /// Does what an engine does to stop a container.
    pub(crate) fn stop_container(&self, name: &str, network: &str, id: &str) {
        let body = json!({"NetworkID": network, "EndpointID": id});
        for method in ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"] {
            self.call(&format!("NetworkDriver.{method}"), body.clone());
        }
        run(&format!("ip netns del {name}"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("log of h{}:\n{log}", self.number);
        }
        if let Err(error) = nix::mount::umount2(&self.overlay(), nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("h{} has no overlay: {error}", self.number);
        }
    }
}
