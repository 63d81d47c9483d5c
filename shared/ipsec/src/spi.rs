//! The numbers of an association: lane, epoch, and the security parameter index made of them.

use std::fmt;

use drover_model::HostIndex;

/// One of the associations that flows of a pair are spread over, 0 to 7: an association is the work of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// How many lanes there are at most.
    pub const MAX: u8 = 8;
    /// The first lane, which there always is.
    pub const FIRST: Self = Self(0);

    /// The lane of a number, if there is one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The first `count` lanes, at least one and at most [`Lane::MAX`].
    pub fn first(count: u8) -> impl Iterator<Item = Self> {
        (0..count.clamp(1, Self::MAX)).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What an SPI says of a generation: its number modulo 64. A host has few generations at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u8);

impl Tag {
    const BITS: u32 = 6;

    /// The tag of a generation.
    #[must_use]
    pub const fn of(generation: u64) -> Self {
        Self((generation % (1 << Self::BITS)) as u8)
    }

    /// Its number, 0 to 63.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// An epoch of a pair, as this host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// This host's generation.
    pub own: Tag,
    /// The peer's.
    pub peer: Tag,
}

/// A security parameter index (RFC 4303, section 2.1). Ours say all there is to know of an association,
/// so that a host that starts anew knows what it finds in the kernel:
///
/// ```text
/// 0x6 (4 bits) | index of the sending host (12) | lane (4) | sender's tag (6) | receiver's tag (6)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(u32);

impl Spi {
    const MARK: u32 = 0x6;

    /// The index of an association.
    #[must_use]
    pub fn new(sender: HostIndex, lane: Lane, sender_tag: Tag, receiver_tag: Tag) -> Self {
        Self(
            (Self::MARK << 28)
                | (u32::from(sender.get()) << 16)
                | (u32::from(lane.0) << 12)
                | (u32::from(sender_tag.0) << 6)
                | u32::from(receiver_tag.0),
        )
    }

    /// What a number says, if it is one of ours.
    #[must_use]
    pub fn read(number: u32) -> Option<Self> {
        let spi = Self(number);
        let known = number >> 28 == Self::MARK && Lane::new(spi.lane_number()).is_some();
        (known && HostIndex::try_from(spi.sender_number()).is_ok()).then_some(spi)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The host that sends by it.
    #[must_use]
    pub fn sender(self) -> Option<HostIndex> {
        HostIndex::try_from(self.sender_number()).ok()
    }

    /// Its lane.
    #[must_use]
    pub const fn lane(self) -> Lane {
        Lane(self.lane_number())
    }

    /// The sender's generation.
    #[must_use]
    pub const fn sender_tag(self) -> Tag {
        Tag(((self.0 >> 6) & 0x3f) as u8)
    }

    /// The receiver's generation.
    #[must_use]
    pub const fn receiver_tag(self) -> Tag {
        Tag((self.0 & 0x3f) as u8)
    }

    const fn sender_number(self) -> u16 {
        ((self.0 >> 16) & 0xfff) as u16
    }

    const fn lane_number(self) -> u8 {
        ((self.0 >> 12) & 0xf) as u8
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "0x{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Spi({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_says_what_it_was_made_of() {
        for (sender, lane, own, peer) in [(1, 0, 0, 0), (4095, 7, 63, 64), (258, 3, 1, 200)] {
            let sender = HostIndex::try_from(sender).unwrap();
            let lane = Lane::new(lane).unwrap();
            let spi = Spi::new(sender, lane, Tag::of(own), Tag::of(peer));
            let read = Spi::read(spi.get()).unwrap();
            assert_eq!(read.sender(), Some(sender));
            assert_eq!(read.lane(), lane);
            assert_eq!(
                (read.sender_tag(), read.receiver_tag()),
                (Tag::of(own), Tag::of(peer))
            );
        }
    }

    #[test]
    fn a_stranger_is_not_ours() {
        for number in [0, 0xc123_4567, 0x6000_0000, 0x6001_8000] {
            assert_eq!(Spi::read(number), None, "{number:x}");
        }
    }
}
