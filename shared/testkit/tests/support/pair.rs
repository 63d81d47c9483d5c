//! A network and an IPAM plugin that keep everything in memory, behind sockets in a directory of their own.
//!
//! They do by the protocol what can be done without a kernel, or, on demand, one thing wrong: so the
//! checks, and the fake engine, are tested themselves.

#[path = "pair/ipam.rs"]
mod ipam;
#[path = "pair/network.rs"]
mod network;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use drover_http::{Limits, serve};
use drover_plugin_host::{DriverError, IpamService, NetworkService, NoMethods};
use tokio::net::UnixListener;
use tokio::sync::watch;

/// What a pair does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test file makes every mistake")]
pub(crate) enum Flaw {
    /// Gives an address twice.
    GivesTwice,
    /// Gives pools that overlap.
    Overlaps,
    /// Calls a pool by another name each time.
    Renames,
    /// Refuses auxiliary addresses outside of the range.
    KeepsToTheRange,
    /// Refuses to remove what is not there.
    RefusesTheUnknown,
    /// Joins endpoints that were removed.
    RemembersEndpoints,
    /// Refuses an address that an old endpoint has.
    OldEndpointWins,
    /// Answers no link address.
    NoMac,
    /// Answers a gateway that is not on the link.
    GatewayOffLink,
    /// Says of internal networks what it says of others.
    InternalLikeOthers,
    /// Takes any option.
    AnyOption,
    /// Needs the sandbox at Join.
    NeedsSandbox,
    /// Refuses to program twice.
    ProgramsOnce,
    /// Takes ports at CreateEndpoint.
    TakesPorts,
}

type Answer<T> = Result<T, DriverError>;

fn refused<T>(sentence: impl Into<String>) -> Answer<T> {
    Err(DriverError::new(sentence))
}

/// Both plugins, served by a thread of their own until dropped.
pub(crate) struct Pair {
    pub(crate) network: PathBuf,
    pub(crate) ipam: PathBuf,
    stop: watch::Sender<bool>,
    server: Option<thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Pair {
    pub(crate) fn start(flaw: Option<Flaw>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (network, ipam) = (path("net.sock"), path("ipam.sock"));
        let (stop, stopped) = watch::channel(false);
        let sockets = (network.clone(), ipam.clone());
        let (ready, bound) = std::sync::mpsc::channel();
        let server = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let network = UnixListener::bind(sockets.0).unwrap();
                    let ipam = UnixListener::bind(sockets.1).unwrap();
                    ready.send(()).unwrap();
                    let driver = Arc::new(network::MemoryNetwork::new(flaw));
                    let network_service = Arc::new(NetworkService::new(driver, NoMethods));
                    let driver = Arc::new(ipam::MemoryIpam::new(flaw));
                    let ipam_service = Arc::new(IpamService::new(driver, NoMethods));
                    let limits = Limits::default();
                    tokio::join!(
                        serve(network, network_service, limits, stopped.clone()),
                        serve(ipam, ipam_service, limits, stopped),
                    );
                });
        });
        bound.recv().unwrap();
        Self {
            network,
            ipam,
            stop,
            server: Some(server),
            _directory: directory,
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}
