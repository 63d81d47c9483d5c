//! Who is handed out: one decision for the wire and for a person who asks why.

use std::net::IpAddr;
use std::sync::Arc;

use drover_model::LogicalNetworkId;

use crate::directory::Directory;
use crate::index::{Network, Rule};
use crate::place::Place;

/// The most containers in one answer; more do not fit into a message.
const MOST: usize = 1000;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The asker's id, as the engine has it; `None` when it is not known.
    pub container: Option<String>,
    /// The networks whose names it may see, in the order in which they are looked at.
    pub networks: Vec<LogicalNetworkId>,
}

/// A name that somebody has who counts.
pub(crate) struct Found<'a> {
    /// On which network.
    pub(crate) network: &'a Network,
    /// Who is handed out, the asker's order.
    pub(crate) given: Vec<&'a Place>,
    /// Whether those are handed out who would not be if anybody were well.
    pub(crate) is_storm: bool,
}

/// Looks for a name, in the form in which names are compared. `None`: it is Docker's business.
pub(crate) fn find<'a>(
    directory: &'a Directory,
    view: &View,
    name: &str,
    seed: u64,
) -> Option<Found<'a>> {
    let networks = view.networks.iter();
    let mut networks = networks.filter_map(|id| directory.network(id));
    networks.find_map(|network| {
        let rule = Rule::among(network.find(name)?);
        let mut counting = rule
            .admitted()
            .map(|claim| claim.place.as_ref())
            .filter(|place| place.standing.counts())
            .peekable();
        counting.peek()?;
        let places: Vec<&Place> = counting.collect();
        let (mut given, is_storm) = choose(&places, view.container.as_deref());
        order(&mut given, seed);
        Some(Found {
            network,
            given,
            is_storm,
        })
    })
}

/// Looks for the containers that have an address. `None`: it is Docker's business.
pub(crate) fn find_address<'a>(
    directory: &'a Directory,
    view: &View,
    address: IpAddr,
) -> Option<(&'a Network, Vec<&'a Place>)> {
    let networks = view.networks.iter();
    let mut networks = networks.filter_map(|id| directory.network(id));
    networks.find_map(|network| {
        let holders = network.holders(address).iter().map(Arc::as_ref);
        let holders: Vec<&Place> = holders.filter(|place| place.standing.counts()).collect();
        (!holders.is_empty()).then_some((network, holders))
    })
}

/// Who of those that count is handed out, and whether it is a storm.
fn choose<'a>(places: &[&'a Place], asker: Option<&str>) -> (Vec<&'a Place>, bool) {
    let is_self = |place: &Place| asker == Some(place.id.as_str());
    let is_storm = !places.iter().any(|place| place.standing.is_well())
        && places
            .iter()
            .any(|place| place.standing.is_spare() && !is_self(place));
    let is_given = |place: &&&Place| {
        let standing = place.standing;
        standing.is_well() || (is_storm && standing.is_spare()) || is_self(place)
    };
    (places.iter().filter(is_given).copied().collect(), is_storm)
}

/// The same host first, then the others, each part shuffled.
fn order(places: &mut Vec<&Place>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    places.sort_unstable_by_key(|place| !place.near);
    let near = places.partition_point(|place| place.near);
    let (here, there) = places.split_at_mut(near);
    random.shuffle(here);
    random.shuffle(there);
    places.truncate(MOST);
}
