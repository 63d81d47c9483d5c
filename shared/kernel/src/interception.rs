//! Brings the queries that a container sends to Docker's resolver to us first.
//!
//! A table of ours in the container's namespace rewrites the port of packets to 127.0.0.11:53, and back that of
//! the answers: no connection is tracked, so that nothing of it is left behind when the table goes, and a packet that
//! is sent again then takes Docker's way. Docker redirects in a later hook, by the port that packets have
//! then, and never sees ours. Packets with [`MARK`] are let through: they are what we pass on.
//!
//! The table must not outlive us. Since Linux 5.12 a table can belong to the socket that made it, and goes with
//! it ([`Hold::Owned`]); on older kernels the rules count only while an element is in a set that leaves it after two
//! seconds ([`Hold::Renewed`]).

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ChecksumType, Cmp, DataAttribute, Expressions, Hook, Immediate,
    InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator, Payload,
    Register, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterProtoFamily};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NetlinkMessage};
use rtnetlink::sys::Socket;

use crate::error::Error;
use crate::namespace::Namespace;
use crate::nft::{commit, request, socket};

/// The mark of packets that are for Docker's resolver.
pub const MARK: u32 = 0x6472_6f76;

const TABLE: &str = "drover-names";
const CHAIN: &str = "output";
const ALIVE: &str = "alive";
/// Before connections are tracked (-200), and before Docker redirects (-100).
const PRIORITY: i32 = -310;
/// Docker's resolver, in every container.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DOMAIN: u16 = 53;
const HTTP: u16 = 80;
/// How long rules count that are not renewed.
const LIFETIME: Duration = Duration::from_secs(2);
/// The type of an IPv4 address in nft's numbers: for those who list the set.
const IPV4_TYPE: u32 = 7;
/// Where fields are: in the network header (base 1), and in the transport header (base 2).
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Where we listen on 127.0.0.11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// For datagrams.
    pub udp: u16,
    /// For connections.
    pub tcp: u16,
    /// For HTTP, which is asked for at port 80.
    pub http: u16,
}

/// How the table goes away when this process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// With our socket, at once.
    Owned,
    /// Its rules end unless they are renewed every second.
    Renewed,
}

/// The table in one namespace. Dropping it removes it.
#[derive(Debug)]
pub struct Interception {
    socket: Socket,
    hold: Hold,
}

type Batch = Vec<NetlinkMessage<NetfilterMessage>>;

impl Interception {
    /// Puts the table in a namespace, in the best way that the kernel has.
    ///
    /// # Errors
    /// When the kernel refuses, or another process has its table there.
    pub fn open(namespace: &Namespace, ports: Ports) -> Result<Self, Error> {
        match Self::open_as(namespace, ports, Hold::Owned) {
            // An older kernel knows no such table.
            Err(Error::Request { source, .. })
                if matches!(
                    source.raw_os_error(),
                    Some(nix::libc::EINVAL | nix::libc::EOPNOTSUPP)
                ) =>
            {
                Self::open_as(namespace, ports, Hold::Renewed)
            }
            opened => opened,
        }
    }

    /// Puts the table in a namespace, in the way that is asked for.
    ///
    /// # Errors
    /// As [`Interception::open`].
    pub fn open_as(namespace: &Namespace, ports: Ports, hold: Hold) -> Result<Self, Error> {
        let socket = namespace.enter(socket).and_then(|socket| socket);
        let socket = socket.map_err(|source| failed("open a netfilter socket", source))?;
        // One of an earlier process that was only renewed may still be there.
        match commit(&socket, vec![gone()]) {
            Err(source) if source.raw_os_error() != Some(nix::libc::ENOENT) => {
                return Err(failed("remove a table of an earlier process", source));
            }
            _ => {}
        }
        let interception = Self { socket, hold };
        let mut batch = vec![table(hold)];
        if hold == Hold::Renewed {
            batch.push(set());
        }
        batch.push(chain());
        batch.extend(rules(ports, hold));
        if hold == Hold::Renewed {
            batch.push(alive(true));
        }
        interception
            .commit(batch)
            .map_err(|source| failed("put the table that brings queries to us", source))?;
        Ok(interception)
    }

    /// How it goes away.
    #[must_use]
    pub const fn hold(&self) -> Hold {
        self.hold
    }

    /// Says that we are there, at least once a second; nothing is to be said of an owned table.
    ///
    /// # Errors
    /// When the table is gone, or the kernel refuses.
    pub fn renew(&self) -> Result<(), Error> {
        if self.hold == Hold::Owned {
            return Ok(());
        }
        // The second one makes sure that there is one to take away: it may just have left.
        self.commit(vec![alive(true), alive(false), alive(true)])
            .map_err(|source| failed("renew the table that brings queries to us", source))
    }

    fn commit(&self, batch: Batch) -> io::Result<()> {
        commit(&self.socket, batch)
    }
}

impl Drop for Interception {
    fn drop(&mut self) {
        // The namespace may be gone; then there is nothing to remove.
        drop(self.commit(vec![gone()]));
    }
}

fn failed(action: &str, source: io::Error) -> Error {
    Error::Request {
        action: action.to_owned(),
        source,
    }
}

fn said(message: NfTablesMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    request(NetfilterProtoFamily::IPv4, message, NLM_F_ACK | flags)
}

fn gone() -> NetlinkMessage<NetfilterMessage> {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    said(NfTablesMessage::DeleteTable(TableMessage { attributes }), 0)
}

