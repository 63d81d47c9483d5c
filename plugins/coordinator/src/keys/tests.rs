//! Which records are believed, and how much work that is.

use std::sync::LazyLock;
use std::time::Duration;

use drover_control_api::fabric::PeerKey;
use drover_control_api::record::KeyRecord;
use drover_pki::{Authority, Distrust, HostKey, Subject, Trust};
use drover_store::Entry;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::book::Book;
use super::record::{Fault, message, sign};
use super::{Signer, View};
use crate::mirror::Snapshot;

const CLUSTER: &str = "00112233445566778899aabbccddeeff";
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;
const MONTH: Duration = Duration::from_secs(30 * DAY);

fn authority() -> Authority {
    Authority::generate(CLUSTER, NOW).unwrap()
}

fn trust(authority: &Authority) -> Trust {
    Trust::new(authority.certificate().pem()).unwrap()
}

fn signer(authority: &Authority, name: &str) -> Signer {
    signer_of(authority, name, &format!("{name}-member"))
}

fn signer_of(authority: &Authority, name: &str, member: &str) -> Signer {
    let key = HostKey::generate().unwrap();
    let request = key.request(name).unwrap();
    let subject = Subject {
        name: name.to_owned(),
        member: member.to_owned(),
        aliases: Vec::new(),
        addresses: Vec::new(),
    };
    let certificate = authority.sign(&request, &subject, NOW, MONTH).unwrap();
    Signer {
        key,
        certificate: certificate.pem().to_owned(),
        trust: trust(authority),
    }
}

fn key(name: &str, generation: u64) -> PeerKey {
    PeerKey {
        host: name.parse().unwrap(),
        member: format!("{name}-member"),
        generation,
        public: [u8::try_from(generation % 251).unwrap(); 32],
        lanes: 2,
        udp_port: Some(4788),
        created_at: NOW,
    }
}

fn host(name: &str, member: &str, revision: u64) -> Entry {
    let value = format!(
        r#"{{"version":1,"name":"{name}","member":"{member}","index":1,"advertise":"192.0.2.1","link":null,
            "underlay_mtu":1500,"prefixes":[],"software":"","joined_at":0}}"#
    );
    Entry {
        key: format!("hosts/{name}"),
        value: value.into_bytes(),
        revision,
    }
}

fn at(name: &str, record: &KeyRecord, revision: u64) -> Entry {
    Entry {
        key: format!("keys/{name}"),
        value: serde_json::to_vec(record).unwrap(),
        revision,
    }
}

async fn read(book: &mut Book, entries: &[Entry], now: u64) -> View {
    book.read(&Snapshot::of(entries.to_vec()), now).await;
    book.view()
}

fn generation(view: &View, name: &str) -> Option<u64> {
    Some(view.keys.get(&name.parse().unwrap())?.generation)
}

