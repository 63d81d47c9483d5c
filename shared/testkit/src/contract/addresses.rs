//! Pools and addresses.

use std::net::IpAddr;

use serde_json::json;

use super::{activate, refused};
use crate::{FakeEngine, Fault, NetworkSpec, PoolSpec};

/// Engines do not check whether an explicit address is taken.
///
/// # Errors
/// When one address is given twice.
pub fn a_given_address_is_refused_to_another(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let network = engine.create_network(&NetworkSpec::with_subnet("10.201.0.0/24"))?;
    let first = engine.request_addresses(&network, Some("10.201.0.77"), "c1")?;
    let again = engine.request_addresses(&network, Some("10.201.0.77"), "c2");
    refused("an address that is taken", again)?;
    let gateway = engine.request_addresses(&network, Some("10.201.0.1"), "c3");
    refused("the gateway's address", gateway)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut given = vec![first];
    for _ in 0..40 {
        let allocation = engine.request_addresses(&network, None, "c4")?;
        for (_, address) in &allocation.addresses {
            let fresh =
                seen.insert(address.addr()) && address.addr() != IpAddr::from([10, 201, 0, 77]);
            Fault::unless(fresh, format!("{address} was given twice"))?;
        }
        given.push(allocation);
    }
    given
        .iter()
        .try_for_each(|allocation| engine.release_addresses(allocation))?;
    engine.remove_network(&network)
}

/// Trap 11: the same from an endpoint's side is in `removing_the_unknown_succeeds`. Trap 23: a gateway that
/// came with the pool is released without having been requested.
///
/// # Errors
/// When a release fails.
pub fn releasing_the_unknown_succeeds(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let network = engine.create_network(&NetworkSpec::with_subnet("10.202.0.0/24"))?;
    for pool in &network.pools {
        for host in [9, 9, 1, 1] {
            engine.release_address(&pool.id, IpAddr::from([10, 202, 0, host]))?;
        }
        engine.release_address("no-such-pool", IpAddr::from([10, 202, 0, 9]))?;
    }
    engine.remove_network(&network)?;
    engine.remove_network(&network)?;
    engine
        .ipam("ReleasePool", Some(&json!({ "PoolID": "no-such-pool" })))
        .map(drop)
}

/// Trap 20: Compose drops the IPAM options and sends `null`.
///
/// # Errors
/// When that is taken for a fault.
pub fn null_options_are_none(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let pool = PoolSpec {
        null_options: true,
        ..PoolSpec::default()
    };
    let network = engine.create_network(&NetworkSpec {
        pools: vec![pool],
        ..NetworkSpec::default()
    })?;
    engine.remove_network(&network)
}

/// Trap 22: a pool has the same id whenever it is requested.
///
/// # Errors
/// When it has another.
pub fn pool_ids_are_the_same_again(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let spec = NetworkSpec::with_subnet("10.203.0.0/24");
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let network = engine.create_network(&spec)?;
        ids.extend(network.pools.iter().map(|pool| pool.id.clone()));
        engine.remove_network(&network)?;
    }
    Fault::unless(ids.len() == 1, format!("one pool had the ids {ids:?}"))
}

/// Trap 22: engines check explicit subnets for nothing.
///
/// # Errors
/// When a subnet is given that overlaps another, or that containers cannot have.
pub fn overlapping_subnets_are_refused(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let network = engine.create_network(&NetworkSpec::with_subnet("10.204.0.0/16"))?;
    for subnet in [
        "10.204.0.0/16",
        "10.204.7.0/24",
        "10.204.0.0/15",
        "127.0.0.0/24",
        "10.9.0.1/16",
    ] {
        let sentence = refused(
            subnet,
            engine.create_network(&NetworkSpec::with_subnet(subnet)),
        )?;
        Fault::unless(
            sentence.len() > 20,
            format!("{subnet} was refused with `{sentence}`"),
        )?;
    }
    engine.remove_network(&network)
}

/// An engine asks for automatic pools at the same time, and offers one that it refused never again.
///
/// # Errors
/// When two overlap.
pub fn automatic_pools_do_not_overlap(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let pools = std::thread::scope(|scope| {
        let request = || scope.spawn(|| engine.request_pool(&PoolSpec::default()));
        let requests: Vec<_> = (0..6).map(|_| request()).collect();
        let crashed = |_| Err(Fault::Broken("a request ended in a panic".to_owned()));
        let ended = requests
            .into_iter()
            .map(|it| it.join().unwrap_or_else(crashed));
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    for (index, pool) in pools.iter().enumerate() {
        let overlaps = |other: &crate::Pool| {
            other.prefix.contains(&pool.prefix.addr()) || pool.prefix.contains(&other.prefix.addr())
        };
        let twice = pools.iter().skip(index + 1).any(overlaps);
        Fault::unless(!twice, format!("{} overlaps another pool", pool.prefix))?;
    }
    pools
        .iter()
        .try_for_each(|pool| engine.release_pool_and_gateway(pool))
}

/// `--aux-address` may lie outside `--ip-range`.
///
/// # Errors
/// When it is refused, or an automatic address lies outside the range.
pub fn an_address_outside_the_range_can_be_auxiliary(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let pool = PoolSpec {
        subnet: Some("10.205.0.0/24".to_owned()),
        ip_range: Some("10.205.0.128/25".to_owned()),
        gateway: Some("10.205.0.254".to_owned()),
        auxiliary: [("router".to_owned(), "10.205.0.7".to_owned())].into(),
        ..PoolSpec::default()
    };
    let network = engine.create_network(&NetworkSpec {
        pools: vec![pool],
        ..NetworkSpec::default()
    })?;
    let allocation = engine.request_addresses(&network, None, "c1")?;
    for (_, address) in &allocation.addresses {
        let inside = matches!(address.addr(), IpAddr::V4(it) if it.octets()[3] >= 128);
        Fault::unless(inside, format!("{address} is outside of the range"))?;
    }
    engine.release_addresses(&allocation)?;
    engine.remove_network(&network)
}
