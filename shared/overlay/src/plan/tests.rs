//! What is planned for a small cluster, from nothing and at a change of epochs; the text is kept in
//! `tests/golden`.

use super::*;
use crate::example::{associations, epoch, small};
use crate::{Desired, IpsecPath, lower, simulate};

fn carry_out(desired: &Desired, state: &mut State) -> Plan {
    let plan = plan(&lower(desired), state);
    plan.steps.iter().for_each(|step| simulate(state, step));
    plan
}

fn path(desired: &mut Desired) -> &mut IpsecPath {
    let mut peers = desired.peers.values_mut();
    peers.find_map(|peer| peer.ipsec.as_mut()).unwrap()
}

/// Forgets the keys of what was made, as the exchange does.
fn forget_keys(desired: &mut Desired) {
    for association in &mut path(desired).associations {
        association.key = None;
    }
}

#[test]
fn the_steps_from_nothing_are_as_written_down() {
    let text = plan(&lower(&small()), &State::default()).to_string();
    assert_eq!(
        text,
        include_str!("../../tests/golden/plan.txt"),
        "\n{text}"
    );
}

#[test]
fn epochs_change_without_a_moment_between_them() {
    let (mut desired, mut state) = (small(), State::default());
    let mut text = String::new();
    carry_out(&desired, &mut state);
    forget_keys(&mut desired);
    path(&mut desired)
        .associations
        .extend(associations(epoch(2, 1), 1));
    path(&mut desired).candidate = Some(epoch(2, 1));
    text.push_str(&format!("# try\n{}", carry_out(&desired, &mut state)));
    forget_keys(&mut desired);
    path(&mut desired).send = Some(epoch(2, 1));
    path(&mut desired).lanes = 1;
    path(&mut desired).candidate = None;
    text.push_str(&format!("# send\n{}", carry_out(&desired, &mut state)));
    let left = |association: &drover_ipsec::Association| association.epoch == epoch(2, 1);
    path(&mut desired).associations.retain(left);
    text.push_str(&format!("# forget\n{}", carry_out(&desired, &mut state)));
    for peer in desired.peers.values_mut() {
        peer.ipsec = None;
    }
    text.push_str(&format!("# leave\n{}", carry_out(&desired, &mut state)));
    assert_eq!(
        text,
        include_str!("../../tests/golden/epochs.txt"),
        "\n{text}"
    );
}

#[test]
fn what_has_other_ends_than_it_should_goes_and_is_not_made_again() {
    let (mut desired, mut state) = (small(), State::default());
    carry_out(&desired, &mut state);
    // Though the keys are still given.
    for peer in desired.peers.values_mut() {
        peer.advertise = "192.0.2.22".parse().unwrap();
    }
    let plan = carry_out(&desired, &mut state);
    let made = |step: &&Step| matches!(step, Step::AddAssociation { .. });
    assert!(plan.steps.iter().find(made).is_none(), "{plan}");
    assert!(state.associations.is_empty());
}

#[test]
fn what_is_gone_is_not_made_again_without_its_key() {
    let (mut desired, mut state) = (small(), State::default());
    carry_out(&desired, &mut state);
    forget_keys(&mut desired);
    state.associations.clear();
    assert!(carry_out(&desired, &mut state).is_empty());
}

#[test]
fn a_path_that_sends_nothing_keeps_its_interface_and_routes() {
    let mut desired = small();
    *path(&mut desired) = IpsecPath {
        lanes: 0,
        udp: None,
        associations: Vec::new(),
        send: None,
        candidate: None,
        mtu: None,
        ..path(&mut small()).clone()
    };
    let state = lower(&desired);
    let led = |target: &&crate::Target| target.device() == Some("dip2");
    assert!(state.links.contains_key("dip2"));
    // Blocks of both families, the single address, and the probe.
    assert_eq!(state.routes.values().filter(led).count(), 4);
    let out = |key: &&crate::PolicyKey| key.direction == crate::PolicyDirection::Out;
    assert_eq!(state.policies.keys().filter(out).count(), 0);
}
