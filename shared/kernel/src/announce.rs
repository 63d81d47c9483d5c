//! Tells the neighbours on a bridge that an address has a new link address: a gratuitous ARP request
//! (RFC 5227, section 3) or an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
//!
//! A container that is started again with its address has another link address. Those that talked to
//! the earlier one would send to it for half a minute, and engines before 28 tell them nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use drover_model::MacAddress;
use drover_overlay::Place;
use nix::libc;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::namespace::Namespace;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: [u8; 6] = [0xff; 6];
/// The link address of all nodes' multicast address.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

impl Kernel {
    /// Tells everybody on a bridge that these addresses are at this link address.
    ///
    /// # Errors
    /// When there is no such bridge, or the kernel does not take the frames.
    pub async fn announce(
        &self,
        bridge: &str,
        mac: MacAddress,
        addresses: Vec<IpAddr>,
    ) -> Result<(), Error> {
        let index = self.index(Place::Overlay, bridge).await?;
        let mut frames = addresses.into_iter().map(|it| frame(mac, it));
        let sent = frames.try_for_each(|frame| send_frame(&self.announcer.socket, index, &frame));
        sent.map_err(|source| Error::Request {
            action: format!("announce addresses on {bridge}"),
            source,
        })
    }
}

/// The socket that frames are sent by. It is kept, since the kernel lets go of one only when every
/// processor has done with it, which takes longer than all else that a new container needs.
#[derive(Debug)]
pub(crate) struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens the socket in a namespace.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, Error> {
        let opened = namespace.enter(packet_socket).and_then(|socket| socket);
        let failed = |source| Error::Request {
            action: "open a packet socket".to_owned(),
            source,
        };
        Ok(Self {
            socket: opened.map_err(failed)?,
        })
    }
}

fn frame(mac: MacAddress, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(mac.octets(), address),
        IpAddr::V6(address) => advertisement(mac.octets(), address),
    }
}

fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let header = [BROADCAST.as_slice(), &mac, &ETHERTYPE_ARP.to_be_bytes()];
    // Ethernet, IPv4, their lengths, a request.
    let fixed: [&[u8]; 1] = [&[0, 1, 8, 0, 6, 4, 0, 1]];
    let address = address.octets();
    let body: [&[u8]; 4] = [&mac, &address, &[0; 6], &address];
    [header.as_slice(), &fixed, &body].concat().concat()
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let message = |checksum: u16| {
        // Type, code, checksum, "override", the target, and the target's link address.
        let parts: [&[u8]; 6] = [
            &[136, 0],
            &checksum.to_be_bytes(),
            &[0x20, 0, 0, 0],
            &address.octets(),
            &[2, 1],
            &mac,
        ];
        parts.concat()
    };
    let checksum = checksum(address, ALL_NODES, &message(0));
    let message = message(checksum);
    let length = u16::try_from(message.len())
        .unwrap_or_default()
        .to_be_bytes();
    let parts: [&[u8]; 8] = [
        &ALL_NODES_MAC,
        &mac,
        &ETHERTYPE_IPV6.to_be_bytes(),
        &[0x60, 0, 0, 0],
        &length,
        // A hop limit of 255 shows that no router has passed it on.
        &[ICMPV6, 255],
        &[address.octets(), ALL_NODES.octets()].concat(),
        &message,
    ];
    parts.concat()
}

/// The checksum of ICMPv6 (RFC 4443, section 2.3).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len())
        .unwrap_or_default()
        .to_be_bytes();
    let pseudo: [&[u8]; 5] = [
        &source.octets(),
        &destination.octets(),
        &length,
        &[0, 0, 0, ICMPV6],
        message,
    ];
    let words = pseudo.concat();
    let sum: u32 = words
        .chunks(2)
        .map(|pair| {
            pair.iter()
                .fold(0_u32, |word, byte| (word << 8) | u32::from(*byte))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[expect(
    unsafe_code,
    reason = "nix makes no socket of the packet family with protocol 0"
)]
fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(
    unsafe_code,
    reason = "nix has no way to make a link-layer socket address"
)]
fn send_frame(socket: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // SAFETY: all-zero bytes are a value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(wrong)?;
    address.sll_ifindex = i32::try_from(index).map_err(wrong)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(wrong)?;
    let to: *const libc::sockaddr_ll = &raw const address;
    // SAFETY: the frame and the address outlive the call, and the lengths are theirs.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            to.cast(),
            length,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_request_is_laid_out_as_written_down() {
        let mac = [2, 0x42, 0x0a, 0x2a, 1, 5];
        let frame = arp(mac, Ipv4Addr::new(10, 42, 1, 5));
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[..6], &[0xff; 6]);
        assert_eq!(&frame[12..22], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(&frame[22..28], &mac);
        assert_eq!(&frame[28..32], &frame[38..42]);
    }

    #[test]
    fn an_advertisement_has_the_checksum_that_a_receiver_expects() {
        let address: Ipv6Addr = "fd00:42::1:5".parse().unwrap();
        let frame = advertisement([2, 0x42, 0x0a, 0x2a, 1, 5], address);
        assert_eq!(frame.len(), 14 + 40 + 32);
        // Over a message that has its checksum, the sum is all ones.
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
    }
}
