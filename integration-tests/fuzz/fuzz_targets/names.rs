//! The parser of queries and the way to an answer, by datagram and by connection: any bytes are survived, and whatever is
//! answered is a message that can be read, answers this query, and is no longer than it may be.
//!
//! ```text
//! mkdir -p target/corpus
//! cargo fuzz run --fuzz-dir integration-tests/fuzz names target/corpus integration-tests/fuzz/seeds/names
//! ```
//!
//! The first byte chooses the way, the order of the records, and whether what is known may be out of date; the rest is
//! the query.
#![no_main]

use std::cell::RefCell;

use drover_control_api::registry::RegistryEvent;
use drover_names::{Directory, Outcome, Reply, Transport, View, answer, refusal};
use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;

const NETWORK: &str = "aaaaaaaaaaaaaaaa";

thread_local! {
    static KNOWN: RefCell<Directory> = RefCell::new(directory());
}

/// Containers with every kind of name, on both hosts, of both families; a service with as many as do not fit.
fn directory() -> Directory {
    let mut directory = Directory::default();
    let mut lines = vec![
        r#"{"event":"reset","this_host":"a"}"#.to_owned(),
        r#"{"event":"host","name":"a","member":"m","alive":true}"#.to_owned(),
        r#"{"event":"host","name":"b","member":"m","alive":true}"#.to_owned(),
    ];
    for number in 1..=300 {
        let host = if number % 2 == 0 { "a" } else { "b" };
        let state = if number % 7 == 0 { "paused" } else { "running" };
        let (high, low) = (number / 250, number % 250 + 1);
        lines.push(format!(
            r#"{{"event":"container","version":1,"id":"{number:064x}","host":"{host}","member":"m","name":"web-{number}","service":{{"project":"s","service":"web"}},"image":"i","labels":{{}},"state":"{state}","health":null,"started_at":1,"attachments":{{"{NETWORK}":{{"network":"app","endpoint":null,"addresses":["10.64.{high}.{low}","fd00::{number:x}"],"mac":null,"aliases":["front","a-b_c"]}}}},"ports":[{{"port":80,"protocol":"tcp"}}]}}"#
        ));
    }
    lines.push(r#"{"event":"synced"}"#.to_owned());
    for line in lines {
        directory.apply(serde_json::from_str(&line).expect("an event"));
    }
    directory
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, query)) = input.split_first() else {
        return;
    };
    let transport = if choice & 1 == 0 {
        Transport::Udp
    } else {
        Transport::Tcp
    };
    let view = View {
        container: Some(format!("{:064x}", 1)),
        networks: vec![NETWORK.parse().expect("an id")],
    };
    let reply = KNOWN.with_borrow_mut(|directory| {
        let since = u64::from(choice >> 1 & 1);
        directory.apply(RegistryEvent::Stale { since });
        answer(directory, &view, query, transport, u64::from(*choice))
    });
    if let Reply::Answer(answer) = reply {
        let message = Message::from_vec(&answer.bytes).expect("an answer can be read");
        assert_eq!(message.metadata.message_type, MessageType::Response);
        assert_eq!(answer.bytes[..2], query[..2], "the id goes back");
        assert_eq!(message.metadata.truncation, answer.truncated);
        let limit = if transport == Transport::Udp {
            4096
        } else {
            65_535
        };
        assert!(answer.bytes.len() <= limit, "{} bytes", answer.bytes.len());
        if answer.outcome == Outcome::NoData || answer.outcome == Outcome::NoSuchName {
            assert!(message.answers.is_empty());
        }
    }
    if let Some(refusal) = refusal(query) {
        let message = Message::from_vec(&refusal).expect("a refusal can be read");
        assert_eq!(refusal[..2], query[..2], "the id goes back");
        assert_eq!(message.metadata.message_type, MessageType::Response);
    }
});
