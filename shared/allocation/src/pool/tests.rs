//! Automatic pools keep clear of everything; explicit ones are refused with what is in the way.

use drover_model::{HostIndex, Mtu};
use proptest::prelude::*;

use super::*;

fn pool_record(pool: &str) -> PoolRecord {
    let pool: Pool = pool.parse().unwrap();
    PoolRecord {
        version: 1,
        pool,
        sub_pool: None,
        block_prefix: block_prefix(pool.prefix(), None),
        reserved: BTreeSet::new(),
        claimed_by: "a".parse().unwrap(),
        claimed_at: 0,
        network: None,
    }
}

fn host_record(name: &str, prefixes: &[&str]) -> HostRecord {
    HostRecord {
        version: 1,
        name: name.parse().unwrap(),
        member: "m".to_owned(),
        index: HostIndex::try_from(1).unwrap(),
        advertise: "192.0.2.1".parse().unwrap(),
        link: None,
        underlay_mtu: Mtu::ETHERNET,
        prefixes: prefixes
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect(),
        addresses: BTreeSet::new(),
        software: "0".to_owned(),
        joined_at: 0,
    }
}

fn automatic(ranges: &[&str], prefix: u8) -> AutomaticPools {
    AutomaticPools {
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        prefix,
    }
}

#[test]
fn the_lowest_free_pool_keeps_clear_of_pools_routes_and_refusals() {
    let pools = [pool_record("10.64.0.0/16"), pool_record("10.66.7.0/24")];
    let hosts = [
        host_record("a", &["0.0.0.0/0", "10.65.1.0/24"]),
        host_record("b", &["10.68.0.0/15"]),
    ];
    let taken = Taken {
        pools: &pools,
        hosts: &hosts,
    };
    let plan = automatic(&["10.64.0.0/10"], 16);
    let choose = |refused: &BTreeSet<Pool>| {
        choose(Family::V4, &plan, taken, refused)
            .unwrap()
            .to_string()
    };
    assert_eq!(choose(&BTreeSet::new()), "10.67.0.0/16");
    let refused = BTreeSet::from(["10.67.0.0/16".parse().unwrap()]);
    assert_eq!(choose(&refused), "10.70.0.0/16");
}

#[test]
fn the_next_range_is_taken_when_one_is_full_and_the_end_is_said_with_the_remedy() {
    let pools = [pool_record("10.64.0.0/16")];
    let taken = Taken {
        pools: &pools,
        hosts: &[],
    };
    let plan = automatic(&["10.64.0.0/16", "172.30.0.0/16"], 16);
    assert_eq!(
        choose(Family::V4, &plan, taken, &BTreeSet::new())
            .unwrap()
            .to_string(),
        "172.30.0.0/16"
    );
    let plan = automatic(&["10.64.0.0/16"], 16);
    let error = choose(Family::V4, &plan, taken, &BTreeSet::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("10.64.0.0/16") && error.contains("--subnet"),
        "{error}"
    );
    let error = choose(Family::V6, &plan, taken, &BTreeSet::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("IPv6"), "{error}");
}

#[test]
fn an_explicit_pool_is_refused_with_what_it_overlaps() {
    let pools = [pool_record("10.64.0.0/16")];
    let hosts = [host_record("web-1", &["10.8.0.0/24"])];
    let taken = Taken {
        pools: &pools,
        hosts: &hosts,
    };
    let check = |pool: &str| check_explicit(pool.parse().unwrap(), taken);
    assert!(check("10.9.0.0/16").is_ok());
    let error = check("10.64.9.0/24").unwrap_err().to_string();
    assert!(
        error.contains("`10.64.0.0/16`") && error.contains("--subnet"),
        "{error}"
    );
    let error = check("10.8.0.0/16").unwrap_err().to_string();
    assert!(
        error.contains("`web-1`") && error.contains("`10.8.0.0/24`"),
        "{error}"
    );
}

#[test]
fn an_ip_range_is_inside_of_its_pool_and_holds_a_block() {
    let pool: Pool = "10.90.0.0/24".parse().unwrap();
    let check = |range: &str| check_sub_pool(pool, range.parse().unwrap());
    assert_eq!(
        check("10.90.0.64/26").unwrap().unwrap().to_string(),
        "10.90.0.64/26"
    );
    assert_eq!(
        check("10.90.0.70/26").unwrap().unwrap().to_string(),
        "10.90.0.64/26"
    );
    assert_eq!(check("10.90.0.0/24").unwrap(), None);
    assert!(
        check("10.91.0.0/26")
            .unwrap_err()
            .to_string()
            .contains("not inside")
    );
    assert!(
        check("10.0.0.0/8")
            .unwrap_err()
            .to_string()
            .contains("not inside")
    );
    assert!(
        check("10.90.0.64/31")
            .unwrap_err()
            .to_string()
            .contains("29 or less")
    );
    let mut record = pool_record("10.90.0.0/24");
    record.sub_pool = Some("10.90.0.64/26".parse().unwrap());
    assert!(check_same_range(&record, record.sub_pool).is_ok());
    assert!(
        check_same_range(&record, None)
            .unwrap_err()
            .to_string()
            .contains("10.90.0.64/26")
    );
}

#[test]
fn the_size_of_a_block_follows_from_the_size_of_its_pool() {
    let rule = |range: &str| block_prefix(range.parse().unwrap(), None);
    let expected = [
        ("10.0.0.0/16", 24),
        ("10.0.0.0/24", 28),
        ("10.0.0.0/20", 26),
        ("10.0.0.0/28", 28),
    ];
    for (range, prefix) in expected {
        assert_eq!(rule(range), prefix, "{range}");
    }
    for (range, prefix) in [("10.0.0.0/29", 29), ("10.0.0.0/8", 24), ("fd00::/64", 112)] {
        assert_eq!(rule(range), prefix, "{range}");
    }
    assert_eq!(rule("fd00::/120"), 124);
    assert_eq!(block_prefix("10.0.0.0/16".parse().unwrap(), Some(26)), 26);
    assert_eq!(block_prefix("10.0.0.0/16".parse().unwrap(), Some(8)), 16);
    assert_eq!(block_prefix("10.0.0.0/16".parse().unwrap(), Some(32)), 29);
}

#[test]
fn ipv6_pools_follow_from_the_cluster() {
    let range = ipv6_range("0123456789abcdef0123456789abcdef").unwrap();
    assert_eq!(range.to_string(), "fd01:2345:6789::/48");
    assert_eq!(ipv6_range("short"), None);
}

fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    let one = (any::<u32>(), 10_u8..=30).prop_map(|(bits, length)| {
        let start = (10_u32 << 24) | (bits & 0x003f_ffff) | 0x0040_0000;
        IpNet::new(IpAddr::from(start.to_be_bytes()), length)
            .unwrap()
            .trunc()
    });
    prop::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn what_is_chosen_overlaps_nothing_and_is_the_lowest(routes in prefixes(), prefix in 12_u8..=20) {
        let mut host = host_record("a", &[]);
        host.prefixes = routes.iter().copied().collect();
        let hosts = [host];
        let taken = Taken { pools: &[], hosts: &hosts };
        let plan = automatic(&["10.64.0.0/10"], prefix);
        let range: IpNet = "10.64.0.0/10".parse().unwrap();
        let expected = range
            .subnets(prefix)
            .unwrap()
            .map(|candidate| Pool::new(candidate).unwrap())
            .find(|pool| !routes.iter().any(|route| pool.overlaps(*route)));
        prop_assert_eq!(choose(Family::V4, &plan, taken, &BTreeSet::new()).ok(), expected);
    }
}

use std::net::IpAddr;
