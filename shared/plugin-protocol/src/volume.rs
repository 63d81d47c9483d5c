//! `VolumeDriver.*`: what an engine asks of a volume plugin.
//!
//! What never reaches a volume plugin: labels. Names are not checked by the engine: `../x` arrives as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::methods;
use crate::wire::null_is_default;

/// The interface in [`crate::Activation`].
pub const INTERFACE: &str = "VolumeDriver";

methods! {
    /// The calls of a volume plugin.
    "VolumeDriver":
    /// Asked once, at the first use.
    Capabilities,
    /// A volume is created.
    Create,
    /// What a volume is; asked before almost everything. Any failure is taken for "there is none".
    Get,
    /// Every volume.
    List,
    /// A container is about to use a volume.
    Mount,
    /// A container does not use it any more.
    Unmount,
    /// Where a volume is mounted.
    Path,
    /// A volume is removed; no container refers to it.
    Remove,
}

/// The answer to [`Method::Capabilities`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitiesAnswer {
    /// What the driver is.
    #[serde(rename = "Capabilities")]
    pub capabilities: Capabilities,
}

/// What a driver is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `local`: a volume is of one host. `global`: the same on all.
    #[serde(rename = "Scope")]
    pub scope: String,
}

/// The request of [`Method::Create`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Its name, as the user gave it; 64 hexadecimal digits for an anonymous volume.
    #[serde(rename = "Name")]
    pub name: String,
    /// The `-o` and `volume-opt` pairs.
    #[serde(rename = "Opts", default, deserialize_with = "null_is_default")]
    pub options: BTreeMap<String, String>,
}

/// The request of [`Method::Get`], [`Method::Path`] and [`Method::Remove`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Which volume.
    #[serde(rename = "Name")]
    pub name: String,
}

/// The request of [`Method::Mount`] and [`Method::Unmount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Which volume.
    #[serde(rename = "Name")]
    pub name: String,
    /// For which mount of which container; `docker cp` uses that of the running container again.
    #[serde(rename = "ID")]
    pub id: String,
}

/// The answer to [`Method::Get`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAnswer {
    /// The volume.
    #[serde(rename = "Volume")]
    pub volume: Volume,
}

/// The answer to [`Method::List`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The volumes.
    #[serde(rename = "Volumes")]
    pub volumes: Vec<Volume>,
}

/// A volume as the engine sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Where it is mounted; empty when it is not.
    #[serde(rename = "Mountpoint", default)]
    pub mount_point: String,
    /// When it was created, RFC 3339. An engine cannot read an answer in which it is empty: `None` leaves it out.
    #[serde(rename = "CreatedAt", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// What `docker volume inspect` shows under `Status`.
    #[serde(rename = "Status", default, deserialize_with = "null_is_default")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, Value>,
}

/// The answer to [`Method::Mount`] and [`Method::Path`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAnswer {
    /// Where it is mounted, in the engine's mount namespace.
    #[serde(rename = "Mountpoint")]
    pub mount_point: String,
}
