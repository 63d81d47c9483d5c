//! Networks across hosts: seen everywhere, reached at once, with every flag of Docker's.

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::drover::CREATE;
use integration_tests::lab::Lab;
use integration_tests::network::{OUTSIDE, Site};
use integration_tests::scenario::{Scenario, Setup};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "network_is_seen_on_the_other_host_within_2_s",
        setup: Setup::Cluster,
        needs: &[],
        run: seen,
    },
    Scenario {
        name: "network_reaches_across_hosts_at_once_with_full_size",
        setup: Setup::Cluster,
        needs: &[],
        run: reaches,
    },
    Scenario {
        name: "network_carries_1_gb_whole",
        setup: Setup::Cluster,
        needs: &[],
        run: carries,
    },
    Scenario {
        name: "network_third_host_joins_later_on_the_link",
        setup: Setup::Cluster,
        needs: &[],
        run: third_near,
    },
    Scenario {
        name: "network_third_host_joins_later_behind_a_router",
        setup: Setup::Cluster,
        needs: &[Capability::Vxlan],
        run: third_far,
    },
    Scenario {
        name: "network_all_by_vxlan",
        setup: Setup::Engines(2),
        needs: &[Capability::Vxlan],
        run: vxlan,
    },
    Scenario {
        name: "network_subnet_range_gateway_ip_and_mac",
        setup: Setup::Cluster,
        needs: &[],
        run: addresses,
    },
    Scenario {
        name: "network_address_moves_to_the_other_host",
        setup: Setup::Engines(2),
        needs: &[],
        run: moved,
    },
    Scenario {
        name: "network_ipv6",
        setup: Setup::Cluster,
        needs: &[Capability::Ipv6],
        run: ipv6,
    },
    Scenario {
        name: "network_egress_and_internal",
        setup: Setup::Cluster,
        needs: &[],
        run: egress,
    },
    Scenario {
        name: "network_two_on_a_container_connect_and_disconnect",
        setup: Setup::Cluster,
        needs: &[],
        run: two_networks,
    },
    Scenario {
        name: "network_prune",
        setup: Setup::Cluster,
        needs: &[],
        run: prune,
    },
    Scenario {
        name: "network_of_a_host_that_is_cut_off",
        setup: Setup::Cluster,
        needs: &[],
        run: cut_off,
    },
    Scenario {
        name: "network_on_one_host_alone_then_in_a_cluster",
        setup: Setup::Engines(2),
        needs: &[],
        run: alone,
    },
];

/// What of a network must be the same on every host.
const SAME: &str = "docker network inspect -f '{{.Driver}} {{.Internal}} {{.EnableIPv6}} {{json .IPAM.Config}} {{json .Labels}} {{json .Options}}' app";

fn seen(lab: &mut Lab) -> Result<()> {
    for first in [0, 1] {
        let (maker, other) = (&lab.hosts[first], &lab.hosts[1 - first]);
        maker.run(&format!(
            "{CREATE} --label color=blue --label size=large app"
        ))?;
        other.wait_for_network("app", 2)?;
        let (made, copied) = (maker.run(SAME)?, other.run(SAME)?);
        ensure!(
            made == copied,
            "{} has {made}\n{} has {copied}",
            maker.name,
            other.name
        );
        ensure!(
            copied.contains("blue") && copied.contains("large"),
            "labels are missing: {copied}"
        );
        maker.run("docker network rm app")?;
        other.wait_for_no_network("app", 5)?;
        maker.wait_for_no_network("app", 5)?;
    }
    Ok(())
}

fn reaches(lab: &mut Lab) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &b, 0)?;
    two.reaches("bob", &a, 0)?;
    let mtu = one.sends_full_size("ann", &b)?;
    ensure!(
        mtu == 1450,
        "the MTU is {mtu}: not what leaves room for VXLAN to a host that joins later"
    );
    two.sends_full_size("bob", &a)?;
    for round in 0..3 {
        let name = format!("late{round}");
        one.sleeper(&name, "--network app")?;
        two.reaches("bob", &one.address_of(&name, "app")?, 0)?;
        one.reaches("ann", &one.address_of(&name, "app")?, 0)?;
    }
    Ok(())
}

fn carries(lab: &mut Lab) -> Result<()> {
    let (_, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.carries_whole("ann", (two, "bob", &b), 1024)
}

fn third_near(lab: &mut Lab) -> Result<()> {
    third(lab, Site::Near)
}

fn third_far(lab: &mut Lab) -> Result<()> {
    third(lab, Site::Far)
}

/// A third host joins while two have containers that run; all reach each other.
fn third(lab: &mut Lab, site: Site) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    let place = lab.add_host(site)?;
    let invitation = lab.hosts[0].invite()?;
    let third = lab.host(place)?;
    third.drover_up("")?;
    third.join(&invitation)?;
    third.wait_for_network("app", 5)?;
    third.sleeper("cat", "--network app")?;
    let c = third.address_of("cat", "app")?;
    third.reaches("cat", &a, 2)?;
    third.reaches("cat", &b, 2)?;
    third.sends_full_size("cat", &a)?;
    third.run("docker exec -d cat iperf3 -s")?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &c, 0)?;
    two.reaches("bob", &c, 0)?;
    // Containers that were there before the path to the third host was send whole streams to it too.
    integration_tests::wait::until(
        "a stream to the third host",
        integration_tests::wait::seconds(20),
        || one.inside("ann", &format!("iperf3 -c {c} -n 20M")),
    )?;
    let third = &lab.hosts[place];
    third.run("docker rm -f cat")?;
    third.run("drover leave")?;
    let (one, _) = lab.pair()?;
    integration_tests::wait::until(
        "the third host is gone",
        integration_tests::wait::seconds(10),
        || {
            let status = one.run("drover status")?;
            ensure!(
                !status.contains(&third.name),
                "{} is still in: {status}",
                third.name
            );
            Ok(())
        },
    )?;
    Ok(())
}

