//! Drover's own programs keep to the plugin protocol: one test a trap, under four engine versions.
//!
//! Each test has its own `drover up` in a network namespace of its own, on the embedded store. The engine is a fake; what the programs take for the engine's API accepts
//! connections and never answers, as a real one does while it boots, so nothing may wait for it.
#![cfg(test)]

#[path = "plugin_contract/machine.rs"]
mod machine;

use std::thread;
use std::time::{Duration, Instant};

use drover_testkit::{ENGINES, Endpoint, FakeEngine, Fault, NetworkSpec, contract};
use machine::{Machine, skip};
use serde_json::json;

/// Runs a check of the contract under every engine version, and again, as it must leave no trace.
fn holds(check: fn(&FakeEngine) -> Result<(), Fault>) {
    if skip() {
        return;
    }
    let machine = Machine::start();
    for version in ENGINES {
        for round in ["", " again"] {
            let engine = machine.engine(version);
            if let Err(fault) = check(&engine) {
                panic!("{}{round}: {fault}\n{}", version.name, machine.logs());
            }
        }
    }
}

macro_rules! traps {
    ($($name:ident: $check:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            holds(contract::$check);
        })+
    };
}

traps!(
    trap_01_no_content_type_and_an_empty_host: the_headers_of_old_engines_will_do,
    trap_02_a_retry_without_body_is_refused: a_retry_without_body_is_refused,
    trap_03_a_refusal_is_in_both_fields: a_refusal_is_in_both_fields,
    trap_04_and_05_answers_are_never_empty: answers_are_never_empty,
    trap_06_activation_does_not_wait: activation_does_not_wait,
    trap_09_a_newer_endpoint_takes_the_address: a_newer_endpoint_takes_the_address,
    trap_10_a_failed_call_leaves_nothing: a_failed_call_leaves_nothing,
    trap_11_removing_the_unknown_succeeds: removing_the_unknown_succeeds,
    trap_12_teardown_may_come_twice: teardown_may_come_twice,
    trap_13_join_needs_no_sandbox: join_needs_no_sandbox,
    trap_14_internal_networks_may_be_programmed: internal_networks_may_be_programmed,
    trap_15_ports_are_not_bound_at_creation: ports_are_not_bound_at_creation,
    trap_16_link_addresses_come_in_two_forms: link_addresses_come_in_two_forms,
    trap_17_gateways_are_on_link: a_gateway_is_on_link_and_an_endpoint_has_a_mac,
    trap_18_an_internal_network_brings_no_gateway_bridge: an_internal_network_brings_no_gateway_bridge,
    trap_20_null_options_are_none: null_options_are_none,
    trap_22_overlapping_subnets_are_refused: overlapping_subnets_are_refused,
    trap_22_pool_ids_are_the_same_again: pool_ids_are_the_same_again,
    trap_23_releasing_the_unknown_succeeds: releasing_the_unknown_succeeds,
    trap_30_an_mtu_option_is_accepted: an_mtu_option_is_accepted,
    trap_31_a_restart_is_a_new_endpoint: a_restart_is_a_new_endpoint,
    trap_32_removal_needs_no_revocation: removal_needs_no_revocation,
    a_given_address_is_refused_to_another: a_given_address_is_refused_to_another,
    an_address_outside_the_range_can_be_auxiliary: an_address_outside_the_range_can_be_auxiliary,
    automatic_pools_do_not_overlap: automatic_pools_do_not_overlap,
    recorded_requests_are_answered: recorded_requests_are_answered,
    recorded_sequences_are_played: recorded_sequences_are_played,
);

/// The newest engine, on a machine that has been used.
fn used() -> Option<(Machine, FakeEngine)> {
    if skip() {
        return None;
    }
    let machine = Machine::start();
    let [.., newest] = ENGINES;
    let engine = machine.engine(newest);
    engine.activate_network().unwrap();
    engine.activate_ipam().unwrap();
    Some((machine, engine))
}

#[test]
fn trap_06_no_socket_file_outlives_its_plugin() {
    let Some((mut machine, _engine)) = used() else {
        return;
    };
    machine.down();
    for plugin in ["drover-net", "drover-ipam"] {
        let socket = machine.socket(plugin);
        assert!(!socket.exists(), "{}", socket.display());
    }
}

