//! What answered calls have made and removed.

use std::collections::BTreeMap;

use drover_authorization::{Call, Fact, Kind, Request, action};
use drover_policy::Principal;

use super::{Judge, takes_mounts};
use crate::inventory::{Entry, HostPath};

/// Operations whose answer names what was made.
const MAKING: &[&str] = &[
    "ContainerCreate",
    "ContainerExec",
    "NetworkCreate",
    "VolumeCreate",
];
/// The operation that frees a name which is somebody's.
const VOLUME_DELETE: &str = "VolumeDelete";
/// Operations after which a name may mean something else that is there. Of what is removed the engine's events tell, which name its id: by a
/// name it may be another one's already.
const CHANGING: &[&str] = &["ContainerRename"];

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
            self.inventory.look_at_once();
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
                ..mounts(request)
            },
        );
    }
}

/// What is mounted by what a call makes, as far as the call tells.
fn mounts(request: &Request) -> Entry {
    let mut entry = Entry::default();
    for facet in &request.facets {
        let id = &facet.resource.id;
        match facet.action {
            action::MOUNT_HOST_PATH => entry.paths.push(HostPath {
                path: id.clone(),
                read_only: facet.facts.get("readOnly") == Some(&Fact::Bool(true)),
                propagation: match facet.facts.get("propagation") {
                    Some(Fact::Text(propagation)) => propagation.clone(),
                    _ => String::new(),
                },
            }),
            action::MOUNT_VOLUME if !id.is_empty() => entry.volumes.push(id.clone()),
            _ => entry.may_have_more |= takes_mounts(facet),
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(host: &serde_json::Value) -> Entry {
        let body = json!({"Image": "alpine", "HostConfig": host}).to_string();
        let call = Call {
            method: "POST",
            uri: "/v1.41/containers/create?name=web",
            content_type: Some("application/json"),
            body: body.as_bytes(),
        };
        mounts(&Request::read(&call).unwrap())
    }

    #[test]
    fn what_is_made_is_known_with_its_mounts() {
        let path = |path: &str, read_only, propagation: &str| HostPath {
            path: path.to_owned(),
            read_only,
            propagation: propagation.to_owned(),
        };
        let entry = made(&json!({
            "Binds": ["/srv/a:/a:ro", "data:/data"],
            "Mounts": [
                {"Type": "bind", "Source": "/srv/b", "Target": "/b", "BindOptions": {"Propagation": "rshared"}},
                {"Type": "volume", "Source": "more", "Target": "/more"},
                {"Type": "volume", "Target": "/nameless"},
            ],
        }));
        assert_eq!(
            entry.paths,
            [path("/srv/a", true, ""), path("/srv/b", false, "rshared")]
        );
        assert_eq!(entry.volumes, ["data", "more"]);
        assert!(!entry.may_have_more);
    }

    #[test]
    fn those_of_another_container_are_not_known_from_the_call() {
        assert!(made(&json!({"VolumesFrom": ["db"]})).may_have_more);
        assert!(!made(&json!({"NetworkMode": "container:db"})).may_have_more);
    }
}
