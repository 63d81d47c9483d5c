//! Encrypted paths find a host that is not where it says: behind a NAT, or at another of its addresses.

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::network::Site;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;
use serde_json::Value;

use super::encryption::encrypted_pair;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "encryption_passes_a_nat",
        setup: Setup::Engines(1),
        needs: &[Capability::Esp],
        run: nat,
    },
    Scenario {
        name: "encryption_finds_the_address_that_reaches",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: addresses,
    },
];

/// Where a host sends to its one peer, and whether that was learned.
fn endpoint(host: &Host) -> Result<(String, bool)> {
    let peers = host.drover_json("peers")?;
    let path = peers
        .pointer("/peers/0/encryption")
        .with_context(|| format!("no encrypted path in {peers}"))?;
    let endpoint = path["endpoint"].as_str();
    let endpoint = endpoint.with_context(|| format!("no endpoint in {path}"))?;
    ensure!(path["degraded"] == Value::Null, "it is degraded: {path}");
    Ok((endpoint.to_owned(), path["learned"] == true))
}

/// Waits until a host sends to somewhere.
fn finds(host: &Host, prefix: &str, learned: bool) -> Result<()> {
    let limit = wait::seconds(60);
    let found = wait::until(&format!("{} sends to {prefix}", host.name), limit, || {
        let (endpoint, how) = endpoint(host)?;
        ensure!(
            endpoint.starts_with(prefix) && how == learned,
            "it sends to {endpoint}, learned: {how}"
        );
        Ok(())
    });
    found.map(drop)
}

/// Waits until both hear each other.
fn both_hear(lab: &Lab, ann: &str, bob: &str) -> Result<()> {
    let (one, two) = lab.pair()?;
    wait::until("packets both ways", wait::seconds(60), || {
        one.beside("ann", &format!("ping -c 2 -i 0.2 -W 2 {bob}"))?
            .succeeded()?;
        two.beside("bob", &format!("ping -c 2 -i 0.2 -W 2 {ann}"))?
            .succeeded()
    })?;
    Ok(())
}

/// The router maps the second host's encrypted packets to ports of its own, and lets nobody in but whom the host has
/// sent to. Everything else passes as it is.
fn translate(lab: &Lab, ports: &str) -> Result<()> {
    // Taking the device down makes the router forget what it has mapped.
    let script = format!(
        "nft -f - <<'END'
table ip lab
delete table ip lab
table ip lab {{
    chain leaving {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"near\" ip saddr 203.0.113.0/24 udp sport 4740-4747 masquerade to :{ports}
    }}
    chain passing {{
        type filter hook forward priority filter; policy accept;
        iifname \"near\" udp dport 4740-4747 ct state new counter drop
    }}
}}
END
ip link set near down; ip link set near up"
    );
    lab.underlay.switch().run(&script).map(drop)
}

fn nat(lab: &mut Lab) -> Result<()> {
    lab.add_host(Site::Far)?;
    translate(lab, "20000-20099")?;
    lab.form_cluster()?;
    let (ann, bob) = encrypted_pair(lab)?;
    both_hear(lab, &ann, &bob)?;
    let (one, two) = lab.pair()?;
    finds(one, "192.0.2.254:200", true)?;
    finds(two, &format!("{}:4740", one.address()), false)?;
    one.carries_whole("ann", (two, "bob", &bob), 8)?;
    // Nothing but Drover's own probes keeps the mapping alive, and then it is another.
    translate(lab, "30000-30099")?;
    both_hear(lab, &ann, &bob)?;
    let (one, two) = lab.pair()?;
    finds(one, "192.0.2.254:300", true)?;
    one.carries_whole("ann", (two, "bob", &bob), 8)?;
    Ok(())
}

/// Drops ESP in UDP between hosts on one of the switch's links, and on no other.
fn break_link(lab: &Lab, link: &str) -> Result<()> {
    let script = format!(
        "nft -f - <<'END'
table bridge lab
delete table bridge lab
table bridge lab {{
    chain passing {{
        type filter hook forward priority filter; policy accept;
        meta ibrname \"{link}\" udp dport 4740-4747 drop
    }}
}}
END"
    );
    lab.underlay.switch().run(&script).map(drop)
}

fn addresses(lab: &mut Lab) -> Result<()> {
    // Both hosts hang on a second link.
    for host in &lab.hosts {
        let (number, pid) = (host.number, host.init()?);
        let link = format!(
            "ip link add second{number} type veth peer name eth1 netns {pid}
             ip link set second{number} master far; ip link set second{number} up"
        );
        lab.underlay.switch().run(&link)?;
        let address = Site::Far.address(number);
        host.run(&format!(
            "ip addr add {address}/24 dev eth1; ip link set eth1 up"
        ))?;
    }
    lab.form_cluster()?;
    let (ann, bob) = encrypted_pair(lab)?;
    both_hear(lab, &ann, &bob)?;
    let (one, two) = lab.pair()?;
    finds(one, &format!("{}:4740", two.address()), false)?;
    let second = Site::Far.address(2);
    break_link(lab, "near")?;
    both_hear(lab, &ann, &bob)?;
    finds(one, &format!("{second}:4740"), false)?;
    one.carries_whole("ann", (two, "bob", &bob), 8)?;
    break_link(lab, "far")?;
    both_hear(lab, &ann, &bob)?;
    let (one, two) = lab.pair()?;
    finds(one, &format!("{}:4740", two.address()), false)?;
    Ok(())
}
