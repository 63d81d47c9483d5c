//! What is on the engine: names, labels, mounts. Asked for beside calls, never by a call that the engine is waiting in.
//!
//! A call that names something unknown waits until the engine was asked once more, for at most [`PATIENCE`]. The engine asks the
//! plugin about that question, too, which is why questions bear the token and are answered at once.

mod follow;
mod rows;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use drover_authorization::Kind;
use drover_http::{Client, Method};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::owners::{Listed, Observed, Owners};
pub(crate) use follow::follow;
use rows::{ContainerRow, NetworkRow, VolumeList};

/// How long a call waits for what is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(5);

/// What the engine is asked about.
const LISTED: [Kind; 3] = [Kind::Container, Kind::Network, Kind::Volume];

/// The network that every engine makes once, with its data.
const NO_NETWORK: &str = "none";

/// Something on the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its id; a volume's is its name.
    pub(crate) id: String,
    /// Its name, without a leading `/`.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// The folders and files of the host that come with it: a container's binds, a volume's device.
    pub(crate) paths: Vec<HostPath>,
    /// The volumes of a container.
    pub(crate) volumes: Vec<String>,
    /// The driver of a volume; empty for anything else, and while the engine has not listed it.
    pub(crate) driver: String,
    /// Whether it may have more of both: it was made with those of another container, and the engine has not listed it since.
    pub(crate) may_have_more: bool,
}

/// A folder or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostPath {
    /// As it was written when it was bound.
    pub(crate) path: String,
    /// Whether it is mounted read-only.
    pub(crate) read_only: bool,
    /// How mounts below it spread, when they leave the container.
    pub(crate) propagation: String,
}

/// How a name came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is there.
    Entry(Entry),
    /// It is not.
    Nothing,
    /// Nobody knows: the engine does not answer, or more than one is meant.
    Unclear,
}

/// What is on the engine.
#[derive(Debug)]
pub(crate) struct Inventory {
    engine: Client,
    known: Mutex<Known>,
    /// How many times the engine was asked and has answered.
    looked: watch::Sender<u64>,
    /// Somebody waits for it to be asked.
    wanted: Notify,
    /// Something has come or gone: it is to be asked soon.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// The kinds that the engine has answered about, and when it was asked.
    answered: HashMap<Kind, SystemTime>,
    /// The kinds of which it has left some out: those of drivers that do not answer.
    partial: HashSet<Kind>,
    entries: HashMap<Kind, HashMap<String, Entry>>,
    /// The kinds that are to be asked about next.
    wanted: HashSet<Kind>,
    /// How many times the engine was asked, of those kinds that were wanted then.
    begun: u64,
}

