//! Serving one sandbox: sockets in its namespace, and the table that brings queries to them.

mod http;
mod stream;
mod udp;
mod upstream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::sync::Arc;

use drover_daemon::task;
use drover_kernel::{Error as KernelError, Hold, Interception, Namespace, Ports};
use drover_names::View;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::known::Known;
use crate::sandbox::Sandbox;

/// Docker's resolver, which is ours to stand in front of.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DOMAIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(RESOLVER), 53);

/// Why a sandbox cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServingError {
    /// There are no sockets.
    #[error("cannot open sockets in the sandbox")]
    Sockets(#[source] io::Error),
    /// There is no table.
    #[error(transparent)]
    Table(#[from] KernelError),
}

/// A sandbox that is served. Dropping it gives its queries back to Docker's resolver.
#[derive(Debug)]
pub(crate) struct Serving {
    // The table goes before the sockets do.
    interception: Interception,
    _tasks: Tasks,
}

#[derive(Debug)]
struct Tasks([JoinHandle<()>; 3]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What all ways of asking share.
#[derive(Debug, Clone)]
struct Shared {
    namespace: Namespace,
    known: Arc<Known>,
    sandbox: Arc<Sandbox>,
}

impl Shared {
    /// What the asker may see; waits for it a while.
    async fn view(&self) -> View {
        let mut asker = self.sandbox.asker();
        if self.known.may_tell() {
            let known = asker.wait_for(|asker| asker.is_known);
            // Not told in time: what is known then is what there is.
            drop(tokio::time::timeout(self.sandbox.patience(), known).await);
        }
        asker.borrow().view.clone()
    }
}

impl Serving {
    /// Opens the sockets, begins to answer, and brings the queries here, in this order.
    pub(crate) async fn start(
        namespace: Namespace,
        known: Arc<Known>,
        sandbox: Arc<Sandbox>,
    ) -> Result<Self, ServingError> {
        let sockets = namespace.run(open).await.and_then(|opened| opened);
        let (sockets, upstream) = sockets.map_err(ServingError::Sockets)?;
        let (udp, [tcp, http], ports) = sockets.register().map_err(ServingError::Sockets)?;
        let shared = Shared {
            namespace: namespace.clone(),
            known,
            sandbox,
        };
        let upstream = upstream::Upstream::new(upstream, shared.clone());
        let upstream = upstream.map_err(ServingError::Sockets)?;
        let server = udp::Server::new(udp, upstream, shared.clone());
        let tasks = Tasks([
            task::spawn("udp", server.run()),
            task::spawn("tcp", stream::run(tcp, shared.clone())),
            task::spawn("http", http::run(http, shared)),
        ]);
        let opened = tokio::task::spawn_blocking(move || Interception::open(&namespace, ports));
        let interception = opened.await.map_err(io::Error::other);
        Ok(Self {
            interception: interception.map_err(ServingError::Sockets)??,
            _tasks: tasks,
        })
    }

    /// How the table goes away when this process dies.
    pub(crate) const fn hold(&self) -> Hold {
        self.interception.hold()
    }

    /// Says that we are there.
    pub(crate) fn renew(&self) -> Result<(), KernelError> {
        self.interception.renew()
    }
}

/// Where we are asked, as opened in the namespace.
struct Sockets {
    udp: StdSocket,
    tcp: StdListener,
    http: StdListener,
}

/// In the namespace: where we are asked, and where we ask.
fn open() -> io::Result<(Sockets, StdSocket)> {
    let sockets = Sockets {
        udp: StdSocket::bind((RESOLVER, 0))?,
        tcp: StdListener::bind((RESOLVER, 0))?,
        http: StdListener::bind((RESOLVER, 0))?,
    };
    Ok((sockets, upstream::open()?))
}

impl Sockets {
    /// As the runtime takes them.
    fn register(self) -> io::Result<(UdpSocket, [TcpListener; 2], Ports)> {
        self.udp.set_nonblocking(true)?;
        self.tcp.set_nonblocking(true)?;
        self.http.set_nonblocking(true)?;
        let ports = Ports {
            udp: self.udp.local_addr()?.port(),
            tcp: self.tcp.local_addr()?.port(),
            http: self.http.local_addr()?.port(),
        };
        let listeners = [
            TcpListener::from_std(self.tcp)?,
            TcpListener::from_std(self.http)?,
        ];
        Ok((UdpSocket::from_std(self.udp)?, listeners, ports))
    }
}
