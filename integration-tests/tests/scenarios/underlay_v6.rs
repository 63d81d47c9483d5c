//! Hosts that reach each other by IPv6: everything between them travels by it, and containers notice nothing.

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::drover::CREATE_ENCRYPTED;
use integration_tests::lab::Lab;
use integration_tests::network::Site;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::sniff::Sniffer;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "underlay_of_ipv6_on_a_link_and_behind_a_router",
        setup: Setup::Engines(2),
        needs: &[Capability::Vxlan, Capability::Ipv6],
        run: clear,
    },
    Scenario {
        name: "encryption_over_ipv6",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp, Capability::Ipv6],
        run: encrypted,
    },
];

/// Containers of both families on a network of all hosts reach each other, and what is large arrives whole.
fn exchange(lab: &Lab, flags: &str) -> Result<()> {
    let (first, others) = lab.hosts.split_first().context("no hosts")?;
    first.run(&format!(
        "{CREATE_ENCRYPTED} {flags} --ipv6 --subnet 10.90.0.0/16 --subnet fd00:90::/64 app"
    ))?;
    first.sleeper("ann", "--network app")?;
    for host in others {
        host.wait_for_network("app", 5)?;
        host.sleeper("bob", "--network app")?;
        let (four, six) = (
            host.address_of("bob", "app")?,
            host.address_v6_of("bob", "app")?,
        );
        for address in [&four, &six] {
            first.reaches("ann", address, 10)?;
            first.sends_full_size("ann", address)?;
        }
        first.carries_whole("ann", (host, "bob", &four), 8)?;
    }
    Ok(())
}

fn clear(lab: &mut Lab) -> Result<()> {
    lab.add_host(Site::Far)?;
    lab.form_cluster_over_v6()?;
    exchange(lab, "-o encryption=off")?;
    let peers = lab.host(0)?.run("drover peers")?;
    ensure!(
        peers.contains("2001:db8:2::3") && peers.contains("vxlan"),
        "{peers}"
    );
    lab.doctor_is_clean()
}

fn encrypted(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_over_v6()?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    exchange(lab, "")?;
    let seen = sniffer.stop()?;
    ensure!(
        seen.encrypted > 0 && seen.fragments == 0,
        "on the underlay: {seen:?}"
    );
    lab.doctor_is_clean()
}
