//! Changes of elements as one netlink transaction, without starting a process: what comes and goes
//! with every container.
//!
//! The kernel answers within the call that sends, so that the socket never waits.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use drover_overlay::{ElementChange, Set, TableFamily, TableName, name};
use netlink_packet_netfilter::nftables::{
    ListAttribute, NfTablesMessage, SetAttribute, SetElementList, SetElementMessage, SetMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::element::Shape;
use crate::error::Error;
use crate::namespace::Namespace;

/// How many elements one message has: all of them are one attribute, whose length has 16 bits.
const PER_MESSAGE: usize = 256;
/// Above this many elements a process more does not matter, and the socket's buffers might.
const AT_MOST: usize = 1024;

/// A socket to the tables of a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Elements {
    socket: Arc<Mutex<Socket>>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was made.
    Done,
    /// It has what only `nft` can say: nothing was changed.
    LeftToNft,
}

impl Elements {
    /// Opens a socket in a namespace.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, Error> {
        let socket = namespace
            .enter(socket)
            .and_then(|socket| socket)
            .map_err(|source| Error::Request {
                action: "open a netfilter socket".to_owned(),
                source,
            })?;
        Ok(Self {
            socket: Arc::new(Mutex::new(socket)),
        })
    }

    /// Makes changes, all of them or none, unless they are for `nft`.
    pub(crate) async fn change(
        &self,
        changes: &[ElementChange],
        action: impl FnOnce() -> String,
    ) -> Result<Outcome, Error> {
        let (socket, changes) = (self.socket.clone(), changes.to_vec());
        // Another transaction may be under way in the kernel, and is waited for.
        let made = tokio::task::spawn_blocking(move || {
            let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
            change(&socket, &changes)
        });
        let made = made.await.map_err(io::Error::other);
        made.and_then(|made| made).map_err(|source| Error::Request {
            action: action(),
            source,
        })
    }
}

fn change(socket: &Socket, changes: &[ElementChange]) -> io::Result<Outcome> {
    let elements = |change: &ElementChange| change.delete.len() + change.add.len();
    if changes.iter().map(elements).sum::<usize>() > AT_MOST {
        return Ok(Outcome::LeftToNft);
    }
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    for change in changes {
        let Some(shape) = shape(socket, change)? else {
            return Ok(Outcome::LeftToNft);
        };
        let (Some(delete), Some(add)) = (
            messages(change, &change.delete, &shape),
            messages(change, &change.add, &shape),
        ) else {
            return Ok(Outcome::LeftToNft);
        };
        let family = family(change.table);
        gone.extend(delete.into_iter().map(|message| {
            let message = NfTablesMessage::DeleteSetElement(message);
            request(family, message, NLM_F_ACK)
        }));
        new.extend(add.into_iter().map(|message| {
            let message = NfTablesMessage::NewSetElement(message);
            request(family, message, NLM_F_ACK | NLM_F_CREATE)
        }));
    }
    gone.append(&mut new);
    commit(socket, gone)?;
    Ok(Outcome::Done)
}

/// Makes requests as one transaction: all of them, or none.
pub(crate) fn commit(
    socket: &Socket,
    requests: Vec<NetlinkMessage<NetfilterMessage>>,
) -> io::Result<()> {
    let expected = requests.len();
    let mut batch = vec![limit(ControlMessage::BatchBegin)];
    batch.extend(requests);
    batch.push(limit(ControlMessage::BatchEnd));
    send(socket, &mut batch)?;
    acknowledged(&receive(socket)?, expected)
}

