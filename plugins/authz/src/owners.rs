//! Whose is what: a record of what users have made, on the disk, and from there in the cluster's registry ([`crate::registry`]).
//!
//! Engines do not keep it, and labels alone could be forged by whoever made something before there were policies.

mod record;

use std::collections::btree_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use drover_authorization::Kind;
use drover_control_api::owners::{OwnedKind, Ownership};
use tokio::sync::watch;
use tracing::{info, warn};

use record::{Change, Record, RecordFile, kind, owned};
pub(crate) use record::{Listed, Observed};

/// How many commands in containers are remembered; engines forget them by themselves.
const EXECS: usize = 4096;
/// How many owners of what is gone are remembered, for events that come behind.
const GONE: usize = 1024;
/// How long somebody's call may take from when it is allowed until what it makes is there.
const MAKING: Duration = Duration::from_secs(60);
/// How long an engine may take to make a volume at most: it waits two minutes for a plugin that does.
const SLOWEST: Duration = Duration::from_secs(180);

/// The record.
#[derive(Debug)]
pub(crate) struct Owners {
    state: Mutex<State>,
    /// How many times what is recorded has changed.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    record: Record,
    file: RecordFile,
    /// What of the record is not in the file yet.
    added: Vec<Change>,
    /// When the file was written that was read at the start; what it says is not younger.
    written: SystemTime,
    /// When this process has noted something.
    noted: HashMap<String, SystemTime>,
    /// When a removal was allowed whose answer has not come.
    removals: HashMap<String, SystemTime>,
    gone: VecDeque<(String, String)>,
    /// Whether there was no record on the disk, and the registry was not heard since.
    is_lost: bool,
}

impl Owners {
    /// Reads the record. One that cannot be read is put aside: what it knew belongs to nobody until the registry is heard.
    pub(crate) fn load(path: PathBuf) -> Self {
        let (file, found) = RecordFile::open(path);
        let is_lost = found.is_none();
        let (record, written) = found.unwrap_or_else(|| (Record::default(), SystemTime::now()));
        let state = State {
            is_lost,
            written,
            record,
            file,
            added: Vec::new(),
            noted: HashMap::new(),
            removals: HashMap::new(),
            gone: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When what was read at the start was written: what is gone since was not taken note of.
    pub(crate) fn written(&self) -> SystemTime {
        self.state().written
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
            let (id, owner) = (id.to_owned(), owner.to_owned());
            state.change(Change::Exec { id, owner });
        } else {
            state.note(key(kind, id), owner);
        }
        self.add(state);
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
        self.add(state);
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
        if state.known_since(&key) < at && state.forget(key) {
            self.add(state);
        }
    }

    /// Forgets whose a volume was that was made anew at that time, by none of the calls that are known here: beside the plugin.
    pub(crate) fn forget_earlier(&self, volume: &str, at: SystemTime) {
        let key = key(Kind::Volume, volume);
        let mut state = self.state();
        if state.known_since(&key) + SLOWEST < at && state.forget(key) {
            self.add(state);
        }
    }

    /// Forgets whose something was that the engine does not have any more: it was removed while nobody took note of it.
    pub(crate) fn reconcile(&self, observed: &Observed<'_>) {
        let mut state = self.state();
        let absent = state.record.absent(observed, |key| state.known_since(key));
        if !absent.is_empty() && state.record.is_of_another(observed) {
            // A disk that was not there when the engine started comes back.
            match drover_daemon::set_aside(state.file.path()) {
                Ok(kept) => warn!(
                    kept = %kept.display(),
                    "the engine has other data than before: whose those were is set aside, and can be put back in the place of `{}` \
                     while drover-authz is stopped",
                    state.file.path().display()
                ),
                Err(error) => {
                    warn!(%error, "the engine has other data than before; whose those were cannot be set aside, and is kept");
                    return;
                }
            }
        }
        let is_news = state.record.learn(observed);
        if !absent.is_empty() {
            let count = absent.len();
            info!(count, "what the engine does not have any more is nobody's");
        }
        let mut is_changed = is_news;
        for key in absent {
            is_changed |= state.forget(key);
        }
        if is_changed {
            self.write(state);
        }
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
            if let Entry::Vacant(free) = state.record.owners.entry(key.clone()) {
                free.insert(owner.clone());
                changed = true;
                if owned.kind == OwnedKind::Network {
                    // The engine's list from before has no copy that was made since.
                    state.noted.insert(key, SystemTime::now());
                }
            }
        }
        if changed {
            self.write(state);
        }
    }

    /// Adds to the file what is new.
    fn add(&self, state: MutexGuard<'_, State>) {
        self.save(state, |file, added, record| file.add(added, record));
    }

    /// Writes the file anew.
    fn write(&self, state: MutexGuard<'_, State>) {
        self.save(state, |file, _, record| file.replace(record));
    }

    fn save(
        &self,
        mut guard: MutexGuard<'_, State>,
        write: impl FnOnce(&mut RecordFile, &[Change], &Record),
    ) {
        let state = &mut *guard;
        write(&mut state.file, &state.added, &state.record);
        state.added.clear();
        drop(guard);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl State {
    fn note(&mut self, key: String, owner: &str) {
        self.noted.insert(key.clone(), SystemTime::now());
        let owner = owner.to_owned();
        self.change(Change::Owner { key, owner });
    }

    fn change(&mut self, change: Change) {
        self.record.apply(&change);
        self.added.push(change);
    }

    /// When it was noted whose something is, or later.
    fn known_since(&self, key: &str) -> SystemTime {
        self.noted.get(key).copied().unwrap_or(self.written)
    }

    /// Forgets whose something is; whether it was somebody's.
    fn forget(&mut self, key: String) -> bool {
        self.noted.remove(&key);
        let Some(owner) = self.record.owners.get(&key).cloned() else {
            return false;
        };
        self.change(Change::Forget { key: key.clone() });
        self.gone.push_back((key, owner));
        let surplus = self.gone.len().saturating_sub(GONE);
        self.gone.drain(..surplus);
        true
    }
}

fn key(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.name())
}

#[cfg(test)]
mod tests;
