//! Whose is what: a record of what users have made, on the disk, and from there in the cluster's registry ([`crate::registry`]).
//!
//! Engines do not keep it, and labels alone could be forged by whoever made something before there were policies.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use drover_authorization::Kind;
use drover_control_api::owners::{Owned, OwnedKind, Ownership};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, warn};

/// The form of the file.
const VERSION: u32 = 1;
/// How many commands in containers are remembered; engines forget them by themselves.
const EXECS: usize = 4096;
/// How many owners of what is gone are remembered, for events that come behind.
const GONE: usize = 1024;
/// How long somebody's call may take from when it is allowed until what it makes is there.
const MAKING: Duration = Duration::from_secs(60);

/// The record.
#[derive(Debug)]
pub(crate) struct Owners {
    path: PathBuf,
    state: Mutex<State>,
    /// How many times what is recorded has changed.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    /// When this process has noted something.
    noted: HashMap<String, SystemTime>,
    /// When a removal was allowed whose answer has not come.
    removals: HashMap<String, SystemTime>,
    gone: VecDeque<(String, String)>,
    /// Whether there was no record on the disk, and the registry was not heard since.
    is_lost: bool,
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
    /// Reads the record. One that cannot be read is put aside: what it knew belongs to nobody until the registry is heard.
    pub(crate) fn load(path: PathBuf) -> Self {
        let found = read(&path);
        let state = State {
            is_lost: found.is_none(),
            record: found.unwrap_or_default(),
            ..State::default()
        };
        Self {
            path,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whose something is, by its id or, for a volume, its name.
    pub(crate) fn of(&self, kind: Kind, id: &str) -> Option<String> {
        let state = self.state();
        if kind == Kind::Exec {
            let mut execs = state.record.execs.iter().rev();
            return execs
                .find(|(exec, _)| exec == id)
                .map(|(_, owner)| owner.clone());
        }
        state.record.owners.get(&key(kind, id)).cloned()
    }

    /// Whose something was that is gone. An id comes once; a volume's name may be somebody else's now.
    pub(crate) fn of_gone(&self, kind: Kind, id: &str) -> Option<String> {
        let key = key(kind, id);
        let state = self.state();
        let found = state.gone.iter().rev().find(|(other, _)| *other == key);
        found.map(|(_, owner)| owner.clone())
    }

    /// Notes whose something is.
    pub(crate) fn note(&self, kind: Kind, id: &str, owner: &str) {
        let mut state = self.state();
        if kind == Kind::Exec {
            let execs = &mut state.record.execs;
            execs.push((id.to_owned(), owner.to_owned()));
            let surplus = execs.len().saturating_sub(EXECS);
            execs.drain(..surplus);
        } else {
            state.note(key(kind, id), owner);
        }
        self.write(state);
    }

    /// Notes whose something is to be that is not there yet. Of two who make it at a time it is the first one's.
    pub(crate) fn claim(&self, kind: Kind, id: &str, owner: &str) {
        let key = key(kind, id);
        let mut state = self.state();
        let claimed = state.noted.get(&key).and_then(|at| at.elapsed().ok());
        let is_known = state.record.owners.contains_key(&key);
        if is_known && claimed.is_some_and(|since| since < MAKING) {
            return;
        }
        state.note(key, owner);
        self.write(state);
    }

    /// Remembers that a removal was allowed. Until it is done the name is its owner's: nobody else can take what is still there.
    pub(crate) fn begin_removal(&self, kind: Kind, id: &str) {
        let removals = &mut self.state().removals;
        removals.retain(|_, at| at.elapsed().is_ok_and(|since| since < MAKING));
        removals.insert(key(kind, id), SystemTime::now());
    }

    /// Forgets what a removal has taken away that is answered now, if nobody has made it anew since it was allowed.
    pub(crate) fn end_removal(&self, kind: Kind, id: &str) {
        let begun = self.state().removals.remove(&key(kind, id));
        if let Some(begun) = begun {
            self.forget_gone(kind, id, begun);
        }
    }

    /// Forgets what has gone at that time, if it was not made anew since.
    pub(crate) fn forget_gone(&self, kind: Kind, id: &str, at: SystemTime) {
        let key = key(kind, id);
        let mut state = self.state();
        if state.noted.get(&key).is_some_and(|noted| *noted >= at) {
            return;
        }
        let Some(owner) = state.record.owners.remove(&key) else {
            return;
        };
        state.noted.remove(&key);
        state.gone.push_back((key, owner));
        let surplus = state.gone.len().saturating_sub(GONE);
        state.gone.drain(..surplus);
        self.write(state);
    }

    /// Everything that has an owner.
    pub(crate) fn all(&self) -> Vec<Ownership> {
        let state = self.state();
        let owners = state.record.owners.iter();
        let owners = owners.filter_map(|(key, owner)| {
            Some(Ownership {
                owned: owned(key)?,
                owner: owner.clone(),
            })
        });
        owners.collect()
    }

    /// Takes what the registry says: all of it when nothing was on the disk, else copies of networks alone.
    pub(crate) fn heard(&self, recorded: &[Ownership], copies: &[Ownership]) {
        let mut state = self.state();
        let recorded = if std::mem::take(&mut state.is_lost) {
            recorded
        } else {
            &[]
        };
        let mut changed = false;
        for Ownership { owned, owner } in recorded.iter().chain(copies) {
            let key = key(kind(owned.kind), &owned.id);
            if let Entry::Vacant(free) = state.record.owners.entry(key) {
                free.insert(owner.clone());
                changed = true;
            }
        }
        if changed {
            self.write(state);
        }
    }

    fn write(&self, mut state: MutexGuard<'_, State>) {
        state.record.version = VERSION;
        if let Err(error) = replace(&self.path, &state.record) {
            warn!(file = %self.path.display(), %error, "the record of owners is not on the disk");
        }
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl State {
    fn note(&mut self, key: String, owner: &str) {
        self.noted.insert(key.clone(), SystemTime::now());
        self.record.owners.insert(key, owner.to_owned());
    }
}

/// What is on the disk; `None` when that is nothing, or nothing that can be read.
fn read(path: &Path) -> Option<Record> {
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
    let moved = fs::rename(path, path.with_extension("unreadable"));
    error!(file = %path.display(), %fault, ?moved, "the record of owners cannot be read");
    None
}

fn key(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.name())
}

fn owned(key: &str) -> Option<Owned> {
    let (name, id) = key.split_once('/')?;
    let kinds = [OwnedKind::Container, OwnedKind::Network, OwnedKind::Volume];
    let kind = kinds.into_iter().find(|each| kind(*each).name() == name)?;
    Some(Owned {
        kind,
        id: id.to_owned(),
    })
}

const fn kind(owned: OwnedKind) -> Kind {
    match owned {
        OwnedKind::Container => Kind::Container,
        OwnedKind::Network => Kind::Network,
        OwnedKind::Volume => Kind::Volume,
    }
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
        owners.forget_gone(Kind::Container, "a", SystemTime::now());
        assert_eq!(owners.of(Kind::Container, "a"), None);
        assert!(owners.of(Kind::Volume, "a").is_some());
        fs::write(&path, "{").unwrap();
        assert_eq!(Owners::load(path.clone()).of(Kind::Volume, "a"), None);
        assert!(path.with_extension("unreadable").exists());
    }
    fn owners() -> (tempfile::TempDir, Owners) {
        let folder = tempfile::tempdir().unwrap();
        let owners = Owners::load(folder.path().join("owners.json"));
        (folder, owners)
    }

    fn ownership(kind: OwnedKind, id: &str, owner: &str) -> Ownership {
        let owned = Owned {
            kind,
            id: id.to_owned(),
        };
        let owner = owner.to_owned();
        Ownership { owned, owner }
    }

    #[test]
    fn a_name_that_was_taken_anew_is_not_forgotten_by_an_event_from_before() {
        let (_folder, owners) = owners();
        owners.note(Kind::Volume, "data", "ann");
        let between = SystemTime::now();
        owners.note(Kind::Volume, "data", "bob");
        owners.forget_gone(Kind::Volume, "data", between);
        assert_eq!(owners.of(Kind::Volume, "data").as_deref(), Some("bob"));
        owners.forget_gone(Kind::Volume, "data", SystemTime::now());
        assert_eq!(owners.of(Kind::Volume, "data"), None);
        assert_eq!(owners.of_gone(Kind::Volume, "data").as_deref(), Some("bob"));
    }

    #[test]
    fn a_name_is_its_owners_until_its_removal_is_done_and_the_next_makers_then() {
        let (_folder, owners) = owners();
        let of = || owners.of(Kind::Volume, "data");
        owners.claim(Kind::Volume, "data", "ann");
        owners.begin_removal(Kind::Volume, "data");
        assert_eq!(of().as_deref(), Some("ann"), "it is still there");
        owners.end_removal(Kind::Volume, "data");
        assert_eq!(of(), None);
        // The answer to a removal comes behind the next one's claim.
        owners.claim(Kind::Volume, "data", "ann");
        owners.begin_removal(Kind::Volume, "data");
        owners.note(Kind::Volume, "data", "bob");
        owners.end_removal(Kind::Volume, "data");
        assert_eq!(of().as_deref(), Some("bob"));
        // Without an allowed removal nothing is forgotten.
        owners.end_removal(Kind::Volume, "data");
        assert_eq!(of().as_deref(), Some("bob"));
    }

    #[test]
    fn of_two_who_make_something_at_a_time_the_first_has_it() {
        let (_folder, owners) = owners();
        owners.claim(Kind::Volume, "data", "ann");
        owners.claim(Kind::Volume, "data", "bob");
        assert_eq!(owners.of(Kind::Volume, "data").as_deref(), Some("ann"));
    }

    #[test]
    fn the_registry_is_believed_when_nothing_is_on_the_disk_and_about_copies() {
        let (folder, owners) = owners();
        let recorded = [ownership(OwnedKind::Container, "a", "ann")];
        let copies = [ownership(OwnedKind::Network, "n", "bob")];
        owners.heard(&recorded, &[]);
        assert_eq!(owners.all(), recorded);
        let owners = Owners::load(folder.path().join("owners.json"));
        owners.forget_gone(Kind::Container, "a", SystemTime::now());
        // What the registry has not forgotten yet does not come back.
        owners.heard(&recorded, &copies);
        assert_eq!(owners.all(), copies);
    }
}
