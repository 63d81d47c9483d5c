//! The implementations, each started fresh for a case.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use drover_store::{EtcdConfig, Store};
use tempfile::TempDir;

/// An embedded store in a directory of its own.
pub(crate) struct Embedded {
    pub(crate) store: Store,
    _dir: TempDir,
}

impl Embedded {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_embedded(dir.path().join("store.redb")).unwrap();
        Self { store, _dir: dir }
    }
}

/// The etcd binaries to test with.
pub(crate) fn etcd_binaries() -> Vec<PathBuf> {
    let mut binaries = vec![PathBuf::from("etcd")];
    if let Some(more) = std::env::var_os("DROVER_TEST_ETCD") {
        binaries.extend(std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()));
    }
    binaries
}

/// A member of one on loopback, ended with this value.
pub(crate) struct Etcd {
    process: Child,
    binary: PathBuf,
    client: String,
    peer: String,
    dir: TempDir,
}

impl Etcd {
    pub(crate) async fn start(binary: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let process = spawn(binary, dir.path(), &client, &peer);
        let etcd = Self {
            process,
            binary: binary.to_owned(),
            client,
            peer,
            dir,
        };
        etcd.wait_until_it_answers().await;
        etcd
    }

    pub(crate) fn version(&self) -> String {
        let output = Command::new(&self.binary)
            .arg("--version")
            .output()
            .unwrap()
            .stdout;
        String::from_utf8_lossy(&output)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) async fn store(&self) -> Store {
        let endpoints = vec![self.client.clone()];
        let config = EtcdConfig {
            endpoints,
            prefix: "/drover/".to_owned(),
            ..Default::default()
        };
        Store::connect_etcd(config).await.unwrap()
    }

    pub(crate) async fn raw(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.client], None)
            .await
            .unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same data and ports.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(&self.binary, self.dir.path(), &self.client, &self.peer);
        self.wait_until_it_answers().await;
    }

    async fn wait_until_it_answers(&self) {
        let store = self.store().await;
        let end = Instant::now() + Duration::from_secs(30);
        while let Err(error) = store.get("anything").await {
            assert!(Instant::now() < end, "etcd does not answer: {error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself, or in the test.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn spawn(binary: &Path, dir: &Path, client: &str, peer: &str) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    Command::new(binary)
        .arg("--name=test")
        .arg(format!("--data-dir={}", dir.join("data").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=test={peer}"))
        .arg("--logger=zap")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()))
}

/// Ports that nobody has now, each given once, below those that the kernel gives to connections: one of
/// these could take the port before the listener does.
fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        loop {
            // Test processes run side by side: each begins somewhere else.
            let begin = std::process::id().wrapping_mul(7919);
            let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % 12_000;
            let port = 20_000 + u16::try_from(number).unwrap();
            if TcpListener::bind(("0.0.0.0", port)).is_ok() {
                return port;
            }
        }
    })
}
