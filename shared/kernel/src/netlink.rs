//! A rtnetlink socket in a namespace: requests that are answered, and dumps.
//!
//! Every request asks for an acknowledgement and requires it: a request that netlink-proto could not
//! send ends its stream without a word, which must not read as success.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::sys::AsyncSocket;

use crate::error::Error;
use crate::message;
use crate::namespace::Namespace;

/// The kernel answers at once, or not at all.
const LIMIT: Duration = Duration::from_secs(10);

/// A socket.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in a namespace. Needs a runtime, which drives it until it is dropped.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        let opened = namespace.enter(|| {
            let _inside = runtime.enter();
            let (mut connection, handle, unsolicited) = rtnetlink::new_connection()?;
            connection.set_forward_ack(true);
            // Acknowledgements of many requests that are under way must fit.
            connection
                .socket_mut()
                .socket_mut()
                .set_rx_buf_sz(4 << 20)?;
            drop(unsolicited);
            runtime.spawn(connection);
            Ok(handle)
        });
        let handle = opened.and_then(|handle| handle);
        let failed = |source| Error::Request {
            action: "open a netlink socket".to_owned(),
            source,
        };
        Ok(Self {
            handle: handle.map_err(failed)?,
        })
    }

    /// Makes a request and waits for its acknowledgement.
    pub(crate) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let answer = tokio::time::timeout(LIMIT, self.acknowledged(message, flags)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        answer.map_err(|source| Error::Request {
            action: action(),
            source,
        })
    }

    async fn acknowledged(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                    return Err(refusal.to_io());
                }
                NetlinkPayload::Error(_) => return Ok(()),
                _ => {}
            }
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the request was not acknowledged",
        ))
    }

    /// Everything that a dump request answers.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let collected = tokio::time::timeout(LIMIT, self.collect(message)).await;
        let collected = collected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        collected.map_err(|source| Error::Request {
            action: format!("list {what}"),
            source,
        })
    }

    async fn collect(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(io::Error::other)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Error(refusal) => return Err(refusal.to_io()),
                NetlinkPayload::Overrun(_) => {
                    return Err(io::Error::other("the receive buffer overflowed"));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// One answer to a request that is no dump: a link by its name.
    pub(crate) async fn first(
        &self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(io::Error::other)?;
        let answer = tokio::time::timeout(LIMIT, answers.next()).await;
        match answer
            .map_err(|_elapsed| io::ErrorKind::TimedOut)?
            .map(|answer| answer.payload)
        {
            Some(NetlinkPayload::InnerMessage(message)) => Ok(Some(message)),
            Some(NetlinkPayload::Error(refusal)) => Err(refusal.to_io()),
            _ => Ok(None),
        }
    }

    /// The index of a link.
    pub(crate) async fn index(&self, name: &str) -> Result<u32, Error> {
        let question = RouteNetlinkMessage::GetLink(message::named_link(name));
        let missing = || Error::NoLink {
            name: name.to_owned(),
        };
        match self.first(question).await {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(link.header.index),
            Ok(_) => Err(missing()),
            Err(source) if source.raw_os_error() == Some(nix::libc::ENODEV) => Err(missing()),
            Err(source) => Err(Error::Request {
                action: format!("look up link {name}"),
                source,
            }),
        }
    }

    /// Removes a link.
    pub(crate) async fn delete_link(&self, name: &str) -> Result<(), Error> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name).await?;
        let gone = RouteNetlinkMessage::DelLink(link);
        self.request(gone, 0, || format!("delete link {name}"))
            .await
    }
}
