//! What routers of the underlay say of packets that were too large for them.
//!
//! The kernel takes it to heart for ESP by itself. For ESP in UDP it does not: no socket sends that. What is said is a
//! hint and no more, since anybody can say it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::socket_option::{only_too_big, only_unreachable, watched};

const ESP: u8 = 50;
const UDP: u8 = 17;

/// The sockets that hear it, in the root namespace.
#[derive(Debug)]
pub struct TooBig {
    four: AsyncFd<OwnedFd>,
    six: AsyncFd<OwnedFd>,
}

impl Kernel {
    /// Begins to listen.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn too_big(&self) -> Result<TooBig, Error> {
        let opened = self.root_namespace.run(|| Ok((four()?, six()?))).await;
        let watched = opened.and_then(|opened| opened).and_then(|(four, six)| {
            Ok(TooBig {
                four: watched(four)?,
                six: watched(six)?,
            })
        });
        watched.map_err(|source| Error::Request {
            action: "listen to routers of the underlay".to_owned(),
            source,
        })
    }
}

impl TooBig {
    /// The address that a packet was sent to which somebody says was too large. Cancel-safe: what was not returned is
    /// still there.
    ///
    /// # Errors
    /// When a socket cannot be read any more.
    pub async fn next(&self) -> io::Result<IpAddr> {
        loop {
            let message = tokio::select! {
                message = receive(&self.four) => quoted_v4(&message?).map(IpAddr::V4),
                message = receive(&self.six) => quoted_v6(&message?).map(IpAddr::V6),
            };
            if let Some(destination) = message {
                return Ok(destination);
            }
        }
    }
}

fn four() -> io::Result<OwnedFd> {
    let socket = open(AddressFamily::Inet, SockProtocol::Icmp)?;
    only_unreachable(&socket)?;
    Ok(socket)
}

fn six() -> io::Result<OwnedFd> {
    let socket = open(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
    only_too_big(&socket)?;
    Ok(socket)
}

fn open(family: AddressFamily, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Raw, flags, protocol)?)
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut buffer = [0_u8; 256];
    loop {
        let mut ready = socket.readable().await?;
        let read = ready.try_io(|socket| {
            let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            read.map_err(|errno: Errno| errno.into())
        });
        if let Ok(read) = read {
            return read.map(|length| buffer.get(..length).unwrap_or_default().to_vec());
        }
    }
}

/// Where the packet went that an ICMP message quotes, if it says "fragmentation needed" (RFC 1191) of a packet that may be
/// ours. The message has its own IP header before it.
fn quoted_v4(message: &[u8]) -> Option<Ipv4Addr> {
    let header = usize::from(message.first()? & 0x0f) * 4;
    let [kind, code, _, _, _, _, _, _, quoted @ ..] = message.get(header..)? else {
        return None;
    };
    let protocol = *quoted.get(9)?;
    let destination = quoted.get(16..)?.first_chunk::<4>()?;
    let ours = (*kind, *code) == (3, 4) && matches!(protocol, ESP | UDP);
    ours.then(|| Ipv4Addr::from(*destination))
}

/// The same of an ICMPv6 message, "packet too big" (RFC 4443, section 3.2), which comes without its header.
fn quoted_v6(message: &[u8]) -> Option<Ipv6Addr> {
    let [2, _, _, _, _, _, _, _, quoted @ ..] = message else {
        return None;
    };
    let protocol = *quoted.get(6)?;
    let destination = quoted.get(24..)?.first_chunk::<16>()?;
    matches!(protocol, ESP | UDP).then(|| Ipv6Addr::from(*destination))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An IPv4 header with a protocol and a destination, and eight bytes.
    fn packet(protocol: u8, destination: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1,
        ];
        packet.extend(destination);
        packet.extend([0; 8]);
        packet
    }

    #[test]
    fn what_a_router_quotes_is_read() {
        let message = |kind, code, protocol| {
            let mut message = packet(1, [192, 0, 2, 1]);
            message.truncate(20);
            message.extend([kind, code, 0, 0, 0, 0, 5, 70]);
            message.extend(packet(protocol, [203, 0, 113, 9]));
            message
        };
        let peer = Some(Ipv4Addr::new(203, 0, 113, 9));
        assert_eq!(quoted_v4(&message(3, 4, UDP)), peer);
        assert_eq!(quoted_v4(&message(3, 4, ESP)), peer);
        for other in [(3, 3, UDP), (11, 4, ESP), (3, 4, 6)] {
            assert_eq!(quoted_v4(&message(other.0, other.1, other.2)), None);
        }
        let peer: Ipv6Addr = "2001:db8:2::9".parse().unwrap();
        let mut message = vec![2, 0, 0, 0, 0, 0, 5, 70, 0x60, 0, 0, 0, 0, 8, UDP, 64];
        message.extend([0; 16]);
        message.extend(peer.octets());
        assert_eq!(quoted_v6(&message), Some(peer));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_left(message in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _four = quoted_v4(&message);
            let six = quoted_v6(&message);
            prop_assert!(six.is_none() || message.len() >= 48);
        }
    }
}
