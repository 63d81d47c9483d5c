//! The names and link addresses of our devices. All of them follow from ids and host indexes, so
//! that they are the same after a restart and known to the other side without asking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drover_model::{Family, HostIndex, MacAddress, NetworkId};

/// The inner end of the pair that direct packets travel through, in the `drover` namespace.
pub const DIRECT: &str = "dvr-direct";
/// The outer end of that pair, in the root namespace.
pub const DIRECT_ROOT: &str = "dvr-root";
/// The name of our nftables tables.
pub const TABLE: &str = "drover";
/// The mark, of [`MARK_MASK`], of packets that try the candidate epoch of a peer. Smaller marks are those that
/// flows are spread over lanes by.
pub const CANDIDATE_MARK: u32 = 8;
/// A bit of the mark of probes that try another way, beside [`MARK_MASK`]. It ends where they are encrypted; what
/// goes on with them is [`TRIAL_PRIORITY`].
pub const TRIAL_MARK: u32 = 0x10;
/// The priority of packets that are sent by the way that is tried.
pub const TRIAL_PRIORITY: u32 = 0x6472_0001;
/// The same, as nftables writes it.
pub(crate) const TRIAL_PRIORITY_TEXT: &str = "6472:1";
/// The type of service of a probe that asks for an answer by the way that the peer tries: a code point for local
/// use (RFC 2474, section 6), which the answer has too.
pub const TRIAL_SERVICE: u8 = 0b1011_1100;
/// The bits of a packet's mark that say by which association it is sent.
pub const MARK_MASK: u32 = 0xf;
/// The routing protocol number of our routes (a value that rtnetlink leaves to users).
pub const ROUTE_PROTOCOL: u8 = 0xd7;

/// The link address of [`DIRECT`].
pub const DIRECT_MAC: MacAddress = MacAddress::new([0x02, 0x64, 0x72, 0, 0, 0x01]);
/// The link address of [`DIRECT_ROOT`].
pub const DIRECT_ROOT_MAC: MacAddress = MacAddress::new([0x02, 0x64, 0x72, 0, 0, 0x02]);

/// The bridge of a network: `br-` and twelve digits of its id.
#[must_use]
pub fn bridge(network: &NetworkId) -> String {
    format!("br-{}", network.short())
}

/// The link address of a network's bridge.
#[must_use]
pub fn bridge_mac(network: &NetworkId) -> MacAddress {
    let mut octets = [0x02, 0x62, 0, 0, 0, 0];
    let digits = network.as_str().get(..8).unwrap_or_default();
    let number = u32::from_str_radix(digits, 16).unwrap_or_default();
    for (octet, byte) in octets.iter_mut().skip(2).zip(number.to_be_bytes()) {
        *octet = byte;
    }
    MacAddress::new(octets)
}

/// The VXLAN device that leads to a peer: `dvx` and the peer's index.
#[must_use]
pub fn vxlan(peer: HostIndex) -> String {
    format!("dvx{peer}")
}

/// The link address of every VXLAN device on the host with this index.
#[must_use]
pub fn vxlan_mac(host: HostIndex) -> MacAddress {
    indexed_mac(0x78, host)
}

/// The XFRM interface that leads to a peer: `dip` and the peer's index.
#[must_use]
pub fn ipsec(peer: HostIndex) -> String {
    format!("dip{peer}")
}

/// The number that ties the XFRM interface of a peer to its associations and policies (`if_id`); their
/// `reqid` is the same.
#[must_use]
pub fn interface_id(peer: HostIndex) -> u32 {
    INTERFACE_IDS | u32::from(peer.get())
}

/// The peer of an interface number, if it is one of ours.
#[must_use]
pub fn interface_peer(if_id: u32) -> Option<HostIndex> {
    let number = u16::try_from(if_id ^ INTERFACE_IDS).ok()?;
    HostIndex::try_from(number).ok()
}

const INTERFACE_IDS: u32 = 0x6472_0000;

/// The link address that stands for a peer on [`DIRECT`].
#[must_use]
pub fn direct_mac(peer: HostIndex) -> MacAddress {
    indexed_mac(0x64, peer)
}

