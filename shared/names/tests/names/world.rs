//! A small cluster to ask about: hosts, containers, and questions as bytes.

use std::collections::{BTreeMap, BTreeSet};

use drover_control_api::registry::{
    Attachment, ContainerRecord, ContainerState, ExposedPort, Health, RegistryEvent, ServiceName,
};
use drover_model::LogicalNetworkId;
use drover_names::{Answer, Directory, Reply, Transport, View, answer};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};

/// The networks that there are: `app` and `other`.
pub(crate) fn network(name: &str) -> LogicalNetworkId {
    let digit = if name == "app" { "a" } else { "b" };
    digit.repeat(16).parse().unwrap()
}

/// A container's id, of a number.
pub(crate) fn id(number: u32) -> String {
    format!("{number:012x}{}", "0".repeat(52))
}

/// A container that runs on network `app`.
pub(crate) fn container(number: u32, name: &str, host: &str) -> ContainerRecord {
    let [_, _, high, low] = number.to_be_bytes();
    let attachment = Attachment {
        network: "app".to_owned(),
        endpoint: None,
        addresses: BTreeSet::from([format!("10.64.{high}.{low}").parse().unwrap()]),
        mac: None,
        aliases: BTreeSet::new(),
    };
    ContainerRecord {
        version: 1,
        id: id(number),
        host: host.parse().unwrap(),
        member: "m".to_owned(),
        name: name.to_owned(),
        service: None,
        image: "image".to_owned(),
        labels: BTreeMap::new(),
        state: ContainerState::Running,
        health: None,
        started_at: 1,
        attachments: BTreeMap::from([(network("app"), attachment)]),
        ports: BTreeSet::new(),
    }
}

/// What a test changes of a container.
pub(crate) trait With: Sized {
    fn alias(self, alias: &str) -> Self;
    fn service(self, project: &str, service: &str) -> Self;
    fn health(self, health: Health) -> Self;
    fn state(self, state: ContainerState) -> Self;
    fn address(self, address: &str) -> Self;
    fn port(self, port: u16, protocol: &str) -> Self;
    fn on(self, network: &str) -> Self;
}

impl With for ContainerRecord {
    fn alias(mut self, alias: &str) -> Self {
        let attachment = self.attachments.values_mut().next().unwrap();
        attachment.aliases.insert(alias.to_owned());
        self
    }

    fn service(mut self, project: &str, service: &str) -> Self {
        self.service = Some(ServiceName {
            project: project.to_owned(),
            service: service.to_owned(),
        });
        self
    }

    fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    fn state(mut self, state: ContainerState) -> Self {
        self.state = state;
        self
    }

    fn address(mut self, address: &str) -> Self {
        let attachment = self.attachments.values_mut().next().unwrap();
        attachment.addresses.insert(address.parse().unwrap());
        self
    }

    fn port(mut self, port: u16, protocol: &str) -> Self {
        let protocol = protocol.to_owned();
        self.ports.insert(ExposedPort { port, protocol });
        self
    }

    fn on(mut self, name: &str) -> Self {
        let (_, mut attachment) = self.attachments.pop_first().unwrap();
        attachment.network = name.to_owned();
        self.attachments.insert(network(name), attachment);
        self
    }
}

/// A host's event.
pub(crate) fn host(name: &str, alive: bool) -> RegistryEvent {
    RegistryEvent::Host {
        name: name.parse().unwrap(),
        member: "m".to_owned(),
        alive,
    }
}

/// A directory on host `a`, with hosts `a`, `b` and `c` alive, that knows these containers.
pub(crate) fn directory(containers: impl IntoIterator<Item = ContainerRecord>) -> Directory {
    let mut directory = Directory::default();
    directory.apply(RegistryEvent::Reset {
        this_host: "a".parse().unwrap(),
    });
    for name in ["a", "b", "c"] {
        directory.apply(host(name, true));
    }
    for record in containers {
        directory.apply(RegistryEvent::Container(Box::new(record)));
    }
    directory.apply(RegistryEvent::Synced);
    directory
}

/// Somebody on network `app`.
pub(crate) fn view() -> View {
    View {
        container: None,
        networks: vec![network("app")],
    }
}

/// A question as it goes over the wire.
pub(crate) fn question(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    message.add_query(Query::query(name, kind));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// Asks, and reads the answer; `None` when Docker is to answer.
pub(crate) fn ask(
    directory: &Directory,
    view: &View,
    name: &str,
    kind: RecordType,
) -> Option<(Answer, Message)> {
    match answer(
        directory,
        view,
        &question(name, kind, None),
        Transport::Tcp,
        1,
    ) {
        Reply::Answer(answer) => {
            let message = Message::from_vec(&answer.bytes).unwrap();
            Some((answer, message))
        }
        Reply::PassOn => None,
        Reply::Drop => panic!("a good query was dropped"),
    }
}

/// The addresses, names and targets that an answer has, in order.
pub(crate) fn data(message: &Message) -> Vec<String> {
    let text = |data: &RData| data.to_string();
    message
        .answers
        .iter()
        .map(|record| text(&record.data))
        .collect()
}

/// What somebody on `app` is told when asking for addresses; `None` when Docker is to answer.
pub(crate) fn told(directory: &Directory, name: &str) -> Option<Vec<String>> {
    let mut told = ask(directory, &view(), name, RecordType::A).map(|(_, it)| data(&it))?;
    told.sort();
    Some(told)
}
