//! Hands a program to the kernel: `bpf(2)`.

#![expect(unsafe_code, reason = "there is no other way to call bpf(2)")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::libc;

use crate::error::Error;

// `linux/bpf.h`.
const PROG_LOAD: libc::c_int = 5;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// None of the functions that the program calls is reserved to programs under the GPL.
const LICENSE: &CStr = c"Apache-2.0";
const NAME: &[u8; 16] = b"drover_esp\0\0\0\0\0\0";

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is left out for zeros.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Loads a program for a filter of packets. The kernel keeps it while somebody holds it: a descriptor, or a
/// filter.
pub(super) fn load(program: &[u8]) -> Result<OwnedFd, Error> {
    let refused = match call(program, &mut []) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    // Once more, for what the verifier says; it says nothing when it is not what has refused.
    let mut log = vec![0; 1 << 16];
    match call(program, &mut log) {
        Ok(file) => Ok(file),
        Err(_again) => {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            Err(Error::Program {
                log: log.to_string_lossy().trim().to_owned(),
                source: refused,
            })
        }
    }
}

fn call(program: &[u8], log: &mut [u8]) -> io::Result<OwnedFd> {
    let invalid = |_error| io::Error::from(io::ErrorKind::InvalidInput);
    let attributes = Load {
        program_type: PROG_TYPE_SCHED_CLS,
        instructions_count: u32::try_from(program.len() / 8).map_err(invalid)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(invalid)?,
        log: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr().expose_provenance() as u64
        },
        kernel_version: 0,
        flags: 0,
        name: *NAME,
    };
    // SAFETY: the kernel reads as much of `attributes` as it is told, which has no padding, and by it `program`
    // and the text of the licence; it writes at most `log_size` bytes to `log`. All of them outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<Load>(),
        )
    };
    let file = RawFd::try_from(answer).map_err(invalid)?;
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}
