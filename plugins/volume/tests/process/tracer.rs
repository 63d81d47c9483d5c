//! Kills a process right before one of the calls by which it changes something (ptrace(2)). The calls are counted over all of its
//! threads, so each of them can be met, one run after the other.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Calls that change files, mounts, or what is mounted; and what is sent.
const CHANGES: &[(libc::c_long, &str)] = &[
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_writev, "writev"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, "chown"),
];

/// The type of ioctls of btrfs, and those of them that change something (`linux/btrfs.h`): subvolumes and snapshots that are made,
/// removed or marked, quotas.
const BTRFS: u64 = 0x94;
const BTRFS_CHANGES: &[u64] = &[1, 14, 15, 23, 24, 26, 40, 41, 42, 43, 63];

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;

/// `struct ptrace_syscall_info`, as it is at the entry of a call.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    kind: u8,
    padding: [u8; 3],
    architecture: u32,
    instruction: u64,
    stack: u64,
    number: u64,
    arguments: [u64; 6],
}

/// `PTRACE_SYSCALL_INFO_ENTRY`.
const ENTRY: u8 = 1;

/// A process that is being followed.
pub(crate) struct Tracer(JoinHandle<Option<&'static str>>);

impl Tracer {
    /// Follows a process from now on, and kills it before its change of that number, counted from 1.
    pub(crate) fn kill_before(process: u32, number: usize) -> Self {
        let process = Pid::from_raw(process.try_into().unwrap());
        let (attached, wait) = mpsc::channel();
        // Whoever attaches is the one who has to wait.
        let thread = std::thread::spawn(move || {
            attach(process);
            attached.send(()).unwrap();
            follow(process, number)
        });
        wait.recv().unwrap();
        Self(thread)
    }

    /// Waits for the end of the process: which call it was killed before, if it was.
    pub(crate) fn ended(self) -> Option<&'static str> {
        self.0.join().unwrap()
    }
}

fn request(what: libc::c_uint, thread: Pid, address: usize, data: usize) -> nix::Result<()> {
    #[expect(
        unsafe_code,
        reason = "nix has ptrace only with a feature that nothing else needs"
    )]
    // SAFETY: of the requests made here two write to memory, where `data` points to: one to a `SyscallInfo`, and not more than the
    // size of it, which is in `address`; the other to 27 registers.
    let done = unsafe { libc::ptrace(what, thread.as_raw(), address, data) };
    Errno::result(done).map(drop)
}

/// Takes hold of every thread; those that are begun later follow by themselves.
fn attach(process: Pid) {
    let mut held = Vec::new();
    loop {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let threads = tasks
            .flatten()
            .filter_map(|it| it.file_name().to_str()?.parse().ok());
        let new: Vec<i32> = threads.filter(|it| !held.contains(it)).collect();
        if new.is_empty() {
            return;
        }
        for id in new {
            held.push(id);
            let thread = Pid::from_raw(id);
            let options = usize::try_from(OPTIONS).unwrap();
            // One that was begun by a thread that is held is held already.
            if request(libc::PTRACE_SEIZE, thread, 0, options).is_ok() {
                request(libc::PTRACE_INTERRUPT, thread, 0, 0).unwrap();
            }
        }
    }
}

fn follow(process: Pid, number: usize) -> Option<&'static str> {
    let (mut seen, mut begun) = (0, BTreeSet::new());
    let mut killed_before = None;
    loop {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let (thread, signal) = match waitpid(None, Some(flags)) {
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                if let Some(name) = change(thread, &mut begun) {
                    seen += 1;
                    if seen == number {
                        kill(process, Signal::SIGKILL).unwrap();
                        killed_before = Some(name);
                    }
                }
                (thread, 0)
            }
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, 0),
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, signal as i32),
            Ok(_ended) => continue,
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => return killed_before,
            Err(errno) => panic!("{errno}"),
        };
        match request(libc::PTRACE_SYSCALL, thread, 0, signal.try_into().unwrap()) {
            // It may have been killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// The change that a thread is about to make. `begun` has the threads that are in a call.
fn change(thread: Pid, begun: &mut BTreeSet<Pid>) -> Option<&'static str> {
    let mut info = SyscallInfo::default();
    let place = (&raw mut info).expose_provenance();
    let size = size_of::<SyscallInfo>();
    let [number, first, second, third] =
        match request(libc::PTRACE_GET_SYSCALL_INFO, thread, size, place) {
            Ok(()) if info.kind == ENTRY => {
                let [first, second, third, ..] = info.arguments;
                [info.number, first, second, third]
            }
            Ok(()) => return None,
            Err(_) => by_registers(thread, begun)?,
        };
    let number = libc::c_long::try_from(number).ok()?;
    if number == libc::SYS_ioctl {
        let (kind, which) = ((second >> 8) & 0xff, second & 0xff);
        return (kind == BTRFS && BTRFS_CHANGES.contains(&which)).then_some("ioctl");
    }
    if number == libc::SYS_write {
        // Neither the log nor what threads wake each other with.
        return (first > 2 && third > 8).then_some("write");
    }
    let found = CHANGES.iter().find(|(known, _)| *known == number);
    found.map(|(_, name)| *name)
}

/// The number of a call that begins and three of its arguments, where the kernel tells nothing else, as one in user mode.
#[cfg(target_arch = "x86_64")]
fn by_registers(thread: Pid, begun: &mut BTreeSet<Pid>) -> Option<[u64; 4]> {
    // A thread stops at the entry of a call and at its exit.
    if begun.remove(&thread) {
        return None;
    }
    begun.insert(thread);
    // `struct user_regs_struct`.
    let mut registers = [0_u64; 27];
    let place = registers.as_mut_ptr().expose_provenance();
    request(libc::PTRACE_GETREGS, thread, 0, place).ok()?;
    let [.., third, second, first, number] = registers.first_chunk::<16>()?;
    Some([*number, *first, *second, *third])
}

#[cfg(not(target_arch = "x86_64"))]
fn by_registers(_thread: Pid, _begun: &mut BTreeSet<Pid>) -> Option<[u64; 4]> {
    None
}
