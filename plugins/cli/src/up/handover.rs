//! Handing a listener to a child, by the protocol of systemd (sd_listen_fds(3)): descriptor 3,
//! `LISTEN_FDS` and `LISTEN_FDNAMES`. `LISTEN_PID` is left out, since only the child knows it.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixListener;

use nix::libc;
use tokio::process::Command;

/// Where the protocol puts the first descriptor.
const FIRST: RawFd = 3;

/// Has the child of `command` find `listener` under `name`. The listener must live until the child is
/// spawned.
pub(crate) fn hand_over(command: &mut Command, listener: &UnixListener, name: &str) {
    let descriptor = listener.as_raw_fd();
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", name)
        .env_remove("LISTEN_PID");
    let place = move || put_in_place(descriptor);
    #[expect(
        unsafe_code,
        reason = "a descriptor gets its number between fork and exec"
    )]
    // SAFETY: the closure runs in the child after fork. It makes two system calls that are
    // async-signal-safe, allocates nothing, takes no lock and touches no memory of the parent.
    unsafe {
        command.pre_exec(place);
    }
}

/// Makes `descriptor` the first one and has it survive exec.
///
/// Descriptor 3 of this process is taken (the runtime opens its own before any listener is
/// bound), so what is replaced in the child is never the pipe that reports a failed exec.
fn put_in_place(descriptor: RawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "dup2 onto a fixed number has no safe form")]
    // SAFETY: both calls take numbers only; `descriptor` is open, and 3 belongs to nobody in the child.
    let failed = unsafe {
        if descriptor == FIRST {
            libc::fcntl(FIRST, libc::F_SETFD, 0) < 0
        } else {
            libc::dup2(descriptor, FIRST) < 0
        }
    };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
