//! Somebody on the underlay who keeps packets of others, changes them, and sends them again.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::network::Namespace;

/// Where ESP begins in an IPv4 packet that has it in UDP: behind both headers.
const ESP: usize = 28;
/// What libpcap writes before the first packet of a file, and before each packet (pcap-savefile(5)).
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const ETHERNET: usize = 14;

/// An IPv4 packet with ESP in UDP.
#[derive(Debug, Clone)]
pub struct EspPacket(Vec<u8>);

impl EspPacket {
    /// Those of a capture that went from an address to another, the oldest first.
    ///
    /// # Errors
    /// Fails when the file is not a capture of this machine's byte order.
    pub fn read(file: &Path, from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<Self>> {
        let bytes = std::fs::read(file)?;
        let magic = bytes.get(..4).context("the capture is empty")?;
        ensure!(
            magic == 0xa1b2_c3d4_u32.to_ne_bytes(),
            "the capture has another form: {magic:x?}"
        );
        let mut rest = bytes.get(FILE_HEADER..).unwrap_or_default();
        let mut packets = Vec::new();
        while let Some((header, following)) = rest.split_at_checked(PACKET_HEADER) {
            let length = header.get(8..12).and_then(<[u8]>::first_chunk);
            let length = usize::try_from(u32::from_ne_bytes(*length.context("no length")?))?;
            // The last one may not have been written to its end.
            let Some((frame, following)) = following.split_at_checked(length) else {
                break;
            };
            let packet = Self(frame.get(ETHERNET..).unwrap_or_default().to_vec());
            if packet.is_esp(from, to) {
                packets.push(packet);
            }
            rest = following;
        }
        Ok(packets)
    }

    fn is_esp(&self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        let at = |place: usize| self.0.get(place..).unwrap_or_default();
        let is_in_udp = at(0).first() == Some(&0x45) && at(9).first() == Some(&17);
        is_in_udp
            && at(12).starts_with(&from.octets())
            && at(16).starts_with(&to.octets())
            && at(22)
                .first_chunk()
                .is_some_and(|port| (4740..4748).contains(&u16::from_be_bytes(*port)))
    }

    /// The same with another number, so that it was not seen before, and with what is encrypted in it as it was.
    #[must_use]
    pub fn with_number_later(mut self, by: u32) -> Self {
        self.change(ESP + 4, |number| number.wrapping_add(by));
        self
    }

    /// The same by an association that nobody has.
    #[must_use]
    pub fn with_unknown_index(mut self) -> Self {
        self.change(ESP, |index| index ^ 0x0055_5555);
        self
    }

    fn change(&mut self, place: usize, change: impl Fn(u32) -> u32) {
        if let Some(word) = self.0.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
            *word = change(u32::from_be_bytes(*word)).to_be_bytes();
        }
        // 0 is a UDP checksum that nobody looks at (RFC 768), as ESP in UDP has it (RFC 3948).
        if let Some(checksum) = self.0.get_mut(26..28) {
            checksum.fill(0);
        }
    }

    fn destination(&self) -> Result<Ipv4Addr> {
        let octets = self.0.get(16..).and_then(<[u8]>::first_chunk::<4>);
        Ok(Ipv4Addr::from(
            *octets.context("a packet without a header")?,
        ))
    }
}

impl Namespace {
    /// Sends packets from here as they are, whoever they say that they come from.
    ///
    /// # Errors
    /// Fails when there is no way to where they go.
    pub fn inject(&self, packets: &[EspPacket]) -> Result<()> {
        let file = File::open(format!("/proc/{}/ns/net", self.pid()))?;
        // Only this thread enters, and it ends.
        let sent = std::thread::scope(|scope| {
            let sending = scope.spawn(|| -> Result<()> {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                let socket = socket(
                    AddressFamily::Inet,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    SockProtocol::Raw,
                )?;
                for packet in packets {
                    let to = SockaddrIn::from(SocketAddrV4::new(packet.destination()?, 0));
                    let flags = MsgFlags::empty();
                    sendto(socket.as_raw_fd(), &packet.0, &to, flags)?;
                }
                Ok(())
            });
            sending.join()
        });
        sent.map_err(|_panic| anyhow::anyhow!("the sending thread ended"))?
    }
}
