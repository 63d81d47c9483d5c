//! What to do about the networks of this host, decided from a [`View`]. Pure: no clock, no engine.
//!
//! ```text
//!            docker network rm                 no endpoint anywhere
//!   Active ---------------------> RemovalRequested -----------------> Removing --> (deleted)
//!     ^                                 |                                |
//!     +--- an endpoint appears ---------+--- an endpoint appears --------+
//! ```
//!
//! While a network is active or waits for its last endpoint, every host has a copy of it; a copy
//! that is removed is put back at once. Each host removes its own copy; the last one out deletes
//! what the cluster knows of the network. A host that is away keeps the pool from being given
//! again, but not the name.

use std::collections::BTreeSet;

use drover_model::{HostName, LogicalNetworkId, NetworkId};

pub use super::step::Step;
use super::view::{LocalNetwork, Network, View, list, pools};

/// What is to be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What a person has to decide, a sentence each with the remedy.
    pub conflicts: Vec<String>,
    /// Whether to look again soon although nothing may change until then.
    pub look_again: bool,
}

/// Decides.
#[must_use]
pub fn plan(view: &View) -> Plan {
    let mut planner = Planner {
        view,
        plan: Plan::default(),
        spoken_for: BTreeSet::new(),
    };
    for network in view.networks.values() {
        planner
            .spoken_for
            .extend(network.copies.get(&view.host).cloned());
    }
    for (id, network) in &view.networks {
        planner.note_endpoints(id, network);
        if network.is_removing() {
            planner.go(id, network);
        } else {
            planner.stay(id, network);
        }
    }
    for name in &view.intended {
        let mut unplaced = view
            .local
            .iter()
            .filter(|(id, _)| !planner.spoken_for.contains(*id));
        if !unplaced.any(|(_, local)| &local.name == name) {
            planner.step(Step::ForgetIntent { name: name.clone() });
        }
    }
    for (id, local) in &view.local {
        if !planner.spoken_for.contains(id) {
            planner.place(id, local);
        }
    }
    planner.plan
}

struct Planner<'a> {
    view: &'a View,
    plan: Plan,
    /// This engine's networks that have a place already.
    spoken_for: BTreeSet<NetworkId>,
}

