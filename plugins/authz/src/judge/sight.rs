//! What somebody may see in lists and events: what it may inspect.

use std::sync::Arc;
use std::time::Duration;

use drover_authorization::{Facet, Kind, canonical};
use drover_policy::{Asked, Object, Principal};
use tokio::time::timeout;

use super::Judge;
use crate::inventory::{Entry, Found};

/// How long an event waits for calls that make something.
const SETTLING: Duration = Duration::from_secs(2);
/// What somebody may see in lists and events: what it may inspect. Nothing without a policy.
#[derive(Debug)]
pub(crate) struct Sight {
    judge: Arc<Judge>,
    principal: Principal,
}

impl Judge {
    /// What somebody may see.
    pub(crate) fn sight(self: Arc<Self>, principal: &Principal) -> Sight {
        Sight {
            judge: self,
            principal: principal.clone(),
        }
    }
}

impl Sight {
    /// Whether something with an owner and labels may be seen.
    pub(crate) fn sees(&self, kind: Kind, entry: &Entry) -> bool {
        let object = self.judge.object(kind, entry);
        self.asks(kind, &entry.id, Some(&object))
    }

    /// Whether something may be seen that has a name alone.
    pub(crate) fn sees_named(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Image => self.asks(kind, &canonical(name), None),
            _ => self.asks(kind, name, None),
        }
    }

    /// Whether a container may be seen that something else names.
    pub(crate) fn sees_container(&self, id: &str) -> bool {
        let known = self.judge.inventory.known_entry(Kind::Container, id);
        known.is_some_and(|entry| self.sees(Kind::Container, &entry))
    }

    /// Whether something may be seen that is somewhere, or was: without its labels when nobody knows them any more.
    pub(crate) async fn sees_somewhere(&self, kind: Kind, id: &str, name: &str) -> bool {
        match self.judge.inventory.find(kind, id, false).await {
            Found::Entry(entry) => self.sees(kind, &entry),
            Found::Unclear => false,
            Found::Nothing => self.sees(
                kind,
                &Entry {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    ..Entry::default()
                },
            ),
        }
    }

    /// Whether somebody may see that a volume is gone: whose it was.
    pub(crate) fn sees_gone_volume(&self, name: &str) -> bool {
        let owners = &self.judge.owners;
        let owner = owners.of_gone(Kind::Volume, name);
        let object = Object {
            name: name.to_owned(),
            known: true,
            owner: owner.or_else(|| owners.of(Kind::Volume, name)),
            ..Object::default()
        };
        self.asks(Kind::Volume, name, Some(&object))
    }

    /// Waits for the calls that are under way and make something; whether there were any.
    pub(crate) async fn settle(&self) -> bool {
        let mut making = self.judge.making.subscribe();
        if *making.borrow() == 0 {
            return false;
        }
        // One that takes longer is told by whatever happens to it next.
        drop(timeout(SETTLING, making.wait_for(|count| *count == 0)).await);
        true
    }

    fn asks(&self, kind: Kind, id: &str, object: Option<&Object>) -> bool {
        let action = match kind {
            Kind::Container => "ContainerInspect",
            Kind::Network => "NetworkInspect",
            Kind::Volume => "VolumeInspect",
            Kind::Image => "ImageInspect",
            Kind::Plugin => "PluginInspect",
            Kind::Engine => "SystemInfo",
            Kind::SwarmObject => swarm_inspection(id),
            _ => return false,
        };
        let Some(policy) = self.judge.in_force.policy() else {
            return false;
        };
        let facet = Facet::new(action, kind, id);
        let asked = Asked {
            facet: &facet,
            object,
        };
        policy
            .decide(&self.principal, action, &[asked], false)
            .is_allowed()
    }
}

/// The operation that looks at an object of a swarm: `services/web`.
fn swarm_inspection(id: &str) -> &'static str {
    match id.split('/').next().unwrap_or_default() {
        "nodes" => "NodeInspect",
        "services" => "ServiceInspect",
        "tasks" => "TaskInspect",
        "secrets" => "SecretInspect",
        _ => "ConfigInspect",
    }
}
