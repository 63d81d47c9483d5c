//! Which changes of the store the copy takes over.

use drover_control_api::coordinator::Severity;
use drover_control_api::record::{BlockRecord, HostRecord, NetworkRecord, PoolRecord};
use drover_store::{Change, Entry};

use super::{Found, Snapshot};

const KEY: &str = "blocks/10.42.0.0_16/10.42.1.0_24";
const POOL: &str = "pools/10.42.0.0_16";
const NETWORK: &str = "networks/0123456789abcdef";

fn host(name: &str) -> Vec<u8> {
    let record = format!(
        r#"{{"version":1,"name":"{name}","member":"{name}-1","index":1,"advertise":"192.0.2.1","link":null,
           "underlay_mtu":1500,"prefixes":[],"addresses":[],"software":"0","joined_at":0}}"#
    );
    serde_json::from_str::<HostRecord>(&record).unwrap();
    record.into()
}

fn block(owner: Option<&str>) -> Vec<u8> {
    let member = owner.map(|owner| format!("{owner}-1"));
    let record = serde_json::json!({
        "version": 1, "pool": "10.42.0.0/16", "block": "10.42.1.0/24", "owner": owner, "owner_member": member,
        "quarantined_until": 0, "claims": {},
    });
    record.to_string().into()
}

fn pool() -> Vec<u8> {
    let record = serde_json::json!({
        "version": 1, "pool": "10.42.0.0/16", "sub_pool": null, "block_prefix": 24, "reserved": [], "claimed_by": "a",
        "claimed_at": 0, "network": "0123456789abcdef",
    });
    serde_json::from_value::<PoolRecord>(record.clone()).unwrap();
    record.to_string().into()
}

fn network(state: &str) -> Vec<u8> {
    let record = serde_json::json!({
        "version": 1, "id": "0123456789abcdef", "name": "app", "subnets": [], "labels": {}, "options": {},
        "internal": false, "attachable": false, "ipv6": false, "encryption": "off", "created_by": "a", "created_at": 0,
        "state": {"is": state},
    });
    serde_json::from_value::<NetworkRecord>(record.clone()).unwrap();
    record.to_string().into()
}

/// Two members, of which `a` owns the block of a network.
fn snapshot() -> Snapshot {
    let entry = |key: &str, value| Entry {
        key: key.to_owned(),
        value,
        revision: 1,
    };
    Snapshot::of(vec![
        entry("hosts/a", host("a")),
        entry("hosts/b", host("b")),
        entry(POOL, pool()),
        entry(NETWORK, network("active")),
        entry(KEY, block(Some("a"))),
    ])
}

fn change(revision: u64, key: &str, value: Option<Vec<u8>>) -> Change {
    Change {
        revision,
        key: key.to_owned(),
        value,
    }
}

fn owner(snapshot: &Snapshot) -> Option<String> {
    let record: BlockRecord = snapshot.record(KEY).unwrap();
    record.owner.map(|owner| owner.to_string())
}

#[test]
fn a_block_is_not_taken_from_a_member() {
    let mut snapshot = snapshot();
    snapshot.apply(vec![change(2, KEY, Some(block(Some("b"))))]);
    assert_eq!(owner(&snapshot).as_deref(), Some("a"));
    assert_eq!(snapshot.revision(KEY), 1);
    let standing = &snapshot.takeovers().standing[KEY];
    let Found::Claim { entry, claimant } = &standing.found else {
        panic!("{standing:?}");
    };
    assert_eq!((claimant.as_str(), entry.revision), ("b", 2));
    let found = snapshot.takeovers().findings(standing.at);
    assert_eq!(found[0].severity, Severity::Error);
    let seen = standing.at;
    // Its owner puts its record back: nothing stands, and what was is remembered.
    snapshot.apply(vec![change(3, KEY, Some(block(Some("a"))))]);
    assert_eq!(snapshot.revision(KEY), 3);
    assert!(snapshot.takeovers().standing.is_empty());
    assert_eq!(snapshot.takeovers().count, 1);
    let found = snapshot.takeovers().findings(seen);
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
    assert!(found[0].problem.contains("refused 1 times"), "{found:?}");
    assert!(snapshot.takeovers().findings(seen + 3600).is_empty());
}

#[test]
fn a_record_of_a_block_with_an_owner_is_not_deleted() {
    let mut snapshot = snapshot();
    snapshot.apply(vec![change(2, KEY, None)]);
    assert_eq!(owner(&snapshot).as_deref(), Some("a"));
    let standing = snapshot.takeovers().standing[KEY].clone();
    assert_eq!(standing.found, Found::Nothing);
    let found = snapshot.takeovers().findings(standing.at);
    assert!(
        found[0].problem.contains("of host `a` was deleted"),
        "{found:?}"
    );
    // Whoever asks the store meanwhile gets what is believed.
    let mut read = Vec::new();
    standing.correct(&mut read);
    assert_eq!(read, std::slice::from_ref(&standing.believed));
    // Who claims it then takes it from its owner.
    snapshot.apply(vec![change(3, KEY, Some(block(Some("b"))))]);
    assert_eq!(owner(&snapshot).as_deref(), Some("a"));
    snapshot.apply(vec![change(4, KEY, Some(block(Some("a"))))]);
    assert!(snapshot.takeovers().standing.is_empty());
    assert_eq!(snapshot.takeovers().count, 2);
}

#[test]
fn blocks_go_with_their_network() {
    let removing = change(2, NETWORK, Some(network("removing")));
    let gone = change(2, POOL, None);
    for first in [removing, gone] {
        let mut snapshot = snapshot();
        snapshot.apply(vec![first, change(3, KEY, None)]);
        assert!(snapshot.entry(KEY).is_none());
        assert_eq!(snapshot.takeovers().count, 0);
    }
    // Somebody has deleted the block already: it is believed until its pool is gone.
    let mut snapshot = snapshot();
    snapshot.apply(vec![change(2, KEY, None)]);
    assert!(snapshot.entry(KEY).is_some());
    snapshot.apply(vec![change(3, POOL, None)]);
    assert!(snapshot.entry(KEY).is_none());
    assert!(snapshot.takeovers().standing.is_empty());
}

#[test]
fn a_block_that_its_owner_gave_back_is_another_hosts() {
    let free = change(2, KEY, Some(block(None)));
    for back in [vec![free.clone()], vec![free, change(3, KEY, None)]] {
        let mut snapshot = snapshot();
        snapshot.apply(back);
        snapshot.apply(vec![change(4, KEY, Some(block(Some("b"))))]);
        assert_eq!(owner(&snapshot).as_deref(), Some("b"));
        assert_eq!(snapshot.takeovers().count, 0);
    }
}

#[test]
fn the_block_of_a_host_that_is_no_member_any_more_is_another_hosts() {
    let mut snapshot = snapshot();
    snapshot.apply(vec![change(2, KEY, Some(block(Some("b"))))]);
    assert_eq!(owner(&snapshot).as_deref(), Some("a"));
    snapshot.apply(vec![change(3, "hosts/a", None)]);
    assert_eq!(owner(&snapshot).as_deref(), Some("b"));
    assert!(snapshot.takeovers().standing.is_empty());
}
