//! Messages: sizes, case, cutting, and what is no query at all.

use drover_control_api::registry::RegistryEvent;
use drover_names::{Answer, Directory, Outcome, Reply, Transport, answer, refusal};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use crate::world::{With, container, data, directory, question, view};

fn many() -> Directory {
    directory((1..=500).map(|number| {
        container(number, &format!("web-{number}"), "b")
            .service("shop", "web")
            .address(&format!("fd00::{number:x}"))
            .port(80, "tcp")
    }))
}

fn reply(directory: &Directory, query: &[u8], transport: Transport) -> Option<(Answer, Message)> {
    match answer(directory, &view(), query, transport, 3) {
        Reply::Answer(answer) => {
            let message = Message::from_vec(&answer.bytes).expect("an answer that can be read");
            Some((answer, message))
        }
        Reply::PassOn | Reply::Drop => None,
    }
}

#[test]
fn five_hundred_containers_are_cut_over_udp_and_whole_over_tcp() {
    let directory = many();
    for (edns, limit, expected) in [
        (None, 512, 30),
        (Some(100), 512, 28),
        (Some(1232), 1232, 73),
        (Some(65_000), 4096, 252),
    ] {
        let query = question("web", RecordType::A, edns);
        let (answer, message) = reply(&directory, &query, Transport::Udp).unwrap();
        assert!(
            answer.bytes.len() <= limit,
            "{} bytes of {limit}",
            answer.bytes.len()
        );
        assert!(answer.truncated && message.metadata.truncation);
        assert!(
            message.answers.len() >= expected,
            "{} of {expected}",
            message.answers.len()
        );
        assert_eq!(message.edns.is_some(), edns.is_some());
    }
    for (kind, count) in [
        (RecordType::A, 500),
        (RecordType::AAAA, 500),
        (RecordType::ANY, 1000),
    ] {
        let query = question("web", kind, None);
        let (answer, message) = reply(&directory, &query, Transport::Tcp).unwrap();
        assert!(!answer.truncated && !message.metadata.truncation);
        assert_eq!(message.answers.len(), count);
    }
    let query = question("web", RecordType::SRV, None);
    let (answer, message) = reply(&directory, &query, Transport::Tcp).unwrap();
    assert_eq!(message.answers.len(), 500);
    assert!(!answer.truncated);
}

#[test]
fn the_question_goes_back_letter_by_letter() {
    let directory = directory([container(1, "web", "a")]);
    let query = question("wEb.ApP", RecordType::A, None);
    let (answer, message) = reply(&directory, &query, Transport::Udp).unwrap();
    assert_eq!(answer.bytes[12..query.len()], query[12..]);
    assert_eq!(message.answers[0].name.to_ascii(), "wEb.ApP.");
    assert_eq!(message.metadata.id, 7);
    assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
}

#[test]
fn the_longest_names() {
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "y".repeat(61));
    let directory = directory([
        container(1, &label, "a"),
        container(2, "other", "a").alias(&longest),
    ]);
    for (name, expected) in [(&label, "10.64.0.1"), (&longest, "10.64.0.2")] {
        let query = question(name, RecordType::A, Some(1232));
        let (_, message) = reply(&directory, &query, Transport::Udp).unwrap();
        assert_eq!(data(&message), [expected]);
    }
}

#[test]
fn a_stale_answer_says_so_to_those_who_understand() {
    let mut directory = directory([container(1, "web", "a")]);
    directory.apply(RegistryEvent::Stale { since: 5 });
    let query = question("web", RecordType::A, Some(1232));
    let (answer, _) = reply(&directory, &query, Transport::Udp).unwrap();
    assert!(
        answer.bytes.ends_with(&[0, 15, 0, 2, 0, 3]),
        "{:?}",
        answer.bytes
    );
    let query = question("web", RecordType::A, None);
    assert!(reply(&directory, &query, Transport::Udp).unwrap().0.stale);
}

/// A header with these flags and counts, and something behind it.
fn crafted(flags: [u8; 2], counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 9, flags[0], flags[1]];
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend_from_slice(rest);
    bytes
}

/// What is no query, or one that cannot be read, and what is to be said to it.
fn odd() -> Vec<(&'static str, Vec<u8>, Option<ResponseCode>)> {
    let web = b"\x03web\x00\x00\x01\x00\x01";
    let twice = [web.as_slice(), web.as_slice()].concat();
    vec![
        ("nothing", Vec::new(), None),
        ("half a header", vec![0; 11], None),
        ("an answer", crafted([0x80, 0], [1, 0, 0, 0], web), None),
        (
            "no question",
            crafted([1, 0], [0; 4], &[]),
            Some(ResponseCode::FormErr),
        ),
        (
            "two questions",
            crafted([1, 0], [2, 0, 0, 0], &twice),
            Some(ResponseCode::FormErr),
        ),
        (
            "65,535 questions",
            crafted([1, 0], [u16::MAX; 4], web),
            Some(ResponseCode::FormErr),
        ),
        (
            "a question that ends early",
            crafted([1, 0], [1, 0, 0, 0], b"\x03we"),
            Some(ResponseCode::FormErr),
        ),
        (
            "a name that points at itself",
            crafted([1, 0], [1, 0, 0, 0], b"\xc0\x0c\x00\x01\x00\x01"),
            Some(ResponseCode::FormErr),
        ),
        (
            "a name that points ahead",
            crafted([1, 0], [1, 0, 0, 0], b"\xc0\x0e\xc0\x0c\x00\x01\x00\x01"),
            Some(ResponseCode::FormErr),
        ),
        (
            "a name without an end",
            crafted([1, 0], [1, 0, 0, 0], &b"\x01a".repeat(300)),
            Some(ResponseCode::FormErr),
        ),
        (
            "a label of 64 bytes",
            crafted([1, 0], [1, 0, 0, 0], &[64; 80]),
            Some(ResponseCode::FormErr),
        ),
        (
            "an option that ends early",
            crafted(
                [1, 0],
                [1, 0, 0, 1],
                &[web.as_slice(), b"\x00\x00\x29\x10"].concat(),
            ),
            Some(ResponseCode::FormErr),
        ),
        (
            "a good one",
            crafted([1, 0], [1, 0, 0, 0], web),
            Some(ResponseCode::NoError),
        ),
    ]
}

