//! Hosts for the tests: each a state directory and an address of loopback.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use drover_control_api::Failure;
use drover_control_api::coordinator::{Invitation, Join, Joined};
use drover_daemon::{ClusterSettings, Settings};
use drover_model::Mtu;
use drover_store::{Store, Transaction};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::context::{Membership, now};
use crate::host::Facts;
use crate::membership::home::{ClusterFile, Home};
use crate::membership::initiate::{self, First};
use crate::membership::join::Joining;
use crate::membership::removal::{self, Removal};
use crate::membership::{open, server};

/// How long anything may take that is to happen at once.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// A host that has not been started.
pub(super) struct Host {
    pub(super) settings: Settings,
    pub(super) home: Home,
    pub(super) address: IpAddr,
    _dir: TempDir,
}

impl Host {
    /// A host with its own ports, at 127.0.0.`number`.
    pub(super) fn new(name: &str, number: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [join_port, etcd_client_port, etcd_peer_port] = free_ports();
        let settings = Settings {
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            host_name: Some(name.parse().unwrap()),
            cluster: ClusterSettings {
                join_port,
                etcd_client_port,
                etcd_peer_port,
                ..ClusterSettings::default()
            },
            ..Settings::default()
        };
        let home = Home::new(&settings);
        Self {
            settings,
            home,
            address: IpAddr::from([127, 0, 0, number]),
            _dir: dir,
        }
    }

    /// Makes certificates good for so long only.
    pub(super) fn with_certificates_for(mut self, lifetime: Duration) -> Self {
        self.settings.cluster.certificate_lifetime = lifetime;
        self.home = Home::new(&self.settings);
        self
    }

    /// What a start of the coordinator does first.
    pub(super) async fn open(&self) -> Membership {
        open(&self.settings).await.unwrap()
    }

    pub(super) fn cluster(&self) -> Option<ClusterFile> {
        self.home.cluster().unwrap()
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            advertise: self.address,
            link: None,
            underlay_mtu: Mtu::ETHERNET,
            prefixes: BTreeSet::new(),
            addresses: BTreeSet::new(),
        }
    }

    pub(super) async fn init(
        &self,
        membership: &Membership,
        endpoints: &[String],
    ) -> Result<Invitation, Failure> {
        let first = First {
            home: &self.home,
            embedded: &membership.store,
            record: initiate::own_record(membership, self.facts(), now()),
            cluster: membership.cluster.clone(),
            now: now(),
        };
        first.init(endpoints).await
    }

    pub(super) async fn join(&self, invitation: &Invitation) -> Result<Joined, Failure> {
        self.join_at(invitation, now(), &[]).await
    }

    pub(super) async fn join_at(
        &self,
        invitation: &Invitation,
        clock: u64,
        networks: &[String],
    ) -> Result<Joined, Failure> {
        std::fs::create_dir_all(&self.settings.state_dir).unwrap();
        let joining = Joining {
            home: &self.home,
            host: self.settings.host_name.clone().unwrap(),
            networks,
            clock,
            facts: &|_| Ok(self.facts()),
        };
        joining
            .join(&Join {
                token: invitation.token.clone(),
                address: invitation.address.clone(),
                advertise: None,
            })
            .await
    }

    pub(super) async fn leave(&self, store: &Store, fenced: bool) -> Result<(), Failure> {
        let file = self.cluster().unwrap();
        removal::leave(&removal_from(store), &self.home, &file, fenced).await
    }

    /// The process id of its etcd.
    pub(super) fn etcd(&self) -> Option<i32> {
        let anything = self.home.etcd(String::new(), String::new(), self.address);
        anything.running()
    }

    pub(super) fn state_file(&self, name: &str) -> bool {
        self.settings.state_dir.join(name).exists()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without this file nobody starts etcd again.
        drop(std::fs::remove_file(self.home.cluster_path()));
        let end = Instant::now() + SOON;
        while let Some(pid) = self.etcd()
            && Instant::now() < end
        {
            // It may end by itself in this moment.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A first host that lets others in.
pub(super) struct Running {
    pub(super) host: Host,
    pub(super) membership: Membership,
    pub(super) invitation: Invitation,
    server: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Running {
    pub(super) async fn start(name: &str) -> Self {
        Self::start_on(Host::new(name, 1)).await
    }

    pub(super) async fn start_on(host: Host) -> Self {
        let membership = host.open().await;
        let invitation = host.init(&membership, &[]).await.unwrap();
        drop(membership);
        let membership = host.open().await;
        let mut running = Self::of(host, membership, invitation);
        running.serve().await;
        running
    }

    /// A first host that was made before, without its join server.
    pub(super) fn of(host: Host, membership: Membership, invitation: Invitation) -> Self {
        Self {
            host,
            membership,
            invitation,
            server: None,
        }
    }

    /// Starts the join server, or starts it again.
    pub(super) async fn serve(&mut self) {
        self.stop_serving().await;
        let (stop, stopped) = watch::channel(false);
        let (home, file) = (self.host.home.clone(), self.host.cluster().unwrap());
        let store = self.membership.store.clone();
        let task = tokio::spawn(async move { server::serve(&home, &file, &store, stopped).await });
        self.server = Some((stop, task));
        let address = self.invitation.address.clone();
        until("the join server listens", async || {
            tokio::net::TcpStream::connect(&address).await.is_ok()
        })
        .await;
    }

    pub(super) async fn stop_serving(&mut self) {
        if let Some((_stop, task)) = self.server.take() {
            task.abort();
            drop(task.await);
        }
    }

    pub(super) async fn token(&self) -> Invitation {
        self.token_at(now()).await
    }

    pub(super) async fn token_at(&self, now: u64) -> Invitation {
        let file = self.host.cluster().unwrap();
        let store = &self.membership.store;
        initiate::another_token(&self.host.home, &file, store, now)
            .await
            .unwrap()
    }

    pub(super) async fn hosts(&self) -> Vec<String> {
        let hosts = crate::membership::hosts(&self.membership.store)
            .await
            .unwrap();
        hosts
            .into_iter()
            .map(|host| host.name.to_string())
            .collect()
    }
}

pub(super) fn removal_from(store: &Store) -> Removal<'_> {
    Removal {
        store,
        quarantine: Duration::from_secs(60),
        now: 1_000_000,
    }
}

pub(super) async fn put(store: &Store, key: &str, value: &str) {
    let put = Transaction::new().put(key, value);
    assert!(store.commit(put).await.unwrap().is_committed());
}

pub(super) async fn text(store: &Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value).unwrap())
}

/// Waits until it is so.
pub(super) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !so().await {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every file below a directory, with its content.
pub(super) fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((
                path.display().to_string(),
                std::fs::read(&path).unwrap_or_default(),
            ));
        }
    }
    found
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