impl Inventory {
    pub(crate) fn new(engine: Client) -> Self {
        Self {
            engine,
            known: Mutex::new(Known {
                wanted: HashSet::from(LISTED),
                ..Known::default()
            }),
            looked: watch::Sender::new(0),
            wanted: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a name or id in a call stands for. What is not known is looked for once more; what it mounts, where that is asked for, too.
    pub(crate) async fn find(&self, kind: Kind, name: &str, with_mounts: bool) -> Found {
        let name = name.trim_start_matches('/');
        let first = self.known().find(kind, name);
        let is_enough = |entry: &Entry| !(with_mounts && entry.may_have_more);
        if matches!(&first, Found::Entry(entry) if is_enough(entry)) {
            return first;
        }
        if self.look_anew(kind).await {
            return self.known().find(kind, name);
        }
        Found::Unclear
    }

    /// What is known by an id now, without asking.
    pub(crate) fn known_entry(&self, kind: Kind, id: &str) -> Option<Entry> {
        let known = self.known();
        known.entries.get(&kind)?.get(id).cloned()
    }

    /// Has the engine asked once more, by the task that does, and waits for it.
    async fn look_anew(&self, kind: Kind) -> bool {
        let mut looked = self.looked.subscribe();
        // One that has begun already may have passed what we look for.
        let target = self.want(&[kind]) + 1;
        let done = timeout(PATIENCE, looked.wait_for(|done| *done >= target)).await;
        matches!(done, Ok(Ok(_)))
    }

    /// Has the engine asked about these; how many times that was begun before.
    fn want(&self, kinds: &[Kind]) -> u64 {
        let mut known = self.known();
        known.wanted.extend(kinds);
        self.wanted.notify_one();
        known.begun
    }

    /// Notes what was made by a call that has just been answered.
    pub(crate) fn note(&self, kind: Kind, entry: Entry) {
        let mut known = self.known();
        let entries = known.entries.entry(kind).or_default();
        entries.retain(|_, other| other.name != entry.name || other.name.is_empty());
        entries.insert(entry.id.clone(), entry);
        drop(known);
        self.changed.notify_one();
    }

    /// Notes that something was removed by a call that is being answered; by an id that names it alone.
    pub(crate) fn forget(&self, kind: Kind, id: &str) {
        if let Some(entries) = self.known().entries.get_mut(&kind) {
            entries.remove(id);
        }
        self.changed.notify_one();
    }

    /// Has everything looked at again: names may mean something else.
    pub(crate) fn look_at_once(&self) {
        self.want(&LISTED);
    }

    /// Has everything looked at again together with what else changes within a moment.
    pub(crate) fn look_soon(&self) {
        self.changed.notify_one();
    }

    /// A volume without a name of its own belongs to who made the container that it was made with.
    fn attribute_anonymous_volumes(&self, owners: &Owners) {
        let known = self.known();
        for container in known
            .entries
            .get(&Kind::Container)
            .into_iter()
            .flat_map(HashMap::values)
        {
            let is_anonymous = |name: &&String| {
                name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
            };
            for volume in container.volumes.iter().filter(is_anonymous) {
                if owners.of(Kind::Volume, volume).is_none()
                    && let Some(owner) = owners.of(Kind::Container, &container.id)
                {
                    owners.note(Kind::Volume, volume, &owner);
                }
            }
        }
    }

    /// Has owners forgotten of what the engine does not have any more.
    fn forget_owners_of_gone(&self, owners: &Owners) {
        let known = self.known();
        let whole = known.answered.iter();
        let whole = whole.filter(|(kind, _)| !known.partial.contains(*kind));
        let listed = whole.filter_map(|(kind, asked)| {
            let entries = known.entries.get(kind)?.values();
            let there = entries.map(|entry| (entry.id.as_str(), entry.driver.as_str()));
            let (asked, there) = (*asked, there.collect());
            Some((*kind, Listed { asked, there }))
        });
        let networks = known.entries.get(&Kind::Network);
        let mut networks = networks.into_iter().flat_map(HashMap::values);
        owners.reconcile(&Observed {
            data: networks
                .find(|network| network.name == NO_NETWORK)
                .map(|network| network.id.as_str()),
            listed: listed.collect(),
        });
    }

    /// Asks about what is wanted.
    async fn look(&self) -> Result<(), String> {
        let (number, wanted) = {
            let mut known = self.known();
            known.begun += 1;
            (known.begun, std::mem::take(&mut known.wanted))
        };
        let mut outcome = Ok(());
        for kind in LISTED.into_iter().filter(|kind| wanted.contains(kind)) {
            outcome = outcome.and(self.look_at(kind).await);
        }
        self.looked.send_replace(number);
        outcome
    }

    async fn look_at(&self, kind: Kind) -> Result<(), String> {
        let mut is_partial = false;
        let asked = SystemTime::now();
        let entries = match kind {
            Kind::Container => self
                .get::<Vec<ContainerRow>>("/containers/json?all=1")
                .await
                .map(entries),
            Kind::Network => self.get::<Vec<NetworkRow>>("/networks").await.map(entries),
            // The one that asks plugins, and waits for those that are dead.
            _ => self.get::<VolumeList>("/volumes").await.map(|list| {
                is_partial = list.warnings.is_some_and(|all| !all.is_empty());
                entries(list.volumes.unwrap_or_default())
            }),
        };
        let mut known = self.known();
        if is_partial {
            known.partial.insert(kind);
        } else {
            known.partial.remove(&kind);
        }
        known.replace(kind, asked, entries)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let sent = self.engine.send(Method::GET, path, None, QUESTION).await;
        let answer = sent.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("`{path}` was answered with {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("`{path}`: {error}"))
    }
}

impl Known {
    /// Puts what the engine has answered in the place of what was known; the fault when it has not.
    fn replace(
        &mut self,
        kind: Kind,
        asked: SystemTime,
        entries: Result<Vec<Entry>, String>,
    ) -> Result<(), String> {
        match entries {
            Ok(entries) => {
                let entries = entries.into_iter().map(|entry| (entry.id.clone(), entry));
                self.entries.insert(kind, entries.collect());
                self.answered.insert(kind, asked);
                Ok(())
            }
            Err(fault) => {
                self.answered.remove(&kind);
                self.wanted.insert(kind);
                Err(fault)
            }
        }
    }

    fn find(&self, kind: Kind, name: &str) -> Found {
        if !self.answered.contains_key(&kind) {
            return Found::Unclear;
        }
        if name.is_empty() {
            return Found::Nothing;
        }
        let nothing = if self.partial.contains(&kind) {
            Found::Unclear
        } else {
            Found::Nothing
        };
        let Some(entries) = self.entries.get(&kind) else {
            return nothing;
        };
        // As the engine does it: an id, a name, the beginning of an id.
        if let Some(entry) = entries.get(name) {
            return Found::Entry(entry.clone());
        }
        if let Some(entry) = entries.values().find(|entry| entry.name == name) {
            return Found::Entry(entry.clone());
        }
        let is_hexadecimal = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if kind == Kind::Volume || !is_hexadecimal {
            return nothing;
        }
        let mut begun = entries.values().filter(|entry| entry.id.starts_with(name));
        match (begun.next(), begun.next()) {
            (None, _) => nothing,
            (Some(entry), None) => Found::Entry(entry.clone()),
            (Some(_), Some(_)) => Found::Unclear,
        }
    }
}

fn entries<T>(rows: Vec<T>) -> Vec<Entry>
where
    Entry: From<T>,
{
    rows.into_iter().map(Entry::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let entry = |id: &str, name: &str| Entry {
            id: id.to_owned(),
            name: name.to_owned(),
            ..Entry::default()
        };
        let rows = [
            entry("aa11", "web"),
            entry("aa22", "db"),
            entry("bb33", "aa22"),
        ];
        Known {
            answered: HashMap::from([(Kind::Container, SystemTime::now())]),
            entries: HashMap::from([(
                Kind::Container,
                rows.map(|entry| (entry.id.clone(), entry)).into(),
            )]),
            ..Known::default()
        }
    }

    #[test]
    fn names_are_found_as_the_engine_finds_them() {
        let known = known();
        let id = |name: &str| match known.find(Kind::Container, name) {
            Found::Entry(entry) => entry.id,
            other => format!("{other:?}"),
        };
        assert_eq!(id("web"), "aa11");
        assert_eq!(id("aa22"), "aa22", "an id comes before a name");
        assert_eq!(id("bb"), "bb33");
        assert_eq!(id("aa"), "Unclear");
        assert_eq!(id("zz"), "Nothing");
        assert_eq!(id("wed"), "Nothing");
        let nothing = Known::default();
        assert_eq!(nothing.find(Kind::Container, "web"), Found::Unclear);
    }

    #[test]
    fn what_may_have_been_left_out_is_not_absent() {
        let mut known = known();
        known.answered.insert(Kind::Volume, SystemTime::now());
        assert_eq!(known.find(Kind::Volume, "data"), Found::Nothing);
        known.partial.insert(Kind::Volume);
        assert_eq!(known.find(Kind::Volume, "data"), Found::Unclear);
        assert_eq!(known.find(Kind::Container, "zz"), Found::Nothing);
    }
}
