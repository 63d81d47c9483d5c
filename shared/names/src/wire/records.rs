//! The records that answer a question.

use std::net::IpAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::directory::Directory;
use crate::name::fold_labels;
use crate::place::Place;
use crate::resolve::{Found, View, find, find_address};
use crate::{METADATA_ADDRESS, METADATA_NAME, TTL};

/// What is told.
pub(crate) enum Told {
    /// It is Docker's business.
    PassOn,
    /// These records, and these that will be asked for next.
    Records(Vec<Record>, Vec<Record>),
    /// That there is no such name.
    NoSuchName,
}

/// What is asked of a service (RFC 2782): `_8080._tcp.web`, `_tcp.web`, or `web` for all that there is.
struct ServiceQuestion<'a> {
    port: Option<Port<'a>>,
    protocol: Option<&'a str>,
    name: &'a str,
}

enum Port<'a> {
    Number(u16),
    /// A word: it could be any port.
    Word(&'a str),
}

/// Looks for what a question asks for.
pub(crate) fn tell(directory: &Directory, view: &View, question: &Query, seed: u64) -> Told {
    if question.query_type == RecordType::PTR {
        return tell_names(directory, view, question);
    }
    let Some(name) = fold_labels(question.name.iter()) else {
        return Told::PassOn;
    };
    if let Some(head) = name.strip_suffix(METADATA_NAME) {
        match head {
            "" => return Told::Records(metadata_address(question), Vec::new()),
            head if head.ends_with('.') => return Told::NoSuchName,
            _ => {}
        }
    }
    if question.query_type == RecordType::SRV {
        return tell_services(directory, view, (question, &name), seed);
    }
    let Some(found) = find(directory, view, &name, seed) else {
        return Told::PassOn;
    };
    Told::Records(addresses(&found, question), Vec::new())
}

fn metadata_address(question: &Query) -> Vec<Record> {
    let is_asked = matches!(question.query_type, RecordType::A | RecordType::ANY);
    let data = is_asked.then_some(RData::A(A(METADATA_ADDRESS)));
    let record = |data| Record::from_rdata(question.name.clone(), TTL, data);
    data.map(record).into_iter().collect()
}

fn addresses(found: &Found<'_>, question: &Query) -> Vec<Record> {
    let kind = question.query_type;
    let mut records = Vec::with_capacity(found.given.len());
    for place in &found.given {
        records.extend(addresses_of(place, &question.name, kind));
    }
    records
}

fn addresses_of(place: &Place, name: &Name, kind: RecordType) -> impl Iterator<Item = Record> {
    let is_asked = move |address: &IpAddr| match address {
        IpAddr::V4(_) => matches!(kind, RecordType::A | RecordType::ANY),
        IpAddr::V6(_) => matches!(kind, RecordType::AAAA | RecordType::ANY),
    };
    place.addresses().filter(is_asked).map(|address| {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        Record::from_rdata(name.clone(), TTL, data)
    })
}

/// The names of the containers that have an address.
fn tell_names(directory: &Directory, view: &View, question: &Query) -> Told {
    let Some(address) = reverse_address(&question.name) else {
        return Told::PassOn;
    };
    let Some((network, holders)) = find_address(directory, view, address) else {
        return Told::PassOn;
    };
    let names = holders.iter().filter_map(|place| {
        // As Docker does; a name that is none, or too long with the network's, is told as the id.
        let full = format!("{}.{}.", place.name, network.name());
        let short = || Name::from_ascii(format!("{}.", place.short_id()));
        Name::from_ascii(full).or_else(|_| short()).ok()
    });
    let records =
        names.map(|name| Record::from_rdata(question.name.clone(), TTL, RData::PTR(PTR(name))));
    Told::Records(records.collect(), Vec::new())
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` means.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let mut name = name.clone();
    name.set_fqdn(true);
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

fn tell_services(
    directory: &Directory,
    view: &View,
    (question, name): (&Query, &str),
    seed: u64,
) -> Told {
    let asked = ServiceQuestion::read(name);
    let Some(found) = find(directory, view, asked.name, seed) else {
        return Told::PassOn;
    };
    let (mut records, mut additionals) = (Vec::new(), Vec::new());
    for place in &found.given {
        let Ok(target) = Name::from_ascii(format!("{}.", place.short_id())) else {
            continue;
        };
        let before = records.len();
        for port in place
            .ports
            .iter()
            .filter(|port| asked.matches(port.port, &port.protocol))
        {
            let data = RData::SRV(SRV::new(0, 0, port.port, target.clone()));
            records.push(Record::from_rdata(question.name.clone(), TTL, data));
        }
        if records.len() > before {
            additionals.extend(addresses_of(place, &target, RecordType::ANY));
        }
    }
    if records.is_empty() && asked.is_particular() {
        return Told::NoSuchName;
    }
    Told::Records(records, additionals)
}

/// The name in a question for a service; the name itself if it is none.
pub(crate) fn host_part(name: &str) -> &str {
    ServiceQuestion::read(name).name
}

impl<'a> ServiceQuestion<'a> {
    fn read(name: &'a str) -> Self {
        let label = |text: &'a str| {
            let (first, rest) = text.split_once('.')?;
            Some((first.strip_prefix('_')?, rest))
        };
        let is_protocol = |text: &str| matches!(text, "tcp" | "udp" | "sctp");
        match label(name) {
            Some((protocol, rest)) if is_protocol(protocol) => Self {
                port: None,
                protocol: Some(protocol),
                name: rest,
            },
            Some((port, rest)) => match label(rest) {
                Some((protocol, rest)) if is_protocol(protocol) => Self {
                    port: Some(port.parse().map_or(Port::Word(port), Port::Number)),
                    protocol: Some(protocol),
                    name: rest,
                },
                _ => Self::all(name),
            },
            None => Self::all(name),
        }
    }

    const fn all(name: &'a str) -> Self {
        Self {
            port: None,
            protocol: None,
            name,
        }
    }

    const fn is_particular(&self) -> bool {
        self.protocol.is_some()
    }

    fn matches(&self, port: u16, protocol: &str) -> bool {
        let port = match &self.port {
            None => true,
            Some(Port::Number(number)) => *number == port,
            Some(Port::Word(word)) => registered(word) == Some(port),
        };
        port && self.protocol.is_none_or(|asked| asked == protocol)
    }
}

/// The port that a word means, of those that programs ask for (the registry of RFC 6335).
fn registered(word: &str) -> Option<u16> {
    const PORTS: &[(&str, u16)] = &[
        ("http", 80),
        ("https", 443),
        ("http-alt", 8080),
        ("domain", 53),
        ("ldap", 389),
        ("smtp", 25),
        ("imap", 143),
        ("amqp", 5672),
        ("mqtt", 1883),
        ("mysql", 3306),
        ("postgresql", 5432),
        ("redis", 6379),
        ("mongodb", 27017),
        ("etcd-client", 2379),
        ("sip", 5060),
    ];
    let known = PORTS.iter().find(|(known, _)| *known == word);
    known.map(|(_, port)| *port)
}
