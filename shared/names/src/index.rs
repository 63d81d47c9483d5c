//! The names of one network, and who has them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use drover_control_api::names::NameKind;
use drover_model::{HostName, Pool};

use crate::name::fold;
use crate::place::{Place, is_own, rank};

/// That a container has a name.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Who.
    pub(crate) place: Arc<Place>,
    /// Where the name comes from.
    pub(crate) kind: NameKind,
}

/// A network, as far as names go.
#[derive(Debug, Default)]
pub(crate) struct Network {
    name: String,
    /// `.` and its name in the form in which names are compared; `None` when it is none.
    suffix: Option<String>,
    claims: HashMap<String, Vec<Claim>>,
    addresses: HashMap<IpAddr, Vec<Arc<Place>>>,
    members: usize,
}

impl Network {
    /// Its name in Docker.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes the name that was said last.
    pub(crate) fn call(&mut self, name: &str) {
        if self.name != name {
            self.suffix = fold(name).ok().map(|folded| format!(".{folded}"));
            name.clone_into(&mut self.name);
        }
    }

    /// Whether nobody is on it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// Everybody on it, once.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        // Everybody has the first digits of an id as a name.
        let claims = self.claims.values().flatten();
        let own = claims.filter(|claim| claim.kind == NameKind::Id);
        own.map(|claim| claim.place.as_ref())
    }

    /// How many names it has.
    pub(crate) fn len(&self) -> usize {
        self.claims.len()
    }

    /// Every name and who has it.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (&String, &Vec<Claim>)> {
        self.claims.iter()
    }

    /// Puts a container in.
    pub(crate) fn insert(
        &mut self,
        place: &Arc<Place>,
        names: impl IntoIterator<Item = (String, NameKind)>,
    ) {
        self.members += 1;
        for (name, kind) in names {
            let place = Arc::clone(place);
            self.claims
                .entry(name)
                .or_default()
                .push(Claim { place, kind });
        }
        for address in place.addresses() {
            let holders = self.addresses.entry(address).or_default();
            holders.push(Arc::clone(place));
        }
    }

    /// Takes a container out that was put in by these names and addresses.
    pub(crate) fn remove<'a>(
        &mut self,
        (host, id): (&HostName, &str),
        names: impl IntoIterator<Item = &'a String>,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
    ) {
        let is_other = |place: &Place| place.id != id || place.host != *host;
        self.members = self.members.saturating_sub(1);
        for name in names {
            if let Some(claims) = self.claims.get_mut(name) {
                claims.retain(|claim| is_other(&claim.place));
                if claims.is_empty() {
                    self.claims.remove(name);
                }
            }
        }
        for address in addresses {
            if let Some(holders) = self.addresses.get_mut(address) {
                holders.retain(|place| is_other(place));
                if holders.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
    }

    /// Who has a name: `web`, or `web.NETWORK`, which comes first.
    pub(crate) fn find(&self, name: &str) -> Option<&[Claim]> {
        let within = self
            .suffix
            .as_ref()
            .and_then(|suffix| name.strip_suffix(suffix.as_str()));
        let found = within.and_then(|head| self.claims.get(head));
        let found = found.or_else(|| self.claims.get(name));
        found.map(Vec::as_slice)
    }

    /// Whether somebody has an address of a pool.
    pub(crate) fn is_in(&self, pool: Pool) -> bool {
        self.addresses.keys().any(|address| pool.contains(*address))
    }

    /// Who has an address.
    pub(crate) fn holders(&self, address: IpAddr) -> &[Arc<Place>] {
        self.addresses.get(&address).map_or(&[], Vec::as_slice)
    }
}

/// Who of those that claim a name has it: nobody whose claim would take another container's own name away.
pub(crate) struct Rule<'a> {
    claims: &'a [Claim],
    /// The rank of the strongest own name among those that count.
    own: Option<u8>,
}

impl<'a> Rule<'a> {
    /// The rule among these claims.
    pub(crate) fn among(claims: &'a [Claim]) -> Self {
        let own = claims
            .iter()
            .filter(|claim| is_own(claim.kind) && claim.place.standing.counts())
            .map(|claim| rank(claim.kind))
            .min();
        Self { claims, own }
    }

    /// Whether a claim holds.
    pub(crate) fn admits(&self, claim: &Claim) -> bool {
        match self.own {
            None => true,
            Some(own) => {
                rank(claim.kind) == own || (!is_own(claim.kind) && self.is_related(claim, own))
            }
        }
    }

    /// Those whose claims hold.
    pub(crate) fn admitted(&self) -> impl Iterator<Item = &'a Claim> {
        self.claims.iter().filter(|claim| self.admits(claim))
    }

    /// The one whose own name stands before a claim.
    pub(crate) fn owner(&self) -> Option<&'a Place> {
        let own = self.own?;
        let owners = self
            .claims
            .iter()
            .filter(|claim| rank(claim.kind) == own && claim.place.standing.counts());
        // The same one whenever somebody asks.
        let owner = owners.min_by_key(|claim| (&claim.place.host, &claim.place.id));
        owner.map(|claim| claim.place.as_ref())
    }

    /// Whether a claim is of the same Compose service as somebody who is called so.
    fn is_related(&self, claim: &Claim, own: u8) -> bool {
        let service = claim.place.service.as_ref();
        service.is_some()
            && self.claims.iter().any(|other| {
                rank(other.kind) == own
                    && other.place.standing.counts()
                    && other.place.service.as_ref() == service
            })
    }
}
