//! What a pair of a network and an IPAM plugin must do, one check a trap of the protocol.
//!
//! Each check takes an engine whose plugins are fresh or were left clean, and leaves them clean. The
//! numbers of the traps are those of the list that the checks' names repeat.

mod addresses;
mod endpoints;
mod wire;

pub use addresses::{
    a_given_address_is_refused_to_another, an_address_outside_the_range_can_be_auxiliary,
    automatic_pools_do_not_overlap, null_options_are_none, overlapping_subnets_are_refused,
    pool_ids_are_the_same_again, releasing_the_unknown_succeeds,
};
pub use endpoints::{
    a_failed_call_leaves_nothing, a_gateway_is_on_link_and_an_endpoint_has_a_mac,
    a_newer_endpoint_takes_the_address, a_restart_is_a_new_endpoint,
    an_internal_network_brings_no_gateway_bridge, an_mtu_option_is_accepted,
    internal_networks_may_be_programmed, join_needs_no_sandbox, link_addresses_come_in_two_forms,
    ports_are_not_bound_at_creation, removal_needs_no_revocation, removing_the_unknown_succeeds,
    teardown_may_come_twice,
};
pub use wire::{
    a_refusal_is_in_both_fields, a_retry_without_body_is_refused, activation_does_not_wait,
    answers_are_never_empty, recorded_requests_are_answered, recorded_sequences_are_played,
    the_headers_of_old_engines_will_do,
};

use std::time::{Duration, Instant};

use crate::{FakeEngine, Fault};

/// What a plugin may take for what needs no waiting.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The engine's first use of both plugins.
fn activate(engine: &FakeEngine) -> Result<(), Fault> {
    engine.activate_network()?;
    engine.activate_ipam()
}

/// Fails when `run` takes longer than `limit`.
fn within<T>(
    limit: Duration,
    what: &str,
    run: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    let began = Instant::now();
    let done = run()?;
    let took = began.elapsed();
    Fault::unless(
        took <= limit,
        format!("{what} took {took:?}, more than {limit:?}"),
    )?;
    Ok(done)
}

/// Fails unless the plugin refuses.
fn refused<T>(what: &str, outcome: Result<T, Fault>) -> Result<String, Fault> {
    match outcome {
        Err(Fault::Refused { sentence, .. }) => Ok(sentence),
        Err(fault) => Err(fault),
        Ok(_) => Err(Fault::Broken(format!("{what} was accepted"))),
    }
}