#[test]
fn what_is_signed_has_these_bytes() {
    let golden = [
        &[0, 0, 0, 0, 0, 0, 0, 18][..],
        b"drover host key v1",
        &[0, 0, 0, 0, 0, 0, 0, 32],
        CLUSTER.as_bytes(),
        &[0, 0, 0, 0, 0, 0, 0, 3],
        b"web",
        &[0, 0, 0, 0, 0, 0, 0, 10],
        b"web-member",
        &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7],
        &[0, 0, 0, 0, 0, 0, 0, 32],
        &[7; 32],
        &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0],
        &[0, 0, 0, 0, 0, 0, 0, 1, 2],
        &[0, 0, 0, 0, 0, 0, 0, 2, 0x12, 0xb4],
    ];
    assert_eq!(message(CLUSTER, &key("web", 7)), golden.concat());
    let without = PeerKey {
        udp_port: None,
        ..key("web", 7)
    };
    let end = message(CLUSTER, &without);
    assert_eq!(&end[end.len() - 9..], [2, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_key_is_believed_while_its_host_and_its_certificate_are_there() {
    let authority = authority();
    let web = signer(&authority, "web");
    let mut book = Book::new(trust(&authority), CLUSTER);
    let record = sign(&web, CLUSTER, &key("web", 1)).unwrap();
    let present = [host("web", "web-member", 1), at("web", &record, 2)];
    let view = read(&mut book, &present, NOW).await;
    assert_eq!(view.keys.values().collect::<Vec<_>>(), [&key("web", 1)]);
    assert!(view.findings().is_empty());

    // Only the time has changed, and then changes back: a clock was set.
    let end = NOW + MONTH.as_secs();
    assert!(read(&mut book, &present, end).await.keys.len() == 1);
    let checks = book.checks;
    let ended = read(&mut book, &present, end + 1).await;
    assert_eq!(ended.keys.len(), 0);
    let expired = Fault::Distrusted(Distrust::Expired { at: end });
    assert_eq!(ended.faults.values().collect::<Vec<_>>(), [&expired]);
    read(&mut book, &present, end + DAY).await;
    assert_eq!(book.checks, checks + 1, "it stays ended");
    assert_eq!(read(&mut book, &present, NOW).await.keys.len(), 1);
    let early = read(&mut book, &present, NOW - DAY - 1).await;
    assert!(early.findings()[0].remedy.contains("NTP"), "{early:?}");
    assert_eq!(read(&mut book, &present, NOW - DAY).await.keys.len(), 1);

    // Another member of that name, until it has published.
    let other = [host("web", "another", 3), at("web", &record, 2)];
    let view = read(&mut book, &other, NOW).await;
    assert_eq!(
        (view.keys.len(), view.faults["web"].clone()),
        (0, Fault::Member)
    );
    let joined = PeerKey {
        member: "another".to_owned(),
        ..key("web", 1)
    };
    let other = [
        other[0].clone(),
        at(
            "web",
            &sign(&signer_of(&authority, "web", "another"), CLUSTER, &joined).unwrap(),
            4,
        ),
    ];
    assert_eq!(
        generation(&read(&mut book, &other, NOW).await, "web"),
        Some(1)
    );

    // Somebody has deleted its record: what was agreed on with it stays.
    let deleted = read(&mut book, &other[..1], NOW).await;
    assert_eq!(
        (generation(&deleted, "web"), deleted.faults.len()),
        (Some(1), 0)
    );
    // The same of somebody who has never seen it.
    let mut anew = Book::new(trust(&authority), CLUSTER);
    assert!(read(&mut anew, &other[..1], NOW).await.keys.is_empty());
    let left = read(&mut book, &other[1..], NOW).await;
    assert_eq!(
        (left.keys.len(), left.faults["web"].clone()),
        (0, Fault::NoHost)
    );
}

#[tokio::test]
async fn a_member_cannot_publish_for_another() {
    let (ours, theirs) = (authority(), authority());
    let [web, evil] = ["web", "evil"].map(|name| signer(&ours, name));
    let foreign = signer(&theirs, "web");
    // Removed, and now another host has the name; the certificate is still good.
    let earlier = signer_of(&ours, "web", "earlier");
    let good = sign(&web, CLUSTER, &key("web", 5)).unwrap();
    let other_cluster = sign(&web, "ffffffffffffffffffffffffffffffff", &key("web", 6)).unwrap();
    let forged = sign(&evil, CLUSTER, &key("web", 6)).unwrap();
    let borrowed = KeyRecord {
        certificate: web.certificate.clone(),
        ..forged.clone()
    };
    let own = sign(&evil, CLUSTER, &key("evil", 6)).unwrap();
    let cases = [
        (forged, Fault::Distrusted(Distrust::Name("evil".to_owned()))),
        (borrowed, Fault::Distrusted(Distrust::Signature)),
        (other_cluster, Fault::Distrusted(Distrust::Signature)),
        (
            sign(&foreign, CLUSTER, &key("web", 6)).unwrap(),
            Fault::Distrusted(Distrust::Issuer),
        ),
        (
            sign(&earlier, CLUSTER, &key("web", 6)).unwrap(),
            Fault::Distrusted(Distrust::Member),
        ),
        (own, Fault::Misplaced("evil".parse().unwrap())),
        (
            KeyRecord {
                public: [9; 32],
                ..good.clone()
            },
            Fault::Distrusted(Distrust::Signature),
        ),
        (
            KeyRecord {
                version: 2,
                ..good.clone()
            },
            Fault::Version(2),
        ),
        (
            KeyRecord {
                lanes: 9,
                ..good.clone()
            },
            Fault::Range,
        ),
        (
            KeyRecord {
                udp_port: Some(65535),
                ..good.clone()
            },
            Fault::Range,
        ),
        (
            KeyRecord {
                generation: 0,
                ..good.clone()
            },
            Fault::Range,
        ),
    ];
    for (record, expected) in cases {
        let mut book = Book::new(trust(&ours), CLUSTER);
        let hosts = [host("web", "web-member", 1), host("evil", "evil-member", 1)];
        let before = [&hosts[..], &[at("web", &good, 2)]].concat();
        let view = read(&mut book, &before, NOW).await;
        assert_eq!(generation(&view, "web"), Some(5));
        let after = [&hosts[..], &[at("web", &record, 3)]].concat();
        let mut fresh = Book::new(trust(&ours), CLUSTER);
        assert_eq!(read(&mut fresh, &after, NOW).await.keys.len(), 0);
        let view = read(&mut book, &after, NOW).await;
        assert_eq!(view.faults["web"], expected);
        assert_eq!(generation(&view, "web"), Some(5), "the former one stays");
        let finding = &view.findings()[0];
        assert!(finding.problem.contains("host `web`"), "{finding:?}");
        // And again as it was.
        let view = read(&mut book, &before, NOW).await;
        assert_eq!(generation(&view, "web"), Some(5));
    }
}

#[tokio::test]
async fn an_earlier_generation_does_not_come_back() {
    let authority = authority();
    let web = signer(&authority, "web");
    let mut book = Book::new(trust(&authority), CLUSTER);
    let record = |generation| sign(&web, CLUSTER, &key("web", generation)).unwrap();
    let there =
        |record: &KeyRecord, revision| [host("web", "web-member", 1), at("web", record, revision)];
    read(&mut book, &there(&record(4), 2), NOW).await;
    assert_eq!(
        generation(&read(&mut book, &there(&record(7), 3), NOW).await, "web"),
        Some(7)
    );
    let replayed = read(&mut book, &there(&record(4), 4), NOW).await;
    assert_eq!(generation(&replayed, "web"), Some(7), "the newer one stays");
    let went_back = Fault::WentBack {
        found: 4,
        highest: 7,
    };
    assert_eq!(replayed.faults["web"], went_back);
    // Not even when it was away in between.
    read(&mut book, &there(&record(7), 3)[..1], NOW).await;
    let replayed = read(&mut book, &there(&record(4), 5), NOW).await;
    assert_eq!(generation(&replayed, "web"), Some(7), "the newer one stays");
    assert_eq!(replayed.faults["web"], went_back);

    let another = PeerKey {
        public: [1; 32],
        ..key("web", 7)
    };
    let reused = read(
        &mut book,
        &there(&sign(&web, CLUSTER, &another).unwrap(), 6),
        NOW,
    )
    .await;
    assert_eq!(reused.faults["web"], Fault::Reused(7));
    let more_lanes = PeerKey {
        lanes: 4,
        ..key("web", 7)
    };
    let view = read(
        &mut book,
        &there(&sign(&web, CLUSTER, &more_lanes).unwrap(), 7),
        NOW,
    )
    .await;
    assert_eq!(view.keys.values().collect::<Vec<_>>(), [&more_lanes]);
    assert!(view.faults.is_empty());
}

#[tokio::test]
async fn a_thousand_keys_are_each_checked_once() {
    const HOSTS: u64 = 1000;
    let authority = authority();
    let web = signer(&authority, "web");
    let name = |number: u64| format!("host-{number}");
    let mut book = Book::new(trust(&authority), CLUSTER);
    let mut entries = Vec::new();
    for number in 0..HOSTS {
        let name = name(number);
        entries.push(host(&name, &format!("{name}-member"), 1));
        // Signed by another, which is as much work.
        entries.push(at(&name, &sign(&web, CLUSTER, &key(&name, 1)).unwrap(), 2));
    }
    let view = read(&mut book, &entries, NOW).await;
    assert_eq!(
        (view.keys.len(), view.faults.len(), book.checks),
        (0, 1000, HOSTS)
    );
    assert_eq!(view.findings().len(), 21, "told in a bearable number");
    for later in 1..100 {
        read(&mut book, &entries, NOW + later).await;
    }
    assert_eq!(book.checks, HOSTS);
    // Hosts change their records, garbage comes: nothing to check. One key changes: one check.
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.key.starts_with("hosts/"))
    {
        entry.revision = 7;
    }
    let garbage = [
        ("keys/host-1", b"{\"version\":1,".to_vec()),
        ("keys/host-2", Vec::new()),
        ("keys/host-3", vec![b'['; 1 << 20]),
        ("keys/host-4", vec![0xff; 64]),
        ("keys/", b"{}".to_vec()),
        ("keys/a/b", b"{}".to_vec()),
        ("keys/\u{1b}[31m\n", b"{}".to_vec()),
        ("keys/HOST-5", b"{}".to_vec()),
    ];
    for (place, value) in garbage {
        entries.retain(|entry| entry.key != place);
        entries.push(Entry {
            key: place.to_owned(),
            value,
            revision: 8,
        });
    }
    let view = read(&mut book, &entries, NOW).await;
    assert_eq!(book.checks, HOSTS);
    assert_eq!(view.faults["host-1"], Fault::Unreadable);
    assert_eq!(view.faults["host-3"], Fault::TooLarge(1 << 20));
    for place in ["", "a/b", "\u{1b}[31m\n", "HOST-5"] {
        assert_eq!(view.faults[place], Fault::NoHost, "{place:?}");
    }
    for finding in view.findings() {
        assert!(!finding.problem.contains(char::is_control), "{finding:?}");
    }
    entries.retain(|entry| entry.key != "keys/host-9");
    entries.push(at(
        "host-9",
        &sign(&web, CLUSTER, &key("host-9", 2)).unwrap(),
        9,
    ));
    read(&mut book, &entries, NOW).await;
    assert_eq!(book.checks, HOSTS + 1);
}

static MADE: LazyLock<(Authority, Vec<u8>)> = LazyLock::new(|| {
    let authority = authority();
    let web = signer(&authority, "web");
    let record = sign(&web, CLUSTER, &key("web", 3)).unwrap();
    (authority, serde_json::to_vec(&record).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A flipped bit is noticed, or was one that says nothing, such as a line end in the PEM text.
    #[test]
    fn nothing_of_a_record_can_be_changed(place in any::<proptest::sample::Index>(), bit in 0_u8..8) {
        let (authority, value) = &*MADE;
        let mut value = value.clone();
        let at = place.index(value.len());
        value[at] ^= 1 << bit;
        let entry = Entry { key: "keys/web".to_owned(), value, revision: 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut book = Book::new(trust(authority), CLUSTER);
        let view = runtime.block_on(read(&mut book, &[host("web", "web-member", 1), entry], NOW));
        prop_assert_eq!(view.keys.len() + view.faults.len(), 1);
        prop_assert!(view.keys.values().all(|found| *found == key("web", 3)));
    }

    #[test]
    fn a_record_that_is_cut_is_refused(place in any::<proptest::sample::Index>()) {
        let (authority, value) = &*MADE;
        let value = value[..place.index(value.len())].to_vec();
        let entry = Entry { key: "keys/web".to_owned(), value, revision: 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut book = Book::new(trust(authority), CLUSTER);
        let view = runtime.block_on(read(&mut book, &[host("web", "web-member", 1), entry], NOW));
        prop_assert_eq!(view.faults.get("web"), Some(&Fault::Unreadable));
    }
}
