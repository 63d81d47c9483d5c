//! Whether a peer answers on a path: ICMP echo from the `drover` namespace, on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use drover_overlay::Place;
use nix::sys::socket::sockopt::{Mark, ReceiveTimeout};
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

/// Whom to ask, and by which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The index of its link, which a link-local address needs; 0 for none.
    pub link: u32,
    /// The mark of the packet, below 256; 0 for none.
    pub mark: u8,
}

impl Target {
    /// An address that is reached by its route.
    #[must_use]
    pub const fn routed(address: IpAddr) -> Self {
        Self {
            address,
            link: 0,
            mark: 0,
        }
    }
}

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
    /// Those of `targets` that answer.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn answering(&self, targets: BTreeSet<Target>) -> Result<BTreeSet<Target>, Error> {
        let asked = self.namespace.run(move || ask(&targets)).await;
        let failed = |source| Error::Request {
            action: "probe peers".to_owned(),
            source,
        };
        asked.and_then(|answers| answers).map_err(failed)
    }
}

fn ask(targets: &BTreeSet<Target>) -> io::Result<BTreeSet<Target>> {
    let mut ways: BTreeMap<(bool, u8), BTreeSet<Target>> = BTreeMap::new();
    for target in targets {
        let way = ways.entry((target.address.is_ipv6(), target.mark));
        way.or_default().insert(*target);
    }
    let mut answers = BTreeSet::new();
    for ((is_v6, mark), targets) in ways {
        answers.extend(ask_one_way(&targets, is_v6, mark)?);
    }
    Ok(answers)
}

fn ask_one_way(targets: &BTreeSet<Target>, is_v6: bool, mark: u8) -> io::Result<BTreeSet<Target>> {
    let socket = open(is_v6, mark)?;
    let request = echo_request(is_v6, mark);
    let mut silent = targets.clone();
    for _round in 0..ROUNDS {
        for target in &silent {
            if let Err(error) = send(&socket, &request, target) {
                // A path that does not even take the packet is one without an answer.
                debug!(?target, %error, "a probe was not sent");
            }
        }
        let end = Instant::now() + WAIT;
        while Instant::now() < end && !silent.is_empty() {
            if let Some(address) = receive(&socket, is_v6, mark)? {
                silent.retain(|target| target.address != address);
            }
        }
        if silent.is_empty() {
            break;
        }
    }
    Ok(targets.difference(&silent).copied().collect())
}

fn open(is_v6: bool, mark: u8) -> io::Result<OwnedFd> {
    let (family, protocol) = if is_v6 {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    } else {
        (AddressFamily::Inet, SockProtocol::Icmp)
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100))?;
    setsockopt(&socket, Mark, &u32::from(mark))?;
    if is_v6 {
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
    } else {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        bind(socket.as_raw_fd(), &SockaddrIn::from(any))?;
    }
    Ok(socket)
}

/// An echo request with its mark as identifier, so that answers of one way are not taken for those of another,
/// and number 0. For IPv6 the kernel writes the checksum.
fn echo_request(is_v6: bool, mark: u8) -> [u8; 8] {
    if is_v6 {
        return [128, 0, 0, 0, 0, mark, 0, 0];
    }
    // Type 8 and the mark and nothing else: the checksum is their complement.
    let [high, low] = (!(0x0800_u16 | u16::from(mark))).to_be_bytes();
    [8, 0, high, low, 0, mark, 0, 0]
}

fn send(socket: &OwnedFd, request: &[u8], target: &Target) -> nix::Result<usize> {
    let fd = socket.as_raw_fd();
    match target.address {
        IpAddr::V4(address) => {
            let to = SockaddrIn::from(SocketAddrV4::new(address, 0));
            sendto(fd, request, &to, MsgFlags::empty())
        }
        IpAddr::V6(address) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, target.link));
            sendto(fd, request, &to, MsgFlags::empty())
        }
    }
}

/// The sender of an echo reply to a request with a mark, if one has come.
fn receive(socket: &OwnedFd, is_v6: bool, mark: u8) -> io::Result<Option<IpAddr>> {
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
    let identifier = packet.get(header.saturating_add(5));
    if packet.get(header) != Some(&reply) || identifier != Some(&mark) {
        return Ok(None);
    }
    Ok(from.and_then(|from| {
        let four = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        four.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
    }))
}