fn table(hold: Hold) -> NetlinkMessage<NetfilterMessage> {
    let mut attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    if hold == Hold::Owned {
        attributes.push(TableAttribute::Flags(TableFlags::Owner));
    }
    let table = NfTablesMessage::NewTable(TableMessage { attributes });
    said(table, NLM_F_CREATE)
}

fn set() -> NetlinkMessage<NetfilterMessage> {
    let attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(ALIVE.to_owned()),
        SetAttribute::Flags(SetFlags::Timeout),
        SetAttribute::KeyType(IPV4_TYPE),
        SetAttribute::KeyLen(4),
        SetAttribute::Id(1),
    ];
    said(
        NfTablesMessage::NewSet(SetMessage { attributes }),
        NLM_F_CREATE,
    )
}

/// The element that says that we are there, to be put in or taken out.
fn alive(is_in: bool) -> NetlinkMessage<NetfilterMessage> {
    let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
    let mut element = vec![SetElementAttribute::Key(value(&RESOLVER.octets()))];
    if is_in {
        element.push(SetElementAttribute::Timeout(lifetime));
    }
    let message = SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.to_owned()),
            SetElementList::Set(ALIVE.to_owned()),
            SetElementList::Elements(vec![ListAttribute::Element(element)]),
        ],
    };
    if is_in {
        said(NfTablesMessage::NewSetElement(message), NLM_F_CREATE)
    } else {
        said(NfTablesMessage::DeleteSetElement(message), 0)
    }
}

fn chain() -> NetlinkMessage<NetfilterMessage> {
    let hook = vec![
        Hook::Number(InetHookNumber::LocalOut.into()),
        Hook::Priority(PRIORITY.cast_unsigned()),
    ];
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(CHAIN.to_owned()),
        ChainAttribute::Hook(hook),
        ChainAttribute::Type("filter".to_owned()),
    ];
    let chain = NfTablesMessage::NewChain(ChainMessage { attributes });
    said(chain, NLM_F_CREATE)
}

/// Queries to us and answers back from us, by datagram and by connection; the same for HTTP.
fn rules(ports: Ports, hold: Hold) -> Batch {
    [
        (6_u8, DOMAIN, ports.tcp, 16),
        (17, DOMAIN, ports.udp, 6),
        (6, HTTP, ports.http, 16),
    ]
    .into_iter()
    .flat_map(|(protocol, asked, port, checksum)| {
        let mut query = resolver(16, hold);
        query.extend(protocol_is(protocol));
        query.extend(port_is(2, asked));
        query.extend([
            load_mark(),
            compare(Operator::NotEqual, &MARK.to_ne_bytes()),
        ]);
        query.push(untracked());
        query.extend(rewrite(2, port, checksum));
        let mut answer = resolver(12, hold);
        answer.extend(protocol_is(protocol));
        answer.extend(port_is(0, port));
        answer.push(untracked());
        answer.extend(rewrite(0, asked, checksum));
        [rule(query), rule(answer)]
    })
    .collect()
}

fn rule(expressions: Vec<Expressions>) -> NetlinkMessage<NetfilterMessage> {
    /// Behind the rules that are there.
    const NLM_F_APPEND: u16 = 0x800;
    let expressions = expressions.into_iter().map(ListAttribute::from).collect();
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(CHAIN.to_owned()),
        RuleAttribute::Expressions(expressions),
    ];
    let rule = NfTablesMessage::NewRule(RuleMessage { attributes });
    said(rule, NLM_F_CREATE | NLM_F_APPEND)
}

/// Whether the address at an offset of the header is the resolver's, and, if need be, we are there.
fn resolver(offset: u32, hold: Hold) -> Vec<Expressions> {
    let looked_up = match hold {
        Hold::Owned => compare(Operator::Equal, &RESOLVER.octets()),
        Hold::Renewed => Expressions::Lookup(vec![
            Lookup::Set(ALIVE.to_owned()),
            Lookup::SourceRegister(Register::Reg1),
            Lookup::SetId(1),
        ]),
    };
    vec![load(NETWORK, offset, 4), looked_up]
}

fn protocol_is(protocol: u8) -> [Expressions; 2] {
    let load = Expressions::Meta(vec![
        Meta::Key(MetaKey::L4Proto),
        Meta::DestinationRegister(Register::Reg1),
    ]);
    [load, compare(Operator::Equal, &[protocol])]
}

fn port_is(offset: u32, port: u16) -> [Expressions; 2] {
    [
        load(TRANSPORT, offset, 2),
        compare(Operator::Equal, &port.to_be_bytes()),
    ]
}

fn load_mark() -> Expressions {
    Expressions::Meta(vec![
        Meta::Key(MetaKey::Mark),
        Meta::DestinationRegister(Register::Reg1),
    ])
}

fn load(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn compare(operator: Operator, bytes: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(value(bytes)),
    ])
}

/// The connection is not tracked.
fn untracked() -> Expressions {
    Expressions::Other {
        expression_type: "notrack".to_owned(),
        attributes: Vec::new(),
    }
}

/// Writes a port at an offset of the transport header, and mends the checksum at another.
fn rewrite(offset: u32, port: u16, checksum: u32) -> [Expressions; 2] {
    let load = Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Reg1),
        Immediate::Data(value(&port.to_be_bytes())),
    ]);
    let write = Expressions::Payload(vec![
        Payload::SourceRegister(Register::Reg1),
        Payload::Base(TRANSPORT),
        Payload::Offset(offset),
        Payload::Len(2),
        Payload::CsumType(ChecksumType::Inet),
        Payload::CsumOffset(checksum),
    ]);
    [load, write]
}

fn value(bytes: &[u8]) -> DataAttribute {
    DataAttribute::Value(bytes.to_vec())
}
