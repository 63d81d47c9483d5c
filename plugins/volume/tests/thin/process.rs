//! The process, in a mount namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_control_api::Method;
use drover_http::control::call;
use drover_http::{Client, Method as Verb};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take; a kernel in user mode is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The process and its files. It ends, and they go, when this is dropped.
pub(crate) struct Plugin {
    folder: TempDir,
    runtime: Runtime,
    child: Option<Child>,
    docker_host: String,
    plugins: PathBuf,
    mounted: std::cell::RefCell<Vec<String>>,
}

/// A volume group in a file. It goes when this is dropped.
pub(crate) struct Group {
    device: String,
}

fn said(command: &mut Command) -> String {
    // Nobody else makes the nodes of devices there.
    if !Path::new("/run/udev/control").exists() {
        command.env("DM_DISABLE_UDEV", "1");
    }
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(
        done.status.success(),
        "{command:?}: {}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
    text(&done.stdout)
}

impl Plugin {
    /// All that it needs, and not yet the process.
    pub(crate) fn prepare(backend: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("password"), "correct horse\n").unwrap();
        fs::set_permissions(path("password"), fs::Permissions::from_mode(0o600)).unwrap();
        let settings = format!("[volumes]\nbackend = \"{backend}\"\nloop_size = \"700M\"\n");
        fs::write(path("drover.toml"), settings).unwrap();
        for name in ["state", "run", "plugins"] {
            fs::create_dir(path(name)).unwrap();
        }
        Self {
            docker_host: format!("unix://{}", path("nobody.sock").display()),
            plugins: path("plugins"),
            // Its threads are begun in the namespace of this one.
            runtime: Runtime::new().unwrap(),
            child: None,
            mounted: std::cell::RefCell::default(),
            folder,
        }
    }

    pub(crate) fn start(backend: &str) -> Self {
        let mut plugin = Self::prepare(backend);
        plugin.run();
        plugin
    }

    /// Lets it be the plugin of an engine.
    pub(crate) fn serve_engine(&mut self, socket: &Path) {
        self.docker_host = format!("unix://{}", socket.display());
        self.plugins = PathBuf::from("/run/docker/plugins");
        fs::create_dir_all(&self.plugins).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.plugins.join("drover-vol.sock")
    }

    /// Runs it until it answers.
    pub(crate) fn run(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(program())
            .env("DROVER_CONFIG", self.path("drover.toml"))
            .env("DROVER_STATE_DIR", self.path("state"))
            .env("DROVER_RUN_DIR", self.path("run"))
            .env("DROVER_PLUGIN_DIR", &self.plugins)
            .env("DROVER_DOCKER_HOST", &self.docker_host)
            .env("DROVER_HOST_NAME", "alone")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while self.engine_asks("VolumeDriver.List", &json!({})).is_err() {
            assert!(began.elapsed() < PATIENCE, "no answer: {}", self.log());
            sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What the engine asks, or why it was refused.
    fn engine_asks(&self, method: &str, body: &Value) -> Result<Value, String> {
        let client = Client::unix(self.socket());
        let body = serde_json::to_vec(body).unwrap();
        let path = format!("/{method}");
        let answer = client.send(Verb::POST, &path, Some(body), PATIENCE);
        let answer = self
            .runtime
            .block_on(answer)
            .map_err(|error| error.to_string())?;
        let told: Value =
            serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        match told["Err"].as_str() {
            Some(refusal) if !refusal.is_empty() => Err(refusal.to_owned()),
            _ => Ok(told),
        }
    }

    /// What the command line asks.
    pub(crate) fn ask<M: Method>(&self, request: &M) -> M::Answer {
        let client = Client::unix(self.socket());
        let answer = self.runtime.block_on(call(&client, request, PATIENCE));
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    pub(crate) fn create(&self, name: &str, options: &Value) {
        let made = self.engine_asks(
            "VolumeDriver.Create",
            &json!({"Name": name, "Opts": options}),
        );
        made.unwrap_or_else(|error| panic!("{name}: {error}: {}", self.log()));
    }

    pub(crate) fn refused(&self, name: &str, options: &Value) -> String {
        self.engine_asks(
            "VolumeDriver.Create",
            &json!({"Name": name, "Opts": options}),
        )
        .unwrap_err()
    }

    pub(crate) fn get(&self, name: &str) -> Value {
        let got = self.engine_asks("VolumeDriver.Get", &json!({"Name": name}));
        got.unwrap()["Volume"].clone()
    }

    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        let asked = json!({"Name": name, "ID": "test"});
        let answer = self.engine_asks("VolumeDriver.Mount", &asked).unwrap();
        self.mounted.borrow_mut().push(name.to_owned());
        PathBuf::from(answer["Mountpoint"].as_str().unwrap())
    }

    pub(crate) fn unmount(&self, name: &str) {
        let asked = json!({"Name": name, "ID": "test"});
        self.engine_asks("VolumeDriver.Unmount", &asked).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        self.engine_asks("VolumeDriver.Remove", &json!({"Name": name}))
            .unwrap();
    }

    /// Waits until a volume is attached nowhere.
    pub(crate) fn detached(&self, name: &str) {
        let began = Instant::now();
        while self.get(name)["Mountpoint"]
            .as_str()
            .is_some_and(|at| !at.is_empty())
        {
            assert!(
                began.elapsed() < PATIENCE,
                "{name} stays attached: {}",
                self.log()
            );
            sleep(Duration::from_millis(500));
        }
    }

    /// A volume group in a file, with a thin pool of the name that ours have.
    pub(crate) fn group_with_pool(&self) -> Group {
        let file = self.path("disk");
        fs::File::create(&file).unwrap().set_len(700 << 20).unwrap();
        let device = said(Command::new("losetup").args(["-f", "--show"]).arg(&file));
        said(Command::new("vgcreate").args(["-qq", "kept", &device]));
        said(Command::new("lvcreate").args([
            "-qq",
            "-y",
            "--type",
            "thin-pool",
            "-L",
            "500M",
            "-n",
            "drover",
            "kept",
        ]));
        Group { device }
    }
}

impl Group {
    pub(crate) fn volumes(&self) -> String {
        said(Command::new("lvs").args(["--noheadings", "-o", "lv_name", "kept"]))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for words in [
            vec!["vgremove", "-qq", "-f", "kept"],
            vec!["losetup", "-d", &self.device],
        ] {
            if let [program, arguments @ ..] = words.as_slice() {
                drop(Command::new(program).args(arguments).status());
            }
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.kill();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours: Vec<_> = ours
            .filter(|at| Path::new(at).starts_with(self.folder.path()))
            .collect();
        for at in ours.iter().rev() {
            drop(Command::new("umount").arg(at).status());
        }
        let groups = Command::new("vgs")
            .args(["--noheadings", "-o", "vg_name,pv_name"])
            .output();
        let groups = groups.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
        for line in groups.unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if let (Some(group), Some(device)) = (words.next(), words.next())
                && group.starts_with("drover")
            {
                drop(Command::new("vgremove").args(["-qq", "-f", group]).status());
                drop(Command::new("losetup").args(["-d", device]).status());
            }
        }
    }
}

/// In `DROVER_BIN`, beside the programs that it starts; or where cargo builds all of them.
fn program() -> PathBuf {
    match std::env::var_os("DROVER_BIN") {
        Some(folder) => PathBuf::from(folder).join("drover-vol"),
        None => env!("CARGO_BIN_EXE_drover-vol").into(),
    }
}