impl Planner<'_> {
    fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    fn conflict(&mut self, sentence: String) {
        self.plan.conflicts.push(sentence);
    }

    fn host(&self) -> &HostName {
        &self.view.host
    }

    /// This host's copy as the engine has it.
    fn copy<'b>(&'b self, network: &'b Network) -> Option<&'b NetworkId> {
        let id = network.copies.get(self.host())?;
        self.view.local.contains_key(id).then_some(id)
    }

    /// A network of this engine that has no place yet and could be the copy.
    fn twin(&self, network: &Network) -> Option<NetworkId> {
        self.view
            .local
            .iter()
            .filter(|(id, _)| !self.spoken_for.contains(*id))
            .find(|(_, local)| local.is_copy_of(&network.record))
            .map(|(id, _)| id.clone())
    }

    /// Whether we made this engine's network as the copy of `id`, and ended before we could say so.
    fn is_made_for(&self, local: &NetworkId, id: &LogicalNetworkId) -> bool {
        let local = self.view.local.get(local);
        local.is_some_and(|local| local.made_for.as_ref() == Some(id))
    }

    fn note_endpoints(&mut self, id: &LogicalNetworkId, network: &Network) {
        let noted = network.attachments.get(self.host()).copied().unwrap_or(0);
        let Some(endpoints) = network.endpoints.filter(|count| *count != noted) else {
            return;
        };
        let may_be_a_restart = endpoints == 0 && network.is_unwanted() && !network.settled;
        if may_be_a_restart {
            self.plan.look_again = true;
        } else {
            self.step(Step::Attach {
                network: id.clone(),
                endpoints,
            });
        }
    }

    /// A network that is wanted, or in use.
    fn stay(&mut self, id: &LogicalNetworkId, network: &Network) {
        let goes = network.is_unwanted() && !network.is_attached();
        if self.copy(network).is_none() {
            if let Some(local) = self.twin(network) {
                let created_again = network.is_unwanted() && !self.is_made_for(&local, id);
                self.spoken_for.insert(local.clone());
                self.step(Step::Adopt {
                    network: id.clone(),
                    local,
                });
                if created_again {
                    return self.step(Step::Keep {
                        network: id.clone(),
                    });
                }
            } else if network.copies.contains_key(self.host()) {
                self.vanished(id, network);
            } else if !goes {
                self.create(id, network);
            }
        }
        if goes {
            self.step(Step::BeginRemoval {
                network: id.clone(),
            });
        }
    }

    /// The records say that there is a copy, and the engine says that there is none.
    fn vanished(&mut self, id: &LogicalNetworkId, network: &Network) {
        let network_id = id.clone();
        if self.view.engine_is_new {
            self.step(Step::Forget {
                network: network_id,
            });
        } else if !network.gone_for_certain {
            self.plan.look_again = true;
        } else if network.is_unwanted() {
            self.step(Step::Forget {
                network: network_id,
            });
        } else {
            self.step(Step::RequestRemoval {
                network: network_id,
            });
        }
    }

    fn create(&mut self, id: &LogicalNetworkId, network: &Network) {
        let name = &network.record.name;
        if self.view.local.values().any(|local| &local.name == name) {
            // Either it is on its way out, or it is in conflict and that is said where it is placed.
            self.plan.look_again = true;
        } else if let Some(reason) = &network.refused {
            self.plan.look_again = true;
            self.conflict(format!(
                "host `{}` has no copy of network `{name}` yet: {reason}; it is tried again",
                self.host()
            ));
        } else if self.view.foreign.contains(name) {
            self.conflict(format!(
                "host `{}` has a network `{name}` of another driver, so that the cluster's `{name}` cannot be created there: remove or rename one of them (`docker network rm {name}` on `{}`)",
                self.host(),
                self.host()
            ));
        } else {
            self.step(Step::Create {
                network: id.clone(),
            });
        }
    }

    /// A network that is on its way out.
    fn go(&mut self, id: &LogicalNetworkId, network: &Network) {
        let name_taken = self
            .view
            .names
            .get(&network.record.name)
            .is_some_and(|holder| holder != id);
        if let Some(local) = self.copy(network).cloned() {
            self.remove(id, network, local, name_taken);
        } else if network.copies.contains_key(self.host()) {
            if network.gone_for_certain || self.view.engine_is_new {
                self.step(Step::Forget {
                    network: id.clone(),
                });
            } else {
                self.plan.look_again = true;
            }
        } else if let Some(local) = self
            .twin(network)
            .filter(|local| self.is_made_for(local, id))
        {
            self.spoken_for.insert(local.clone());
            self.step(Step::Adopt {
                network: id.clone(),
                local,
            });
        } else if network.copies.is_empty() {
            self.step(Step::Delete {
                network: id.clone(),
            });
        } else if !name_taken
            && self.view.names.contains_key(&network.record.name)
            && network
                .copies
                .keys()
                .all(|host| !self.view.alive.contains(host))
        {
            self.step(Step::ReleaseName {
                network: id.clone(),
            });
        }
    }

    fn remove(
        &mut self,
        id: &LogicalNetworkId,
        network: &Network,
        local: NetworkId,
        name_taken: bool,
    ) {
        let name = &network.record.name;
        let in_use = network.endpoints.unwrap_or(0) > 0;
        if in_use && name_taken {
            self.conflict(format!(
                "host `{}` still uses a network `{name}` that was removed while it was away, and the cluster has another `{name}` now: stop its containers there, and Drover puts the other in its place",
                self.host()
            ));
        } else if in_use {
            self.step(Step::Keep {
                network: id.clone(),
            });
        } else if let Some(reason) = &network.refused {
            self.plan.look_again = true;
            self.conflict(format!(
                "host `{}` cannot remove its copy of network `{name}`: {reason}; it is tried again",
                self.host()
            ));
        } else {
            self.step(Step::Remove {
                network: id.clone(),
                local,
            });
        }
    }

    /// A network of this engine that is nobody's copy yet.
    fn place(&mut self, id: &NetworkId, local: &LocalNetwork) {
        if let Some(made_for) = &local.made_for
            && !self.view.networks.contains_key(made_for)
        {
            let reason = "the network it was a copy of is gone".to_owned();
            return self.discard(id, local, reason);
        }
        if local.left {
            let reason = "it is of a cluster that this host has left".to_owned();
            return self.discard(id, local, reason);
        }
        let namesake = self
            .view
            .names
            .get(&local.name)
            .and_then(|id| self.view.networks.get(id));
        match namesake {
            Some(network) if !network.is_removing() => self.compare(id, local, network),
            _ => self.record(id, local),
        }
    }

    /// The cluster has a network of the name, and this is not its copy.
    fn compare(&mut self, id: &NetworkId, local: &LocalNetwork, network: &Network) {
        let leaving = network.copies.contains_key(self.host()) && self.copy(network).is_none();
        let goes = network.is_unwanted() && !network.is_attached();
        if leaving || goes {
            // `network rm` and `network create`, one right after the other: first the removal.
            self.plan.look_again = true;
            return;
        }
        self.discard(
            id,
            local,
            format!(
                "its subnet is {}, and the cluster's network `{}` has {}",
                list(&local.pools()),
                local.name,
                list(&pools(&network.record.subnets))
            ),
        );
    }

    fn record(&mut self, id: &NetworkId, local: &LocalNetwork) {
        for pool in local.pools() {
            let owner = match self.view.pools.get(&pool) {
                None => {
                    let reason = format!("its subnet {pool} was not given out by this cluster");
                    return self.stranger(local, &reason);
                }
                Some(owner) => owner
                    .as_ref()
                    .and_then(|owner| self.view.networks.get(owner)),
            };
            if let Some(owner) = owner.filter(|owner| !owner.is_removing()) {
                let reason = format!(
                    "its subnet {pool} belongs to the cluster's network `{}`",
                    owner.record.name
                );
                return self.discard(id, local, reason);
            }
        }
        if local.subnets.is_empty() {
            return self.stranger(local, "it has no subnet that Drover knows");
        }
        self.step(Step::Record { local: id.clone() });
    }

    /// Not to be removed by us: it is from before this host joined, or of a store that was lost.
    fn stranger(&mut self, local: &LocalNetwork, reason: &str) {
        let name = &local.name;
        self.conflict(format!(
            "network `{name}` of host `{}` stays on that host alone, as {reason}: remove it there with `docker network rm {name}` and create it again",
            self.host()
        ));
    }

    fn discard(&mut self, id: &NetworkId, local: &LocalNetwork, reason: String) {
        if local.in_use {
            let name = &local.name;
            self.conflict(format!(
                "host `{}` has containers on a network `{name}` of its own, as {reason}: stop them and run `docker network rm {name}` there, and Drover puts the cluster's network in its place",
                self.host()
            ));
        } else {
            self.step(Step::Discard {
                local: id.clone(),
                reason,
            });
        }
    }
}

#[cfg(test)]
mod tests;
