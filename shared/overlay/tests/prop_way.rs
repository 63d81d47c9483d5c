//! Whatever is forged, lost or moved: a way is taken only when the peer has answered by it, never instead of one that
//! answers, and one that reaches is found.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use drover_overlay::{Way, Ways};
use proptest::prelude::*;

/// Ways are few, so that the same ones are met again: 0 is where the peer says it is, 1 and 2 further addresses.
fn way(number: u8) -> Way {
    Way {
        local: IpAddr::from([192, 0, 2, 1]),
        remote: IpAddr::from([192, 0, 2, 10 + number]),
        port: 4740,
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// A packet came, whoever sent it.
    Heard(u8),
    /// From now on these ways lead to the peer.
    Reaching(BTreeSet<u8>),
    /// A round of probes, of which the answers may be lost.
    Round { lost: bool },
    /// A round in which an answer to an earlier trial comes.
    Late(u8),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..6).prop_map(Event::Heard),
        proptest::collection::btree_set(0_u8..6, 0..4).prop_map(Event::Reaching),
        proptest::bool::weighted(0.1).prop_map(|lost| Event::Round { lost }),
        any::<u8>().prop_map(Event::Late),
    ]
}

fn known() -> Ways {
    let mut ways = Ways::new(way(0));
    ways.set_known(way(0), [way(1), way(2)].into());
    ways
}

proptest! {
    #[test]
    fn only_a_way_that_was_answered_by_is_taken(events in proptest::collection::vec(events(), 0..60)) {
        let mut ways = known();
        let mut reaching = BTreeSet::from([way(0)]);
        for event in events {
            let before = ways.taken();
            match event {
                Event::Heard(number) => ways.hear(way(number)),
                Event::Reaching(numbers) => reaching = numbers.into_iter().map(way).collect(),
                Event::Round { lost } => {
                    ways.choose();
                    let answered = !lost && reaching.contains(&before);
                    let trial = ways.trial();
                    let tried = trial.filter(|(way, _)| !lost && reaching.contains(way));
                    let changed = ways.conclude(answered, tried.map(|(_, attempt)| attempt));
                    prop_assert_eq!(changed, before != ways.taken());
                    if changed {
                        prop_assert!(!answered && reaching.contains(&ways.taken()));
                    }
                    continue;
                }
                Event::Late(attempt) => {
                    ways.choose();
                    let attempt = ways.trial().is_none_or(|(_, now)| now != attempt).then_some(attempt);
                    ways.conclude(false, attempt);
                }
            }
            prop_assert_eq!(before, ways.taken());
        }
    }

    #[test]
    fn what_reaches_is_found_though_somebody_forges(
        past in proptest::collection::vec((0_u8..6, any::<bool>()), 0..20),
        reaching in 0_u8..5,
        forged in proptest::option::of(3_u8..6),
    ) {
        let mut ways = known();
        for (heard, answered) in past {
            ways.hear(way(heard));
            ways.choose();
            let tried = ways.trial().filter(|_| answered).map(|(_, attempt)| attempt);
            ways.conclude(false, tried);
        }
        // One that nobody has told of is found when its packets come in between.
        let known = reaching < 3;
        for turn in 0..16 {
            match (known, forged) {
                (false, Some(forged)) if turn % 4 == 3 => ways.hear(way(forged)),
                (false, _) => ways.hear(way(reaching)),
                (true, Some(forged)) => ways.hear(way(forged)),
                (true, None) => {}
            }
            ways.choose();
            let answered = ways.taken() == way(reaching);
            let tried = ways.trial().filter(|(it, _)| *it == way(reaching));
            ways.conclude(answered, tried.map(|(_, attempt)| attempt));
        }
        prop_assert_eq!(ways.taken(), way(reaching));
    }
}
