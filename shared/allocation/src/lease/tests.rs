//! One host's allocator: what it gives, what rests, what is kept for others.

use drover_control_api::record::{AddressClaim, BlockRecord, ClaimState};
use drover_model::HostName;

use super::*;
use crate::block::empty;

const NOW: UnixSeconds = 1_000;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn other() -> HostName {
    "other".parse().unwrap()
}

fn mac(last: u8) -> Option<MacAddress> {
    Some(MacAddress::new([2, 0, 0, 0, 0, last]))
}

/// A pool 10.90.0.0/24 in blocks of /28, the first of which is this host's; the gateway is reserved.
fn pool() -> HostPool {
    let shape = PoolShape {
        pool: "10.90.0.0/24".parse().unwrap(),
        sub_pool: None,
        block_prefix: 28,
    };
    let reserved = BTreeSet::from([shape.default_gateway(), address("10.90.0.4")]);
    let mut pool = HostPool::new(shape, reserved, QUARANTINE_SECONDS);
    pool.add_block(&block_record("10.90.0.0/28"), NOW);
    pool
}

fn block_record(block: &str) -> BlockRecord {
    empty(
        "10.90.0.0/24".parse().unwrap(),
        Block::new(block.parse().unwrap()),
    )
}

fn take_all(pool: &mut HostPool) -> Vec<String> {
    std::iter::from_fn(|| pool.allocate(None, NOW).ok())
        .map(|address| address.to_string())
        .collect()
}

#[test]
fn every_usable_address_is_given_once_and_then_the_end_is_said() {
    let mut pool = pool();
    let given = take_all(&mut pool);
    assert_eq!(given.first().unwrap(), "10.90.0.2");
    assert_eq!(given.last().unwrap(), "10.90.0.14");
    assert_eq!(given.len(), 12, "13 usable, one reserved");
    assert!(!given.contains(&"10.90.0.4".to_owned()));
    assert_eq!(pool.prefix_length(address("10.90.0.2")), 28);
    assert_eq!(pool.prefix_length(address("10.90.0.30")), 32);
    let error = pool.allocate(None, NOW).unwrap_err().to_string();
    assert!(
        error.contains("10.90.0.0/24") && error.contains("12 in use"),
        "{error}"
    );
}

#[test]
fn an_address_rests_and_the_error_says_for_how_long() {
    let mut pool = pool();
    take_all(&mut pool);
    assert!(pool.release(address("10.90.0.7"), NOW));
    assert!(!pool.release(address("10.90.0.7"), NOW));
    assert!(pool.expire(NOW + 59).is_empty());
    let error = pool.allocate(None, NOW + 18).unwrap_err().to_string();
    assert!(
        error.contains("1 not given again yet, the first in 42 s"),
        "{error}"
    );
    assert_eq!(pool.expire(NOW + 60), [address("10.90.0.7")]);
    assert_eq!(pool.allocate(None, NOW + 60).unwrap(), address("10.90.0.7"));
}

#[test]
fn the_search_goes_on_behind_the_last_address() {
    let mut pool = pool();
    assert_eq!(pool.allocate(None, NOW).unwrap(), address("10.90.0.2"));
    pool.release(address("10.90.0.2"), NOW);
    pool.expire(NOW + 60);
    assert_eq!(pool.allocate(None, NOW + 60).unwrap(), address("10.90.0.3"));
}

