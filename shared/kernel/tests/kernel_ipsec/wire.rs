//! The wire between the hosts: this process, which carries each frame from one device to the other and looks at it.
//!
//! A packet socket would not do: what it is given may share memory with the packet, which ESP decrypts in place.
#![expect(unsafe_code, reason = "there is no other way to make such a device")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::libc;

/// What containers say to each other, over and over.
pub(crate) const MARKER: &[u8; 16] = b"tell nobody this";

const NO_INFORMATION: libc::c_short = 0x1000;
const TAP: libc::c_short = 2;

nix::ioctl_write_ptr_bad!(set_interface, 0x4004_54ca, libc::ifreq);

/// The same for `ping -p`.
pub(crate) fn pattern() -> String {
    MARKER.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What has travelled.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// ESP.
    pub(crate) bare: usize,
    /// ESP in UDP.
    pub(crate) in_udp: usize,
    /// Of these, those over IPv4 that have a checksum, which none has (RFC 3948).
    pub(crate) summed: usize,
    /// Packets with the marker in them.
    pub(crate) clear: usize,
    /// Fragments.
    pub(crate) fragments: usize,
    /// The length of the longest packet.
    pub(crate) longest: usize,
}

/// The wire.
pub(crate) struct Wire {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Makes the device `eth0` in the namespace of the calling thread.
pub(crate) fn device() -> File {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let tun = tun.unwrap();
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: NO_INFORMATION | TAP,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip("eth0".bytes()) {
        *to = libc::c_char::try_from(from).unwrap();
    }
    // SAFETY: the kernel reads one `ifreq`, which is whole and outlives the call.
    unsafe { set_interface(tun.as_raw_fd(), &raw const request) }.unwrap();
    tun
}

impl Wire {
    /// Carries frames between two devices until it is dropped. `ports` are those of ESP in UDP.
    pub(crate) fn between(mut ends: [File; 2], ports: Vec<u16>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (seeing, stopped) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::SeqCst) {
                for from in ready(&ends) {
                    let length = ends[from].read(&mut buffer).unwrap();
                    let frame = &buffer[..length];
                    seeing.lock().unwrap().add(frame, &ports);
                    // A device that is down takes none, as any wire.
                    drop(ends[1 - from].write(frame));
                }
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// What has travelled since it was asked last.
    pub(crate) fn seen(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Which of two devices has a frame, within a tenth of a second.
fn ready(ends: &[File; 2]) -> impl Iterator<Item = usize> + use<> {
    let mut polled = [0, 1].map(|at: usize| libc::pollfd {
        fd: ends[at].as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the kernel writes to two `pollfd`s, which outlive the call.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), 2, 100) };
    assert!(count >= 0, "poll");
    (0..2).filter(move |at| polled[*at].revents & libc::POLLIN != 0)
}

impl Seen {
    fn add(&mut self, frame: &[u8], ports: &[u16]) {
        if frame.windows(MARKER.len()).any(|it| it == MARKER) {
            self.clear += 1;
        }
        let (protocol, fragment, payload) = match frame.get(12..14) {
            Some([0x08, 0x00]) => (
                frame[23],
                frame[20] & 0x3f != 0 || frame[21] != 0,
                &frame[34..],
            ),
            Some([0x86, 0xdd]) => (frame[20], frame[20] == 44, &frame[54..]),
            _ => return,
        };
        self.longest = self.longest.max(frame.len() - 14);
        self.fragments += usize::from(fragment);
        let port = payload
            .get(2..4)
            .map(|port| u16::from_be_bytes([port[0], port[1]]));
        match protocol {
            50 => self.bare += 1,
            17 if port.is_some_and(|port| ports.contains(&port)) => {
                self.in_udp += 1;
                let four = frame.get(12) == Some(&0x08);
                let none = payload.get(6..8) == Some(&[0, 0]);
                self.summed += usize::from(four && !none);
            }
            _ => {}
        }
    }
}
