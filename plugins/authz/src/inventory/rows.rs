//! Rows of the engine's lists, as far as they are looked at.

use std::collections::BTreeMap;

use drover_authorization::local_volume_device;
use serde::Deserialize;

use super::{Entry, HostPath};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerRow {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    mounts: Option<Vec<MountRow>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MountRow {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: String,
    #[serde(default, rename = "RW")]
    writable: bool,
    #[serde(default)]
    propagation: String,
}

impl MountRow {
    fn host_path(&self) -> HostPath {
        let spreads = self.propagation.ends_with("shared") || self.propagation.ends_with("slave");
        HostPath {
            path: self.source.clone(),
            read_only: !self.writable,
            propagation: if spreads {
                self.propagation.clone()
            } else {
                String::new()
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkRow {
    id: String,
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumeList {
    #[serde(default)]
    pub(super) volumes: Option<Vec<VolumeRow>>,
    /// Of drivers that do not answer: their volumes are left out.
    #[serde(default)]
    pub(super) warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumeRow {
    name: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

impl Entry {
    /// A container's own name among its names: one of a link has two, and its own has one `/`.
    pub(crate) fn own_name(names: &[String]) -> String {
        let own = names.iter().map(|name| name.trim_start_matches('/'));
        own.filter(|name| !name.contains('/'))
            .min_by_key(|name| name.len())
            .unwrap_or_default()
            .to_owned()
    }
}

impl From<ContainerRow> for Entry {
    fn from(row: ContainerRow) -> Self {
        let mounts = row.mounts.unwrap_or_default();
        let of = |kind: &'static str| mounts.iter().filter(move |mount| mount.kind == kind);
        Self {
            name: Self::own_name(&row.names.unwrap_or_default()),
            labels: row.labels.unwrap_or_default(),
            paths: of("bind").map(MountRow::host_path).collect(),
            volumes: of("volume").map(|mount| mount.name.clone()).collect(),
            id: row.id,
            ..Self::default()
        }
    }
}

impl From<NetworkRow> for Entry {
    fn from(row: NetworkRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            labels: row.labels.unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl From<VolumeRow> for Entry {
    fn from(row: VolumeRow) -> Self {
        let options = row.options.unwrap_or_default();
        let texts = options
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let host_path = |path: &str| HostPath {
            path: path.to_owned(),
            ..HostPath::default()
        };
        let device = local_volume_device(texts).filter(|device| device.starts_with('/'));
        Self {
            paths: device.into_iter().map(host_path).collect(),
            id: row.name.clone(),
            name: row.name,
            driver: row.driver,
            labels: row.labels.unwrap_or_default(),
            ..Self::default()
        }
    }
}
