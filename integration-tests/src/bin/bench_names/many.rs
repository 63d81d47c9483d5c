//! The name service with 10,000 names: memory, and how soon it answers after its start.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::cache;
use integration_tests::measure::say;
use integration_tests::wait;

/// How many containers there are, each with a name of its own, an id and a service's name that ten share.
const CONTAINERS: usize = 10_000;
/// How long it may take until all is known.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts the process alone with a coordinator that tells it so many, and once more without one; prints what it took.
pub(crate) fn measure(folder: &Path) -> Result<()> {
    let folder = folder.join("many");
    for part in ["run", "state", "plugins"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let control = folder.join("run/control.sock");
    let coordinator = UnixListener::bind(&control)?;
    let registry = registry();
    std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = coordinator.accept()?;
        let mut request = [0; 4096];
        let _length = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        stream.write_all(registry.as_bytes())?;
        // It stays open for as long as there is somebody who listens.
        let _end = stream.read(&mut request)?;
        Ok(())
    });
    let told = start(&folder)?;
    let memory = told.memory()?;
    let from_registry = told.took;
    wait::until("it is written down", wait::seconds(30), || {
        ensure!(folder.join("state/names.ndjson").exists(), "not yet");
        Ok(())
    })?;
    drop(told);
    fs::remove_file(&control)?;
    let remembered = start(&folder)?;
    say(&format!(
        "10,000 containers with 21,000 names: known {:.0} ms after the start of the process (from its disk: {:.0} ms), RSS {memory:.1} MB",
        from_registry.as_secs_f64() * 1e3,
        remembered.took.as_secs_f64() * 1e3,
    ));
    Ok(())
}

/// The process, and how long it took until it knew everything.
struct Process {
    child: Child,
    took: Duration,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let kilobytes: f64 = number.context("no VmRSS")?.parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

fn start(folder: &Path) -> Result<Process> {
    let begun = Instant::now();
    let child = Command::new(cache::binaries()?.join("drover-names"))
        .env_clear()
        .env("DROVER_CONFIG", "/dev/null")
        .env("DROVER_RUN_DIR", folder.join("run"))
        .env("DROVER_STATE_DIR", folder.join("state"))
        .env("DROVER_PLUGIN_DIR", folder.join("plugins"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting drover-names")?;
    let mut process = Process {
        child,
        took: Duration::ZERO,
    };
    let socket = folder.join("run/names.sock");
    let wanted = format!("drover_names_containers {CONTAINERS}");
    while !metrics(&socket).is_ok_and(|said| said.lines().any(|line| line == wanted)) {
        ensure!(begun.elapsed() < LIMIT, "it does not know everything");
        std::thread::sleep(Duration::from_millis(2));
    }
    process.took = begun.elapsed();
    Ok(process)
}

fn metrics(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: drover\r\nConnection: close\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// What a coordinator tells.
fn registry() -> String {
    let mut lines = vec![
        r#"{"event":"reset","this_host":"a"}"#.to_owned(),
        r#"{"event":"host","name":"a","member":"m","alive":true}"#.to_owned(),
    ];
    for number in 0..CONTAINERS {
        let (service, high, low) = (number / 10, number / 250, number % 250 + 2);
        lines.push(format!(
            r#"{{"event":"container","version":1,"id":"{number:064x}","host":"a","member":"m","name":"container-{number}","service":{{"project":"shop","service":"service-{service}"}},"image":"image","labels":{{}},"state":"running","health":null,"started_at":1,"attachments":{{"aaaaaaaaaaaaaaaa":{{"network":"app","endpoint":null,"addresses":["10.64.{high}.{low}"],"mac":null,"aliases":[]}}}},"ports":[]}}"#
        ));
    }
    lines.push(r#"{"event":"synced"}"#.to_owned());
    lines.join("\n") + "\n"
}
