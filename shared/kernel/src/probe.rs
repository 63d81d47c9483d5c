//! Whether a peer answers on a path: ICMP echo from the `drover` namespace, on a thread of its own.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use drover_overlay::Place;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    SockaddrStorage, bind, recvfrom, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tracing::debug;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::namespace::Namespace;

/// How often a peer is asked, and how long an answer is waited for each time.
const ROUNDS: u8 = 3;
const WAIT: Duration = Duration::from_millis(400);

/// Asks peers whether they are there.
#[derive(Debug, Clone)]
pub struct Prober {
    namespace: Namespace,
}

impl Kernel {
    /// A prober, which can be used while the kernel is busy otherwise.
    #[must_use]
    pub fn prober(&self) -> Prober {
        Prober {
            namespace: self.overlay_namespace.clone(),
        }
    }

    /// The index of a link in the `drover` namespace, for probing a link-local address.
    ///
    /// # Errors
    /// When there is no such link.
    pub async fn overlay_index(&self, name: &str) -> Result<u32, Error> {
        self.index(Place::Overlay, name).await
    }
}

impl Prober {
    /// Those of `targets` that answer. Each comes with the index of its link, which a link-local
    /// address needs (0 for none).
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn answering(
        &self,
        targets: BTreeSet<(IpAddr, u32)>,
    ) -> Result<BTreeSet<IpAddr>, Error> {
        let asked = self.namespace.run(move || ask(&targets)).await;
        let failed = |source| Error::Request {
            action: "probe peers".to_owned(),
            source,
        };
        asked.and_then(|answers| answers).map_err(failed)
    }
}

fn ask(targets: &BTreeSet<(IpAddr, u32)>) -> io::Result<BTreeSet<IpAddr>> {
    let (four, six): (BTreeSet<_>, BTreeSet<_>) = targets
        .iter()
        .copied()
        .partition(|(address, _)| address.is_ipv4());
    let mut answers = BTreeSet::new();
    for (targets, is_v6) in [(four, false), (six, true)] {
        if !targets.is_empty() {
            ask_family(&targets, is_v6, &mut answers)?;
        }
    }
    Ok(answers)
}

fn ask_family(
    targets: &BTreeSet<(IpAddr, u32)>,
    is_v6: bool,
    answers: &mut BTreeSet<IpAddr>,
) -> io::Result<()> {
    let socket = open(is_v6)?;
    let request = echo_request(is_v6);
    let wanted: BTreeSet<_> = targets.iter().map(|(address, _)| *address).collect();
    for _round in 0..ROUNDS {
        let silent = targets
            .iter()
            .filter(|(address, _)| !answers.contains(address));
        for (address, link) in silent {
            if let Err(error) = send(&socket, &request, *address, *link) {
                // A path that does not even take the packet is one without an answer.
                debug!(%address, %error, "a probe was not sent");
            }
        }
        let end = Instant::now() + WAIT;
        while Instant::now() < end && !wanted.is_subset(answers) {
            if let Some(address) = receive(&socket, is_v6)? {
                answers.extend(Some(address).filter(|address| wanted.contains(address)));
            }
        }
        if wanted.is_subset(answers) {
            break;
        }
    }
    Ok(())
}

fn open(is_v6: bool) -> io::Result<OwnedFd> {
    let (family, protocol) = if is_v6 {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    } else {
        (AddressFamily::Inet, SockProtocol::Icmp)
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100))?;
    if is_v6 {
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
    } else {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        bind(socket.as_raw_fd(), &SockaddrIn::from(any))?;
    }
    Ok(socket)
}

/// An echo request with identifier and number 0. For IPv6 the kernel writes the checksum.
fn echo_request(is_v6: bool) -> [u8; 8] {
    // Type 8 and nothing else: the checksum is its complement.
    if is_v6 {
        [128, 0, 0, 0, 0, 0, 0, 0]
    } else {
        [8, 0, 0xf7, 0xff, 0, 0, 0, 0]
    }
}

fn send(socket: &OwnedFd, request: &[u8], address: IpAddr, link: u32) -> nix::Result<usize> {
    let fd = socket.as_raw_fd();
    match address {
        IpAddr::V4(address) => {
            let to = SockaddrIn::from(SocketAddrV4::new(address, 0));
            sendto(fd, request, &to, MsgFlags::empty())
        }
        IpAddr::V6(address) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, link));
            sendto(fd, request, &to, MsgFlags::empty())
        }
    }
}

/// The sender of an echo reply, if one has come.
fn receive(socket: &OwnedFd, is_v6: bool) -> io::Result<Option<IpAddr>> {
    let mut buffer = [0_u8; 256];
    let (length, from) = match recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) {
        Ok(received) => received,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let packet = buffer.get(..length).unwrap_or_default();
    // An IPv4 socket gets the IP header too.
    let header = if is_v6 {
        0
    } else {
        packet
            .first()
            .map_or(0, |first| usize::from(first & 0x0f) * 4)
    };
    let reply = if is_v6 { 129 } else { 0 };
    if packet.get(header) != Some(&reply) {
        return Ok(None);
    }
    Ok(from.and_then(|from| {
        let four = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        four.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
    }))
}
