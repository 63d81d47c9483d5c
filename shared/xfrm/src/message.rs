//! Netlink messages that are printed by nobody, and their way into a datagram and out of one.
//!
//! The codec of `netlink-proto` logs messages as a whole and datagrams byte by byte, and that of `netlink-packet-xfrm`
//! reads beyond the end of a short one. This one logs nothing, wipes what it was given, and reads no more than it needs.

use std::convert::Infallible;
use std::fmt;
use std::io;

use bytes::BytesMut;
use netlink_packet_core::{
    NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_xfrm::constants;
use netlink_proto::NetlinkMessageCodec;
use zeroize::{Zeroize, Zeroizing};

use crate::policy::PolicySpec;
use crate::state::SeenState;

/// A request, or one answer to it.
pub(crate) enum Message {
    /// To the kernel.
    Request(Request),
    /// A state, one of a list.
    State(SeenState),
    /// A policy, one of a list.
    Policy(PolicySpec),
    /// One that is none of ours.
    Foreign,
    /// One that cannot be read.
    Unreadable,
}

/// What the kernel is asked.
pub(crate) struct Request {
    /// The type of the message.
    pub(crate) kind: u16,
    /// What it says.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => write!(formatter, "Request({:#x}, ..)", request.kind),
            Self::State(state) => write!(formatter, "{state:?}"),
            Self::Policy(policy) => write!(formatter, "{policy:?}"),
            Self::Foreign => formatter.write_str("Foreign"),
            Self::Unreadable => formatter.write_str("Unreadable"),
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.kind,
            _ => 0,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => request.body.len(),
            _ => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(request) = self {
            for (to, from) in buffer.iter_mut().zip(request.body.iter()) {
                *to = *from;
            }
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(match header.message_type {
            constants::XFRM_MSG_NEWSA => {
                SeenState::read(payload).map_or(Self::Unreadable, Self::State)
            }
            constants::XFRM_MSG_NEWPOLICY => match PolicySpec::read(payload) {
                Ok(Some(policy)) => Self::Policy(policy),
                Ok(None) => Self::Foreign,
                Err(_unreadable) => Self::Unreadable,
            },
            _ => Self::Foreign,
        })
    }
}

impl From<Request> for NetlinkPayload<Message> {
    fn from(request: Request) -> Self {
        Self::InnerMessage(Message::Request(request))
    }
}

/// The codec of a socket.
#[derive(Debug)]
pub(crate) struct Codec;

impl NetlinkMessageCodec for Codec {
    fn decode<T>(source: &mut BytesMut) -> io::Result<Option<NetlinkMessage<T>>>
    where
        T: NetlinkDeserializable + fmt::Debug,
    {
        while !source.is_empty() {
            let length = NetlinkBuffer::new_checked(source.as_ref())
                .ok()
                .and_then(|buffer| usize::try_from(buffer.length()).ok());
            let Some(length) = length else {
                // Where the next message begins cannot be known.
                source.as_mut().zeroize();
                source.clear();
                return Ok(None);
            };
            let mut bytes = source.split_to(length);
            let read = NetlinkMessage::<T>::deserialize(&bytes);
            bytes.as_mut().zeroize();
            // What is no message at all is left out: the request that it answers runs out of time.
            if let Ok(message) = read {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn encode<T>(message: NetlinkMessage<T>, buffer: &mut BytesMut) -> io::Result<()>
    where
        T: NetlinkSerializable + fmt::Debug,
    {
        let start = buffer.len();
        let end = start + message.buffer_len();
        // All of the room, since an earlier request may have left its key in it.
        buffer.reserve(end - start);
        buffer.resize(buffer.capacity(), 0);
        buffer.truncate(end);
        let room = buffer.get_mut(start..).unwrap_or_default();
        message.serialize(room);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fill: u8, length: usize) -> NetlinkMessage<Message> {
        let request = Request {
            kind: constants::XFRM_MSG_NEWSA,
            body: Zeroizing::new(vec![fill; length]),
        };
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), request.into());
        message.finalize();
        message
    }

    #[test]
    fn a_request_is_never_printed() {
        let printed = format!("{:?}", request(0xab, 36));
        assert!(!printed.contains("171"), "{printed}");
        assert!(!printed.to_lowercase().contains("ab"), "{printed}");
    }

    #[test]
    fn a_request_wipes_the_one_before_it() {
        let mut buffer = BytesMut::new();
        Codec::encode(request(0xab, 300), &mut buffer).unwrap();
        assert_eq!(buffer.iter().filter(|byte| **byte == 0xab).count(), 300);
        buffer.clear();
        Codec::encode(request(0, 8), &mut buffer).unwrap();
        assert_eq!(buffer.len(), 24);
        buffer.resize(buffer.capacity(), 0);
        assert!(!buffer.contains(&0xab));
    }

    #[test]
    fn what_is_no_message_is_left_out() {
        let mut bytes = BytesMut::from(&[0xff; 40][..]);
        assert!(Codec::decode::<Message>(&mut bytes).unwrap().is_none());
        assert!(bytes.is_empty());
    }
}