/// A socket to the tables of the namespace that the caller's thread is in.
pub(crate) fn socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// What the elements of a change's set are made of, if we can say it.
fn shape(socket: &Socket, change: &ElementChange) -> io::Result<Option<Shape>> {
    let attributes = vec![
        SetAttribute::Table(name::TABLE.to_owned()),
        SetAttribute::Name(change.set.clone()),
    ];
    let question = NfTablesMessage::GetSet(SetMessage { attributes });
    send(socket, &mut [request(family(change.table), question, 0)])?;
    for answer in receive(socket)? {
        match answer.payload {
            NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                return Err(refusal.to_io());
            }
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::NfTables(NfTablesMessage::NewSet(set)),
                ..
            }) => return Ok(Shape::of(&set.attributes)),
            _ => {}
        }
    }
    Err(unanswered())
}

fn messages(
    change: &ElementChange,
    elements: &Set,
    shape: &Shape,
) -> Option<Vec<SetElementMessage>> {
    let elements = elements.iter().map(|element| shape.encode(element));
    let elements = elements.collect::<Option<Vec<_>>>()?;
    let messages = elements.chunks(PER_MESSAGE).map(|elements| {
        let elements = elements.iter().cloned().map(ListAttribute::Element);
        SetElementMessage {
            attributes: vec![
                SetElementList::Table(name::TABLE.to_owned()),
                SetElementList::Set(change.set.clone()),
                SetElementList::Elements(elements.collect()),
            ],
        }
    });
    Some(messages.collect())
}

fn family(table: TableName) -> NetfilterProtoFamily {
    match table.family {
        TableFamily::Inet => NetfilterProtoFamily::Inet,
        TableFamily::Bridge => NetfilterProtoFamily::Bridge,
        TableFamily::Netdev => NetfilterProtoFamily::NetDev,
    }
}

/// A request of a transaction.
pub(crate) fn request(
    family: NetfilterProtoFamily,
    message: NfTablesMessage,
    flags: u16,
) -> NetlinkMessage<NetfilterMessage> {
    let header = NetfilterHeader::new(family, 0, 0);
    let mut request = NetlinkMessage::from(NetfilterMessage::new(header, message));
    request.header.flags = NLM_F_REQUEST | flags;
    request
}

/// The beginning or the end of a transaction.
fn limit(message: ControlMessage) -> NetlinkMessage<NetfilterMessage> {
    let subsystem = u8::from(NetfilterSubsystem::NfTables);
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem.into());
    let mut limit = NetlinkMessage::from(NetfilterMessage::new(header, message));
    limit.header.flags = NLM_F_REQUEST;
    limit
}

fn send(socket: &Socket, messages: &mut [NetlinkMessage<NetfilterMessage>]) -> io::Result<()> {
    // What an earlier call may have left, had it failed halfway.
    receive(socket)?;
    let mut bytes = Vec::new();
    for message in messages {
        message.finalize();
        let mut written = vec![0; message.buffer_len()];
        message.serialize(&mut written);
        // The next one begins at a multiple of four.
        written.resize(written.len().next_multiple_of(4), 0);
        bytes.append(&mut written);
    }
    let sent = socket.send(&bytes, 0)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Everything that has come.
fn receive(socket: &Socket) -> io::Result<Vec<NetlinkMessage<NetfilterMessage>>> {
    let mut answers = Vec::new();
    loop {
        let bytes = match socket.recv_from_full() {
            Ok((bytes, _sender)) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
            Err(error) => return Err(error),
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            let length = usize::try_from(answer.header.length).map_err(io::Error::other)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            answers.push(answer);
        }
    }
}

/// Every message of a transaction is acknowledged; one that is refused undoes all.
fn acknowledged(answers: &[NetlinkMessage<NetfilterMessage>], expected: usize) -> io::Result<()> {
    let mut acknowledged = 0;
    for answer in answers {
        match &answer.payload {
            NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                return Err(refusal.to_io());
            }
            NetlinkPayload::Error(_) => acknowledged += 1,
            _ => {}
        }
    }
    if acknowledged == expected {
        Ok(())
    } else {
        Err(unanswered())
    }
}

fn unanswered() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the kernel did not answer the request",
    )
}

#[cfg(test)]
mod tests;
