//! The program: turns our ESP in UDP into bare ESP, and lets everything else go on as it came.
//!
//! It runs for every packet that comes in by the underlay device, before the host's own stack. It changes
//! a packet only when all of it is as expected: for this host and its address, with no other VLAN's tag,
//! IPv4 without options and unfragmented or IPv6 without extension headers, lengths that agree, a port of ours,
//! and an SPI that begins as ours do ([`drover_ipsec::Spi`]).
//!
//! Where a packet with an SPI came from it notes in a map ([`super::sources`]), before anybody knows whether the packet is
//! genuine. A packet that came to a further address of this host is turned to its first one, which associations have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::assembler::{
    Function, Line, Register, When, Width, add, add_register, and, assemble, call, copy, exit,
    jump_if, jump_if_null, jump_if_register, load, load_map, network_order, set, shift_right,
    store, store_value, xor,
};
use super::layout::{ESP_HEADER, Layout, UDP_HEADER};
use Register::{Frame, R0, R1, R2, R3, R4, R5, R6, R7};
use Width::{Byte, Half, Word};

/// How many ports there are: one for each lane.
pub(super) const PORTS: u16 = 8;

/// The packet goes on to other filters, and then to the host's stack (`TC_ACT_UNSPEC`).
const GO_ON: i32 = -1;
/// The packet is dropped (`TC_ACT_SHOT`).
const DROP: i32 = 2;

const UDP: i32 = 17;
const ESP: i32 = 50;
/// The first four bits of our SPIs, and where they are in the first byte.
const SPI_MARK: i32 = 0x60;
const SPI_MASK: i32 = 0xf0;

/// Fields of `struct __sk_buff`.
mod context {
    pub(super) const LENGTH: i16 = 0;
    pub(super) const PACKET_TYPE: i16 = 4;
    pub(super) const PROTOCOL: i16 = 16;
    pub(super) const VLAN_PRESENT: i16 = 20;
    pub(super) const VLAN_TAG: i16 = 24;
}

/// `bpf_skb_adjust_room`: right after the IP header.
const ROOM_AFTER_IP: i32 = 0;
/// `bpf_skb_store_bytes`: keeps a checksum of the whole packet right, if the device has made one.
const KEEP_CHECKSUM: i32 = 1;
/// `PACKET_HOST`: for this host.
const FOR_THIS_HOST: i32 = 0;

/// What comes before the IP header on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// Nothing.
    Bare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Untagged,
    /// The address is not this one of ours.
    NotThis(usize),
    ForUs,
    Note,
    Noted,
    GoOn,
    Drop,
}

/// What a program is for.
pub(super) struct Purpose<'a> {
    pub(super) framing: Framing,
    /// The address that packets have when they go on.
    pub(super) address: IpAddr,
    /// Others of its family that they may have come to.
    pub(super) further: &'a BTreeSet<IpAddr>,
    /// The first of the ports.
    pub(super) first_port: u16,
    /// The descriptor of the map that sources are noted in.
    pub(super) map: i32,
}

