//! The steps from what is there to what should be there, in the order in which they are safe.
//!
//! Removal comes before addition, except where a packet would be lost by it: routes, neighbours and
//! tables are replaced in place. Rules are there before the links they watch. Steps of one
//! [`Step::phase`] do not depend on each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::name;
use crate::state::{Link, Place, Set, State, Table};
use crate::step::{ElementChange, Step};

mod security;

/// Steps in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps
            .iter()
            .try_for_each(|step| writeln!(formatter, "{step}"))
    }
}

/// The steps that make `observed` into `desired`.
#[must_use]
pub fn plan(desired: &State, observed: &State) -> Plan {
    let remade = remade_links(desired, observed);
    // What hangs on a link that is deleted is gone with it.
    let left = without_links(observed, &remade);
    let mut steps = Vec::new();
    plan_removals(desired, &left, &mut steps);
    steps.extend(remade.into_iter().map(|name| {
        let replaced = desired.links.contains_key(&name);
        Step::DeleteLink { name, replaced }
    }));
    for (name, value) in &desired.sysctls {
        // A setting that the kernel does not have, such as br_netfilter's, is not observed.
        if left.sysctls.get(name).is_some_and(|seen| seen != value) {
            steps.push(Step::SetSysctl {
                name: name.clone(),
                value: value.clone(),
            });
        }
    }
    plan_tables(desired, &left, &mut steps);
    plan_links(desired, &left, &mut steps);
    plan_additions(desired, &left, &mut steps);
    security::plan_security(desired, &left, &mut steps);
    steps.sort_by_key(Step::phase);
    Plan { steps }
}

fn remade_links(desired: &State, observed: &State) -> BTreeSet<String> {
    let keep = |name: &String, seen: &Link| {
        desired
            .links
            .get(name)
            .is_some_and(|wanted| seen.can_become(wanted))
    };
    let gone = observed
        .links
        .iter()
        .filter(|(name, seen)| name::is_ours(name) && !keep(name, seen));
    gone.map(|(name, _)| name.clone()).collect()
}

/// `state` after links were removed from it.
pub(crate) fn without_links(state: &State, removed: &BTreeSet<String>) -> State {
    let mut left = state.clone();
    let outer_too = |device: &str| {
        removed.contains(device) || (device == name::DIRECT_ROOT && removed.contains(name::DIRECT))
    };
    left.links.retain(|name, _| !removed.contains(name));
    left.addresses
        .retain(|(device, _)| !removed.contains(device));
    left.routes.retain(|_, target| {
        !target
            .device()
            .is_some_and(|device| removed.contains(device))
    });
    left.neighbours
        .retain(|(_, device, _), _| !outer_too(device));
    left.proxies.retain(|(device, _)| !removed.contains(device));
    for link in left.links.values_mut() {
        // A port whose bridge is gone is a port of nothing until it is put on the new one.
        if let Link::Port(port) = link
            && removed.contains(&port.bridge)
        {
            port.bridge.clear();
        }
    }
    left
}

fn plan_removals(desired: &State, observed: &State, steps: &mut Vec<Step>) {
    for (prefix, target) in &observed.routes {
        if !desired.routes.contains_key(prefix) {
            steps.push(Step::DeleteRoute {
                prefix: *prefix,
                target: target.clone(),
            });
        }
    }
    for (place, device, address) in observed.neighbours.keys() {
        if !desired
            .neighbours
            .contains_key(&(*place, device.clone(), *address))
        {
            let (place, device, address) = (*place, device.clone(), *address);
            steps.push(Step::DeleteNeighbour {
                place,
                device,
                address,
            });
        }
    }
    for (device, address) in observed.proxies.difference(&desired.proxies) {
        steps.push(Step::DeleteProxy {
            device: device.clone(),
            address: *address,
        });
    }
    for (device, address) in observed.addresses.difference(&desired.addresses) {
        steps.push(Step::DeleteAddress {
            device: device.clone(),
            address: *address,
        });
    }
    for table in observed
        .tables
        .keys()
        .filter(|table| !desired.tables.contains_key(table))
    {
        steps.push(Step::DeleteTable { table: *table });
    }
}

fn plan_tables(desired: &State, observed: &State, steps: &mut Vec<Step>) {
    let mut changes: BTreeMap<Place, Vec<ElementChange>> = BTreeMap::new();
    for (name, table) in &desired.tables {
        let seen = observed.tables.get(name);
        let same_rules = |seen: &&Table| {
            seen.digest == table.digest
                && seen.rules == table.rules
                && seen.sets.keys().eq(table.sets.keys())
        };
        let Some(seen) = seen.filter(same_rules) else {
            steps.push(Step::WriteTable {
                name: *name,
                table: table.clone(),
            });
            continue;
        };
        for (set, wanted) in &table.sets {
            let before = seen.sets.get(set).cloned().unwrap_or_default();
            let delete: Set = before.difference(wanted).cloned().collect();
            let add: Set = wanted.difference(&before).cloned().collect();
            if !delete.is_empty() || !add.is_empty() {
                let change = ElementChange {
                    table: *name,
                    set: set.clone(),
                    delete,
                    add,
                };
                changes.entry(name.place).or_default().push(change);
            }
        }
    }
    let changes = changes.into_iter();
    steps.extend(changes.map(|(place, changes)| Step::ChangeElements { place, changes }));
}

fn plan_links(desired: &State, observed: &State, steps: &mut Vec<Step>) {
    for (name, wanted) in &desired.links {
        let (name, link) = (name.clone(), wanted.clone());
        match observed.links.get(&name) {
            None => steps.push(Step::CreateLink { name, link }),
            Some(seen) if !seen.is_as(wanted) => steps.push(Step::ChangeLink { name, link }),
            Some(_) => {}
        }
    }
}

fn plan_additions(desired: &State, observed: &State, steps: &mut Vec<Step>) {
    for (device, address) in desired.addresses.difference(&observed.addresses) {
        steps.push(Step::AddAddress {
            device: device.clone(),
            address: *address,
        });
    }
    for (key, mac) in &desired.neighbours {
        if observed.neighbours.get(key) != Some(mac) {
            let (place, device, address) = key.clone();
            steps.push(Step::SetNeighbour {
                place,
                device,
                address,
                mac: *mac,
            });
        }
    }
    for (device, address) in desired.proxies.difference(&observed.proxies) {
        steps.push(Step::AddProxy {
            device: device.clone(),
            address: *address,
        });
    }
    for (prefix, target) in &desired.routes {
        if observed.routes.get(prefix) != Some(target) {
            steps.push(Step::SetRoute {
                prefix: *prefix,
                target: target.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
