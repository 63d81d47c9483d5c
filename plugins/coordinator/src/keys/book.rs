//! Which keys are believed now. A record is checked once, however often the store is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use drover_control_api::fabric::PeerKey;
use drover_control_api::record::HostRecord;
use drover_model::HostName;
use drover_pki::Trust;
use drover_store::Entry;

use super::record::{self, Fault, Verdict};
use super::{View, shown};
use crate::mirror::Snapshot;

const PREFIX: &str = "keys/";
/// After how many checks others get their turn.
const BATCH: u64 = 16;
/// How long the same fault of the same host is not told again in the log, seconds.
const SILENCE: u64 = 3600;
/// How many members' generations are remembered, apart from those of present hosts.
const REMEMBERED: usize = 16_384;

/// What is known of each key in the store.
#[derive(Debug)]
pub(super) struct Book {
    trust: Trust,
    cluster: String,
    /// The member of each host, and the revision of the host's record that said so.
    members: BTreeMap<String, (u64, Option<String>)>,
    seen: BTreeMap<String, Seen>,
    /// The keys that are believed, and when.
    believed: BTreeMap<HostName, (PeerKey, RangeInclusive<u64>)>,
    /// The newest generation of each member, with its key. It never goes back while this process lives: who
    /// can write to the store could put an old record there again.
    newest: BTreeMap<String, (u64, [u8; 32])>,
    warned: BTreeMap<String, (Fault, u64)>,
    /// How many signatures were checked.
    pub(super) checks: u64,
}

#[derive(Debug)]
struct Seen {
    revision: u64,
    member: Option<String>,
    holds: RangeInclusive<u64>,
    fault: Option<Fault>,
}

impl Book {
    pub(super) fn new(trust: Trust, cluster: &str) -> Self {
        Self {
            trust,
            cluster: cluster.to_owned(),
            members: BTreeMap::new(),
            seen: BTreeMap::new(),
            believed: BTreeMap::new(),
            newest: BTreeMap::new(),
            warned: BTreeMap::new(),
            checks: 0,
        }
    }

    /// Takes in what has changed since.
    pub(super) async fn read(&mut self, snapshot: &Snapshot, now: u64) {
        self.read_members(snapshot);
        self.seen
            .retain(|name, _| snapshot.entry(&format!("{PREFIX}{name}")).is_some());
        for (name, entry) in snapshot.under(PREFIX) {
            let member = self
                .members
                .get(name)
                .and_then(|(_, member)| member.clone());
            let is_known = self.seen.get(name).is_some_and(|seen| {
                seen.revision == entry.revision
                    && seen.member == member
                    && seen.holds.contains(&now)
            });
            if is_known {
                continue;
            }
            let before = self.checks;
            let seen = self.look(name, entry, member, now);
            if let Some(fault) = &seen.fault {
                self.warn(name, fault, now);
            }
            self.seen.insert(name.to_owned(), seen);
            if self.checks != before && self.checks.is_multiple_of(BATCH) {
                tokio::task::yield_now().await;
            }
        }
        // Nor does whoever deletes a record: a host that is no member any more has no record of itself either.
        let members = &self.members;
        self.believed.retain(|host, (key, valid)| {
            let member = members
                .get(host.as_str())
                .and_then(|(_, member)| member.as_ref());
            member == Some(&key.member) && valid.contains(&now)
        });
        self.forget();
    }

    fn read_members(&mut self, snapshot: &Snapshot) {
        let known = std::mem::take(&mut self.members);
        for (name, entry) in snapshot.under("hosts/") {
            let member = match known.get(name) {
                Some((revision, member)) if *revision == entry.revision => member.clone(),
                _ => entry.decode::<HostRecord>().ok().map(|host| host.member),
            };
            self.members
                .insert(name.to_owned(), (entry.revision, member));
        }
    }

    /// Judges a record.
    fn look(&mut self, name: &str, entry: &Entry, member: Option<String>, now: u64) -> Seen {
        let host = name.parse::<HostName>().ok();
        let host = host.filter(|host| host.as_str() == name);
        let verdict = match (&host, &member) {
            (Some(host), Some(member)) => match record::read(entry, host, member) {
                Ok(record) => {
                    self.checks = self.checks.saturating_add(1);
                    record::check(&self.trust, &self.cluster, record, now)
                }
                Err(fault) => refused(fault),
            },
            _ => refused(Fault::NoHost),
        };
        // A key that was believed stays, whatever is in its place now: who writes there ends no path by that.
        let fault = match verdict.key {
            Ok(key) => self.believe(key, &verdict.holds).err(),
            Err(fault) => Some(fault),
        };
        Seen {
            revision: entry.revision,
            member,
            holds: verdict.holds,
            fault,
        }
    }

    /// Believes a key that its host has signed, unless the host has signed a newer one.
    fn believe(&mut self, key: PeerKey, valid: &RangeInclusive<u64>) -> Result<(), Fault> {
        if let Some((generation, public)) = self.newest.get(&key.member) {
            if key.generation < *generation {
                return Err(Fault::WentBack {
                    found: key.generation,
                    highest: *generation,
                });
            }
            if key.generation == *generation && key.public != *public {
                return Err(Fault::Reused(key.generation));
            }
        }
        self.newest
            .insert(key.member.clone(), (key.generation, key.public));
        self.believed.insert(key.host.clone(), (key, valid.clone()));
        Ok(())
    }

    fn warn(&mut self, name: &str, fault: &Fault, now: u64) {
        let told = self
            .warned
            .get(name)
            .is_some_and(|(told, at)| told == fault && now < at.saturating_add(SILENCE));
        if !told {
            let host = shown(name);
            tracing::warn!(
                host,
                remedy = fault.remedy(&host),
                "the key of a host for encrypted traffic is not used: {fault}"
            );
            self.warned.insert(name.to_owned(), (fault.clone(), now));
        }
    }

    /// Keeps what is only remembered within bounds.
    fn forget(&mut self) {
        if self.newest.len() > REMEMBERED {
            let present = self
                .members
                .values()
                .filter_map(|(_, member)| member.as_ref());
            let present: BTreeSet<_> = present.cloned().collect();
            self.newest.retain(|member, _| present.contains(member));
        }
        let seen = &self.seen;
        if self.warned.len() > REMEMBERED {
            self.warned.retain(|name, _| seen.contains_key(name));
        }
    }

    /// What is believed, and what is not.
    pub(super) fn view(&self) -> View {
        let believed = self.believed.iter();
        let faults = self.seen.iter();
        View {
            is_complete: true,
            keys: believed
                .map(|(host, (key, _))| (host.clone(), key.clone()))
                .collect(),
            faults: faults
                .filter_map(|(name, seen)| Some((name.clone(), seen.fault.clone()?)))
                .collect(),
            problem: None,
        }
    }
}

const fn refused(fault: Fault) -> Verdict {
    Verdict {
        key: Err(fault),
        holds: 0..=u64::MAX,
    }
}
