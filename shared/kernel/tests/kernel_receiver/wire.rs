//! A device whose other end is the test's: what is written comes in by it, and what it lets pass comes out by another.
#![expect(unsafe_code, reason = "there is no other way to make such a device")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use nix::libc;

use super::run;

/// The link address of the devices.
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

const NO_INFORMATION: libc::c_short = 0x1000;
const TUN: libc::c_short = 1;
const TAP: libc::c_short = 2;

nix::ioctl_write_ptr_bad!(set_interface, 0x4004_54ca, libc::ifreq);

/// Two devices: what passes the filters of the first leaves by the second.
pub(crate) struct Wire {
    device: File,
    out: File,
}

impl Wire {
    /// Makes both in this thread's namespace, as Ethernet or without a header of their own. A name is not to be used
    /// again: another test's child that is about to start a program may hold on to the device for a moment.
    pub(crate) fn new(name: &str, ethernet: bool) -> Self {
        let out = format!("{name}-out");
        let wire = Self {
            device: open(name, ethernet),
            out: open(&out, ethernet),
        };
        for name in [name, &out] {
            std::fs::write(
                format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"),
                "1\n",
            )
            .unwrap();
            if ethernet {
                run(&format!("ip link set {name} address 02:00:00:00:00:01"));
            }
            run(&format!("ip link set {name} mtu 9000 up"));
        }
        run(&format!("nft add table netdev {name}"));
        run(&format!(
            "nft add chain netdev {name} passed {{ type filter hook ingress device {name} priority 0; }}"
        ));
        run(&format!("nft add rule netdev {name} passed fwd to {out}"));
        wire
    }

    /// Lets a packet come in. The kernel itself does not take some.
    pub(crate) fn feed(&mut self, packet: &[u8]) -> bool {
        match self.device.write(packet) {
            Ok(written) => written == packet.len(),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// What has passed.
    pub(crate) fn passed(&mut self) -> Option<Vec<u8>> {
        let mut polled = libc::pollfd {
            fd: self.out.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the kernel writes to one `pollfd`, which outlives the call.
        let ready = unsafe { libc::poll(&raw mut polled, 1, 500) };
        assert!(ready >= 0, "poll");
        if ready == 0 {
            return None;
        }
        let mut packet = vec![0; 1 << 16];
        let length = self.out.read(&mut packet).unwrap();
        packet.truncate(length);
        Some(packet)
    }

    /// What becomes of a packet that comes in.
    pub(crate) fn through(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        assert!(self.feed(packet), "the kernel does not take {packet:x?}");
        self.passed()
    }
}

fn open(name: &str, ethernet: bool) -> File {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let tun = tun.unwrap();
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: NO_INFORMATION | if ethernet { TAP } else { TUN },
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap();
    }
    // SAFETY: the kernel reads one `ifreq`, which is whole and outlives the call.
    unsafe { set_interface(tun.as_raw_fd(), &raw const request) }.unwrap();
    tun
}
