//! Whether a peer answers on a path, and to packets of what size: ICMP echo from the `drover` namespace, on a thread
//! of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use drover_overlay::{Place, name};
use nix::sys::socket::sockopt::{self, Mark, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    SockaddrStorage, bind, recvfrom, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tracing::debug;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::namespace::Namespace;
use crate::socket_option::send_whole;

/// How often a peer is asked, and how long an answer is waited for each time.
const ROUNDS: u8 = 3;
const WAIT: Duration = Duration::from_millis(400);
/// An IPv4 header without options, bytes.
const IP_HEADER: usize = 20;

/// Whom to ask, and by which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The index of its link, which a link-local address needs; 0 for none.
    pub link: u32,
    /// The mark of the packet, below 256; 0 for none. With [`name::TRIAL_MARK`] it goes by the way that is tried, and asks
    /// for an answer by the peer's present way and by the one that the peer tries in turn.
    pub mark: u8,
    /// A number that tells answers to this from answers to an earlier one; 0 for none. IPv4 only.
    pub attempt: u8,
    /// The size of the packet in bytes, IP header included, at least 29; 0 for the least there is. A packet of a given
    /// size is not cut on its way to the peer, nor held back by what the kernel has learned of the path. IPv4 only.
    pub size: u16,
}

impl Target {
    /// An address that is reached by its route.
    #[must_use]
    pub const fn routed(address: IpAddr) -> Self {
        Self {
            address,
            link: 0,
            mark: 0,
            attempt: 0,
            size: 0,
        }
    }
}

/// What came of asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// Whom was asked.
    pub asked: BTreeSet<Target>,
    /// Those of them that answered.
    pub answered: BTreeSet<Target>,
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
    /// Which of `targets` answer.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn ask(&self, targets: BTreeSet<Target>) -> Result<Probed, Error> {
        let asked = self.namespace.run(move || {
            let answered = ask(&targets)?;
            Ok(Probed {
                asked: targets,
                answered,
            })
        });
        let failed = |source| Error::Request {
            action: "probe peers".to_owned(),
            source,
        };
        asked.await.and_then(|probed| probed).map_err(failed)
    }
}

fn ask(targets: &BTreeSet<Target>) -> io::Result<BTreeSet<Target>> {
    let mut ways: BTreeMap<(bool, u8), BTreeSet<Target>> = BTreeMap::new();
    for target in targets {
        let way = ways.entry((target.address.is_ipv6(), target.mark));
        way.or_default().insert(*target);
    }
    // A way that is silent takes its time, and there may be many. Threads are in the namespace of who starts them.
    std::thread::scope(|scope| {
        let ways: Vec<_> = ways
            .iter()
            .map(|((is_v6, mark), targets)| {
                scope.spawn(move || ask_one_way(targets, *is_v6, *mark))
            })
            .collect();
        let mut answers = BTreeSet::new();
        for way in ways {
            let answered = way.join();
            answers.extend(answered.map_err(|_panic| io::Error::other("a thread ended"))??);
        }
        Ok(answers)
    })
}

/// Whether a mark is of probes that try another way.
const fn is_trial(mark: u8) -> bool {
    mark & name::TRIAL_MARK.to_le_bytes()[0] != 0
}

fn ask_one_way(targets: &BTreeSet<Target>, is_v6: bool, mark: u8) -> io::Result<BTreeSet<Target>> {
    let socket = open(is_v6, mark)?;
    let mut silent = targets.clone();
    for round in 0..ROUNDS {
        if is_trial(mark) && !is_v6 {
            let service = if round % 2 == 1 {
                name::TRIAL_SERVICE
            } else {
                0
            };
            // The first of these sets the other as well.
            setsockopt(&socket, sockopt::Ipv4Tos, &i32::from(service))?;
            setsockopt(
                &socket,
                sockopt::Priority,
                &name::TRIAL_PRIORITY.cast_signed(),
            )?;
        }
        for target in &silent {
            if let Err(error) = send(&socket, target) {
                // A path that does not even take the packet is one without an answer.
                debug!(?target, %error, "a probe was not sent");
            }
        }
        let end = Instant::now() + WAIT;
        while Instant::now() < end && !silent.is_empty() {
            if let Some(answer) = receive(&socket, is_v6, mark)? {
                silent.retain(|it| (it.address, it.size, it.attempt) != answer);
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
        send_whole(&socket)?;
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        bind(socket.as_raw_fd(), &SockaddrIn::from(any))?;
    }
    Ok(socket)
}

/// An echo request with its attempt and mark as identifier and its size as number, so that answers to one are not taken for
/// those to another. For IPv6 the kernel writes the checksum.
fn echo_request(target: &Target) -> Vec<u8> {
    let mark = target.mark;
    let mut request = if target.address.is_ipv6() {
        vec![128, 0, 0, 0, 0, mark, 0, 0]
    } else {
        let [high, low] = target.size.to_be_bytes();
        // All words but these are 0: the checksum is the complement of their sum (RFC 1071).
        let identifier = u16::from_be_bytes([target.attempt, mark]);
        let sum = 0x0800 + u32::from(identifier) + u32::from(target.size);
        let [.., first, second] = (!(sum + (sum >> 16))).to_be_bytes();
        vec![8, 0, first, second, target.attempt, mark, high, low]
    };
    let size = usize::from(target.size).saturating_sub(IP_HEADER);
    request.resize(size.max(request.len()), 0);
    request
}

fn send(socket: &OwnedFd, target: &Target) -> nix::Result<usize> {
    let (fd, request) = (socket.as_raw_fd(), echo_request(target));
    match target.address {
        IpAddr::V4(address) => {
            let to = SockaddrIn::from(SocketAddrV4::new(address, 0));
            sendto(fd, &request, &to, MsgFlags::empty())
        }
        IpAddr::V6(address) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, target.link));
            sendto(fd, &request, &to, MsgFlags::empty())
        }
    }
}

/// The sender of an echo reply to a request with a mark, and the request's size and attempt, if one has come.
fn receive(socket: &OwnedFd, is_v6: bool, mark: u8) -> io::Result<Option<(IpAddr, u16, u8)>> {
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
    let Some([kind, _, _, _, attempt, identifier, high, low]) =
        packet.get(header..).and_then(<[u8]>::first_chunk::<8>)
    else {
        return Ok(None);
    };
    if (*kind, *identifier) != (reply, mark) {
        return Ok(None);
    }
    let size = u16::from_be_bytes([*high, *low]);
    Ok(from.and_then(|from| {
        let four = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        let address = four.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())));
        address.map(|address| (address, size, *attempt))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_has_its_size_and_a_right_checksum() {
        for (size, mark, attempt) in [
            (0, 0, 0),
            (29, 8, 0),
            (1438, 0, 7),
            (0xffff, 15, 255),
            (0xf800, 0, 0),
            (0, 0x17, 200),
        ] {
            let target = Target {
                attempt,
                size,
                mark,
                ..Target::routed(IpAddr::V4(Ipv4Addr::LOCALHOST))
            };
            let request = echo_request(&target);
            assert_eq!(request.len(), usize::from(size.max(28)) - IP_HEADER);
            let words = request
                .chunks(2)
                .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
            let sum = words.sum::<u32>();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{size} {mark}");
        }
    }
}
