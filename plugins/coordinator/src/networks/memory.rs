//! What the reconciliation remembers from one look to the next: for how long something has been
//! so, what the engine refused, and, durably, which copies it was making.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drover_control_api::record::CopyRecord;
use drover_engine::Network as EngineNetwork;
use drover_model::{HostName, LogicalNetworkId, NetworkId};
use drover_store::Result;
use drover_store::local::{Database, Table};

use super::execute::Effect;
use super::observe::Known;
use super::plan::Step;
use super::refusals::Refusals;
use super::view::View;
use crate::mirror::Snapshot;

/// For how long the last endpoint must have been gone not to be taken for a restart.
const SETTLED: Duration = Duration::from_secs(2);
/// For how long a copy must be missing, when no event told of its removal: the engine hides a
/// network first and tells the drivers then, and may wait for a driver.
const GONE: Duration = Duration::from_secs(5);
/// How long what was done without asking a person is told.
const TOLD: Duration = Duration::from_secs(600);
/// The table of networks of a cluster that this host has left.
const LEFT: &str = "left-networks";
/// The key of the engine's identity.
const IDENTITY: &str = "identity";

/// What was told since the last look.
#[derive(Debug)]
pub(super) struct Told {
    /// The endpoints of this host, if `drover-net` has told them at all.
    pub(super) endpoints: Option<BTreeMap<NetworkId, u32>>,
    /// Networks that the engine has removed.
    pub(super) removed: Vec<NetworkId>,
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Memory {
    intents: Table<LogicalNetworkId>,
    engine: Table<String>,
    left: Table<bool>,
    seen: u64,
    reported: Option<BTreeMap<NetworkId, u32>>,
    empty_since: BTreeMap<NetworkId, Instant>,
    missing_since: BTreeMap<NetworkId, Instant>,
    removed: BTreeMap<NetworkId, Instant>,
    refusals: Refusals,
    notes: Vec<(Instant, String)>,
    engine_is_new: bool,
}

impl Memory {
    pub(super) fn open(database: &Database) -> Result<Self> {
        Ok(Self {
            intents: Table::open(database, "intended-copies")?,
            engine: Table::open(database, "engine")?,
            left: Table::open(database, LEFT)?,
            seen: 0,
            reported: None,
            empty_since: BTreeMap::new(),
            missing_since: BTreeMap::new(),
            removed: BTreeMap::new(),
            refusals: Refusals::default(),
            notes: Vec::new(),
            engine_is_new: false,
        })
    }

    /// The copies that are being made.
    pub(super) const fn intents(&self) -> &Table<LogicalNetworkId> {
        &self.intents
    }

    /// Which revision of the networks was looked at last.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) const fn see(&mut self, revision: u64) {
        self.seen = revision;
    }

    /// Takes in what there is to see now.
    pub(super) fn note(
        &mut self,
        host: &HostName,
        snapshot: &Snapshot,
        engine: &[EngineNetwork],
        told: Told,
    ) -> Result<()> {
        let now = Instant::now();
        let there: BTreeSet<&str> = engine.iter().map(|network| network.id.as_str()).collect();
        let copies: BTreeSet<NetworkId> = snapshot
            .records::<CopyRecord>("copies/")
            .filter(|(rest, _)| rest.rsplit('/').next() == Some(host.as_str()))
            .map(|(_, copy)| copy.network)
            .collect();
        self.removed
            .extend(told.removed.into_iter().map(|id| (id, now)));
        self.removed
            .retain(|_, since| now.duration_since(*since) < TOLD);
        self.missing_since
            .retain(|id, _| copies.contains(id) && !there.contains(id.as_str()));
        for id in copies.iter().filter(|id| !there.contains(id.as_str())) {
            self.missing_since.entry(id.clone()).or_insert(now);
        }
        self.reported = told.endpoints;
        let reported = self.reported.as_ref();
        let is_empty = |id: &NetworkId| reported.is_some_and(|all| !all.contains_key(id));
        self.empty_since
            .retain(|id, _| copies.contains(id) && is_empty(id));
        for id in copies.iter().filter(|id| is_empty(id)) {
            self.empty_since.entry(id.clone()).or_insert(now);
        }
        self.notes
            .retain(|(since, _)| now.duration_since(*since) < TOLD);
        self.refusals.see(engine);
        for (id, _) in self.left.list()? {
            if !there.contains(id.as_str()) {
                self.left.delete(&id)?;
            }
        }
        let known = self.engine.get(IDENTITY)?;
        self.engine_is_new =
            known.is_some_and(|known| identity(engine).is_some_and(|now| now != known));
        Ok(())
    }

