//! The same decisions, for a person: every name, what is refused, and what an asker would be told and why.

use std::net::IpAddr;

use drover_control_api::names::{
    Explanation, Lookup, LookupOutcome, LookupRecord, NameEntry, NameHolder, NameTable,
    NetworkNames, RefusedName,
};
use drover_control_api::registry::ContainerRecord;
use drover_control_api::{Failure, FailureKind};
use drover_model::LogicalNetworkId;
use hickory_proto::op::Query;
use hickory_proto::rr::{Name, Record, RecordType};

use crate::directory::Directory;
use crate::index::{Claim, Network, Rule};
use crate::name::{fold, printable};
use crate::place::names_of;
use crate::resolve::{View, find, find_address};
use crate::wire::{Told, host_part, tell};

/// The order of an explanation is always the same.
const SEED: u64 = 1;

/// Who has a name: the network if somebody counts, everybody who claims it, and whether nobody is well.
struct Sought<'a> {
    network: Option<&'a Network>,
    holders: Vec<NameHolder>,
    is_storm: bool,
}

impl Directory {
    /// Every name there is, of one network or of all.
    ///
    /// # Errors
    /// When there is no such network.
    pub fn table(&self, network: Option<&str>) -> Result<NameTable, Failure> {
        let only = network.map(|text| self.read_network(text)).transpose()?;
        let networks = self.networks().iter();
        let networks = networks.filter(|(id, _)| only.as_ref().is_none_or(|only| only == *id));
        let networks = networks.map(|(id, network)| {
            let mut names: Vec<_> = network
                .claims()
                .map(|(name, claims)| NameEntry {
                    name: name.clone(),
                    holders: holders(claims),
                })
                .collect();
            names.sort_by(|one, other| one.name.cmp(&other.name));
            NetworkNames {
                id: id.clone(),
                name: network.name().to_owned(),
                names,
            }
        });
        Ok(NameTable {
            networks: networks.collect(),
            stale_since: self.stale_since(),
        })
    }

    /// The aliases and labels that are no names, or would take another container's own name away.
    #[must_use]
    pub fn refused(&self) -> Vec<RefusedName> {
        let mut refused = Vec::new();
        for record in self.records() {
            for attachment in record.attachments.values() {
                for (text, error) in names_of(record, attachment).1 {
                    let network = &attachment.network;
                    refused.push(refusal(text, network, record, error.to_string()));
                }
            }
        }
        for network in self.networks().values() {
            for (name, claims) in network.claims() {
                let rule = Rule::among(claims);
                let Some(owner) = rule.owner() else {
                    continue;
                };
                for claim in claims.iter().filter(|claim| !rule.admits(claim)) {
                    refused.push(RefusedName {
                        name: name.clone(),
                        network: network.name().to_owned(),
                        container: claim.place.name.clone(),
                        host: claim.place.host.clone(),
                        reason: taken(&owner.name, &owner.host),
                    });
                }
            }
        }
        refused
    }

    /// What an asker would be told, and why.
    ///
    /// # Errors
    /// When the asker, the network, or the kind of record is not known.
    pub fn explain(&self, lookup: &Lookup) -> Result<Explanation, Failure> {
        let asker = lookup.from.as_deref();
        let asker = asker.map(|text| self.read_container(text)).transpose()?;
        let view = self.read_view(lookup, asker)?;
        let (question, kinds) = read_question(lookup)?;
        let name = question.trim_end_matches('.').to_ascii_lowercase();
        let sought = self.seek(&view, host_part(&name), lookup.name.parse().ok());
        let mut explanation = Explanation {
            name,
            asker: asker.map(|record| record.name.clone()),
            networks: self.names_of_networks(&view),
            network: sought.network.map(|network| network.name().to_owned()),
            outcome: LookupOutcome::PassedOn,
            reason: String::new(),
            records: Vec::new(),
            holders: sought.holders,
            stale_since: self.stale_since(),
        };
        let mut told = Vec::new();
        for kind in &kinds {
            let name = Name::from_ascii(&question).map_err(|error| {
                let message = format!("`{}` is no name: {error}", printable(&lookup.name));
                Failure::new(FailureKind::InvalidInput, message)
            })?;
            told.push(tell(self, &view, &Query::query(name, *kind), SEED));
        }
        conclude(&mut explanation, told, &kinds, sought.is_storm);
        Ok(explanation)
    }

