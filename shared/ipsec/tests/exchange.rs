//! What an exchange decides, case by case. `prop_exchange.rs` has the interleavings.
#![cfg(test)]

#[path = "exchange/alpha.rs"]
mod alpha;
#[path = "exchange/epochs.rs"]
mod epochs;
#[path = "exchange/peers.rs"]
mod peers;

use drover_ipsec::{Direction, Due};

use alpha::{Alpha, FOLLOW, at, beta, epoch, key, seed, settled};

#[test]
fn a_generation_is_published_when_it_can_be_received_by() {
    let mut alpha = Alpha::new();
    alpha.see(&[key(1)]);
    alpha.exchange.generate(1, &seed(1), at(0)).unwrap();
    assert_eq!(alpha.exchange.publishable(), None);
    assert_eq!(alpha.sends(), None, "nobody has it");
    assert_eq!(alpha.apply(), 4, "two lanes, as alpha asks for, each way");
    assert_eq!(alpha.exchange.publishable(), Some(1));
    alpha.exchange.published(1, at(0));
    let path = alpha.exchange.path(&beta());
    assert_eq!((path.send, path.confirmed), (Some(epoch(1, 1)), false));
    assert_eq!(path.candidate, path.send);
    assert_eq!(path.lanes, 2);
    let directions: Vec<Direction> = path.associations.iter().map(|one| one.direction).collect();
    assert!(directions.is_sorted(), "the receiving ones first");
}

#[test]
fn the_key_is_told_until_the_kernel_has_it() {
    let mut alpha = Alpha::new();
    alpha.see(&[key(1)]);
    alpha.exchange.generate(1, &seed(1), at(0)).unwrap();
    let first = alpha.exchange.path(&beta()).associations[0].clone();
    assert!(first.key.is_some());
    alpha
        .exchange
        .installed(&beta(), first.direction, first.spi);
    let again = alpha.exchange.path(&beta()).associations;
    assert_eq!(again[0].key, None);
    assert!(again[1..].iter().all(|one| one.key.is_some()));
}

#[test]
fn the_confirmed_epoch_is_sent_by_until_the_next_is() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert_eq!(alpha.exchange.path(&beta()).candidate, Some(epoch(1, 2)));
    alpha.exchange.answered(&beta(), epoch(1, 2));
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
    assert_eq!(alpha.exchange.path(&beta()).candidate, None);
}

#[test]
fn what_comes_by_an_epoch_says_that_its_sender_has_it() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
}

#[test]
fn a_peer_that_is_there_is_not_asked_by_an_epoch_before_it_can_have_made_it() {
    let mut alpha = settled();
    alpha.now = 99;
    alpha.observe();
    alpha.now = 100;
    alpha.count(Direction::Receive, epoch(1, 1));
    alpha.observe();
    alpha.see(&[key(2)]);
    alpha.apply();
    let asks_by = |alpha: &Alpha| alpha.exchange.asks_by(&beta(), at(alpha.now));
    assert_eq!(alpha.exchange.path(&beta()).candidate, Some(epoch(1, 2)));
    assert_eq!(asks_by(&alpha), None);
    alpha.now += FOLLOW;
    assert_eq!(asks_by(&alpha), Some(epoch(1, 2)));
    alpha.exchange.answered(&beta(), epoch(1, 2));
    assert_eq!(asks_by(&alpha), None, "it has answered");
}

#[test]
fn a_peer_that_does_not_follow_is_asked_less_and_less() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    alpha.apply();
    let mut asked = Vec::new();
    for second in 1..=3600 {
        alpha.now = second;
        // It is there, and sends by what it has: it is cut off from the store.
        alpha.count(Direction::Receive, epoch(1, 1));
        alpha.observe();
        if alpha.exchange.asks_by(&beta(), at(second)).is_some() {
            asked.push(second);
        }
    }
    assert_eq!(asked.first(), Some(&FOLLOW));
    assert!(asked.len() <= 50, "{} times in an hour", asked.len());
    // Never for longer than it has waited already.
    let gaps = asked.windows(2).map(|two| (two[0], two[1]));
    for (last, next) in gaps {
        assert!(next <= 2 * last + 1, "after {last} s at {next} s");
    }
    // What comes by it is as good as an answer.
    alpha.count(Direction::Receive, epoch(1, 2));
    alpha.observe();
    assert_eq!(alpha.sends(), Some(epoch(1, 2)));
}

#[test]
fn a_peer_that_is_silent_or_has_no_other_epoch_is_asked_at_once() {
    let mut alpha = Alpha::new();
    alpha.generate(1);
    alpha.exchange.published(1, at(0));
    alpha.see(&[key(1)]);
    alpha.apply();
    let asks_by = |alpha: &Alpha| alpha.exchange.asks_by(&beta(), at(alpha.now));
    assert_eq!(asks_by(&alpha), Some(epoch(1, 1)));
    alpha.exchange.answered(&beta(), epoch(1, 1));
    alpha.now = 99;
    alpha.observe();
    alpha.now = 100;
    alpha.count(Direction::Receive, epoch(1, 1));
    alpha.observe();
    alpha.now += 4 * FOLLOW;
    alpha.observe();
    alpha.see(&[key(2)]);
    alpha.apply();
    assert_eq!(asks_by(&alpha), Some(epoch(1, 2)), "it is silent");
}

#[test]
fn rotation_is_due_by_time_and_by_bytes() {
    let mut alpha = settled();
    assert_eq!(alpha.exchange.next(), Some(at(3600)));
    assert_eq!(alpha.exchange.due(at(3599)), None);
    assert_eq!(alpha.exchange.due(at(3600)), Some(Due::Schedule));
    for _ in 0..2 {
        assert_eq!(alpha.exchange.due(at(1)), None);
        alpha.count(Direction::Send, epoch(1, 1));
        alpha.observe();
    }
    assert_eq!(alpha.exchange.due(at(1)), Some(Due::Bytes));
    alpha.generate(2);
    assert_eq!(
        alpha.exchange.due(at(1)),
        None,
        "once, though the peer is slow"
    );
    alpha.exchange.rotate();
    assert_eq!(alpha.exchange.due(at(1)), Some(Due::Asked));
    assert!(alpha.exchange.generate(2, &seed(9), at(1)).is_err());
}

#[test]
fn an_earlier_private_key_lives_a_minute_more() {
    for (seconds, known) in [(59, true), (60, false)] {
        let mut alpha = settled();
        alpha.generate(2);
        assert_eq!(alpha.exchange.next(), Some(at(60)));
        alpha.exchange.wipe(at(seconds));
        alpha.see(&[key(2)]);
        assert_eq!(alpha.epochs().contains(&epoch(1, 2)), known);
        assert!(alpha.epochs().contains(&epoch(2, 2)));
    }
}