/// The program for packets to an address, and to ports from the first on.
pub(super) fn program(purpose: &Purpose<'_>) -> Option<Vec<u8>> {
    let address = purpose.address;
    let layout = Layout::of(address);
    let offset: i16 = match purpose.framing {
        Framing::Ethernet => 14,
        Framing::Bare => 0,
    };
    let further = purpose.further.iter().copied();
    let further = further.filter(|it| it.is_ipv6() == address.is_ipv6() && *it != address);
    let addresses: Vec<_> = [address].into_iter().chain(further).collect();
    let mut lines = look(&layout, offset);
    lines.extend(is_for(&layout, address, purpose.first_port));
    lines.extend(is_at(&layout, &addresses));
    lines.extend(is_whole(&layout, offset));
    lines.extend(note(&layout, purpose.map));
    lines.extend(strip(&layout));
    let turned = (addresses.len() > 1).then(|| octets(address));
    lines.extend(match address {
        IpAddr::V4(_) => rewrite_v4(&layout, offset, turned.as_deref()),
        IpAddr::V6(_) => rewrite_v6(&layout, offset, turned.as_deref()),
    });
    lines.extend([
        Line::Place(Place::GoOn),
        set(R0, GO_ON),
        exit(),
        // It is neither what it was nor what it should be.
        Line::Place(Place::Drop),
        set(R0, DROP),
        exit(),
    ]);
    assemble(&lines)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Lays the headers on the stack. From here on, R6 is the context.
fn look(layout: &Layout, offset: i16) -> Vec<Line<Place>> {
    vec![
        copy(R6, R1),
        load(Word, R0, R6, context::PROTOCOL),
        jump_if(
            R0,
            When::Different,
            i32::from(layout.ether_type.to_be()),
            Place::GoOn,
        ),
        load(Word, R0, R6, context::PACKET_TYPE),
        jump_if(R0, When::Different, FOR_THIS_HOST, Place::GoOn),
        load(Word, R0, R6, context::VLAN_PRESENT),
        jump_if(R0, When::Equal, 0, Place::Untagged),
        load(Word, R0, R6, context::VLAN_TAG),
        // Tag 0 says no more than a priority.
        and(R0, 0x0fff),
        jump_if(R0, When::Different, 0, Place::GoOn),
        Line::Place(Place::Untagged),
        copy(R1, R6),
        set(R2, offset.into()),
        copy(R3, Frame),
        add(R3, layout.on_stack(0).into()),
        set(R4, layout.looked_at().into()),
        call(Function::LoadBytes),
        jump_if(R0, When::Different, 0, Place::GoOn),
    ]
}

/// Goes on to what is right if the packet is UDP for our address and ports, with an SPI of ours.
fn is_for(layout: &Layout, address: IpAddr, first_port: u16) -> Vec<Line<Place>> {
    let field = |field| layout.on_stack(field);
    let mut lines = vec![
        load(Byte, R0, Frame, field(layout.protocol)),
        jump_if(R0, When::Different, UDP, Place::GoOn),
        load(Half, R0, Frame, field(layout.header + 2)),
        network_order(R0),
        add(R0, -i32::from(first_port)),
        jump_if(R0, When::Greater, i32::from(PORTS) - 1, Place::GoOn),
        load(Byte, R0, Frame, field(layout.header + UDP_HEADER)),
        and(R0, SPI_MASK),
        jump_if(R0, When::Different, SPI_MARK, Place::GoOn),
        load(Byte, R0, Frame, field(0)),
    ];
    match address {
        IpAddr::V4(_) => lines.extend([
            jump_if(R0, When::Different, 0x45, Place::GoOn),
            load(Half, R0, Frame, field(6)),
            network_order(R0),
            // Of the flags and the offset, only "don't fragment" may be set.
            and(R0, 0xbfff),
            jump_if(R0, When::Different, 0, Place::GoOn),
        ]),
        IpAddr::V6(_) => lines.extend([
            and(R0, 0xf0),
            jump_if(R0, When::Different, 0x60, Place::GoOn),
        ]),
    }
    lines
}

/// Goes on to what is right if the packet is to one of the addresses.
fn is_at(layout: &Layout, addresses: &[IpAddr]) -> Vec<Line<Place>> {
    let mut lines = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let last = number + 1 == addresses.len();
        let otherwise = if last {
            Place::GoOn
        } else {
            Place::NotThis(number)
        };
        let octets = octets(*address);
        let (words, _none) = octets.as_chunks();
        for (word, at) in words.iter().zip((layout.destination..).step_by(4)) {
            lines.extend([
                load(Word, R0, Frame, layout.on_stack(at)),
                jump_if(R0, When::Different, i32::from_ne_bytes(*word), otherwise),
            ]);
        }
        if !last {
            lines.extend(go_to(Place::ForUs));
            lines.push(Line::Place(otherwise));
        }
    }
    lines.push(Line::Place(Place::ForUs));
    lines
}

fn go_to(place: Place) -> [Line<Place>; 2] {
    [set(R0, 0), jump_if(R0, When::Equal, 0, place)]
}

/// Notes where packets with this SPI come from and are sent to, if it is not noted already: most packets only look.
fn note(layout: &Layout, map: i32) -> Vec<Line<Place>> {
    let (key, value) = (layout.noted_key(), layout.noted());
    let (length, ports) = (2 * layout.address, layout.header);
    let mut lines = vec![
        load(Word, R0, Frame, layout.on_stack(ports + UDP_HEADER)),
        store(Word, Frame, key, R0),
    ];
    // Both addresses lie one behind the other in every header.
    for at in (0..length).step_by(4) {
        lines.extend([
            load(Word, R0, Frame, layout.on_stack(layout.source + at)),
            store(Word, Frame, value + at, R0),
        ]);
    }
    lines.extend([
        load(Half, R0, Frame, layout.on_stack(ports)),
        store(Half, Frame, value + length, R0),
        store_value(Half, Frame, value + length + 2, 0),
    ]);
    lines.extend(load_map(R1, map));
    lines.extend([
        copy(R2, Frame),
        add(R2, key.into()),
        call(Function::LookUp),
        jump_if_null(R0, Place::Note),
    ]);
    for at in (0..length + 4).step_by(4) {
        lines.extend([
            load(Word, R1, R0, at),
            load(Word, R2, Frame, value + at),
            jump_if_register(R1, When::Different, R2, Place::Note),
        ]);
    }
    lines.extend(go_to(Place::Noted));
    lines.push(Line::Place(Place::Note));
    lines.extend(load_map(R1, map));
    lines.extend([
        copy(R2, Frame),
        add(R2, key.into()),
        copy(R3, Frame),
        add(R3, value.into()),
        set(R4, 0),
        call(Function::Update),
        Line::Place(Place::Noted),
    ]);
    lines
}

/// How many bytes are noted for an SPI.
pub(super) const fn noted_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 12,
        IpAddr::V6(_) => 36,
    }
}

