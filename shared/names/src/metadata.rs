//! What a container can ask about itself and those it shares a network with, by path.
//!
//! There is one tree for each asker: `self`, `services`, `containers`, `hosts`. A path leads to a part of it;
//! as text, a part that has parts is the list of them, a line each.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::directory::Directory;
use crate::place::{HostStanding, Place, Standing};
use crate::resolve::View;

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// For programs: what the path led to, with all of its parts.
    Json(Value),
    /// For people and scripts.
    Text(String),
}

/// The page at a path: `/services/web` as text, `/services/web.json` as JSON; `None` when there is none.
#[must_use]
pub fn page(directory: &Directory, view: &View, path: &str) -> Option<Page> {
    let path = path.trim_matches('/');
    let tree = tree(directory, view);
    // A name may have a dot in it: the whole of it comes first.
    if let Some(part) = part(&tree, path) {
        return Some(Page::Text(text(part)));
    }
    let whole = path.strip_suffix(".json")?;
    part(&tree, whole).cloned().map(Page::Json)
}

fn part<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    let mut part = tree;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        part = match part {
            Value::Object(parts) => parts.get(name)?,
            Value::Array(parts) => parts.get(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(part)
}

fn text(part: &Value) -> String {
    let line = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let lines: Vec<String> = match part {
        Value::Object(parts) => parts.keys().cloned().collect(),
        Value::Array(parts) if parts.iter().any(|part| part.is_object() || part.is_array()) => {
            (0..parts.len()).map(|number| number.to_string()).collect()
        }
        Value::Array(parts) => parts.iter().map(line).collect(),
        Value::Null => Vec::new(),
        value => vec![line(value)],
    };
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

fn tree(directory: &Directory, view: &View) -> Value {
    let (mut services, mut containers) = (BTreeMap::<_, Vec<Value>>::new(), Map::new());
    let mut hosts = BTreeMap::<String, (bool, Vec<String>)>::new();
    for (network, place) in seen(directory, view) {
        let entry = entry(network, place);
        if let Some(service) = &place.service {
            let of_service = services.entry(service.service.clone()).or_default();
            of_service.push(entry.clone());
        }
        // One that has a namesake on another host is told by its id.
        let name = if containers.contains_key(&place.name) {
            place.short_id()
        } else {
            &place.name
        };
        containers.insert(name.to_owned(), entry);
        let alive = directory.standing_of(&place.host) == HostStanding::Alive;
        let host = hosts.entry(place.host.to_string()).or_default();
        host.0 = alive;
        host.1.push(place.name.clone());
    }
    let hosts: Map<String, Value> = hosts
        .into_iter()
        .map(|(name, (alive, mut containers))| {
            containers.sort();
            containers.dedup();
            (name, json!({"alive": alive, "containers": containers}))
        })
        .collect();
    let mut tree = json!({
        "self": myself(directory, view),
        "services": services,
        "containers": containers,
        "hosts": hosts,
    });
    // Without this, the order is another one where some other crate asks `serde_json` to keep that of insertion.
    tree.sort_all_objects();
    tree
}

/// Every place on the asker's networks, by network and in the order of hosts and names.
fn seen<'a>(directory: &'a Directory, view: &View) -> Vec<(&'a str, &'a Place)> {
    let networks = view.networks.iter().filter_map(|id| directory.network(id));
    let mut seen: Vec<_> = networks
        .flat_map(|network| network.places().map(|place| (network.name(), place)))
        .collect();
    seen.sort_by_key(|(network, place)| (*network, &place.host, &place.name, &place.id));
    seen
}

fn entry(network: &str, place: &Place) -> Value {
    let addresses: Vec<String> = place.addresses().map(|it| it.to_string()).collect();
    json!({
        "name": place.name,
        "id": place.id,
        "host": place.host,
        "project": place.service.as_ref().map(|service| &service.project),
        "service": place.service.as_ref().map(|service| &service.service),
        "network": network,
        "addresses": addresses,
        "state": place.standing.reason(&place.host),
        "well": place.standing.is_well(),
    })
}

fn myself(directory: &Directory, view: &View) -> Value {
    let mut local = directory.records().filter(|record| {
        Some(&record.id) == view.container.as_ref() && Some(&record.host) == directory.this_host()
    });
    let Some(record) = local.next() else {
        return Value::Null;
    };
    let networks: Map<String, Value> = record
        .attachments
        .values()
        .map(|attachment| {
            let aliases = &attachment.aliases;
            let addresses = &attachment.addresses;
            (
                attachment.network.clone(),
                json!({"addresses": addresses, "aliases": aliases}),
            )
        })
        .collect();
    json!({
        "name": record.name,
        "id": record.id,
        "host": record.host,
        "project": record.service.as_ref().map(|service| &service.project),
        "service": record.service.as_ref().map(|service| &service.service),
        "image": record.image,
        "labels": record.labels,
        "ports": record.ports,
        "networks": networks,
        "state": Standing::of(record, HostStanding::Alive).reason(&record.host),
    })
}
