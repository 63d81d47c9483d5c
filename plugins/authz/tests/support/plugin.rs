//! The process `drover-authz` in a folder of its own, asked as an engine asks it, with an engine beside it that has little.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_testkit::PluginSocket;
use serde_json::{Value, json};

/// A test says "hung" after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-authz"));
    command.env("DROVER_CONFIG", "/dev/null");
    command
}

/// What the engine has: of Ann, of nobody, and what every engine has.
fn answer_of_the_engine(path: &str) -> Option<Value> {
    let container = |letter: &str, name: &str, labels: Value| json!({"Id": letter.repeat(64), "Names": [format!("/{name}")], "Labels": labels});
    Some(match path {
        "/containers/json" => json!([
            container("a", "anns", json!({"io.drover.owner": "ann"})),
            container("b", "nobodys", json!({})),
        ]),
        "/networks" => json!([{"Id": "d".repeat(64), "Name": "bridge"}]),
        "/volumes" => json!({"Volumes": [{"Name": "data"}]}),
        _ => return None,
    })
}

/// The heads of calls that have reached the engine.
type Heads = Arc<Mutex<Vec<String>>>;

/// The engine: answers its lists, and nothing else.
fn play_engine(listener: &UnixListener, heads: &Heads) {
    for stream in listener.incoming().flatten() {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        heads.lock().unwrap().push(head.join("\n"));
        let first = head.first().cloned().unwrap_or_default();
        let path = first.split([' ', '?']).nth(1).unwrap_or_default();
        let (status, body) = match answer_of_the_engine(path) {
            Some(body) => ("200 OK", body.to_string()),
            None => ("404 Not Found", String::new()),
        };
        let length = body.len();
        // A plugin that was ended does not read it.
        drop(write!(
            &stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ));
    }
}

/// The running plugin.
pub(crate) struct Plugin {
    folder: tempfile::TempDir,
    process: Child,
    socket: PluginSocket,
    heads: Heads,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Plugin {
    /// Starts it with this `authorization.toml`.
    pub(crate) fn start(setup: &str) -> Self {
        Self::start_after(setup, |_| ())
    }

    /// Starts it where something was done before, in its folder.
    pub(crate) fn start_after(setup: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("policy")).unwrap();
        fs::write(at("policy/authorization.toml"), setup).unwrap();
        let engine = UnixListener::bind(at("engine.sock")).unwrap();
        let heads = Heads::default();
        let seen = heads.clone();
        thread::spawn(move || play_engine(&engine, &seen));
        let log = fs::File::create(at("stderr")).unwrap();
        let process = program()
            .env("DROVER_STATE_DIR", at("state"))
            .env("DROVER_RUN_DIR", at("run"))
            .env("DROVER_PLUGIN_DIR", at("plugins"))
            .env("DROVER_AUTHORIZATION_POLICY_DIR", at("policy"))
            .env("DROVER_HOST_NAME", "me")
            .env("DROVER_ADVERTISE_ADDR", "127.0.0.1")
            .env(
                "DROVER_DOCKER_HOST",
                format!("unix://{}", at("engine.sock").display()),
            )
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = PluginSocket::new(at("plugins/drover-authz.sock"), "plugin.moby.localhost");
        let plugin = Self {
            socket,
            process,
            folder,
            heads,
        };
        until("the socket", || plugin.socket.path().exists());
        plugin
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the policy folder, as an editor does.
    pub(crate) fn write_policy(&self, name: &str, text: &str) {
        fs::write(self.at("new"), text).unwrap();
        fs::rename(self.at("new"), self.at("policy").join(name)).unwrap();
    }

    /// Asks as an engine; the message of a denial.
    pub(crate) fn ask(
        &self,
        user: &str,
        method: &str,
        uri: &str,
        body: Option<&str>,
    ) -> Result<(), String> {
        let mut asked = json!({
            "User": user,
            "UserAuthNMethod": "TLS",
            "RequestMethod": method,
            "RequestUri": uri,
            "RequestHeaders": {"User-Agent": "Docker-Client/28.5.2 (linux)", "X-Registry-Auth": "hunter2"},
        });
        if let Some(body) = body {
            asked["RequestBody"] = STANDARD.encode(body).into();
            asked["RequestHeaders"]["Content-Type"] = "application/json".into();
        }
        let reply = self
            .socket
            .post("/AuthZPlugin.AuthZReq", Some(&asked))
            .unwrap();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        match answer["Allow"].as_bool() {
            Some(true) => Ok(()),
            _ => Err(answer["Msg"].as_str().unwrap().to_owned()),
        }
    }

    /// The lines of the log of decisions, once there are that many.
    pub(crate) fn decisions(&self, count: usize) -> Vec<Value> {
        // For a moment it is not there, when it is rotated.
        let read = || fs::read_to_string(self.at("state/authz/decisions.log")).unwrap_or_default();
        until("the log", || read().lines().count() >= count);
        let lines = read();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The heads of calls that have reached the engine.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// `drover-authz policy ...` on this host.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        self.words(&[&["policy"], words].concat())
    }

    /// `drover-authz ...` on this host.
    pub(crate) fn words(&self, words: &[&str]) -> Output {
        let mut command = program();
        command
            .args(words)
            .env("DROVER_STATE_DIR", self.at("state"))
            .env("DROVER_AUTHORIZATION_POLICY_DIR", self.at("policy"));
        command.output().unwrap()
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