fn vxlan(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_with("DROVER_OVERLAY_ENCAPSULATION=vxlan")?;
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &b, 0)?;
    two.reaches("bob", &a, 0)?;
    let mtu = one.sends_full_size("ann", &b)?;
    ensure!(mtu == 1450, "the MTU over VXLAN is {mtu}");
    let peers = one.run("drover peers")?;
    ensure!(
        peers.contains("vxlan"),
        "drover peers does not say vxlan: {peers}"
    );
    Ok(())
}

fn addresses(lab: &mut Lab) -> Result<()> {
    lab.network(
        "app",
        "--subnet 10.200.0.0/20 --ip-range 10.200.8.0/22 --gateway 10.200.0.9",
    )?;
    let (one, two) = lab.pair()?;
    let gateway = two.run("docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' app")?;
    ensure!(
        gateway == "10.200.0.9",
        "the copy has the gateway {gateway}"
    );
    one.sleeper(
        "ann",
        "--network app --ip 10.200.3.7 --mac-address 02:11:22:33:44:55",
    )?;
    two.sleeper("bob", "--network app")?;
    ensure!(
        one.address_of("ann", "app")? == "10.200.3.7",
        "--ip is not what inspect shows"
    );
    ensure!(
        one.endpoint("ann", "app", "MacAddress")? == "02:11:22:33:44:55",
        "--mac-address is not shown"
    );
    let link = one.inside("ann", "ip -o addr show dev eth0")?;
    ensure!(link.contains("10.200.3.7/"), "the container has: {link}");
    let mac = one.inside("ann", "cat /sys/class/net/eth0/address")?;
    ensure!(
        mac == "02:11:22:33:44:55",
        "the container has the link address {mac}"
    );
    let b = two.address_of("bob", "app")?;
    let third: u8 = b
        .split('.')
        .nth(2)
        .and_then(|part| part.parse().ok())
        .context("an address")?;
    ensure!(
        b.starts_with("10.200.") && (8..12).contains(&third),
        "{b} is not in the range"
    );
    one.reaches("ann", &b, 0)?;
    two.reaches("bob", "10.200.3.7", 2)?;
    // Taken, on this host and on the other.
    for host in [one, two] {
        let refusal = host.refused("docker run --rm --network app --ip 10.200.3.7 lab true")?;
        ensure!(
            refusal.contains("10.200.3.7"),
            "the refusal does not name the address: {refusal}"
        );
    }
    // An address that was given back can be asked for by name where it was, and rests for others.
    one.run("docker rm -f ann")?;
    let refusal = two.refused("docker run --rm --network app --ip 10.200.3.7 lab true")?;
    ensure!(
        refusal.contains("10.200.3.7"),
        "the refusal does not name the address: {refusal}"
    );
    one.sleeper("again", "--network app --ip 10.200.3.7")?;
    one.inside("again", &format!("ping -c 1 -W 1 {b}"))?;
    Ok(())
}

fn moved(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_with("DROVER_POOLS_QUARANTINE=2s")?;
    lab.network("app", "--subnet 10.200.0.0/20")?;
    let (one, two) = lab.pair()?;
    two.sleeper("bob", "--network app")?;
    let b = two.address_of("bob", "app")?;
    for (from, to) in [(one, two), (two, one)] {
        // It may rest where it was last.
        integration_tests::wait::until(
            "the address on its first host",
            integration_tests::wait::seconds(10),
            || {
                from.run("docker rm -f moving 2>/dev/null; docker run -d --name moving --network app --ip 10.200.3.7 lab sleep 1000000")
            },
        )?;
        from.reaches("moving", &b, 1)?;
        from.run("docker rm -f moving")?;
        integration_tests::wait::until(
            "the address on the other host",
            integration_tests::wait::seconds(10),
            || {
                to.run("docker rm -f moved 2>/dev/null; docker run -d --name moved --network app --ip 10.200.3.7 lab sleep 1000000")
            },
        )?;
        two.reaches("bob", "10.200.3.7", 2)?;
        to.reaches("moved", &b, 1)?;
        to.run("docker rm -f moved")?;
        integration_tests::wait::until(
            "the address where it began",
            integration_tests::wait::seconds(10),
            || from.run("docker run --rm --network app --ip 10.200.3.7 lab true"),
        )?;
    }
    Ok(())
}