fn indexed_mac(kind: u8, host: HostIndex) -> MacAddress {
    let [high, low] = host.get().to_be_bytes();
    MacAddress::new([0x02, 0x64, 0x76, kind, high, low])
}

/// The next hop that stands for a peer: a link-local address made of its index.
#[must_use]
pub fn next_hop(peer: HostIndex, family: Family) -> IpAddr {
    let [high, low] = peer.get().to_be_bytes();
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, high, low)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xd, peer.get())),
    }
}

/// The address of a host that the direct path is probed with. It is no container's, and leads nowhere
/// else.
#[must_use]
pub fn probe(host: HostIndex, family: Family) -> IpAddr {
    match family {
        Family::V4 => next_hop(host, family),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd64, 0x7672, 0, 0, 0, 0, 0, host.get())),
    }
}

/// The address of a host that the encrypted path to it is probed with, whatever the family of the underlay. It
/// is no container's, and leads nowhere else.
#[must_use]
pub fn ipsec_probe(host: HostIndex) -> Ipv4Addr {
    let [high, low] = host.get().to_be_bytes();
    // An index has 12 bits.
    Ipv4Addr::new(169, 254, 16 | high, low)
}

/// The next hop that stands for [`DIRECT`] on [`DIRECT_ROOT`].
#[must_use]
pub fn direct_next_hop(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, 255, 254)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xd, 0xffff)),
    }
}

/// The IPv6 link-local address that a link with this address gives itself (RFC 4291, EUI-64).
#[must_use]
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// Whether a link in the `drover` namespace is one of ours, by its name.
#[must_use]
pub fn is_ours(link: &str) -> bool {
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let number = |text: &str| {
        text.parse::<u16>()
            .is_ok_and(|index| HostIndex::try_from(index).is_ok())
    };
    link == DIRECT
        || link.strip_prefix("br-").is_some_and(|rest| hex(rest, 12))
        || link.strip_prefix("ep").is_some_and(|rest| hex(rest, 12))
        || ["dvx", "dip"]
            .iter()
            .any(|kind| link.strip_prefix(kind).is_some_and(number))
}

/// Whether a link in the root namespace is an endpoint's end that no engine has taken.
#[must_use]
pub fn is_sandbox_link(link: &str) -> bool {
    link.strip_prefix("dvr").is_some_and(|rest| {
        rest.len() == 10
            && rest
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_links_are_known_by_name_and_others_are_not() {
        for ours in [
            "br-0123456789ab",
            "ep0123456789ab",
            "dvx1",
            "dvx4095",
            "dip1",
            "dip4095",
            "dvr-direct",
        ] {
            assert!(is_ours(ours) && ours.len() <= 15, "{ours}");
        }
        for other in [
            "lo", "br-lan", "ep1", "dvx0", "dvx5000", "dip0", "dipper", "eth0", "epoxy",
        ] {
            assert!(!is_ours(other), "{other}");
        }
        assert!(is_sandbox_link("dvr0123456789"));
        assert!(!is_sandbox_link("dvr-root") && !is_sandbox_link("dvr-direct"));
    }

    #[test]
    fn an_interface_number_says_its_peer_and_a_strangers_does_not() {
        for index in [1, 258, 4095] {
            let peer = HostIndex::try_from(index).unwrap();
            assert_eq!(interface_peer(interface_id(peer)), Some(peer));
        }
        for stranger in [0, 1, 0x6472_0000, 0x6472_1000, 0x6473_0001] {
            assert_eq!(interface_peer(stranger), None, "{stranger:x}");
        }
        let last = HostIndex::try_from(4095).unwrap();
        assert_eq!(ipsec_probe(last).to_string(), "169.254.31.255");
    }

    #[test]
    fn the_link_local_address_is_the_kernels() {
        let mac = MacAddress::new([0x02, 0x42, 0x0a, 0x2a, 0x01, 0x05]);
        assert_eq!(link_local(mac).to_string(), "fe80::42:aff:fe2a:105");
    }
}