    /// What the view needs to know.
    pub(super) fn known(&self) -> Result<Known> {
        let now = Instant::now();
        let longer = |since: &BTreeMap<NetworkId, Instant>, than: Duration| {
            let old = since
                .iter()
                .filter(|(_, since)| now.duration_since(**since) >= than);
            old.map(|(id, _)| id.clone()).collect::<BTreeSet<_>>()
        };
        let mut gone = longer(&self.missing_since, GONE);
        gone.extend(self.removed.keys().cloned());
        Ok(Known {
            endpoints: self.reported.clone(),
            settled: longer(&self.empty_since, SETTLED),
            gone,
            refused: self.refusals.standing(now),
            intended: self.intents.list()?.into_iter().collect(),
            left: self.left()?,
            engine_is_new: self.engine_is_new,
        })
    }

    /// Networks of a cluster that this host has left.
    fn left(&self) -> Result<BTreeSet<NetworkId>> {
        let left = self.left.list()?.into_iter();
        Ok(left.filter_map(|(id, _)| id.parse().ok()).collect())
    }

    /// Remembers which engine it was, once nothing is left of another one's copies.
    pub(super) fn engine_was_seen(&self, engine: &[EngineNetwork], view: &View) -> Result<()> {
        let Some(identity) = identity(engine) else {
            return Ok(());
        };
        let left = view.networks.values().any(|network| {
            let copy = network.copies.get(&view.host);
            copy.is_some_and(|copy| !view.local.contains_key(copy))
        });
        if (self.engine_is_new && left) || self.engine.get(IDENTITY)?.as_ref() == Some(&identity) {
            return Ok(());
        }
        self.engine.put(IDENTITY, &identity)
    }

    /// The engine, which has these networks, refused something for this one.
    pub(super) fn refused(
        &mut self,
        network: &LogicalNetworkId,
        reason: String,
        engine: &[EngineNetwork],
    ) {
        self.refusals.see(engine);
        self.refusals.note(network, reason, Instant::now());
    }

    /// A step was tried.
    pub(super) fn did(&mut self, step: &Step, effect: &Effect, view: &View) {
        match (step, effect) {
            (Step::Create { network } | Step::Remove { network, .. }, Effect::Done) => {
                self.refusals.forget(network);
            }
            (Step::Discard { local, reason }, Effect::Done) => {
                let Some(local) = view.local.get(local) else {
                    return;
                };
                // Where the cluster has a network of the name, nobody misses this one.
                let is_missed = local.made_for.is_none() && !local.left;
                if is_missed && !view.names.contains_key(&local.name) {
                    let note = format!(
                        "network `{}` of host `{}` was removed, as {reason}: create it again with another --subnet",
                        local.name, view.host
                    );
                    self.notes.push((Instant::now(), note));
                }
            }
            _ => {}
        }
    }

    /// What was done lately without asking a person.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|(_, note)| note.clone())
    }
}

/// See [`super::leave`].
pub(super) fn leave(database: &Database, networks: &[NetworkId]) -> Result<()> {
    let left = Table::open(database, LEFT)?;
    networks
        .iter()
        .try_for_each(|network| left.put(network.as_str(), &true))
}

/// What tells one engine from another that was set up anew in its place: its network `none` is made
/// once and kept.
fn identity(engine: &[EngineNetwork]) -> Option<String> {
    engine
        .iter()
        .find(|network| network.name == "none" && network.driver == "null")
        .map(|network| network.id.clone())
}