#[test]
fn trap_06_a_socket_file_that_was_left_is_replaced() {
    let Some((mut machine, engine)) = used() else {
        return;
    };
    let network = engine.create_network(&NetworkSpec::default()).unwrap();
    let (endpoint, joined) = engine.attach(&network, "c1").unwrap();
    machine.crash();
    assert!(machine.socket("drover-net").exists() && machine.socket("drover-ipam").exists());
    machine.up();
    assert_eq!(engine.join(&endpoint).unwrap().link, joined.link);
    engine.detach(&endpoint).unwrap();
    engine.remove_network(&network).unwrap();
}

#[test]
fn trap_07_every_call_ends_in_time_without_the_coordinator() {
    let Some((machine, engine)) = used() else {
        return;
    };
    let network = engine
        .create_network(&NetworkSpec::with_subnet("10.221.0.0/16"))
        .unwrap();
    let (first, _) = engine.attach(&network, "c1").unwrap();
    machine.freeze("drover-coordinator");

    let began = Instant::now();
    let refused = engine.create_network(&NetworkSpec::default()).unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(
        refused
            .refusal()
            .is_some_and(|sentence| sentence.len() > 20),
        "{refused}"
    );

    // What this host has was agreed on before: containers go on starting and stopping.
    let began = Instant::now();
    let (second, _) = engine.attach(&network, "c2").unwrap();
    engine.detach(&first).unwrap();
    engine.detach(&second).unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );

    machine.thaw("drover-coordinator");
    let after = machine.eventually(|| engine.create_network(&NetworkSpec::default()));
    engine.remove_network(&after).unwrap();
    engine.remove_network(&network).unwrap();
}

#[test]
fn trap_08_what_plugins_know_outlives_their_crash() {
    let Some((machine, engine)) = used() else {
        return;
    };
    let network = engine
        .create_network(&NetworkSpec::with_subnet("10.222.0.0/24"))
        .unwrap();
    let (endpoint, joined) = engine.attach(&network, "c1").unwrap();
    for program in ["drover-net", "drover-ipam", "drover-coordinator"] {
        machine.crash_one(program);
    }
    engine.information(&endpoint).unwrap();
    assert_eq!(engine.join(&endpoint).unwrap().link, joined.link);
    let taken = endpoint.allocation.addresses[0].1.addr();
    let mut others = Vec::new();
    for _ in 0..20 {
        let other = machine.eventually(|| engine.request_addresses(&network, None, "c2"));
        assert_ne!(other.addresses[0].1.addr(), taken);
        others.push(other);
    }
    let again = engine.create_network(&NetworkSpec::with_subnet("10.222.0.0/24"));
    assert!(again.unwrap_err().refusal().is_some());
    others
        .iter()
        .try_for_each(|other| engine.release_addresses(other))
        .unwrap();
    engine.detach(&endpoint).unwrap();
    engine.remove_network(&network).unwrap();
}

#[test]
fn trap_02_a_call_that_a_crash_has_cut_is_refused_without_body_and_done_with_it() {
    let Some((machine, engine)) = used() else {
        return;
    };
    let network = engine.create_network(&NetworkSpec::default()).unwrap();
    let allocation = engine.request_addresses(&network, None, "c1").unwrap();
    let endpoint = engine
        .create_endpoint(&network, allocation, json!({}))
        .unwrap();
    let body = join_body(&endpoint);
    let plugin = &engine.network;
    // The engine's kept connection: the plugin has accepted it, so its end cuts what is on it.
    let kept = plugin
        .send_only("/NetworkDriver.GetCapabilities", b"")
        .unwrap();
    plugin.receive(&kept).unwrap();
    machine.freeze("drover-net");
    plugin
        .send_again(&kept, "/NetworkDriver.Join", body.as_bytes())
        .unwrap();
    machine.crash_one("drover-net");
    plugin.receive(&kept).unwrap_err();
    let retry = engine.network("Join", None).unwrap_err();
    assert!(
        retry
            .refusal()
            .is_some_and(|it| it.contains("without its body")),
        "{retry}"
    );
    engine.join(&endpoint).unwrap();
    engine.detach(&endpoint).unwrap();
    engine.remove_network(&network).unwrap();
}