#[test]
fn a_named_address_is_given_once_and_again_to_the_same_container() {
    let mut pool = pool();
    let given = address("10.90.0.9");
    assert_eq!(
        pool.allocate_explicit(given, mac(1), NOW),
        Ok(Explicit::Given)
    );
    assert_eq!(
        pool.allocate_explicit(given, mac(1), NOW),
        Ok(Explicit::Already)
    );
    let error = pool
        .allocate_explicit(given, mac(2), NOW)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("02:00:00:00:00:01") && error.contains("10.90.0.9"),
        "{error}"
    );
    pool.release(given, NOW);
    assert_eq!(
        pool.allocate_explicit(given, mac(2), NOW),
        Ok(Explicit::Given)
    );
    assert_eq!(
        pool.allocate_explicit(address("10.90.0.77"), mac(2), NOW),
        Ok(Explicit::Claim)
    );
    for (refused, reason) in [
        ("10.90.0.4", "reserved"),
        ("10.90.0.1", "router"),
        ("10.90.0.15", "broadcast"),
        ("10.91.0.4", "not in subnet"),
    ] {
        let error = pool
            .allocate_explicit(address(refused), None, NOW)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn what_is_set_aside_or_pending_is_not_given() {
    let mut pool = pool();
    assert!(pool.set_aside(address("10.90.0.2"), &other()));
    assert!(
        pool.set_aside(address("10.90.0.2"), &other()),
        "asked twice"
    );
    let third = "third".parse().unwrap();
    assert!(
        !pool.set_aside(address("10.90.0.2"), &third),
        "another host has it"
    );
    assert!(
        !pool.take_back(address("10.90.0.2"), &third, NOW),
        "it was not that host's"
    );
    assert!(!pool.set_aside(address("10.90.0.4"), &other()), "reserved");
    assert!(!pool.set_aside(address("10.90.0.40"), &other()), "not ours");
    pool.begin_claim(address("10.90.0.20"));
    pool.add_block(&block_record("10.90.0.16/28"), NOW);
    let given = take_all(&mut pool);
    assert!(!given.contains(&"10.90.0.2".to_owned()) && !given.contains(&"10.90.0.20".to_owned()));
    assert!(!pool.set_aside(address("10.90.0.3"), &other()), "in use");
    let error = pool
        .allocate_explicit(address("10.90.0.2"), None, NOW)
        .unwrap_err()
        .to_string();
    assert!(error.contains("another host"), "{error}");
    pool.abandon_claim(address("10.90.0.20"));
    assert_eq!(pool.allocate(None, NOW).unwrap(), address("10.90.0.20"));
    assert!(pool.take_back(address("10.90.0.2"), &other(), NOW));
    let error = pool
        .allocate_explicit(address("10.90.0.2"), None, NOW)
        .unwrap_err()
        .to_string();
    assert!(error.contains("for 60 s"), "{error}");
    assert!(
        !pool.set_aside(address("10.90.0.2"), &other()),
        "nor to a third host"
    );
    assert_eq!(pool.expire(NOW + 60), [address("10.90.0.2")]);
    assert_eq!(pool.allocate(None, NOW + 60).unwrap(), address("10.90.0.2"));
}

#[test]
fn what_was_kept_is_restored_as_it_was() {
    let mut pool = pool();
    pool.allocate(mac(1), NOW).unwrap();
    pool.allocate(mac(2), NOW).unwrap();
    pool.release(address("10.90.0.2"), NOW);
    pool.set_aside(address("10.90.0.9"), &other());
    let text = serde_json::to_string(&pool.holding()).unwrap();
    let addresses = pool
        .addresses()
        .map(|(address, state)| (address, state.clone()));
    let mut restored = HostPool::restore(
        serde_json::from_str(&text).unwrap(),
        addresses.collect::<Vec<_>>(),
        QUARANTINE_SECONDS,
        NOW,
    );
    assert_eq!(restored.holding(), pool.holding());
    assert_eq!(restored.free(), pool.free());
    assert_eq!(
        restored.usage().collect::<Vec<_>>(),
        pool.usage().collect::<Vec<_>>()
    );
    assert!(
        !take_all(&mut restored)
            .iter()
            .any(|given| given == "10.90.0.2" || given == "10.90.0.9")
    );
    assert_eq!(restored.expire(NOW + 60), [address("10.90.0.2")]);
}

#[test]
fn an_idle_block_leaves_unless_something_is_in_it() {
    let mut pool = pool();
    pool.add_block(&block_record("10.90.0.16/28"), NOW);
    assert_eq!(pool.idle_blocks(NOW), []);
    assert_eq!(pool.idle_blocks(NOW + 1).len(), 2);
    let given = pool.allocate(None, NOW).unwrap();
    let idle = pool.idle_blocks(NOW + 1);
    assert_eq!(idle, [Block::new("10.90.0.16/28".parse().unwrap())]);
    assert!(!pool.begin_leave(Block::new("10.90.0.0/28".parse().unwrap())));
    assert!(pool.begin_leave(idle[0]));
    assert_eq!(
        pool.allocate_explicit(address("10.90.0.20"), None, NOW),
        Ok(Explicit::Claim)
    );
    assert_eq!(pool.leaving_blocks().collect::<Vec<_>>(), idle);
    pool.remove_block(idle[0]);
    pool.release(given, NOW);
    assert!(
        !pool.begin_leave(Block::new("10.90.0.0/28".parse().unwrap())),
        "it rests"
    );
    pool.expire(NOW + 60);
    assert!(
        pool.idle_blocks(NOW + 60).is_empty(),
        "idle since its last address was free"
    );
    assert_eq!(pool.idle_blocks(NOW + 61).len(), 1);
}

#[test]
fn a_full_block_asks_for_another_in_time() {
    let mut pool = pool();
    assert!(!pool.is_low());
    let total = pool.free();
    for _ in 1..total {
        pool.allocate(None, NOW).unwrap();
    }
    assert_eq!(pool.free(), 1);
    assert!(pool.is_low());
}

#[test]
fn leases_the_engine_does_not_have_are_released_and_its_own_are_adopted() {
    let mut pool = pool();
    let old = pool.allocate(mac(1), NOW).unwrap();
    let young = pool.allocate(mac(2), NOW + 10).unwrap();
    let in_use = BTreeSet::from([
        address("10.90.0.9"),
        address("10.90.0.1"),
        address("10.99.0.1"),
    ]);
    let confirmed = pool.confirm(&in_use, NOW + 5, NOW + 20);
    assert_eq!(confirmed.released, [old]);
    assert_eq!(confirmed.adopted, [address("10.90.0.9")]);
    assert!(matches!(
        pool.address(young),
        Some(AddressState::Leased { .. })
    ));
    assert!(matches!(
        pool.address(old),
        Some(AddressState::Resting { .. })
    ));
    assert_eq!(
        pool.confirm(&in_use, NOW + 5, NOW + 20),
        Confirmed::default()
    );
}

#[test]
fn a_claim_lost_by_a_crash_is_adopted_or_given_back() {
    let member = crate::block::Member {
        host: "a".parse().unwrap(),
        id: "a-1".to_owned(),
    };
    let mut pool = pool();
    let shape = *pool.shape();
    let record = drover_control_api::record::PoolRecord {
        version: 1,
        pool: shape.pool,
        sub_pool: None,
        block_prefix: 28,
        reserved: BTreeSet::from([address("10.90.0.33")]),
        claimed_by: member.host.clone(),
        claimed_at: 0,
        network: None,
    };
    let mut adopted = block_record("10.90.0.16/28");
    adopted.owner = Some(member.host.clone());
    adopted.owner_member = Some(member.id.clone());
    let mut foreign = block_record("10.90.0.32/28");
    let claim = AddressClaim {
        host: member.host.clone(),
        state: ClaimState::Granted,
    };
    foreign.claims.insert(address("10.90.0.40"), claim);
    let blocks = [adopted, foreign];
    let given = pool.allocate(mac(1), NOW).unwrap();
    let view = PoolView {
        record: Some(&record),
        blocks: &blocks,
        member: &member,
        mark: pool.mark(),
    };
    let agreement = pool.agree(&view, NOW);
    assert!(agreement.changed);
    assert!(
        agreement.release_addresses.is_empty(),
        "a container may have it"
    );
    assert_eq!(
        pool.address(address("10.90.0.40")),
        Some(&AddressState::Unconfirmed)
    );
    assert!(
        pool.allocate(mac(2), NOW).is_err(),
        "nobody knows what is in use of the block"
    );
    let blocks: Vec<String> = pool
        .usage()
        .map(|(block, _, _)| block.to_string())
        .collect();
    assert_eq!(blocks, ["10.90.0.16/28"], "the first block was lost");
    assert_eq!(agreement.complaints.len(), 1);
    assert!(agreement.complaints[0].contains(&given.to_string()));
    let in_use = BTreeSet::from([address("10.90.0.18"), given]);
    let confirmed = pool.confirm(&in_use, NOW, NOW);
    assert_eq!(confirmed.released, [address("10.90.0.40")]);
    assert_eq!(confirmed.adopted, [address("10.90.0.18")]);
    assert!(pool.allocate(mac(2), NOW).is_err(), "nor what rests");
    pool.confirm(&in_use, NOW, NOW + 60);
    assert_eq!(
        pool.allocate(mac(2), NOW + 60).unwrap(),
        address("10.90.0.19")
    );
}

#[test]
fn an_address_that_was_lost_to_another_host_is_counted_once_when_it_comes_back() {
    let member = crate::block::Member {
        host: "a".parse().unwrap(),
        id: "a-2".to_owned(),
    };
    let mut pool = pool();
    let shape = *pool.shape();
    let record = drover_control_api::record::PoolRecord {
        version: 1,
        pool: shape.pool,
        sub_pool: None,
        block_prefix: 28,
        reserved: BTreeSet::new(),
        claimed_by: member.host.clone(),
        claimed_at: 0,
        network: None,
    };
    let given = pool.allocate(mac(1), NOW).unwrap();
    let agree = |pool: &mut HostPool, blocks: &[BlockRecord], now| {
        let mark = pool.mark();
        pool.agree(
            &PoolView {
                record: Some(&record),
                blocks,
                member: &member,
                mark,
            },
            now,
        )
    };
    agree(&mut pool, &[], NOW);
    assert!(matches!(
        pool.address(given),
        Some(AddressState::Lost { .. })
    ));
    let mut again = block_record("10.90.0.0/28");
    again.owner = Some(member.host.clone());
    again.owner_member = Some(member.id.clone());
    let claim = AddressClaim {
        host: other(),
        state: ClaimState::Granted,
    };
    again.claims.insert(given, claim);
    pool.add_block(&again, NOW);
    agree(&mut pool, std::slice::from_ref(&again), NOW);
    assert!(
        matches!(pool.address(given), Some(AddressState::Lost { .. })),
        "another has it"
    );
    again.claims.clear();
    let mut stopped = pool.clone();
    agree(&mut stopped, std::slice::from_ref(&again), NOW);
    assert!(stopped.release(given, NOW));
    assert!(
        matches!(
            stopped.allocate_explicit(given, mac(2), NOW),
            Err(LeaseError::Resting { .. })
        ),
        "the other host may have been removed with its container still running"
    );
    agree(&mut pool, std::slice::from_ref(&again), NOW);
    agree(&mut pool, std::slice::from_ref(&again), NOW + 60);
    assert!(
        matches!(pool.address(given), Some(AddressState::Leased { .. })),
        "its own again"
    );
    assert!(!take_all(&mut pool).contains(&given.to_string()));
    let leases: Vec<IpAddr> = pool.addresses().map(|(address, _)| address).collect();
    for address in leases {
        pool.release(address, NOW);
    }
    pool.expire(NOW + 60);
    assert_eq!(
        pool.idle_blocks(NOW + 61),
        [again.block],
        "nothing is in it"
    );
}
