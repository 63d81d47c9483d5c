//! Volumes, as the engine lists them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The name of its plugin; `local` for the engine's own.
    #[serde(default)]
    pub driver: String,
    /// Its labels, which no plugin is told.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}
