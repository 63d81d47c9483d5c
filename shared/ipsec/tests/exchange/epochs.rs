//! Which epochs live, and when they go.

use std::collections::BTreeSet;

use drover_ipsec::{Direction, Due, Epoch};

use crate::alpha::{IDLE, at, beta, epoch, key, settled};

#[test]
fn an_epoch_goes_when_the_next_outlives_it() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    alpha.exchange.answered(&beta(), epoch(1, 2));
    alpha.now = 10;
    alpha.count(Direction::Receive, epoch(1, 1));
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    alpha.now = 10 + 3 * IDLE;
    alpha.observe();
    let both = BTreeSet::from([epoch(1, 1), epoch(1, 2)]);
    assert_eq!(alpha.epochs(), both, "the next one is idle too");
    alpha.now += 1;
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    assert_eq!(alpha.epochs(), BTreeSet::from([epoch(1, 2)]));
    assert_eq!(alpha.exchange.due(at(alpha.now)), None);
}

#[test]
fn epochs_go_though_none_is_used_for_as_long_as_it_takes() {
    let mut alpha = settled();
    for generation in 2..20 {
        alpha.see(&[key(generation)]);
        alpha.apply();
        for _ in 0..10 {
            alpha.now += IDLE / 15;
            alpha.count(Direction::Receive, epoch(1, generation));
            alpha.observe();
        }
        alpha.apply();
        assert!(alpha.epochs().len() <= 4, "{:?}", alpha.epochs());
        assert_eq!(alpha.sends(), Some(epoch(1, generation)));
    }
}

#[test]
fn one_probe_after_a_long_silence_does_not_outlive_an_epoch() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    alpha.now = 10 * IDLE;
    alpha.observe();
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.now += 1;
    alpha.observe();
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
    assert!(
        alpha.epochs().contains(&epoch(1, 1)),
        "the peer may send by it"
    );
}

#[test]
fn a_lost_association_is_not_made_again() {
    let mut alpha = settled();
    let lost = *alpha.kernel.keys().next().unwrap();
    alpha.kernel.remove(&lost);
    alpha.observe();
    assert_eq!(alpha.exchange.due(at(0)), Some(Due::Lost));
    assert_eq!(alpha.epochs(), BTreeSet::new());
    alpha.see(&[key(1)]);
    assert_eq!(alpha.apply(), 0);
    alpha.generate(2);
    assert_eq!(alpha.sends(), Some(epoch(2, 1)));
    assert_eq!(alpha.exchange.due(at(0)), None);
}

#[test]
fn generations_that_nobody_sees_do_not_pile_up() {
    let mut alpha = settled();
    for number in 2..=64 {
        alpha.now += 3600;
        alpha.generate(number);
        alpha.exchange.wipe(at(alpha.now));
    }
    let mut expected: BTreeSet<Epoch> = (61..=64).map(|own| epoch(own, 1)).collect();
    expected.insert(epoch(1, 1));
    assert_eq!(alpha.epochs(), expected);
    assert_eq!(alpha.exchange.due(at(alpha.now)), None);
    // The tag of the generation that is sent by comes again: there is no epoch of that one with this peer.
    alpha.generate(65);
    assert_eq!(alpha.epochs(), expected);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert_eq!(alpha.exchange.due(at(alpha.now)), Some(Due::Lost));
    alpha.generate(66);
    assert!(alpha.epochs().contains(&epoch(66, 1)));
}