#[test]
fn a_call_that_waits_in_the_queue_outlives_a_crash() {
    let Some((machine, engine)) = used() else {
        return;
    };
    let network = engine.create_network(&NetworkSpec::default()).unwrap();
    let allocation = engine.request_addresses(&network, None, "c1").unwrap();
    let endpoint = engine
        .create_endpoint(&network, allocation, json!({}))
        .unwrap();
    machine.freeze("drover-net");
    let body = join_body(&endpoint);
    let sent = engine
        .network
        .send_only("/NetworkDriver.Join", body.as_bytes())
        .unwrap();
    machine.crash_one("drover-net");
    let reply = engine.network.receive(&sent).unwrap();
    assert!(
        String::from_utf8_lossy(&reply.body).contains("SrcName"),
        "{reply:?}"
    );
    engine.detach(&endpoint).unwrap();
    engine.remove_network(&network).unwrap();
}

#[test]
fn a_stop_answers_what_was_asked() {
    let Some((machine, engine)) = used() else {
        return;
    };
    let network = engine.create_network(&NetworkSpec::default()).unwrap();
    let allocation = engine.request_addresses(&network, None, "c1").unwrap();
    let endpoint = engine
        .create_endpoint(&network, allocation, json!({}))
        .unwrap();
    let (body, plugin) = (join_body(&endpoint), &engine.network);
    for _ in 0..5 {
        let kept = plugin
            .send_only("/NetworkDriver.GetCapabilities", b"")
            .unwrap();
        plugin.receive(&kept).unwrap();
        let new = plugin
            .send_only("/NetworkDriver.Join", body.as_bytes())
            .unwrap();
        plugin
            .send_again(&kept, "/NetworkDriver.Join", body.as_bytes())
            .unwrap();
        machine.stop("drover-net");
        for stream in [kept, new] {
            let reply = plugin.receive(&stream).unwrap();
            assert!(
                String::from_utf8_lossy(&reply.body).contains("SrcName"),
                "{reply:?}"
            );
        }
        machine.eventually(|| engine.network_capabilities());
    }
    engine.detach(&endpoint).unwrap();
    engine.remove_network(&network).unwrap();
}

fn join_body(endpoint: &Endpoint) -> String {
    let (network, endpoint) = (&endpoint.network, &endpoint.id);
    json!({"NetworkID": network, "EndpointID": endpoint, "SandboxKey": "/x", "Options": {}})
        .to_string()
}

#[test]
fn containers_of_one_network_start_at_the_same_time() {
    let Some((_machine, engine)) = used() else {
        return;
    };
    let network = engine.create_network(&NetworkSpec::default()).unwrap();
    let endpoints: Vec<_> = thread::scope(|scope| {
        let attach = |_| scope.spawn(|| engine.attach(&network, "c").unwrap());
        let attaching: Vec<_> = (0..12).map(attach).collect();
        attaching.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let addresses: std::collections::BTreeSet<_> = endpoints
        .iter()
        .map(|(endpoint, _)| endpoint.allocation.addresses[0].1.addr())
        .collect();
    let links: std::collections::BTreeSet<_> = endpoints
        .iter()
        .map(|(_, joined)| joined.link.clone())
        .collect();
    assert_eq!((addresses.len(), links.len()), (12, 12));
    thread::scope(|scope| {
        for (endpoint, _) in &endpoints {
            scope.spawn(|| engine.detach(endpoint).unwrap());
        }
    });
    engine.remove_network(&network).unwrap();
}

#[test]
fn nothing_is_left_in_the_namespace() {
    let Some((machine, engine)) = used() else {
        return;
    };
    let before = machine.links();
    let network = engine.create_network(&NetworkSpec::default()).unwrap();
    let (endpoint, joined) = engine.attach(&network, "c1").unwrap();
    assert!(
        machine.links().contains(&joined.link),
        "{} has no {}",
        machine.links(),
        joined.link
    );
    engine.detach(&endpoint).unwrap();
    engine.remove_network(&network).unwrap();
    machine.eventually(|| {
        let after = machine.links();
        if after == before {
            return Ok(());
        }
        Err(Fault::Broken(format!("{before}\n{after}")))
    });
}
