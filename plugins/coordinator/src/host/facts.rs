//! From links, addresses and routes to what other hosts need to know. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use drover_model::{Family, Mtu};
use ipnet::IpNet;

/// How many addresses are told at most.
const MOST_ADDRESSES: usize = 16;

/// What the kernel says of this host's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of global scope, in the kernel's order.
    pub addresses: Vec<Address>,
    /// Unicast routes of the main table.
    pub routes: Vec<Route>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its MTU, bytes.
    pub mtu: u32,
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub link: u32,
    /// The address with the prefix length of its link.
    pub address: IpNet,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The link it leaves by.
    pub link: Option<u32>,
    /// The source address that it names.
    pub source: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
}

/// What other hosts need to know of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where other hosts reach it.
    pub advertise: IpAddr,
    /// The prefix of the link of that address; `None` when it is on no link of ours.
    pub link: Option<IpNet>,
    /// The MTU of that link.
    pub underlay_mtu: Mtu,
    /// The prefixes this host has routes to.
    pub prefixes: BTreeSet<IpNet>,
    /// Its addresses on devices that are no engine's.
    pub addresses: BTreeSet<IpAddr>,
}

/// No address can be told to other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host has no address that other hosts could reach: configure one, or name it with --advertise-addr"
)]
pub struct NoAddress;

impl Observed {
    /// The facts; `chosen` is the address that a person named.
    ///
    /// # Errors
    /// When no address was named and none can be found.
    pub fn facts(&self, chosen: Option<IpAddr>) -> Result<Facts, NoAddress> {
        let advertise = chosen
            .or_else(|| self.default_source(Family::V4))
            .or_else(|| self.default_source(Family::V6))
            .or_else(|| self.first_address())
            .ok_or(NoAddress)?;
        let on = self
            .addresses
            .iter()
            .find(|found| found.address.addr() == advertise);
        let mtu = on
            .and_then(|found| self.links.get(&found.link))
            .map(|link| link.mtu);
        let mtu = mtu.map(|bytes| Mtu::new(u16::try_from(bytes).unwrap_or(u16::MAX)));
        Ok(Facts {
            advertise,
            link: on.map(|found| found.address.trunc()).filter(has_neighbours),
            underlay_mtu: mtu.flatten().unwrap_or(Mtu::ETHERNET),
            prefixes: self.prefixes(),
            addresses: self.other_addresses(),
        })
    }

    /// The source address of the best default route.
    fn default_source(&self, family: Family) -> Option<IpAddr> {
        self.routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0)
            .filter(|route| Family::of(route.destination.addr()) == family)
            .min_by_key(|route| route.metric)
            .and_then(|route| {
                route
                    .source
                    .or_else(|| self.address_of(route.link?, family))
            })
    }

    fn address_of(&self, link: u32, family: Family) -> Option<IpAddr> {
        let addresses = self.addresses.iter().filter(|found| found.link == link);
        addresses
            .map(|found| found.address.addr())
            .find(|address| Family::of(*address) == family)
    }

    /// The first address, IPv4 before IPv6, of the first link that is not an engine's bridge.
    fn first_address(&self) -> Option<IpAddr> {
        let mut candidates: Vec<_> = self
            .addresses
            .iter()
            .filter(|found| {
                self.links
                    .get(&found.link)
                    .is_some_and(|link| !is_engine_bridge(link))
            })
            .collect();
        candidates.sort_by_key(|found| (found.address.addr().is_ipv6(), found.link));
        candidates.first().map(|found| found.address.addr())
    }

    /// Where else it may be reached: not the addresses of an engine's bridges, which other hosts have as well.
    fn other_addresses(&self) -> BTreeSet<IpAddr> {
        let addresses = self.addresses.iter().filter(|found| {
            let link = self.links.get(&found.link);
            link.is_some_and(|link| !is_engine_bridge(link) && !link.name.starts_with("veth"))
        });
        let addresses = addresses.map(|found| found.address.addr());
        addresses.take(MOST_ADDRESSES).collect()
    }

    fn prefixes(&self) -> BTreeSet<IpNet> {
        let routes = self.routes.iter().map(|route| route.destination.trunc());
        routes
            .filter(|prefix| prefix.prefix_len() > 0 && !is_link_local(prefix))
            .collect()
    }
}

