//! The checks of the contract hold for a pair of plugins that keeps to it, under every engine version.
#![cfg(test)]

#[path = "support/pair.rs"]
mod pair;

use drover_testkit::{ENGINES, FakeEngine, Fault, contract};
use pair::Pair;

fn holds(check: fn(&FakeEngine) -> Result<(), Fault>) {
    for version in ENGINES {
        let pair = Pair::start(None);
        let engine = FakeEngine::new(version, &pair.network, &pair.ipam);
        check(&engine).unwrap_or_else(|fault| panic!("{}: {fault}", version.name));
        // It left the plugins clean.
        check(&engine).unwrap_or_else(|fault| panic!("{} again: {fault}", version.name));
    }
}

macro_rules! checks {
    ($($check:ident),+ $(,)?) => {
        $(#[test]
        fn $check() {
            holds(contract::$check);
        })+
    };
}

checks!(
    a_failed_call_leaves_nothing,
    a_gateway_is_on_link_and_an_endpoint_has_a_mac,
    a_given_address_is_refused_to_another,
    a_newer_endpoint_takes_the_address,
    a_refusal_is_in_both_fields,
    a_restart_is_a_new_endpoint,
    a_retry_without_body_is_refused,
    activation_does_not_wait,
    an_address_outside_the_range_can_be_auxiliary,
    an_internal_network_brings_no_gateway_bridge,
    an_mtu_option_is_accepted,
    answers_are_never_empty,
    automatic_pools_do_not_overlap,
    internal_networks_may_be_programmed,
    join_needs_no_sandbox,
    link_addresses_come_in_two_forms,
    null_options_are_none,
    overlapping_subnets_are_refused,
    pool_ids_are_the_same_again,
    ports_are_not_bound_at_creation,
    recorded_requests_are_answered,
    recorded_sequences_are_played,
    releasing_the_unknown_succeeds,
    removal_needs_no_revocation,
    removing_the_unknown_succeeds,
    teardown_may_come_twice,
    the_headers_of_old_engines_will_do,
);
