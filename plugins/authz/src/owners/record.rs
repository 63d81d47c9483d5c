//! The record of owners, and what of it an engine does not have.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use drover_authorization::Kind;
use drover_control_api::owners::{Owned, OwnedKind};
use serde::{Deserialize, Serialize};

pub(super) use file::RecordFile;

use super::{EXECS, SLOWEST};

/// The form of the file.
const VERSION: u32 = 1;
/// The driver of volumes that is the engine's own, and so is always asked.
const LOCAL: &str = "local";

/// What is recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// By `Container/ID`, `Network/ID`, `Volume/NAME`.
    pub(super) owners: BTreeMap<String, String>,
    /// Commands in containers by their ids, the oldest first.
    #[serde(default)]
    pub(super) execs: Vec<(String, String)>,
    /// Which data of the engine's that is: see [`Observed::data`].
    #[serde(default)]
    data: Option<String>,
    /// The drivers of the volumes, by the keys of their owners, once the engine has listed them.
    #[serde(default)]
    drivers: BTreeMap<String, String>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            owners: BTreeMap::new(),
            execs: Vec::new(),
            data: None,
            drivers: BTreeMap::new(),
        }
    }
}

/// What is different in a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub(super) enum Change {
    /// Something is somebody's.
    Owner { key: String, owner: String },
    /// A command in a container is somebody's.
    Exec { id: String, owner: String },
    /// Something is nobody's any more.
    Forget { key: String },
}

/// What an engine has answered.
#[derive(Debug, Default)]
pub(crate) struct Observed<'a> {
    /// What tells its data from those of an engine on another folder or disk: the id of its network `none`.
    pub(crate) data: Option<&'a str>,
    /// By kind, those of which nothing was left out.
    pub(crate) listed: HashMap<Kind, Listed<'a>>,
}

/// What an engine has of a kind.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    /// When it was asked, or before.
    pub(crate) asked: SystemTime,
    /// The ids, and for volumes, whose names they are, the drivers.
    pub(crate) there: HashMap<&'a str, &'a str>,
}

impl Listed<'_> {
    /// Whether volumes of a driver would be listed. The engine leaves out those of a plugin that it has not found, without a word.
    fn has_asked(&self, driver: &str) -> bool {
        driver == LOCAL || self.there.values().any(|other| *other == driver)
    }
}

impl Record {
    /// What is recorded and not there: by its key. What was noted while the engine was asked may have come behind its answer.
    pub(super) fn absent(
        &self,
        observed: &Observed<'_>,
        known_since: impl Fn(&str) -> SystemTime,
    ) -> Vec<String> {
        let is_absent = |key: &str| {
            let Some(Owned { kind: of, id }) = owned(key) else {
                return false;
            };
            let Some(listed) = observed.listed.get(&kind(of)) else {
                return false;
            };
            if listed.there.contains_key(id.as_str()) {
                return false;
            }
            let since = known_since(key);
            match of {
                // These have ids, which are known when they are there.
                OwnedKind::Container | OwnedKind::Network => since < listed.asked,
                // A volume is somebody's from when its making is allowed.
                OwnedKind::Volume => {
                    let driver = self.drivers.get(key);
                    since + SLOWEST < listed.asked
                        && driver.is_some_and(|driver| listed.has_asked(driver))
                }
            }
        };
        let keys = self.owners.keys();
        keys.filter(|key| is_absent(key)).cloned().collect()
    }

    /// Whether the engine has other data than those that this is about.
    pub(super) fn is_of_another(&self, observed: &Observed<'_>) -> bool {
        let (own, others) = (self.data.as_deref(), observed.data);
        own.is_some() && others.is_some() && own != others
    }

    /// Notes which data the engine has, and the drivers of volumes; whether that is news.
    pub(super) fn learn(&mut self, observed: &Observed<'_>) -> bool {
        let mut is_news = false;
        if observed.data.is_some() && self.data.as_deref() != observed.data {
            self.data = observed.data.map(str::to_owned);
            is_news = true;
        }
        let Some(volumes) = observed.listed.get(&Kind::Volume) else {
            return is_news;
        };
        for key in self.owners.keys() {
            let volume = owned(key).filter(|owned| owned.kind == OwnedKind::Volume);
            let driver = volume.and_then(|volume| volumes.there.get(volume.id.as_str()));
            if let Some(driver) = driver
                && self.drivers.get(key).map(String::as_str) != Some(*driver)
            {
                self.drivers.insert(key.clone(), (*driver).to_owned());
                is_news = true;
            }
        }
        is_news
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Owner { key, owner } => {
                self.owners.insert(key.clone(), owner.clone());
            }
            Change::Exec { id, owner } => {
                self.execs.push((id.clone(), owner.clone()));
                let surplus = self.execs.len().saturating_sub(EXECS);
                self.execs.drain(..surplus);
            }
            Change::Forget { key } => {
                self.drivers.remove(key);
                self.owners.remove(key);
            }
        }
    }
}

/// What a key stands for.
pub(super) fn owned(key: &str) -> Option<Owned> {
    let (name, id) = key.split_once('/')?;
    let kinds = [OwnedKind::Container, OwnedKind::Network, OwnedKind::Volume];
    let kind = kinds.into_iter().find(|each| kind(*each).name() == name)?;
    Some(Owned {
        kind,
        id: id.to_owned(),
    })
}

/// The kind of what has an owner.
pub(super) const fn kind(owned: OwnedKind) -> Kind {
    match owned {
        OwnedKind::Container => Kind::Container,
        OwnedKind::Network => Kind::Network,
        OwnedKind::Volume => Kind::Volume,
    }
}
