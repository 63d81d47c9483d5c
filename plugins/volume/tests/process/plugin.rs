//! The process, in a mount namespace of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drover_control_api::Method;
use drover_control_api::volume::VolumeStatus;
use drover_http::control::call;
use drover_http::{Client, Method as Verb};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::between::Between;

/// How long anything may take; a kernel in user mode is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What there is of volumes on the backend itself, by id.
#[derive(Debug, Default)]
pub(crate) struct OnBackend {
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) snapshots: BTreeSet<String>,
    /// What is neither.
    pub(crate) others: Vec<String>,
}

/// The process and its files. It ends, and they go, when this is dropped.
pub(crate) struct Plugin {
    folder: TempDir,
    runtime: Runtime,
    child: Option<Child>,
    docker_host: String,
    plugins: PathBuf,
}

/// A volume group in a file. It goes when this is dropped.
pub(crate) struct Group {
    device: String,
}

/// Where nobody else makes and removes the nodes of devices, LVM has to.
fn without_udev(command: &mut Command) -> &mut Command {
    if !Path::new("/run/udev/control").exists() {
        command.env("DM_DISABLE_UDEV", "1");
    }
    command
}

pub(crate) fn said(command: &mut Command) -> String {
    let done = without_udev(command).output().unwrap();
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
            folder,
        }
    }

    /// One more setting of volumes.
    pub(crate) fn set(&self, line: &str) {
        let settings = fs::read_to_string(self.path("drover.toml")).unwrap();
        fs::write(self.path("drover.toml"), format!("{settings}{line}\n")).unwrap();
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
        // In this mount namespace alone: other engines of the machine do not find it.
        let (none, kind) = (None::<&str>, Some("tmpfs"));
        mount(none, &self.plugins, kind, MsFlags::empty(), none).unwrap();
    }

    /// Lets it ask an engine that has no container.
    pub(crate) fn has_engine_without_containers(&mut self) {
        let socket = self.path("nobody.sock");
        crate::nobody::serve(&socket);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
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
        self.spawn();
        let began = Instant::now();
        while self.engine_asks("VolumeDriver.List", &json!({})).is_err() {
            assert!(began.elapsed() < PATIENCE, "no answer: {}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Runs it, and waits until it says of itself that something is amiss.
    pub(crate) fn run_amiss(&mut self, part: &str) {
        self.spawn();
        let began = Instant::now();
        loop {
            let client = Client::unix(self.socket());
            let asked = self
                .runtime
                .block_on(call(&client, &VolumeStatus {}, PATIENCE));
            let told = asked.map(|report| report.complaints.join("; "));
            if told.as_ref().is_ok_and(|told| told.contains(part)) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{told:?}: {}", self.log());
            sleep(Duration::from_millis(100));
        }
    }

    fn spawn(&mut self) {
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
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have been killed already, and whoever follows it may have been told first.
            drop(child.kill());
            drop(child.wait());
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

    /// Comes between it and whoever asks it from now on.
    pub(crate) fn between(&self) -> Between {
        Between::begin(&self.socket(), self.id())
    }

    /// What the command line asks.
    pub(crate) fn ask<M: Method>(&self, request: &M) -> M::Answer {
        let client = Client::unix(self.socket());
        let answer = self.runtime.block_on(call(&client, request, PATIENCE));
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// The same, or why it was refused.
    pub(crate) fn try_ask<M: Method>(&self, request: &M) -> Result<(), String> {
        let client = Client::unix(self.socket());
        let answer = self.runtime.block_on(call(&client, request, PATIENCE));
        answer.map(drop).map_err(|error| error.to_string())
    }

    fn done<T>(&self, what: &str, outcome: Result<T, String>) -> T {
        outcome.unwrap_or_else(|error| panic!("{what}: {error}: {}", self.log()))
    }

    pub(crate) fn try_create(&self, name: &str, options: &Value) -> Result<(), String> {
        let asked = json!({"Name": name, "Opts": options});
        self.engine_asks("VolumeDriver.Create", &asked).map(drop)
    }

    pub(crate) fn create(&self, name: &str, options: &Value) {
        self.done(name, self.try_create(name, options));
    }

    pub(crate) fn refused(&self, name: &str, options: &Value) -> String {
        self.try_create(name, options).unwrap_err()
    }

    /// The same, once that is possible again.
    pub(crate) fn creates_again(&self, name: &str) {
        let began = Instant::now();
        while let Err(error) = self.try_create(name, &json!({})) {
            assert!(began.elapsed() < PATIENCE, "{error}: {}", self.log());
            sleep(Duration::from_millis(200));
        }
    }

    /// What the engine is told of a volume, or why not.
    pub(crate) fn try_get(&self, name: &str) -> Result<Value, String> {
        let got = self.engine_asks("VolumeDriver.Get", &json!({"Name": name}))?;
        Ok(got["Volume"].clone())
    }

    /// The same; `None` when there is none.
    pub(crate) fn find(&self, name: &str) -> Option<Value> {
        self.try_get(name).ok()
    }

    pub(crate) fn get(&self, name: &str) -> Value {
        self.done(name, self.find(name).ok_or("it is not there".to_owned()))
    }

    pub(crate) fn try_mount(&self, name: &str, id: &str) -> Result<PathBuf, String> {
        let answer = self.engine_asks("VolumeDriver.Mount", &json!({"Name": name, "ID": id}))?;
        let at = answer["Mountpoint"].as_str();
        Ok(PathBuf::from(at.unwrap_or_default()))
    }

    pub(crate) fn mount(&self, name: &str, id: &str) -> PathBuf {
        self.done(name, self.try_mount(name, id))
    }

    /// The same, once that is possible again.
    pub(crate) fn mounts_again(&self, name: &str) -> PathBuf {
        let began = Instant::now();
        loop {
            match self.try_mount(name, "test") {
                Ok(at) => return at,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}: {}", self.log()),
            }
            sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn try_unmount(&self, name: &str, id: &str) -> Result<(), String> {
        let asked = json!({"Name": name, "ID": id});
        self.engine_asks("VolumeDriver.Unmount", &asked).map(drop)
    }

    pub(crate) fn unmount(&self, name: &str, id: &str) {
        self.done(name, self.try_unmount(name, id));
    }

    pub(crate) fn try_remove(&self, name: &str) -> Result<(), String> {
        let asked = json!({"Name": name});
        self.engine_asks("VolumeDriver.Remove", &asked).map(drop)
    }

    pub(crate) fn remove(&self, name: &str) {
        self.done(name, self.try_remove(name));
    }

    /// Where something of volumes is mounted, but for the pool itself.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let folder = self.path("state/volumes");
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let places = places.map(PathBuf::from);
        let ours = places.filter(|at| at.starts_with(&folder) && *at != folder.join("btrfs"));
        ours.collect()
    }

    /// What there is on the backend: on btrfs files, in a thin pool what LVM lists.
    pub(crate) fn on_backend(&self) -> OnBackend {
        let folder = self.path("state/volumes/btrfs");
        if !folder.exists() {
            return in_pool(&self.path("state/volumes/thin.img"));
        }
        let names = |at: PathBuf| {
            let entries = fs::read_dir(at).map(|all| all.flatten().collect::<Vec<_>>());
            let names = entries.unwrap_or_default().into_iter();
            let names = names.map(|it| it.file_name().to_string_lossy().into_owned());
            names.collect::<Vec<_>>()
        };
        let mut found = OnBackend {
            volumes: names(folder.join("volumes")).into_iter().collect(),
            others: names(folder.join("staging")),
            ..OnBackend::default()
        };
        for volume in names(folder.join("snapshots")) {
            found
                .snapshots
                .extend(names(folder.join("snapshots").join(volume)));
        }
        found
    }

    /// Unmounts what is mounted, as if the machine had been turned off.
    pub(crate) fn unmount_all(&self) {
        for at in self.mounts().iter().rev() {
            said(Command::new("umount").arg(at));
        }
    }

    /// The volume group of the thin pool in its loop file.
    pub(crate) fn group(&self) -> String {
        group_in(&self.path("state/volumes/thin.img"))
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

    /// A volume group in a file.
    pub(crate) fn group_kept(&self) -> Group {
        let file = self.path("disk");
        fs::File::create(&file).unwrap().set_len(700 << 20).unwrap();
        let device = said(Command::new("losetup").args(["-f", "--show"]).arg(&file));
        said(Command::new("vgcreate").args(["-qq", "kept", &device]));
        Group { device }
    }

    /// The same, with a thin pool of the name that ours have.
    pub(crate) fn group_with_pool(&self) -> Group {
        let group = self.group_kept();
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
        group
    }
}

/// The volume group in a loop file.
fn group_in(file: &Path) -> String {
    let mut devices = Command::new("losetup");
    let devices = said(devices.args(["-n", "-O", "NAME", "-j"]).arg(file));
    let device = devices.lines().next().unwrap_or_default();
    said(Command::new("pvs").args(["--noheadings", "-o", "vg_name", device]))
}

/// What LVM lists in the group of a loop file.
fn in_pool(file: &Path) -> OnBackend {
    let group = group_in(file);
    let listed = said(Command::new("lvs").args(["--noheadings", "-o", "lv_name", &group]));
    let mut found = OnBackend::default();
    for name in listed.split_whitespace().filter(|name| *name != "drover") {
        match name.split('_').collect::<Vec<_>>().as_slice() {
            ["drover", "v", volume] => drop(found.volumes.insert((*volume).to_owned())),
            ["drover", "s", _, snapshot] => drop(found.snapshots.insert((*snapshot).to_owned())),
            _ => found.others.push(name.to_owned()),
        }
    }
    found
}

impl Group {
    pub(crate) fn volumes(&self) -> String {
        said(Command::new("lvs").args(["--noheadings", "-o", "lv_name", "kept"]))
    }

    /// Takes its devices away, as if the machine had been turned off.
    pub(crate) fn deactivate(&self) {
        said(Command::new("vgchange").args(["-qq", "-an", "kept"]));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for words in [
            vec!["vgremove", "-qq", "-f", "kept"],
            vec!["losetup", "-d", &self.device],
        ] {
            if let [program, arguments @ ..] = words.as_slice() {
                drop(without_udev(Command::new(program).args(arguments)).status());
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
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
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
                let mut remove = Command::new("vgremove");
                drop(without_udev(remove.args(["-qq", "-f", group])).status());
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
