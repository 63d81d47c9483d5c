//! Packets, and what ought to become of them: an independent statement of what the receiver does.

use std::net::IpAddr;

/// How long an Ethernet header is.
pub(crate) const ETHERNET: usize = 14;

/// An IP packet with a UDP datagram.
pub(crate) fn udp(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap();
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 64, 17, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let checksum = !sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([17, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("two families"),
    };
    for field in [40000, port, length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

/// The same in an Ethernet frame for this host.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = super::wire::OWN.to_vec();
    frame.extend([2, 0, 0, 0, 0, 2]);
    frame.extend(if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [0x08, 0x00]
    });
    frame.extend(packet);
    frame
}

/// The sum of an Internet checksum.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// What the receiver makes of an IP packet; `None` when it is to leave it as it is.
pub(crate) fn received(packet: &[u8], to: IpAddr, first_port: u16) -> Option<Vec<u8>> {
    let (header, protocol, length, own) = match to {
        IpAddr::V4(to) => {
            let whole = usize::from(number(packet, 2)?);
            let plain = packet[0] == 0x45 && number(packet, 6)? & !0x4000 == 0;
            if !plain || packet.get(16..20)? != to.octets() {
                return None;
            }
            (20, 9, 2, whole)
        }
        IpAddr::V6(to) => {
            let whole = usize::from(number(packet, 4)?) + 40;
            if packet[0] >> 4 != 6 || packet.get(24..40)? != to.octets() {
                return None;
            }
            (40, 6, 4, whole)
        }
    };
    let datagram = packet.get(header..own)?;
    let port = number(datagram, 2)?;
    let ports = u32::from(first_port)..u32::from(first_port) + 8;
    let right = packet[protocol] == 17
        && ports.contains(&u32::from(port))
        && usize::from(number(datagram, 4)?) == datagram.len()
        && datagram.len() >= 16
        && datagram[8] >> 4 == 6;
    if !right {
        return None;
    }
    let mut bare = [&packet[..header], &packet[header + 8..]].concat();
    bare[protocol] = 50;
    let shorter = number(packet, length)? - 8;
    bare[length..length + 2].copy_from_slice(&shorter.to_be_bytes());
    if to.is_ipv4() {
        // Wrong before by as much as after.
        let (mut old, mut new) = (packet[..20].to_vec(), bare[..20].to_vec());
        let checksum = old[10..12].to_vec();
        for header in [&mut old, &mut new] {
            header[10..12].fill(0);
        }
        let error = [sum(&old).to_be_bytes().to_vec(), checksum].concat();
        let (wanted, rest) = (u32::from(sum(&error)), u32::from(sum(&new)));
        let checksum = u16::try_from((wanted + 0xffff - rest) % 0xffff).unwrap();
        bare[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    Some(bare)
}
