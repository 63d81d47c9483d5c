//! Values that states and policies have in common, as the kernel writes them.

use std::net::IpAddr;

use drover_model::Family;
use netlink_packet_core::Emitable;
use netlink_packet_xfrm::{Address, constants};
use zeroize::Zeroizing;

/// The number of a family of addresses.
pub(crate) const fn family_number(family: Family) -> u16 {
    match family {
        Family::V4 => constants::AF_INET,
        Family::V6 => constants::AF_INET6,
    }
}

/// The family of a number.
pub(crate) const fn family_of(number: u16) -> Option<Family> {
    match number {
        constants::AF_INET => Some(Family::V4),
        constants::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// An address, which the kernel writes without its family.
pub(crate) fn address(family: Family, address: &Address) -> IpAddr {
    match family {
        Family::V4 => address.to_ipv4().into(),
        Family::V6 => address.to_ipv6().into(),
    }
}

/// What a request says, wiped when it is dropped.
pub(crate) fn body(request: &impl Emitable) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(vec![0; request.buffer_len()]);
    request.emit(&mut body);
    body
}
