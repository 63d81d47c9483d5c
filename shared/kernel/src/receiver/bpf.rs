//! Hands a program to the kernel, and makes and reads the map it writes to: `bpf(2)`.

#![expect(unsafe_code, reason = "there is no other way to call bpf(2)")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

use crate::error::Error;

// `linux/bpf.h`.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const PROG_LOAD: libc::c_int = 5;
const MAP_TYPE_LRU_HASH: u32 = 9;
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

/// The head of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for what is done with an element.
#[repr(C)]
struct Access {
    map: u32,
    padding: u32,
    key: u64,
    /// The value, or the next key.
    answer: u64,
    flags: u64,
}

/// A map whose keys are SPIs, as they lie in packets. When it is full, what was not used for longest goes.
#[derive(Debug)]
pub(super) struct Map {
    file: OwnedFd,
    value_size: u8,
}

impl Map {
    /// Makes a map.
    pub(super) fn create(value_size: u8, entries: u32) -> io::Result<Self> {
        allow_memory();
        let attributes = Create {
            map_type: MAP_TYPE_LRU_HASH,
            key_size: 4,
            value_size: value_size.into(),
            max_entries: entries,
            flags: 0,
            inner: 0,
            node: 0,
            name: *NAME,
        };
        // SAFETY: the kernel reads as much of `attributes` as it is told, which has no padding.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                MAP_CREATE,
                &raw const attributes,
                size_of::<Create>(),
            )
        };
        let file = descriptor(answer)?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        Ok(Self { file, value_size })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The key after another one, or the first; `None` after the last.
    pub(super) fn next(&self, key: Option<[u8; 4]>) -> io::Result<Option<[u8; 4]>> {
        let mut next = [0; 4];
        let found = self.access(MAP_GET_NEXT_KEY, key.as_ref(), &mut next)?;
        Ok(found.then_some(next))
    }

    /// The value of a key.
    pub(super) fn value(&self, key: [u8; 4]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_size.into()];
        let found = self.access(MAP_LOOKUP_ELEM, Some(&key), &mut value)?;
        Ok(found.then_some(value))
    }

    /// `answer` has room for a key or a value, as the command asks for.
    fn access(
        &self,
        command: libc::c_int,
        key: Option<&[u8; 4]>,
        answer: &mut [u8],
    ) -> io::Result<bool> {
        let attributes = Access {
            map: self.file.as_raw_fd().unsigned_abs(),
            padding: 0,
            key: key.map_or(0, |key| key.as_ptr().expose_provenance() as u64),
            answer: answer.as_mut_ptr().expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads `attributes`, which has no padding, and the four bytes of the key; it writes as many bytes
        // to `answer` as the map's keys or values have, which is what both callers give.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                &raw const attributes,
                size_of::<Access>(),
            )
        };
        if done == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOENT) {
            Ok(false)
        } else {
            Err(error)
        }
    }
}

/// Before Linux 5.11 maps count as locked memory, of which a service may have very little. Where it may not be raised,
/// making the map says so.
fn allow_memory() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the kernel reads `limit`, which outlives the call.
    let _raised = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

fn descriptor(answer: libc::c_long) -> io::Result<RawFd> {
    let file =
        RawFd::try_from(answer).map_err(|_error| io::Error::from(io::ErrorKind::InvalidInput))?;
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
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
    let file = descriptor(answer)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}