fn ipv6(lab: &mut Lab) -> Result<()> {
    lab.network("six", "--ipv6 --subnet fd77:7::/64")?;
    let (one, two) = lab.pair()?;
    one.sleeper("ann", "--network six")?;
    two.sleeper("bob", "--network six")?;
    let (a, b) = (
        one.address_v6_of("ann", "six")?,
        two.address_v6_of("bob", "six")?,
    );
    ensure!(
        a.starts_with("fd77:7:") && b.starts_with("fd77:7:") && a != b,
        "{a} and {b}"
    );
    // Duplicate address detection may hold the first packet back for a moment.
    one.reaches("ann", &b, 3)?;
    two.reaches("bob", &a, 3)?;
    one.sends_full_size("ann", &b)?;
    one.reaches("ann", &two.address_of("bob", "six")?, 0)?;
    two.sleeper("cat", "--network six --ip6 fd77:7::abcd")?;
    one.reaches("ann", "fd77:7::abcd", 3)?;
    Ok(())
}

fn egress(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    lab.network("closed", "--internal")?;
    let (one, two) = lab.pair()?;
    one.sleeper("ann", "--network app")?;
    one.reaches("ann", OUTSIDE, 2)?;
    one.sleeper("cat", "--network closed")?;
    two.sleeper("dan", "--network closed")?;
    one.reaches("cat", &two.address_of("dan", "closed")?, 0)?;
    for address in [OUTSIDE, &one.address(), &two.address()] {
        one.does_not_reach("cat", address)?;
    }
    Ok(())
}

fn two_networks(lab: &mut Lab) -> Result<()> {
    lab.network("red", "")?;
    lab.network("blue", "")?;
    let (one, two) = lab.pair()?;
    one.sleeper("both", "--network red")?;
    two.sleeper("rod", "--network red")?;
    two.sleeper("bob", "--network blue")?;
    let (r, b) = (
        two.address_of("rod", "red")?,
        two.address_of("bob", "blue")?,
    );
    one.reaches("both", &r, 0)?;
    one.does_not_reach("both", &b)?;
    one.run("docker network connect blue both")?;
    one.reaches("both", &b, 0)?;
    one.reaches("both", &r, 0)?;
    one.reaches("both", OUTSIDE, 2)?;
    let on_blue = one.address_of("both", "blue")?;
    two.reaches("bob", &on_blue, 0)?;
    one.run("docker network disconnect red both")?;
    one.does_not_reach("both", &r)?;
    one.reaches("both", &b, 0)?;
    one.run("docker network connect red both")?;
    one.reaches("both", &r, 0)?;
    one.run("docker restart -t 0 both")?;
    one.reaches("both", &r, 0)?;
    one.reaches("both", &b, 0)?;
    Ok(())
}

fn prune(lab: &mut Lab) -> Result<()> {
    lab.network("idle", "")?;
    lab.network("busy", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("bob", "--network busy")?;
    one.run("docker network prune -f")?;
    for host in [one, two] {
        host.wait_for_no_network("idle", 5)?;
    }
    one.wait_for_network("busy", 5)?;
    one.sleeper("ann", "--network busy")?;
    one.reaches("ann", &two.address_of("bob", "busy")?, 0)?;
    Ok(())
}

fn cut_off(lab: &mut Lab) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    lab.underlay.connected(2, false)?;
    let (one, two) = lab.pair()?;
    one.does_not_reach("ann", &b)?;
    // Both go on giving out addresses.
    two.sleeper("alone", "--network app")?;
    two.reaches("alone", &b, 0)?;
    one.sleeper("here", "--network app")?;
    one.reaches("here", &a, 0)?;
    integration_tests::wait::until(
        "the host says that it is cut off",
        integration_tests::wait::seconds(30),
        || two.refused("drover doctor"),
    )?;
    lab.underlay.connected(2, true)?;
    one.reaches("ann", &two.address_of("alone", "app")?, 5)?;
    ensure!(
        one.address_of("here", "app")? != two.address_of("alone", "app")?,
        "an address was given twice"
    );
    lab.doctor_is_clean()
}

fn alone(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair_mut()?;
    one.drover_up("")?;
    one.run(&format!("{CREATE} --label kept=yes app"))?;
    one.sleeper("ann", "--network app")?;
    one.sleeper("a2", "--network app")?;
    let a = one.address_of("ann", "app")?;
    one.reaches("a2", &a, 0)?;
    let subnet = one.subnet_of("app")?;
    let flow = one.flow("a2", &a)?;
    let invitation = one.invite()?;
    two.drover_up("")?;
    two.join(&invitation)?;
    two.wait_for_network("app", 5)?;
    ensure!(
        two.subnet_of("app")? == subnet,
        "the network has another subnet on the host that joined"
    );
    two.sleeper("bob", "--network app")?;
    two.reaches("bob", &a, 2)?;
    one.end_flow(&flow)?.at_most(0)?;
    one.sleeper("a3", "--network app")?;
    two.reaches("bob", &one.address_of("a3", "app")?, 0)?;
    lab.doctor_is_clean()
}
