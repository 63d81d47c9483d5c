//! Lists of the engine, with the rows that may be seen: those of what the role may inspect.
//!
//! A row that is shown is shown as the engine has written it, but for a network's containers.

use std::collections::BTreeMap;

use drover_authorization::Kind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::inventory::Entry;
use crate::judge::Sight;

/// What a list looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A list of rows of one kind.
    Rows(Kind),
    /// A list of objects of a swarm: `services`, `tasks`.
    SwarmRows(&'static str),
    /// `{"Volumes": [...], "Warnings": ...}`.
    Volumes,
    /// One network, with the containers on it.
    Network,
    /// What takes how much room: lists of every kind.
    DataUsage,
}

impl Shape {
    /// The shape of an operation's answer; `None` when it is no list.
    pub(super) fn of(operation: &str) -> Option<Self> {
        Some(match operation {
            "ContainerList" => Self::Rows(Kind::Container),
            "ImageList" => Self::Rows(Kind::Image),
            "NetworkList" => Self::Rows(Kind::Network),
            "PluginList" => Self::Rows(Kind::Plugin),
            "VolumeList" => Self::Volumes,
            "NetworkInspect" => Self::Network,
            "SystemDataUsage" => Self::DataUsage,
            "NodeList" => Self::SwarmRows("nodes"),
            "ServiceList" => Self::SwarmRows("services"),
            "TaskList" => Self::SwarmRows("tasks"),
            "SecretList" => Self::SwarmRows("secrets"),
            "ConfigList" => Self::SwarmRows("configs"),
            _ => return None,
        })
    }
}

/// A row, as far as it decides whether it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    #[serde(rename = "Id")]
    id: String,
    /// Objects of a swarm have another spelling.
    #[serde(rename = "ID")]
    swarm_id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Names")]
    names: Option<Vec<String>>,
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    #[serde(rename = "RepoDigests")]
    digests: Option<Vec<String>>,
}

/// The text of a list without what may not be seen.
///
/// # Errors
/// When it is no such list.
pub(super) fn filtered(shape: Shape, text: &[u8], sight: &Sight) -> Result<Vec<u8>, String> {
    let value = match shape {
        Shape::Rows(kind) => Value::Array(rows(kind, read(text)?, sight)?),
        Shape::SwarmRows(kind) => Value::Array(swarm_rows(kind, read(text)?, sight)?),
        Shape::Volumes => Value::Object(volumes(read(text)?, sight)?),
        Shape::Network => Value::Object(network(read(text)?, sight)),
        Shape::DataUsage => Value::Object(data_usage(read(text)?, sight)?),
    };
    let mut shown = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
    shown.push(b'\n');
    Ok(shown)
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// An engine without any says `null`.
type Rows = Option<Vec<Value>>;

fn rows(kind: Kind, rows: Rows, sight: &Sight) -> Result<Vec<Value>, String> {
    let mut shown = Vec::new();
    for value in rows.unwrap_or_default() {
        let row = Row::deserialize(&value).map_err(|error| error.to_string())?;
        if !is_shown(kind, row, sight) {
            continue;
        }
        shown.push(match (kind, value) {
            (Kind::Network, Value::Object(row)) => Value::Object(network(row, sight)),
            (_, value) => value,
        });
    }
    Ok(shown)
}

fn is_shown(kind: Kind, row: Row, sight: &Sight) -> bool {
    match kind {
        Kind::Image => {
            let tags = row.tags.iter().chain(&row.digests).flatten();
            let mut names = tags.filter(|name| !name.starts_with("<none>")).peekable();
            if names.peek().is_none() {
                return sight.sees_named(Kind::Image, &row.id);
            }
            names.any(|name| sight.sees_named(Kind::Image, name))
        }
        Kind::Plugin => sight.sees_named(Kind::Plugin, &row.name),
        _ => sight.sees(kind, &entry(kind, row)),
    }
}

fn entry(kind: Kind, row: Row) -> Entry {
    let labels = row.labels.unwrap_or_default();
    let name = match &row.names {
        Some(names) => Entry::own_name(names),
        None => row.name,
    };
    let id = if kind == Kind::Volume {
        name.clone()
    } else {
        row.id
    };
    Entry {
        id,
        name,
        labels,
        ..Entry::default()
    }
}

fn swarm_rows(kind: &str, rows: Rows, sight: &Sight) -> Result<Vec<Value>, String> {
    let mut shown = Vec::new();
    for value in rows.unwrap_or_default() {
        let row = Row::deserialize(&value).map_err(|error| error.to_string())?;
        if sight.sees_named(Kind::SwarmObject, &format!("{kind}/{}", row.swarm_id)) {
            shown.push(value);
        }
    }
    Ok(shown)
}

fn volumes(mut list: Map<String, Value>, sight: &Sight) -> Result<Map<String, Value>, String> {
    if let Some(volumes) = list.remove("Volumes") {
        let shown = rows(Kind::Volume, read_value(volumes)?, sight)?;
        list.insert("Volumes".to_owned(), Value::Array(shown));
    }
    Ok(list)
}

fn read_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.to_string())
}

/// A network, with those of its containers that may be seen.
fn network(mut network: Map<String, Value>, sight: &Sight) -> Map<String, Value> {
    // An endpoint of a swarm's network names a task that is somewhere else.
    for member in ["Containers", "Services", "Peers"] {
        if let Some(Value::Object(on_it)) = network.get_mut(member) {
            on_it.retain(|id, _| member == "Containers" && sight.sees_container(id));
        }
    }
    network
}

/// The lists in what takes how much room; a list that is not known is not shown.
fn data_usage(usage: Map<String, Value>, sight: &Sight) -> Result<Map<String, Value>, String> {
    let kind = |member: &str| match member {
        "Containers" | "ContainerUsage" | "ContainersDiskUsage" => Some(Kind::Container),
        "Images" | "ImageUsage" | "ImagesDiskUsage" => Some(Kind::Image),
        "Volumes" | "VolumeUsage" | "VolumesDiskUsage" => Some(Kind::Volume),
        _ => None,
    };
    let mut shown = Map::new();
    for (member, value) in usage {
        let value = match (value, kind(&member)) {
            (Value::Array(list), Some(kind)) => Value::Array(rows(kind, Some(list), sight)?),
            (Value::Array(_), None) => Value::Array(Vec::new()),
            (Value::Object(mut usage), Some(kind)) => {
                if let Some(items) = usage.remove("Items") {
                    let items = rows(kind, read_value(items)?, sight)?;
                    usage.insert("Items".to_owned(), Value::Array(items));
                }
                Value::Object(usage)
            }
            (Value::Object(_), None) => continue,
            (value, _) => value,
        };
        shown.insert(member, value);
    }
    Ok(shown)
}
