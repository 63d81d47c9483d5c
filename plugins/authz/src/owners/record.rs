//! The record of owners as it lies on the disk, and what of it an engine does not have.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use drover_authorization::Kind;
use drover_control_api::owners::{Owned, OwnedKind};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::SLOWEST;

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

    /// Forgets whose something is; whose it was.
    pub(super) fn forget(&mut self, key: &str) -> Option<String> {
        self.drivers.remove(key);
        self.owners.remove(key)
    }
}

/// What is on the disk; `None` when that is nothing, or nothing that can be read.
pub(super) fn read(path: &Path) -> Option<Record> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                error!(file = %path.display(), %error, "the record of owners cannot be read");
            }
            return None;
        }
    };
    let read = serde_json::from_slice::<Record>(&text).map_err(|error| error.to_string());
    let fault = match read {
        Ok(record) if record.version == VERSION => return Some(record),
        Ok(_) => "it is of another version".to_owned(),
        Err(fault) => fault,
    };
    let kept = drover_daemon::set_aside(path);
    error!(file = %path.display(), %fault, ?kept, "the record of owners cannot be read, and is set aside");
    None
}

/// Puts the record in the place of what is on the disk.
pub(super) fn replace(path: &Path, record: &Record) -> io::Result<()> {
    let under_way = path.with_extension("new");
    fs::write(&under_way, serde_json::to_vec(record)?)?;
    fs::rename(under_way, path)
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
