//! Where things are in a packet of ESP in UDP, and where the program that looks at one keeps them.

use std::net::IpAddr;

/// `sizeof(struct udphdr)`.
pub(super) const UDP_HEADER: i16 = 8;
/// The SPI and the sequence number.
pub(super) const ESP_HEADER: i16 = 8;

/// Where things are in an IP packet with UDP and ESP inside, whose headers lie at the end of the stack.
pub(super) struct Layout {
    pub(super) ether_type: u16,
    /// The length of the IP header.
    pub(super) header: i16,
    /// The field that has the length, and how much of the header it counts.
    pub(super) length: i16,
    pub(super) counted: i16,
    pub(super) protocol: i16,
    pub(super) source: i16,
    pub(super) destination: i16,
    /// The length of an address.
    pub(super) address: i16,
}

impl Layout {
    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self {
                ether_type: 0x0800,
                header: 20,
                length: 2,
                counted: 20,
                protocol: 9,
                source: 12,
                destination: 16,
                address: 4,
            },
            IpAddr::V6(_) => Self {
                ether_type: 0x86dd,
                header: 40,
                length: 4,
                counted: 0,
                protocol: 6,
                source: 8,
                destination: 24,
                address: 16,
            },
        }
    }

    /// How much is looked at: all headers.
    pub(super) const fn looked_at(&self) -> i16 {
        self.header + UDP_HEADER + ESP_HEADER
    }

    /// Where the key of the map is on the stack, below the headers: the SPI.
    pub(super) const fn noted_key(&self) -> i16 {
        self.on_stack(0) - 4
    }

    /// Where the value is, below the key: two addresses, the source's port, and two bytes of nothing.
    pub(super) const fn noted(&self) -> i16 {
        self.on_stack(0) - 40
    }

    /// Where a field of the packet is, from the end of the stack, whose words are aligned.
    pub(super) const fn on_stack(&self, field: i16) -> i16 {
        field - (self.looked_at() + 7) / 8 * 8
    }
}