    fn seek(&self, view: &View, name: &str, address: Option<IpAddr>) -> Sought<'_> {
        if let Some(address) = address {
            let network = find_address(self, view, address).map(|(network, _)| network);
            let names = network.into_iter().flat_map(|network| {
                let places = network.holders(address).iter().map(|place| Claim {
                    place: place.clone(),
                    kind: drover_control_api::names::NameKind::Container,
                });
                holders(&places.collect::<Vec<_>>())
            });
            return Sought {
                network,
                holders: names.collect(),
                is_storm: false,
            };
        }
        if let Some(found) = find(self, view, name, SEED) {
            let claims = found.network.find(name).unwrap_or_default();
            return Sought {
                network: Some(found.network),
                holders: holders(claims),
                is_storm: found.is_storm,
            };
        }
        // Nobody counts: all who would have the name, wherever.
        let networks = view.networks.iter().filter_map(|id| self.network(id));
        let claims = networks.filter_map(|network| network.find(name));
        Sought {
            network: None,
            holders: claims.flat_map(holders).collect(),
            is_storm: false,
        }
    }

    fn names_of_networks(&self, view: &View) -> Vec<String> {
        let networks = view.networks.iter();
        let names = networks.filter_map(|id| self.network_name(id));
        names.map(str::to_owned).collect()
    }

    fn read_view(&self, lookup: &Lookup, asker: Option<&ContainerRecord>) -> Result<View, Failure> {
        let mut view = match asker {
            Some(record) => self.view_of(record),
            None => View {
                container: None,
                networks: self.sorted(self.networks().keys().cloned().collect()),
            },
        };
        if let Some(text) = &lookup.network {
            let only = self.read_network(text)?;
            if asker.is_some() && !view.networks.contains(&only) {
                let message = format!("the container is not on network `{}`", printable(text));
                return Err(Failure::new(FailureKind::InvalidInput, message));
            }
            view.networks = vec![only];
        }
        Ok(view)
    }

    /// What a container may see.
    #[must_use]
    pub fn view_of(&self, record: &ContainerRecord) -> View {
        View {
            container: Some(record.id.clone()),
            networks: self.sorted(record.attachments.keys().cloned().collect()),
        }
    }

    /// Networks in the order in which they are looked at: by name, as Docker does.
    #[must_use]
    pub fn sorted(&self, mut networks: Vec<LogicalNetworkId>) -> Vec<LogicalNetworkId> {
        networks.sort_by(|one, other| {
            let key = |id| (self.network_name(id), id);
            key(one).cmp(&key(other))
        });
        networks
    }

    fn read_network(&self, text: &str) -> Result<LogicalNetworkId, Failure> {
        let by_id = text.parse().ok().filter(|id| self.network(id).is_some());
        let found = by_id.or_else(|| self.network_called(text).cloned());
        found.ok_or_else(|| {
            let message = format!(
                "no container is on a network `{}`; `drover networks` shows which there are",
                printable(text)
            );
            Failure::new(FailureKind::NotFound, message)
        })
    }

    /// A container by its name, its id or the beginning of its id; one of this host if there are several.
    fn read_container(&self, text: &str) -> Result<&ContainerRecord, Failure> {
        let by_name = |record: &&ContainerRecord| record.name == text;
        let by_id = |record: &&ContainerRecord| text.len() >= 4 && record.id.starts_with(text);
        let here = |record: &&ContainerRecord| Some(&record.host) == self.this_host();
        let mut found: Vec<_> = self.records().filter(by_name).collect();
        if found.is_empty() {
            found = self.records().filter(by_id).collect();
        }
        let near = found.iter().find(|record| here(record)).copied();
        match (near, found.as_slice()) {
            (Some(record), _) => Ok(record),
            (None, [record]) => Ok(*record),
            (None, []) => {
                let message = format!(
                    "no container `{}` is on a network of Drover's; give its name or id",
                    printable(text)
                );
                Err(Failure::new(FailureKind::NotFound, message))
            }
            (None, several) => {
                let hosts: Vec<_> = several.iter().map(|it| it.host.to_string()).collect();
                let message = format!(
                    "there are several containers `{}`, on {}; give an id",
                    printable(text),
                    hosts.join(", ")
                );
                Err(Failure::new(FailureKind::InvalidInput, message))
            }
        }
    }
}

