//! A socket to the kernel's IPsec.
//!
//! Every request that changes something asks for an acknowledgement and requires it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_proto::ConnectionHandle;
use netlink_proto::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols};
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::Error;
use crate::message::{Codec, Message, Request};
use crate::policy::{self, PolicyId, PolicySpec};
use crate::state::{self, SeenState, StateSpec};

/// The kernel answers at once, unless it must load modules first.
const LIMIT: Duration = Duration::from_secs(30);
/// Room for what the kernel says before it is read.
const BUFFER: usize = 8 << 20;

/// The IPsec of a network namespace.
#[derive(Debug, Clone)]
pub struct Xfrm {
    handle: Arc<ConnectionHandle<Message>>,
}

impl Xfrm {
    /// Opens a socket in the network namespace of the calling thread. Needs a tokio runtime, which drives it until it
    /// is dropped.
    ///
    /// # Errors
    /// When the kernel has no IPsec or this process may not speak with it.
    pub fn open() -> io::Result<Self> {
        let (mut connection, handle, unsolicited) =
            netlink_proto::new_connection_with_codec::<Message, TokioSocket, Codec>(
                protocols::NETLINK_XFRM,
            )?;
        connection.set_forward_ack(true);
        let socket = connection.socket_mut().socket_mut();
        // A refusal repeats the whole request otherwise, with its key.
        socket.set_cap_ack(true)?;
        // The second one takes no more than the system's limit.
        if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(socket, sockopt::RcvBuf, &BUFFER)?;
        }
        drop(unsolicited);
        tokio::runtime::Handle::current().spawn(connection);
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Adds a state.
    ///
    /// # Errors
    /// When there is one with its SPI and destination already ([`Error::is_duplicate`]): it is never changed. When the
    /// kernel does not have what it needs.
    pub async fn add_state(&self, state: &StateSpec<'_>) -> Result<(), Error> {
        let (spi, destination) = (state.spi, state.destination);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.acknowledged(state.add(), flags, || {
            format!("add the state {spi:#010x} to {destination}")
        })
        .await
    }

    /// Removes a state, if it is there.
    ///
    /// # Errors
    /// When the kernel does not remove it.
    pub async fn delete_state(&self, spi: u32, destination: IpAddr) -> Result<(), Error> {
        let request = state::delete(spi, destination);
        let removed = self.acknowledged(request, 0, || {
            format!("remove the state {spi:#010x} to {destination}")
        });
        unless_gone(removed.await)
    }

    /// All states of the namespace, also those of others.
    ///
    /// # Errors
    /// When the kernel does not list them, or one cannot be read.
    pub async fn states(&self) -> Result<Vec<SeenState>, Error> {
        let mut states = Vec::new();
        for message in self.list(state::list(), "states").await? {
            match message {
                Message::State(state) => states.push(state),
                Message::Unreadable => return Err(Error::Unreadable { what: "states" }),
                _ => {}
            }
        }
        Ok(states)
    }

    /// Adds a policy, or puts it in the place of the one with its id.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub async fn set_policy(&self, policy: &PolicySpec) -> Result<(), Error> {
        let id = policy.id;
        self.acknowledged(policy.set(), 0, || format!("set the policy {}", named(&id)))
            .await
    }

    /// Removes a policy, if it is there.
    ///
    /// # Errors
    /// When the kernel does not remove it.
    pub async fn delete_policy(&self, id: &PolicyId) -> Result<(), Error> {
        let removed = self.acknowledged(id.delete(), 0, || {
            format!("remove the policy {}", named(id))
        });
        unless_gone(removed.await)
    }

    /// All policies of the namespace that are like ours: others are left out, also where they have the id of one.
    ///
    /// # Errors
    /// When the kernel does not list them, or one cannot be read.
    pub async fn policies(&self) -> Result<Vec<PolicySpec>, Error> {
        let mut policies = Vec::new();
        for message in self.list(policy::list(), "policies").await? {
            match message {
                Message::Policy(policy) => policies.push(policy),
                Message::Unreadable => return Err(Error::Unreadable { what: "policies" }),
                _ => {}
            }
        }
        Ok(policies)
    }

    async fn acknowledged(
        &self,
        request: Request,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let answers = tokio::time::timeout(LIMIT, self.answers(request, NLM_F_ACK | flags));
        let answers = answers
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        let result = answers.and_then(|(_, acknowledged)| {
            let silence = || io::Error::other("the request was not acknowledged");
            acknowledged.then_some(()).ok_or_else(silence)
        });
        result.map_err(|source| Error::Request {
            action: action(),
            source,
        })
    }

    async fn list(&self, request: Request, what: &'static str) -> Result<Vec<Message>, Error> {
        let answers = tokio::time::timeout(LIMIT, self.answers(request, NLM_F_DUMP));
        let answers = answers
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        let failed = |source| Error::Request {
            action: format!("list {what}"),
            source,
        };
        answers.map(|(messages, _)| messages).map_err(failed)
    }

    /// All that the kernel answers, and whether it has acknowledged the request.
    async fn answers(&self, request: Request, flags: u16) -> io::Result<(Vec<Message>, bool)> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), request.into());
        request.header.flags = NLM_F_REQUEST | flags;
        let kernel = SocketAddr::new(0, 0);
        let mut answers = self
            .handle
            .request(request, kernel)
            .map_err(io::Error::other)?;
        let (mut messages, mut acknowledged) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                    return Err(refusal.to_io());
                }
                NetlinkPayload::Error(_) => acknowledged = true,
                NetlinkPayload::Overrun(_) => {
                    return Err(io::Error::other("the receive buffer overflowed"));
                }
                _ => {}
            }
        }
        Ok((messages, acknowledged))
    }
}

fn unless_gone(removed: Result<(), Error>) -> Result<(), Error> {
    removed.or_else(|error| if error.is_gone() { Ok(()) } else { Err(error) })
}

fn named(id: &PolicyId) -> String {
    format!(
        "{:?} {:?} of the interface {:#010x}",
        id.direction, id.family, id.if_id
    )
}
