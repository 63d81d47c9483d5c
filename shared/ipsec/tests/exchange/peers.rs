//! Who a peer is: another member, an earlier record, what an earlier process has left.

use std::collections::BTreeSet;

use drover_ipsec::{Adopted, Direction, Due, PeerKey, PublicKey, RefusedKey, Spi};

use crate::alpha::{Alpha, at, beta, epoch, index, key, settled};

#[test]
fn a_peer_that_went_and_is_back_needs_another_generation() {
    let mut alpha = settled();
    alpha.see(&[]);
    assert_eq!(alpha.epochs(), BTreeSet::new());
    alpha.see(&[key(1)]);
    assert_eq!(alpha.apply(), 0);
    assert_eq!(alpha.exchange.due(at(0)), Some(Due::Lost));
    alpha.generate(2);
    assert_eq!(alpha.epochs(), BTreeSet::from([epoch(2, 1)]));
}

#[test]
fn another_member_under_the_name_or_the_index_waits_for_the_kernel() {
    let mut alpha = settled();
    let other = PeerKey {
        member: "another".to_owned(),
        ..key(1)
    };
    alpha.see(&[other]);
    assert_eq!(
        alpha.epochs(),
        BTreeSet::new(),
        "the kernel has the earlier one's"
    );
    assert_eq!(alpha.sends(), None);
    alpha.apply();
    assert_eq!(alpha.apply(), 4);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert!(!alpha.exchange.path(&beta()).confirmed);
}

#[test]
fn a_record_that_was_put_back_is_refused() {
    let mut alpha = settled();
    alpha.see(&[key(2)]);
    let older = RefusedKey::Older {
        known: 2,
        offered: 1,
    };
    assert_eq!(alpha.see(&[key(1)]), [older]);
    let changed = PeerKey {
        public: key(3).public,
        ..key(2)
    };
    assert_eq!(alpha.see(&[changed]), [RefusedKey::Changed(2)]);
    let low = PeerKey {
        public: PublicKey::from_bytes([0; 32]),
        ..key(3)
    };
    assert!(matches!(alpha.see(&[low])[..], [RefusedKey::LowOrder(_)]));
    let both = BTreeSet::from([epoch(1, 1), epoch(1, 2)]);
    assert_eq!(alpha.epochs(), both, "what was there stays");
    let twice = [
        key(2),
        PeerKey {
            member: "gamma".to_owned(),
            ..key(9)
        },
    ];
    assert_eq!(alpha.see(&twice), [RefusedKey::Index(index(2))]);
}

#[test]
fn what_an_earlier_process_left_is_kept_and_never_made() {
    let earlier = settled();
    let ids: BTreeSet<(Direction, Spi)> = earlier
        .kernel
        .keys()
        .map(|id| (id.direction, id.spi))
        .collect();
    let adopted = |member: &str| Adopted {
        member: member.to_owned(),
        index: index(2),
        associations: ids.clone(),
        send: Some(epoch(1, 1)),
    };
    let mut alpha = Alpha::new();
    alpha.kernel = earlier.kernel;
    alpha
        .exchange
        .adopt(&beta(), adopted("member of beta"), at(0));
    alpha.observe();
    alpha.see(&[key(1)]);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    assert!(alpha.exchange.path(&beta()).confirmed);
    alpha.generate(2);
    assert_eq!(alpha.sends(), Some(epoch(1, 1)));
    alpha.exchange.answered(&beta(), epoch(2, 1));
    assert_eq!(alpha.sends(), Some(epoch(2, 1)));

    let mut other = Alpha::new();
    other.kernel = alpha.kernel;
    other.exchange.adopt(&beta(), adopted("another"), at(0));
    other.observe();
    other.see(&[key(1)]);
    assert_eq!(other.epochs(), BTreeSet::new());
}
