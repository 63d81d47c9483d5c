//! What to write about this host's containers. Pure: from what was observed and what the store has to changes.
//!
//! Only what was observed is decided on: a container that was not looked at yet keeps its record.

use std::collections::BTreeMap;

use drover_control_api::registry::ContainerRecord;
use drover_engine::ContainerDetail;

use super::observe::Owner;

/// The containers that were looked at, by id; `None` for one that the engine does not have any more.
pub type Observed<'a> = BTreeMap<&'a str, Option<&'a ContainerDetail>>;
/// What the store has of this host's containers, by id; `None` for a record that cannot be read.
pub type Stored = BTreeMap<String, Option<ContainerRecord>>;

/// A change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The record becomes this.
    Put(Box<ContainerRecord>),
    /// The record goes.
    Delete {
        /// The container's id.
        id: String,
    },
}

impl Change {
    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Put(record) => &record.id,
            Self::Delete { id } => id,
        }
    }
}

/// Decides.
#[must_use]
pub fn plan(owner: &Owner, observed: &Observed<'_>, stored: &Stored) -> Vec<Change> {
    let changes = observed.iter().filter_map(|(id, container)| {
        let wanted = container.and_then(|container| owner.record(container));
        match (wanted, stored.get(*id)) {
            (None, None) => None,
            (None, Some(_)) => Some(Change::Delete {
                id: (*id).to_owned(),
            }),
            (Some(wanted), Some(Some(known))) if wanted == *known => None,
            (Some(wanted), _) => Some(Change::Put(Box::new(wanted))),
        }
    });
    changes.collect()
}

#[cfg(test)]
mod tests;
