//! What nix and tokio do not do safely with sockets: some options, and waiting for one that nobody else has.

#![expect(
    unsafe_code,
    reason = "setsockopt(2) with options of our own, and a promise to tokio"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};
use tokio::io::unix::AsyncFd;

// `linux/icmp.h` and `linux/icmpv6.h`: both filters name the types that are not wanted, a bit each.
const ICMP_FILTER: c_int = 1;
const ICMPV6_FILTER: c_int = 1;
const DESTINATION_UNREACHABLE: u32 = 3;
const PACKET_TOO_BIG: u32 = 2;

/// From now on, packets of an IPv4 socket must not be cut by anybody, and may be as large as the device takes, whatever
/// the kernel has learned of the path (`IP_PMTUDISC_PROBE`, ip(7)).
pub(crate) fn send_whole(socket: &OwnedFd) -> io::Result<()> {
    let value = libc::IP_PMTUDISC_PROBE;
    set(socket, (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), &value)
}

/// From now on, a raw socket of ICMP gets nothing but "destination unreachable" (raw(7)).
pub(crate) fn only_unreachable(socket: &OwnedFd) -> io::Result<()> {
    let unwanted: u32 = !(1 << DESTINATION_UNREACHABLE);
    set(socket, (libc::SOL_RAW, ICMP_FILTER), &unwanted)
}

/// From now on, a raw socket of ICMPv6 gets nothing but "packet too big" (RFC 3542, section 3.2).
pub(crate) fn only_too_big(socket: &OwnedFd) -> io::Result<()> {
    let mut unwanted = [u32::MAX; 8];
    if let Some(first) = unwanted.first_mut() {
        *first = !(1 << PACKET_TOO_BIG);
    }
    set(socket, (libc::IPPROTO_ICMPV6, ICMPV6_FILTER), &unwanted)
}

/// Has the runtime wait for a socket.
pub(crate) fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what is handed over owns the descriptor, which stays open and the same until it is dropped.
    let watched = unsafe { AsyncFd::register(socket) };
    Ok(watched?)
}

fn set<T: Copy>(socket: &OwnedFd, (level, option): (c_int, c_int), value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value: *const T = value;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `length` bytes of the value, which
    // is borrowed until the call is over. Values here are plain integers, which have no padding.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), length) };
    Errno::result(done)?;
    Ok(())
}