fn conclude(explanation: &mut Explanation, told: Vec<Told>, kinds: &[RecordType], is_storm: bool) {
    let mut is_ours = false;
    let mut is_missing = false;
    for told in told {
        match told {
            Told::PassOn => {}
            Told::NoSuchName => (is_ours, is_missing) = (true, true),
            Told::Records(records, _) => {
                is_ours = true;
                explanation.records.extend(records.iter().map(record));
            }
        }
    }
    let network = explanation.network.clone().unwrap_or_default();
    let nobody = explanation.holders.is_empty();
    (explanation.outcome, explanation.reason) = match (is_ours, explanation.records.is_empty()) {
        (false, _) if nobody => (
            LookupOutcome::PassedOn,
            "nobody has this name on these networks: Docker's resolver is asked".to_owned(),
        ),
        (false, _) => (
            LookupOutcome::PassedOn,
            "nobody who has this name runs on a host that is alive: Docker's resolver is asked"
                .to_owned(),
        ),
        (true, false) if is_storm => (
            LookupOutcome::Answered,
            format!(
                "network `{network}` has the name, and nobody who has it is well: those that run are \
                 handed out all the same"
            ),
        ),
        (true, false) => (
            LookupOutcome::Answered,
            format!("network `{network}` has the name"),
        ),
        (true, true) if is_missing => (
            LookupOutcome::NoSuchName,
            "nobody who has this name exposes such a port".to_owned(),
        ),
        (true, true) => {
            let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
            let reason = format!(
                "network `{network}` has the name, and nobody who is handed out has {}",
                kinds.join(" or ")
            );
            (LookupOutcome::NoData, reason)
        }
    };
}

/// Everybody who claims a name, whether they are handed out to others and why.
fn holders(claims: &[Claim]) -> Vec<NameHolder> {
    let rule = Rule::among(claims);
    let counting = || {
        rule.admitted()
            .filter(|claim| claim.place.standing.counts())
    };
    let is_storm = !counting().any(|claim| claim.place.standing.is_well());
    let mut holders: Vec<_> = claims
        .iter()
        .map(|claim| {
            let place = &claim.place;
            let standing = place.standing;
            let admitted = rule.admits(claim);
            let owner = rule.owner().filter(|_| !admitted);
            NameHolder {
                container: place.id.clone(),
                name: place.name.clone(),
                host: place.host.clone(),
                kind: claim.kind,
                addresses: place.addresses().collect(),
                given: admitted && (standing.is_well() || (is_storm && standing.is_spare())),
                reason: owner.map_or_else(
                    || standing.reason(&place.host),
                    |owner| taken(&owner.name, &owner.host),
                ),
            }
        })
        .collect();
    holders.sort_by(|one, other| {
        let key = |it: &NameHolder| (it.host.clone(), it.name.clone(), it.container.clone());
        key(one).cmp(&key(other))
    });
    holders
}

fn taken(owner: &str, host: &drover_model::HostName) -> String {
    format!("it is the own name of container `{owner}` on {host}, which comes first")
}

fn refusal(text: &str, network: &str, record: &ContainerRecord, reason: String) -> RefusedName {
    RefusedName {
        name: printable(text),
        network: network.to_owned(),
        container: record.name.clone(),
        host: record.host.clone(),
        reason,
    }
}

/// The name that is asked for as it goes over the wire, and the kinds of record.
fn read_question(lookup: &Lookup) -> Result<(String, Vec<RecordType>), Failure> {
    let text = lookup.name.trim_end_matches('.');
    let kind = lookup.kind.as_deref().map(str::to_ascii_uppercase);
    let (name, usual) = match text.parse::<IpAddr>() {
        Ok(address) => (Name::from(address).to_ascii(), vec![RecordType::PTR]),
        Err(_) => (format!("{text}."), vec![RecordType::A, RecordType::AAAA]),
    };
    let kinds = match kind.as_deref() {
        None => usual,
        Some("A") => vec![RecordType::A],
        Some("AAAA") => vec![RecordType::AAAA],
        Some("SRV") => vec![RecordType::SRV],
        Some("PTR") => vec![RecordType::PTR],
        Some(other) => {
            let message = format!("`{}` is not A, AAAA, SRV or PTR", printable(other));
            return Err(Failure::new(FailureKind::InvalidInput, message));
        }
    };
    let is_name = kinds.contains(&RecordType::PTR) || fold(text).is_ok();
    if !is_name {
        let message = format!(
            "`{}` is no name: use letters, digits, `-`, `_` and dots",
            printable(&lookup.name)
        );
        return Err(Failure::new(FailureKind::InvalidInput, message));
    }
    Ok((name, kinds))
}

fn record(record: &Record) -> LookupRecord {
    LookupRecord {
        kind: record.record_type().to_string(),
        data: record.data.to_string(),
        ttl: record.ttl,
    }
}
