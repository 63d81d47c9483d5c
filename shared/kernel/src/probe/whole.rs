//! Sockets whose packets are never cut.

#![expect(unsafe_code, reason = "nix does not know this option")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// From now on, packets of an IPv4 socket must not be cut by anybody, and may be as large as the device takes, whatever
/// the kernel has learned of the path (`IP_PMTUDISC_PROBE`, ip(7)).
pub(super) fn send_whole(socket: &OwnedFd) -> io::Result<()> {
    let value: libc::c_int = libc::IP_PMTUDISC_PROBE;
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `length` bytes of `value`, which
    // lives until the call is over.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(done)?;
    Ok(())
}
