//! What is on the engine: names, labels, mounts. Asked for beside calls, never by a call that the engine is waiting in.
//!
//! A call that names something unknown waits until the engine was asked once more, for at most [`PATIENCE`]. The engine asks the
//! plugin about that question, too, which is why questions bear the token and are answered at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_authorization::{Kind, local_volume_device};
use drover_http::{Client, Method};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// How long a call waits for what is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(5);
/// How long to wait before asking again when the engine did not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(200);

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
    pub(crate) paths: Vec<String>,
    /// The volumes of a container.
    pub(crate) volumes: Vec<String>,
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
    /// How many times somebody has wanted it asked.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// The kinds that the engine has answered about.
    complete: HashSet<Kind>,
    entries: HashMap<Kind, HashMap<String, Entry>>,
    begun: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerRow {
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
struct MountRow {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkRow {
    id: String,
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeList {
    #[serde(default)]
    volumes: Option<Vec<VolumeRow>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeRow {
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

impl Inventory {
    pub(crate) fn new(engine: Client) -> Self {
        Self {
            engine,
            known: Mutex::default(),
            looked: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a name or id in a call stands for. What is not known is looked for once more.
    pub(crate) async fn find(&self, kind: Kind, name: &str) -> Found {
        let name = name.trim_start_matches('/');
        let first = self.known().find(kind, name);
        if first != Found::Nothing && first != Found::Unclear {
            return first;
        }
        if self.look_anew().await {
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
    async fn look_anew(&self) -> bool {
        let mut looked = self.looked.subscribe();
        // One that has begun already may have passed what we look for.
        let target = self.known().begun + 1;
        self.wanted.notify_one();
        let done = timeout(PATIENCE, looked.wait_for(|done| *done >= target)).await;
        matches!(done, Ok(Ok(_)))
    }

    /// Notes what was made by a call that has just been answered.
    pub(crate) fn note(&self, kind: Kind, entry: Entry) {
        let mut known = self.known();
        let entries = known.entries.entry(kind).or_default();
        entries.retain(|_, other| other.name != entry.name || other.name.is_empty());
        entries.insert(entry.id.clone(), entry);
        drop(known);
        self.wanted.notify_one();
    }

    /// Has everything looked at again soon.
    pub(crate) fn look_soon(&self) {
        self.wanted.notify_one();
    }

    async fn look(&self) -> Result<(), String> {
        let number = {
            let mut known = self.known();
            known.begun += 1;
            known.begun
        };
        let containers = self
            .get::<Vec<ContainerRow>>("/containers/json?all=1")
            .await;
        let networks = self.get::<Vec<NetworkRow>>("/networks").await;
        // The one that asks plugins, and waits for those that are dead.
        let volumes = self.get::<VolumeList>("/volumes").await;
        let volumes = volumes.map(|list| list.volumes.unwrap_or_default());
        let mut known = self.known();
        let faults = [
            known.replace(Kind::Container, containers),
            known.replace(Kind::Network, networks),
            known.replace(Kind::Volume, volumes),
        ];
        drop(known);
        self.looked.send_replace(number);
        match faults.into_iter().flatten().next() {
            None => Ok(()),
            Some(fault) => Err(fault),
        }
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
    fn replace<T>(&mut self, kind: Kind, rows: Result<Vec<T>, String>) -> Option<String>
    where
        Entry: From<T>,
    {
        match rows {
            Ok(rows) => {
                let rows = rows.into_iter().map(Entry::from);
                self.entries
                    .insert(kind, rows.map(|entry| (entry.id.clone(), entry)).collect());
                self.complete.insert(kind);
                None
            }
            Err(fault) => {
                self.complete.remove(&kind);
                Some(fault)
            }
        }
    }

    fn find(&self, kind: Kind, name: &str) -> Found {
        if !self.complete.contains(&kind) {
            return Found::Unclear;
        }
        let Some(entries) = self.entries.get(&kind).filter(|_| !name.is_empty()) else {
            return Found::Nothing;
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
            return Found::Nothing;
        }
        let mut begun = entries.values().filter(|entry| entry.id.starts_with(name));
        match (begun.next(), begun.next()) {
            (None, _) => Found::Nothing,
            (Some(entry), None) => Found::Entry(entry.clone()),
            (Some(_), Some(_)) => Found::Unclear,
        }
    }
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
            paths: of("bind").map(|mount| mount.source.clone()).collect(),
            volumes: of("volume").map(|mount| mount.name.clone()).collect(),
            id: row.id,
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
        let device = local_volume_device(texts).filter(|device| device.starts_with('/'));
        Self {
            paths: device.into_iter().map(str::to_owned).collect(),
            id: row.name.clone(),
            name: row.name,
            labels: row.labels.unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// What makes names mean something else: things that come, go and are renamed, also without a call.
const EVENTS: &str = "/events?filters=%7B%22event%22%3A%5B%22create%22%2C%22destroy%22%2C%22rename%22%2C%22remove%22%5D%7D";

/// Asks the engine whenever somebody wants it asked, and follows its events, as long as the process runs.
pub(crate) async fn follow(inventory: Arc<Inventory>) {
    let events = follow_events(inventory.clone());
    tokio::join!(look_when_wanted(inventory), events);
}

async fn look_when_wanted(inventory: Arc<Inventory>) {
    let mut quiet = false;
    loop {
        match inventory.look().await {
            Ok(()) if quiet => {
                info!("the engine answers again");
                quiet = false;
            }
            Ok(()) => {}
            Err(fault) => {
                if quiet {
                    debug!(%fault, "the engine does not answer");
                } else {
                    warn!(%fault, "the engine does not answer: what is not known is nobody's");
                    quiet = true;
                }
                sleep(AGAIN).await;
                continue;
            }
        }
        // A wish that came meanwhile is there at once.
        inventory.wanted.notified().await;
    }
}

async fn follow_events(inventory: Arc<Inventory>) {
    loop {
        if let Ok(mut lines) = inventory.engine.lines(EVENTS).await {
            inventory.look_soon();
            while let Ok(Some(_)) = lines.next().await {
                sleep(TOGETHER).await;
                inventory.look_soon();
            }
        }
        sleep(AGAIN).await;
    }
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
            complete: HashSet::from([Kind::Container]),
            entries: HashMap::from([(
                Kind::Container,
                rows.map(|entry| (entry.id.clone(), entry)).into(),
            )]),
            begun: 1,
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
}
