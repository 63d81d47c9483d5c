//! Whose is what: a record of what users have made, on the disk.
//!
//! Engines do not keep it, and labels alone could be forged by whoever made something before there were policies.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_authorization::Kind;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

/// The form of the file.
const VERSION: u32 = 1;
/// How many commands in containers are remembered; engines forget them by themselves.
const EXECS: usize = 4096;
/// How many owners of what is gone are remembered, for events that come behind.
const GONE: usize = 1024;

/// The record.
#[derive(Debug)]
pub(crate) struct Owners {
    path: PathBuf,
    record: Mutex<Record>,
    gone: Mutex<VecDeque<(String, String)>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// By `Container/ID`, `Network/ID`, `Volume/NAME`.
    owners: BTreeMap<String, String>,
    /// Commands in containers by their ids, the oldest first.
    #[serde(default)]
    execs: Vec<(String, String)>,
}

impl Owners {
    /// Reads the record. One that cannot be read is put aside: what it knew belongs to nobody then.
    pub(crate) fn load(path: PathBuf) -> Self {
        let record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Record>(&text)
                .map_err(|error| error.to_string())
                .and_then(|record| {
                    (record.version == VERSION)
                        .then_some(record)
                        .ok_or_else(|| "it is of another version".to_owned())
                })
                .unwrap_or_else(|fault| {
                    let aside = path.with_extension("unreadable");
                    let moved = fs::rename(&path, &aside);
                    error!(file = %path.display(), %fault, ?moved, "the record of owners cannot be read");
                    Record::default()
                }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => {
                error!(file = %path.display(), %error, "the record of owners cannot be read");
                Record::default()
            }
        };
        Self {
            path,
            record: Mutex::new(record),
            gone: Mutex::default(),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose something is, by its id or, for a volume, its name.
    pub(crate) fn of(&self, kind: Kind, id: &str) -> Option<String> {
        let record = self.record();
        if kind == Kind::Exec {
            let mut execs = record.execs.iter().rev();
            return execs
                .find(|(exec, _)| exec == id)
                .map(|(_, owner)| owner.clone());
        }
        record.owners.get(&key(kind, id)).cloned()
    }

    /// Whose something was that is gone. An id comes once; a volume's name may come again, and is not told here.
    pub(crate) fn of_gone(&self, kind: Kind, id: &str) -> Option<String> {
        let key = key(kind, id);
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let found = gone.iter().rev().find(|(other, _)| *other == key);
        found.map(|(_, owner)| owner.clone())
    }

    /// Notes whose something is.
    pub(crate) fn note(&self, kind: Kind, id: &str, owner: &str) {
        let mut record = self.record();
        if kind == Kind::Exec {
            record.execs.push((id.to_owned(), owner.to_owned()));
            let surplus = record.execs.len().saturating_sub(EXECS);
            record.execs.drain(..surplus);
        } else {
            record.owners.insert(key(kind, id), owner.to_owned());
        }
        self.write(&mut record);
    }

    /// Forgets what is gone.
    pub(crate) fn forget(&self, kind: Kind, id: &str) {
        let key = key(kind, id);
        let mut record = self.record();
        let Some(owner) = record.owners.remove(&key) else {
            return;
        };
        self.write(&mut record);
        drop(record);
        if kind != Kind::Volume {
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            gone.push_back((key, owner));
            let surplus = gone.len().saturating_sub(GONE);
            gone.drain(..surplus);
        }
    }

    fn write(&self, record: &mut Record) {
        record.version = VERSION;
        if let Err(error) = replace(&self.path, record) {
            warn!(file = %self.path.display(), %error, "the record of owners is not on the disk");
        }
    }
}

fn key(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.name())
}

fn replace(path: &Path, record: &Record) -> io::Result<()> {
    let under_way = path.with_extension("new");
    fs::write(&under_way, serde_json::to_vec(record)?)?;
    fs::rename(under_way, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.json");
        let owners = Owners::load(path.clone());
        owners.note(Kind::Container, "a", "ann");
        owners.note(Kind::Volume, "a", "bob");
        owners.note(Kind::Exec, "e", "ann");
        let owners = Owners::load(path.clone());
        assert_eq!(owners.of(Kind::Container, "a").as_deref(), Some("ann"));
        assert_eq!(owners.of(Kind::Volume, "a").as_deref(), Some("bob"));
        assert_eq!(owners.of(Kind::Exec, "e").as_deref(), Some("ann"));
        assert_eq!(owners.of(Kind::Network, "a"), None);
        owners.forget(Kind::Container, "a");
        assert_eq!(owners.of(Kind::Container, "a"), None);
        assert!(owners.of(Kind::Volume, "a").is_some());
        fs::write(&path, "{").unwrap();
        assert_eq!(Owners::load(path.clone()).of(Kind::Volume, "a"), None);
        assert!(path.with_extension("unreadable").exists());
    }
}
