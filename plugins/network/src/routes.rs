//! What a container is told at Join: its link and its routes.
//!
//! The pool is reached by way of the block's router, which is on this host's bridge. An address that
//! is claimed singly has no block here: its way leads to the pool's gateway, which is on the bridge of
//! every host, by a route of its own.

use std::net::IpAddr;

use drover_model::{Block, EndpointId, Family};
use drover_plugin_protocol::network::{InterfaceName, JoinAnswer, StaticRoute};
use ipnet::IpNet;

use crate::record::{Endpoint, Network, Subnet};

/// What the link is called in the container, before the engine adds a number.
const PREFIX: &str = "eth";

/// The answer to `Join`.
pub(crate) fn join_answer(id: &EndpointId, endpoint: &Endpoint, network: &Network) -> JoinAnswer {
    let static_routes = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| routes(endpoint, network, family));
    JoinAnswer {
        interface_name: InterfaceName {
            src_name: id.sandbox_link(),
            dst_prefix: PREFIX.to_owned(),
        },
        gateway: None,
        gateway_ipv6: None,
        static_routes: static_routes.collect(),
        disable_gateway_service: network.internal,
    }
}

fn routes(endpoint: &Endpoint, network: &Network, family: Family) -> Vec<StaticRoute> {
    let of_family = |subnet: &&Subnet| subnet.pool.family() == family;
    let pools = || network.subnets.iter().filter(of_family);
    let Some(address) = endpoint
        .addresses
        .iter()
        .find(|it| Family::of(it.addr()) == family)
    else {
        return Vec::new();
    };
    let single = address.prefix_len() == address.max_prefix_len();
    let mut routes = Vec::new();
    let next_hop: Option<IpAddr> = if single {
        let home = pools().find(|subnet| subnet.pool.contains(address.addr()));
        let gateway = home.and_then(|subnet| subnet.gateway);
        routes.extend(gateway.map(|gateway| StaticRoute::connected(IpNet::from(gateway))));
        gateway
    } else {
        Some(Block::new(*address).router())
    };
    for subnet in pools().filter(|subnet| subnet.pool.prefix() != address.trunc()) {
        let destination = subnet.pool.prefix();
        routes.push(match next_hop {
            Some(next_hop) => StaticRoute::via(destination, next_hop),
            // Without a gateway the bridge answers for whatever it has a route to.
            None => StaticRoute::connected(destination),
        });
    }
    routes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use drover_model::{Encryption, NetworkOptions};
    use drover_plugin_protocol::network::RouteType;

    use super::*;

    fn answer(addresses: &[&str], pools: &[(&str, Option<&str>)], internal: bool) -> JoinAnswer {
        let network = Network {
            version: 1,
            subnets: pools
                .iter()
                .map(|(pool, gateway)| Subnet {
                    pool: pool.parse().unwrap(),
                    gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                })
                .collect(),
            options: NetworkOptions {
                encryption: Encryption::Off,
                mtu: None,
            },
            internal,
        };
        let endpoint = Endpoint {
            version: 1,
            network: "a".repeat(64).parse().unwrap(),
            mac: "02:42:0a:2a:01:05".parse().unwrap(),
            addresses: addresses
                .iter()
                .map(|it| it.parse().unwrap())
                .collect::<BTreeSet<_>>(),
            joined: None,
        };
        join_answer(&"e".repeat(64).parse().unwrap(), &endpoint, &network)
    }

    fn shown(answer: &JoinAnswer) -> Vec<String> {
        let show = |route: &StaticRoute| match (route.route_type, route.next_hop) {
            (RouteType::NextHop, Some(hop)) => format!("{} via {hop}", route.destination),
            _ => format!("{} connected", route.destination),
        };
        answer.static_routes.iter().map(show).collect()
    }

    #[test]
    fn the_pool_is_reached_through_the_blocks_router() {
        let pools = [
            ("10.42.0.0/16", Some("10.42.0.1")),
            ("fd00:42::/64", Some("fd00:42::1")),
        ];
        let told = answer(&["10.42.1.5/24", "fd00:42::1:5/112"], &pools, false);
        let expected = [
            "10.42.0.0/16 via 10.42.1.1",
            "fd00:42::/64 via fd00:42::1:1",
        ];
        assert_eq!(shown(&told), expected);
        assert!(told.gateway.is_none() && !told.disable_gateway_service);
    }

    #[test]
    fn a_single_address_goes_through_the_gateway() {
        let told = answer(
            &["10.42.9.7/32"],
            &[("10.42.0.0/16", Some("10.42.0.1"))],
            true,
        );
        assert_eq!(
            shown(&told),
            ["10.42.0.1/32 connected", "10.42.0.0/16 via 10.42.0.1"]
        );
        assert!(
            told.disable_gateway_service,
            "an internal network has no way out"
        );
    }

    #[test]
    fn a_block_as_large_as_its_pool_needs_no_route_and_a_second_subnet_does() {
        let pools = [
            ("10.42.0.0/28", Some("10.42.0.1")),
            ("10.43.0.0/16", Some("10.43.0.1")),
        ];
        let told = answer(&["10.42.0.5/28"], &pools, false);
        assert_eq!(shown(&told), ["10.43.0.0/16 via 10.42.0.1"]);
    }
}
