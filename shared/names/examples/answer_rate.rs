//! How many answers a second one core gives, without sockets: `cargo run --release -p drover-names --example answer_rate`.
#![expect(
    clippy::disallowed_methods,
    reason = "an example has effects: it measures"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use drover_control_api::registry::{
    Attachment, ContainerRecord, ContainerState, RegistryEvent, ServiceName,
};
use drover_names::{Directory, Reply, Transport, View, answer};

const NETWORK: &str = "aaaaaaaaaaaaaaaa";
const SPAN: Duration = Duration::from_secs(2);

/// Containers on network `app`, 500 of them of the service `many`, three of the service `web`.
fn directory(count: u32) -> Result<Directory, Box<dyn Error>> {
    let mut directory = Directory::default();
    directory.apply(RegistryEvent::Reset {
        this_host: "a".parse()?,
    });
    directory.apply(RegistryEvent::Host {
        name: "a".parse()?,
        member: "m".to_owned(),
        alive: true,
    });
    for number in 0..count {
        directory.apply(RegistryEvent::Container(Box::new(container(number)?)));
    }
    directory.apply(RegistryEvent::Synced);
    Ok(directory)
}

fn container(number: u32) -> Result<ContainerRecord, Box<dyn Error>> {
    let address = std::net::Ipv4Addr::from_bits(0x0a40_0000 + number);
    let service = match number {
        0..3 => Some("web"),
        3..503 => Some("many"),
        _ => None,
    };
    let attachment = Attachment {
        network: "app".to_owned(),
        endpoint: None,
        addresses: BTreeSet::from([address.into()]),
        mac: None,
        aliases: BTreeSet::new(),
    };
    Ok(ContainerRecord {
        version: 1,
        id: format!("{number:064x}"),
        host: "a".parse()?,
        member: "m".to_owned(),
        name: format!("container-{number}"),
        service: service.map(|service| ServiceName {
            project: "shop".to_owned(),
            service: service.to_owned(),
        }),
        image: "image".to_owned(),
        labels: BTreeMap::new(),
        state: ContainerState::Running,
        health: None,
        started_at: 1,
        attachments: BTreeMap::from([(NETWORK.parse()?, attachment)]),
        ports: BTreeSet::new(),
    })
}

/// A question for addresses, with EDNS.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        query.extend(u8::try_from(label.len()));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    query
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let begun = Instant::now();
    let directory = directory(10_000)?;
    writeln!(out, "10,000 containers taken in: {:?}", begun.elapsed())?;
    let view = View {
        container: None,
        networks: vec![NETWORK.parse()?],
    };
    let cases = [
        ("one container", "container-7000"),
        ("a service of three", "web"),
        ("a service of 500", "many"),
        ("not ours", "www.example.com"),
    ];
    for (what, name) in cases {
        let query = question(name);
        let (begun, mut count, mut bytes) = (Instant::now(), 0_u32, 0);
        while begun.elapsed() < SPAN {
            for _ in 0..64 {
                count += 1;
                let seed = u64::from(count);
                if let Reply::Answer(answer) =
                    answer(&directory, &view, &query, Transport::Udp, seed)
                {
                    bytes = answer.bytes.len();
                }
            }
        }
        let each = begun.elapsed() / count.max(1);
        let rate = f64::from(count) / begun.elapsed().as_secs_f64();
        writeln!(
            out,
            "{what:<20} {rate:>10.0} a second, {each:?} each, {bytes} bytes"
        )?;
    }
    Ok(())
}