fn has_neighbours(prefix: &IpNet) -> bool {
    prefix.prefix_len() < prefix.max_prefix_len()
}

fn is_engine_bridge(link: &Link) -> bool {
    link.name == "docker0" || link.name == "docker_gwbridge" || link.name.starts_with("br-")
}

fn is_link_local(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(prefix) => prefix.network().is_link_local() || prefix.network().is_multicast(),
        IpNet::V6(prefix) => {
            let first = prefix
                .network()
                .segments()
                .first()
                .copied()
                .unwrap_or_default();
            first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn observed() -> Observed {
        let link = |name: &str, mtu| Link {
            name: name.to_owned(),
            mtu,
        };
        Observed {
            links: [(2, link("docker0", 1500)), (3, link("eth0", 9000))].into(),
            addresses: vec![
                Address {
                    link: 2,
                    address: prefix("172.17.0.1/16"),
                },
                Address {
                    link: 3,
                    address: prefix("2001:db8::1/64"),
                },
                Address {
                    link: 3,
                    address: prefix("192.0.2.1/24"),
                },
            ],
            routes: vec![
                Route {
                    destination: prefix("172.17.0.0/16"),
                    link: Some(2),
                    source: None,
                    metric: 0,
                },
                Route {
                    destination: prefix("192.0.2.0/24"),
                    link: Some(3),
                    source: None,
                    metric: 0,
                },
                Route {
                    destination: prefix("fe80::/64"),
                    link: Some(3),
                    source: None,
                    metric: 0,
                },
            ],
        }
    }

    #[test]
    fn without_a_default_route_the_first_address_that_is_not_the_engines_is_told() {
        let facts = observed().facts(None).unwrap();
        assert_eq!(facts.advertise.to_string(), "192.0.2.1");
        assert_eq!(facts.link, Some(prefix("192.0.2.0/24")));
        assert_eq!(facts.underlay_mtu.get(), 9000);
        let elsewhere = ["192.0.2.1", "2001:db8::1"].map(|it| it.parse().unwrap());
        assert_eq!(facts.addresses, elsewhere.into());
        assert_eq!(
            facts.prefixes,
            [prefix("172.17.0.0/16"), prefix("192.0.2.0/24")].into()
        );
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_decides() {
        let mut observed = observed();
        let default = |link, source: &str, metric| Route {
            destination: prefix("0.0.0.0/0"),
            link: Some(link),
            source: source.parse().ok(),
            metric,
        };
        observed.routes.push(default(2, "172.17.0.1", 200));
        observed.routes.push(default(3, "", 100));
        let facts = observed.facts(None).unwrap();
        assert_eq!(facts.advertise.to_string(), "192.0.2.1");
        assert!(!facts.prefixes.contains(&prefix("0.0.0.0/0")));
    }

    #[test]
    fn a_named_address_is_told_even_if_it_is_on_no_link() {
        let facts = observed().facts("203.0.113.7".parse().ok()).unwrap();
        assert_eq!((facts.link, facts.underlay_mtu), (None, Mtu::ETHERNET));
        let facts = observed().facts("172.17.0.1".parse().ok()).unwrap();
        assert_eq!(facts.underlay_mtu.get(), 1500);
    }

    #[test]
    fn a_point_to_point_address_shares_no_link() {
        let mut observed = observed();
        observed.addresses = vec![Address {
            link: 3,
            address: prefix("192.0.2.1/32"),
        }];
        assert_eq!(observed.facts(None).unwrap().link, None);
        assert_eq!(Observed::default().facts(None), Err(NoAddress));
    }
}
