//! What answered calls have made and removed.

use std::collections::BTreeMap;

use drover_authorization::{Call, Fact, Kind, Request};
use drover_policy::Principal;

use super::Judge;
use crate::inventory::Entry;

/// Operations whose answer names what was made.
const MAKING: &[&str] = &[
    "ContainerCreate",
    "ContainerExec",
    "NetworkCreate",
    "VolumeCreate",
];
/// The operation that frees a name which is somebody's.
const VOLUME_DELETE: &str = "VolumeDelete";
/// Operations after which names may mean something else. What they remove is forgotten by the engine's events, which name its id: by a
/// name it may be another one's already.
const CHANGING: &[&str] = &[
    "ContainerDelete",
    "ContainerPrune",
    "ContainerRename",
    "NetworkDelete",
    "NetworkPrune",
    "VolumePrune",
];

/// The volume that a call removes.
pub(super) fn removed_volume(request: &Request) -> Option<&str> {
    let target = request.target()?;
    (request.endpoint.operation == VOLUME_DELETE).then_some(target.id.as_str())
}

impl Judge {
    /// Whether the answer to an operation says what was made or removed: see [`Judge::note`].
    pub(crate) fn notes(operation: &str) -> bool {
        MAKING.contains(&operation) || CHANGING.contains(&operation) || operation == VOLUME_DELETE
    }

    /// Notes what an answered call has made or removed.
    pub(crate) fn note(&self, principal: &Principal, call: &Call<'_>, status: u16, answer: &[u8]) {
        if !(200..300).contains(&status) {
            return;
        }
        let Ok(request) = Request::read(call) else {
            return;
        };
        let operation = request.endpoint.operation;
        if MAKING.contains(&operation) {
            self.note_made(principal, &request, answer);
        } else if let Some(volume) = removed_volume(&request) {
            // Its name is free with the answer: the engine's event comes a moment later.
            self.owners.end_removal(Kind::Volume, volume);
            self.inventory.forget(Kind::Volume, volume);
        } else if CHANGING.contains(&operation) {
            self.inventory.look_soon();
        }
    }

    fn note_made(&self, principal: &Principal, request: &Request, answer: &[u8]) {
        #[derive(Default, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Made {
            id: String,
            name: String,
        }
        let (Ok(made), Some(target)) = (serde_json::from_slice::<Made>(answer), request.target())
        else {
            return;
        };
        if request.endpoint.operation == "ContainerExec" {
            self.owners.note(Kind::Exec, &made.id, &principal.name);
            return;
        }
        let id = if target.kind == Kind::Volume {
            made.name
        } else {
            made.id
        };
        if id.is_empty() {
            return;
        }
        let is_anothers =
            target.kind == Kind::Volume && self.owners.of(Kind::Volume, &id).is_some();
        if !is_anothers {
            self.owners.note(target.kind, &id, &principal.name);
        }
        let name = if target.kind == Kind::Volume {
            id.clone()
        } else {
            target.id.clone()
        };
        let labels = request
            .facets
            .first()
            .and_then(|facet| facet.facts.get("labels"));
        let labels = match labels {
            Some(Fact::Texts(texts)) => texts
                .iter()
                .filter_map(|text| text.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            _ => BTreeMap::new(),
        };
        self.inventory.note(
            target.kind,
            Entry {
                id,
                name,
                labels,
                ..Entry::default()
            },
        );
    }
}
