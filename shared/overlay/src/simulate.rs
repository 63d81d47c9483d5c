//! What a step means, as a function of values: for printing what a plan would lead to, for knowing
//! the state after a plan without looking, and for property tests.

use std::collections::BTreeSet;

use crate::plan::without_links;
use crate::state::{Link, SecurityAssociation, State};
use crate::step::{ElementChange, Step};

/// The state after a step was taken.
pub fn simulate(state: &mut State, step: &Step) {
    match step.clone() {
        Step::SetSysctl { name, value } => {
            state.sysctls.insert(name, value);
        }
        Step::DeleteRoute { prefix, .. } => {
            state.routes.remove(&prefix);
        }
        Step::DeleteNeighbour {
            place,
            device,
            address,
        } => {
            state.neighbours.remove(&(place, device, address));
        }
        Step::DeleteProxy { device, address } => {
            state.proxies.remove(&(device, address));
        }
        Step::DeleteAddress { device, address } => {
            state.addresses.remove(&(device, address));
        }
        Step::DeleteTable { table } => {
            state.tables.remove(&table);
        }
        Step::DeleteLink { name, .. } => *state = without_links(state, &BTreeSet::from([name])),
        Step::WriteTable { name, table } => {
            state.tables.insert(name, table);
        }
        Step::CreateLink { name, link } | Step::ChangeLink { name, link } => {
            state.links.insert(name, as_observed(link));
        }
        Step::AddAddress { device, address } => {
            state.addresses.insert((device, address));
        }
        Step::SetNeighbour {
            place,
            device,
            address,
            mac,
        } => {
            state.neighbours.insert((place, device, address), mac);
        }
        Step::AddProxy { device, address } => {
            state.proxies.insert((device, address));
        }
        Step::SetRoute { prefix, target } => {
            state.routes.insert(prefix, target);
        }
        Step::AddAssociation { id, association } => {
            let seen = SecurityAssociation {
                key: None,
                ..association
            };
            state.associations.insert(id, seen);
        }
        Step::DeleteAssociation { id } => {
            state.associations.remove(&id);
        }
        Step::SetPolicy { key, template } => {
            state.policies.insert(key, template);
        }
        Step::DeletePolicy { key } => {
            state.policies.remove(&key);
        }
        Step::ChangeElements { changes, .. } => {
            changes
                .iter()
                .for_each(|change| change_elements(state, change));
        }
    }
}

fn as_observed(link: Link) -> Link {
    match link {
        Link::Port(mut port) => {
            port.sandbox = None;
            Link::Port(port)
        }
        other => other,
    }
}

fn change_elements(state: &mut State, change: &ElementChange) {
    let table = state.tables.get_mut(&change.table);
    let Some(set) = table.and_then(|table| table.sets.get_mut(&change.set)) else {
        return;
    };
    set.retain(|element| !change.delete.contains(element));
    set.extend(change.add.iter().cloned());
}
