//! Elements as the kernel takes them: the bytes of a key and of what it maps to.
//!
//! What a set's keys are made of is asked of the kernel, which keeps what `nft` told it when it made
//! the set: a number per type, and for a concatenation six bits per field.

use std::net::{Ipv4Addr, Ipv6Addr};

use drover_model::MacAddress;
use drover_overlay::Element;
use netlink_packet_netfilter::nftables::{
    DataAttribute, SetAttribute, SetElementAttribute, SetFlags,
};

/// How wide a field of a concatenation is in the number of its type.
const FIELD_BITS: u32 = 6;
/// Fields of a concatenation begin at multiples of this.
const ALIGNMENT: usize = 4;
/// The length of a device's name, with the zero at its end.
const NAME_LENGTH: usize = 16;

/// What an element's key, or a part of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Ipv4,
    Ipv6,
    Mac,
    Device,
}

impl Field {
    /// The type with a number, of those that our sets have.
    fn of(number: u32) -> Option<Self> {
        match number {
            7 => Some(Self::Ipv4),
            8 => Some(Self::Ipv6),
            9 => Some(Self::Mac),
            41 => Some(Self::Device),
            _ => None,
        }
    }

    fn bytes(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Ipv4 => Some(text.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
            Self::Ipv6 => Some(text.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
            Self::Mac => Some(text.parse::<MacAddress>().ok()?.octets().to_vec()),
            Self::Device => {
                let mut bytes = text.as_bytes().to_vec();
                bytes.resize(NAME_LENGTH, 0);
                (text.len() < NAME_LENGTH).then_some(bytes)
            }
        }
    }
}

/// What the elements of a set are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    key: Vec<Field>,
    key_length: usize,
    data: Option<Field>,
}

impl Shape {
    /// The shape of a set; `None` for one whose elements are more than a key, or than a key and a
    /// value, of the types that we know.
    pub(super) fn of(set: &[SetAttribute]) -> Option<Self> {
        let (mut flags, mut key, mut length, mut data) = (SetFlags::empty(), None, None, None);
        for attribute in set {
            match attribute {
                SetAttribute::Flags(found) => flags = *found,
                SetAttribute::KeyType(number) => key = Some(*number),
                SetAttribute::KeyLen(found) => length = usize::try_from(*found).ok(),
                SetAttribute::DataType(number) => data = Some(*number),
                // Elements of such a set are made with more than we say.
                SetAttribute::Timeout(_)
                | SetAttribute::ObjectType(_)
                | SetAttribute::Expression(_)
                | SetAttribute::ListExpressions(_) => return None,
                _ => {}
            }
        }
        if !SetFlags::Map.contains(flags) {
            return None;
        }
        let data = match (flags.contains(SetFlags::Map), data) {
            (false, _) => None,
            (true, number) => Some(Field::of(number?)?),
        };
        Some(Self {
            key: fields(key?)?,
            key_length: length?,
            data,
        })
    }

    /// An element of the set, as a message has it.
    pub(super) fn encode(&self, element: &Element) -> Option<Vec<SetElementAttribute>> {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(
            self.key(&element.key)?,
        ))];
        match (self.data, &element.data) {
            (None, None) => {}
            (Some(field), Some(data)) => attributes.push(SetElementAttribute::Data(
                DataAttribute::Value(field.bytes(data)?),
            )),
            _ => return None,
        }
        Some(attributes)
    }

    fn key(&self, text: &str) -> Option<Vec<u8>> {
        let mut texts = text.split(" . ");
        let mut key = Vec::with_capacity(self.key_length);
        for field in &self.key {
            key.extend(field.bytes(texts.next()?)?);
            if self.key.len() > 1 {
                key.resize(key.len().next_multiple_of(ALIGNMENT), 0);
            }
        }
        (texts.next().is_none() && key.len() == self.key_length).then_some(key)
    }
}

fn fields(mut number: u32) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while number > 0 {
        fields.push(Field::of(number & ((1 << FIELD_BITS) - 1))?);
        number >>= FIELD_BITS;
    }
    fields.reverse();
    (!fields.is_empty()).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(key: u32, length: u32, rest: &[SetAttribute]) -> Option<Shape> {
        let mut set = vec![SetAttribute::KeyType(key), SetAttribute::KeyLen(length)];
        set.extend(rest.iter().cloned());
        Shape::of(&set)
    }

    fn element(key: &str, data: Option<&str>) -> Element {
        Element {
            key: key.to_owned(),
            data: data.map(ToOwned::to_owned),
        }
    }

    fn value(attribute: &SetElementAttribute) -> &[u8] {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes))
            | SetElementAttribute::Data(DataAttribute::Value(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// `ifname . ether_addr . ipv4_addr`, as `nft` numbers it.
    const SENDER: u32 = (41 << 12) | (9 << 6) | 7;

    #[test]
    fn fields_of_a_concatenation_begin_at_multiples_of_four() {
        let shape = shape(SENDER, 28, &[]).unwrap();
        let sender = element("ep0 . 02:42:00:00:01:05 . 10.42.1.5", None);
        let attributes = shape.encode(&sender).unwrap();
        let [key] = attributes.as_slice() else {
            panic!("{attributes:?}")
        };
        let expected = [
            b"ep0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice(),
            &[2, 0x42, 0, 0, 1, 5, 0, 0],
            &[10, 42, 1, 5],
        ];
        assert_eq!(value(key), expected.concat());
    }

    #[test]
    fn a_map_has_data_and_a_key_that_stands_alone_is_not_padded() {
        let map = [
            SetAttribute::Flags(SetFlags::Map),
            SetAttribute::DataType(7),
        ];
        let shape = shape(9, 6, &map).unwrap();
        let peer = element("02:42:00:00:01:05", Some("192.0.2.1"));
        let attributes = shape.encode(&peer).unwrap();
        let values: Vec<_> = attributes.iter().map(value).collect();
        assert_eq!(values, [[2, 0x42, 0, 0, 1, 5].as_slice(), &[192, 0, 2, 1]]);
        assert_eq!(shape.encode(&element("02:42:00:00:01:05", None)), None);
    }

    #[test]
    fn what_is_not_understood_is_left_to_nft() {
        let interval = [SetAttribute::Flags(SetFlags::Interval)];
        assert_eq!(shape(7, 4, &interval), None, "an interval set");
        assert_eq!(shape(13, 2, &[]), None, "a set of ports");
        assert_eq!(shape(0, 4, &[]), None, "no type");
        let timeout = [SetAttribute::Timeout(1000)];
        assert_eq!(shape(7, 4, &timeout), None, "elements with a time-out");
        let addresses = shape(7, 4, &[]).unwrap();
        for text in ["10.42.0.0/16", "fd00::1", "10.42.1.5 . 10.42.1.6", ""] {
            assert_eq!(addresses.encode(&element(text, None)), None, "`{text}`");
        }
        let senders = shape(SENDER, 28, &[]).unwrap();
        for text in [
            "ep0 . 02:42:00:00:01:05",
            "0123456789abcdef . 02:42:00:00:01:05 . 10.0.0.1",
        ] {
            assert_eq!(senders.encode(&element(text, None)), None, "`{text}`");
        }
        let longer = shape(SENDER, 32, &[]).unwrap();
        let sender = element("ep0 . 02:42:00:00:01:05 . 10.42.1.5", None);
        assert_eq!(
            longer.encode(&sender),
            None,
            "a length that is not the fields'"
        );
    }
}
