//! The addresses that a namespace has, as they come and go.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use nix::ifaddrs::getifaddrs;
use rtnetlink::MulticastGroup;
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::namespace::Namespace;

/// A watch on a namespace's addresses. It keeps the namespace alive until it is dropped.
pub struct Addresses {
    namespace: Namespace,
    changes: BoxStream<'static, ()>,
    connection: AbortHandle,
}

impl Addresses {
    /// Begins to watch. Needs a runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel gives no socket.
    pub fn watch(namespace: &Namespace) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        let opened = namespace.enter(|| {
            let _inside = runtime.enter();
            let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
            let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
            let connection = runtime.spawn(async move {
                connection.await;
                drop(handle);
            });
            io::Result::Ok((connection.abort_handle(), messages))
        });
        let (connection, messages) = opened.and_then(|opened| opened).map_err(failed)?;
        Ok(Self {
            namespace: namespace.clone(),
            changes: messages.map(|_| ()).boxed(),
            connection,
        })
    }

    /// Those that there are now, of the loopback device too.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn current(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        let listed = self.namespace.run(|| {
            let interfaces = getifaddrs().map_err(io::Error::from)?;
            let addresses = interfaces.filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
            });
            io::Result::Ok(addresses.collect())
        });
        listed.await.and_then(|listed| listed).map_err(failed)
    }

    /// Waits until something has changed. Cancelling loses nothing.
    pub async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            // The socket is gone; there is nothing more to hear.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn failed(source: io::Error) -> Error {
    Error::Request {
        action: "watch the addresses of a namespace".to_owned(),
        source,
    }
}