/// Goes on to what is right if the lengths agree. From here on, R7 is what the IP header says.
fn is_whole(layout: &Layout, offset: i16) -> Vec<Line<Place>> {
    let least = layout.counted + UDP_HEADER + ESP_HEADER;
    let uncounted = offset + layout.header - layout.counted;
    vec![
        load(Half, R7, Frame, layout.on_stack(layout.length)),
        network_order(R7),
        jump_if(R7, When::Less, least.into(), Place::GoOn),
        load(Half, R0, Frame, layout.on_stack(layout.header + 4)),
        network_order(R0),
        add(R0, layout.counted.into()),
        jump_if_register(R0, When::Different, R7, Place::GoOn),
        load(Word, R0, R6, context::LENGTH),
        add(R0, -i32::from(uncounted)),
        jump_if_register(R0, When::Less, R7, Place::GoOn),
    ]
}

/// Takes the UDP header out. The kernel refuses without having changed anything.
fn strip(layout: &Layout) -> Vec<Line<Place>> {
    vec![
        copy(R1, R6),
        set(R2, -i32::from(UDP_HEADER)),
        set(R3, ROOM_AFTER_IP),
        set(R4, 0),
        call(Function::AdjustRoom),
        jump_if(R0, When::Different, 0, Place::GoOn),
        add(R7, -i32::from(UDP_HEADER)),
        network_order(R7),
        store(Half, Frame, layout.on_stack(layout.length), R7),
        store_value(Byte, Frame, layout.on_stack(layout.protocol), ESP),
    ]
}

/// Length, protocol and checksum. A checksum of the whole packet stays right: the header's sum is always 0.
fn rewrite_v4(layout: &Layout, offset: i16, turned: Option<&[u8]>) -> Vec<Line<Place>> {
    const CHECKSUM: i16 = 10;
    let checksum = layout.on_stack(CHECKSUM);
    let mut lines = vec![
        // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
        load(Half, R7, Frame, checksum),
        network_order(R7),
        xor(R7, 0xffff),
        add(R7, ESP - UDP - i32::from(UDP_HEADER)),
    ];
    let (halves, _none) = turned.unwrap_or_default().as_chunks();
    for (half, at) in halves.iter().zip((layout.destination..).step_by(2)) {
        lines.extend([
            load(Half, R0, Frame, layout.on_stack(at)),
            network_order(R0),
            xor(R0, 0xffff),
            add_register(R7, R0),
            add(R7, u16::from_be_bytes(*half).into()),
        ]);
    }
    for _carry in 0..2 {
        lines.extend([
            copy(R0, R7),
            shift_right(R0, 16),
            and(R7, 0xffff),
            add_register(R7, R0),
        ]);
    }
    lines.extend([
        xor(R7, 0xffff),
        network_order(R7),
        store(Half, Frame, checksum, R7),
    ]);
    let mut end = CHECKSUM + 2;
    if let Some(turned) = turned {
        lines.extend(turn(layout, turned));
        end = layout.header;
    }
    lines.extend(write(layout, offset, layout.length..end, 0));
    lines
}

/// Length and next header.
fn rewrite_v6(layout: &Layout, offset: i16, turned: Option<&[u8]>) -> Vec<Line<Place>> {
    let mut lines = Vec::new();
    let mut end = layout.protocol + 1;
    if let Some(turned) = turned {
        lines.extend(turn(layout, turned));
        end = layout.header;
    }
    lines.extend(write(layout, offset, layout.length..end, KEEP_CHECKSUM));
    lines
}

/// Puts the first address in the place of whatever address it came to.
fn turn(layout: &Layout, octets: &[u8]) -> Vec<Line<Place>> {
    let (words, _none) = octets.as_chunks();
    let at = (layout.destination..).step_by(4);
    let lines = words
        .iter()
        .zip(at)
        .map(|(word, at)| store_value(Word, Frame, layout.on_stack(at), i32::from_ne_bytes(*word)));
    lines.collect()
}

/// Writes a part of the header back from the stack.
fn write(layout: &Layout, offset: i16, part: std::ops::Range<i16>, flags: i32) -> Vec<Line<Place>> {
    vec![
        copy(R1, R6),
        set(R2, i32::from(offset + part.start)),
        copy(R3, Frame),
        add(R3, layout.on_stack(part.start).into()),
        set(R4, i32::from(part.end - part.start)),
        set(R5, flags),
        call(Function::StoreBytes),
        jump_if(R0, When::Different, 0, Place::Drop),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_leads_somewhere() {
        let further: [BTreeSet<IpAddr>; 2] = [
            BTreeSet::new(),
            ["192.0.2.7", "198.51.100.7", "2001:db8::7", "2001:db8:1::7"]
                .map(|it| it.parse().unwrap())
                .into(),
        ];
        for address in ["192.0.2.1", "2001:db8::1"] {
            for framing in [Framing::Ethernet, Framing::Bare] {
                for further in &further {
                    let program = program(&Purpose {
                        framing,
                        address: address.parse().unwrap(),
                        further,
                        first_port: 65535,
                        map: 3,
                    });
                    let length = program.unwrap().len() / 8;
                    assert!(length < 220, "{length}");
                }
            }
        }
    }
}
