//! Each check of the contract notices the mistake that it is for.
#![cfg(test)]

#[path = "support/pair.rs"]
mod pair;

use drover_testkit::{ENGINES, FakeEngine, Fault, contract};
use pair::{Flaw, Pair};

fn is_noticed(flaw: Flaw, check: fn(&FakeEngine) -> Result<(), Fault>) {
    let pair = Pair::start(Some(flaw));
    let [.., newest] = ENGINES;
    let engine = FakeEngine::new(newest, &pair.network, &pair.ipam);
    assert!(check(&engine).is_err(), "{flaw:?} goes unnoticed");
}

#[test]
fn mistakes_with_addresses_are_noticed() {
    is_noticed(
        Flaw::GivesTwice,
        contract::a_given_address_is_refused_to_another,
    );
    is_noticed(Flaw::Overlaps, contract::automatic_pools_do_not_overlap);
    is_noticed(Flaw::Overlaps, contract::overlapping_subnets_are_refused);
    is_noticed(Flaw::Renames, contract::pool_ids_are_the_same_again);
    is_noticed(
        Flaw::KeepsToTheRange,
        contract::an_address_outside_the_range_can_be_auxiliary,
    );
    is_noticed(
        Flaw::RefusesTheUnknown,
        contract::releasing_the_unknown_succeeds,
    );
}

#[test]
fn mistakes_with_endpoints_are_noticed() {
    is_noticed(
        Flaw::RefusesTheUnknown,
        contract::removing_the_unknown_succeeds,
    );
    is_noticed(Flaw::RefusesTheUnknown, contract::teardown_may_come_twice);
    is_noticed(
        Flaw::RemembersEndpoints,
        contract::removal_needs_no_revocation,
    );
    is_noticed(
        Flaw::OldEndpointWins,
        contract::a_newer_endpoint_takes_the_address,
    );
    is_noticed(
        Flaw::NoMac,
        contract::a_gateway_is_on_link_and_an_endpoint_has_a_mac,
    );
    is_noticed(
        Flaw::GatewayOffLink,
        contract::a_gateway_is_on_link_and_an_endpoint_has_a_mac,
    );
    is_noticed(Flaw::NeedsSandbox, contract::join_needs_no_sandbox);
    is_noticed(Flaw::ProgramsOnce, contract::teardown_may_come_twice);
    is_noticed(Flaw::TakesPorts, contract::ports_are_not_bound_at_creation);
}

#[test]
fn mistakes_with_networks_are_noticed() {
    is_noticed(
        Flaw::InternalLikeOthers,
        contract::an_internal_network_brings_no_gateway_bridge,
    );
    is_noticed(Flaw::AnyOption, contract::an_mtu_option_is_accepted);
    is_noticed(Flaw::AnyOption, contract::recorded_sequences_are_played);
}