#[test]
fn what_is_no_query_is_refused_or_dropped() {
    let directory = directory([container(1, "web", "a")]);
    for (what, query, expected) in odd() {
        let got = answer(&directory, &view(), &query, Transport::Udp, 1);
        match expected {
            None => assert_eq!(got, Reply::Drop, "{what}"),
            Some(code) => {
                let Reply::Answer(answer) = got else {
                    panic!("{what}: {got:?}");
                };
                let message = Message::from_vec(&answer.bytes).unwrap();
                assert_eq!(
                    (message.metadata.response_code, message.metadata.id),
                    (code, 9),
                    "{what}"
                );
                assert_eq!(
                    answer.outcome == Outcome::Malformed,
                    code == ResponseCode::FormErr
                );
            }
        }
    }
}

#[test]
fn what_is_not_ours_to_judge_is_passed_on() {
    let directory = directory([container(1, "web", "a")]);
    let web = b"\x03web\x00\x00\x01\x00\x01";
    for (what, query) in [
        ("an update", crafted([0x28, 0], [1, 0, 0, 0], web)),
        (
            "the class CHAOS",
            crafted([1, 0], [1, 0, 0, 0], b"\x03web\x00\x00\x10\x00\x03"),
        ),
        (
            "the root",
            crafted([1, 0], [1, 0, 0, 0], b"\x00\x00\x02\x00\x01"),
        ),
        (
            "bytes",
            crafted([1, 0], [1, 0, 0, 0], b"\x03w\x00b\x00\x00\x01\x00\x01"),
        ),
        (
            "a dot in a label",
            crafted([1, 0], [1, 0, 0, 0], b"\x07web.app\x00\x00\x01\x00\x01"),
        ),
    ] {
        let got = answer(&directory, &view(), &query, Transport::Udp, 1);
        assert_eq!(got, Reply::PassOn, "{what}");
    }
}

#[test]
fn a_refusal_says_try_again() {
    let query = question("web", RecordType::A, Some(1232));
    let message = Message::from_vec(&refusal(&query).unwrap()).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((message.metadata.id, message.queries.len()), (7, 1));
    assert_eq!(refusal(&[0; 5]), None);
    assert_eq!(refusal(&crafted([0x80, 0], [0; 4], &[])), None);
}

/// A query, or something that was one before bytes of it were changed, removed or added.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let names = prop_oneof![
        Just("web"),
        Just("web-7.app"),
        Just("_80._tcp.web"),
        Just("7.0.64.10.in-addr.arpa"),
        Just("nobody.example.com")
    ];
    let kinds = prop_oneof![
        Just(RecordType::A),
        Just(RecordType::AAAA),
        Just(RecordType::SRV),
        Just(RecordType::PTR),
        Just(RecordType::ANY)
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    (names, kinds, any::<Option<u16>>(), changes).prop_map(|(name, kind, edns, changes)| {
        let mut query = question(name, kind, edns);
        for (place, byte, change) in changes {
            let place = place.index(query.len());
            match change {
                0 => query.insert(place, byte),
                1 if query.len() > 1 => drop(query.remove(place)),
                2 => query[place] = 0xc0,
                _ => query[place] = byte,
            }
        }
        query
    })
}

fn check(directory: &Directory, query: &[u8], transport: Transport) {
    let Reply::Answer(answer) = answer(directory, &view(), query, transport, 5) else {
        return;
    };
    let message = Message::from_vec(&answer.bytes).expect("an answer that can be read");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(answer.bytes[..2], query[..2], "the id goes back");
    assert_eq!(message.metadata.truncation, answer.truncated);
    let limit = if transport == Transport::Udp {
        4096
    } else {
        65_535
    };
    assert!(answer.bytes.len() <= limit);
    let count = message.answers.len();
    assert_eq!(
        answer.outcome == Outcome::Records && !answer.truncated,
        count > 0 && !answer.truncated
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_survived(query in prop::collection::vec(any::<u8>(), 0..600)) {
        let directory = directory([container(1, "web", "a")]);
        check(&directory, &query, Transport::Udp);
        prop_assert!(query.len() >= 12 || refusal(&query).is_none());
    }

    #[test]
    fn changed_queries_are_answered_by_what_can_be_read(query in mutated()) {
        let directory = directory((1..=20).map(|number| {
            container(number, &format!("web-{number}"), "a").service("s", "web").port(80, "tcp")
        }));
        check(&directory, &query, Transport::Udp);
        check(&directory, &query, Transport::Tcp);
    }
}
