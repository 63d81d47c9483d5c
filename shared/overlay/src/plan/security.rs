//! The steps for associations and policies.
//!
//! An association is made once. One that is made again with the same key begins its sequence numbers anew, and so
//! sends two packets under one nonce, which gives away what both say (RFC 4106, section 10); or receives a
//! packet a second time. A plan knows what is there, and not what was: so it makes what has a key and
//! is not there, and whoever asks for the plan gives a key until the first plan that makes the
//! association is carried out, however that went, and never after.
//!
//! An association that is there with other ends or ports than it should have was made with its
//! key. It is removed and not made again, for this plan would do it with the same key; a host that finds it
//! gone makes a new generation. So long, policies name what is not there, and packets are dropped.

use std::collections::BTreeSet;

use crate::state::State;
use crate::step::Step;

/// The steps, in no order.
pub(super) fn plan_security(desired: &State, observed: &State, steps: &mut Vec<Step>) {
    for (id, seen) in &observed.associations {
        let wanted = desired.associations.get(id);
        if !wanted.is_some_and(|wanted| seen.is_as(wanted)) {
            steps.push(Step::DeleteAssociation { id: *id });
        }
    }
    // The indexes by which this host sends to two peers may be the same; those of one peer are not,
    // and the one that is there may have the key, under another destination.
    let seen = observed.associations.iter();
    let taken: BTreeSet<_> = seen.map(|(id, it)| (it.if_id, id.spi)).collect();
    for (id, wanted) in &desired.associations {
        let free =
            !observed.associations.contains_key(id) && !taken.contains(&(wanted.if_id, id.spi));
        if wanted.key.is_some() && free {
            steps.push(Step::AddAssociation {
                id: *id,
                association: wanted.clone(),
            });
        }
    }
    for key in observed.policies.keys() {
        if !desired.policies.contains_key(key) {
            steps.push(Step::DeletePolicy { key: *key });
        }
    }
    for (key, template) in &desired.policies {
        if observed.policies.get(key) != Some(template) {
            steps.push(Step::SetPolicy {
                key: *key,
                template: *template,
            });
        }
    }
}
