//! Encrypted paths carry what they carry: no packet is cut, and none is lost for its size.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::sniff::Sniffer;
use integration_tests::wait;

use super::encryption::encrypted_pair;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "encryption_learns_what_the_path_carries",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: narrow_path,
    },
    Scenario {
        name: "encryption_uses_large_packets_where_the_path_does",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: wide_path,
    },
];

/// What a host says of the packets that its only peer gets: found by probes, in bytes.
fn found_mtu(host: &Host) -> Result<u64> {
    let peers = host.drover_json("peers")?;
    let path = peers
        .pointer("/peers/0/encryption")
        .with_context(|| format!("no encrypted path in {peers}"))?;
    ensure!(
        path["mtu_found"] == true,
        "the MTU is not known yet: {path}"
    );
    path["mtu"]
        .as_u64()
        .with_context(|| format!("no MTU in {path}"))
}

/// Waits until both hosts have found an MTU in a range.
fn both_find(lab: &Lab, from: u64, to: u64, limit: u64) -> Result<()> {
    let (one, two) = lab.pair()?;
    for host in [one, two] {
        let limit = wait::seconds(limit);
        wait::until(&format!("an MTU of {from} to {to}"), limit, || {
            let mtu = found_mtu(host)?;
            ensure!((from..=to).contains(&mtu), "it is {mtu}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The switch drops frames from and to the second host that are larger than these many bytes of packet, and says
/// nothing.
fn squeeze(lab: &Lab, bytes: u16) -> Result<()> {
    let port = format!("ip link set host2 mtu {bytes}");
    lab.underlay.switch().run(&port).map(drop)
}

/// `ann` on the first host and `bob` on the second, on an encrypted network; the address of `bob`.
fn pair(lab: &Lab) -> Result<String> {
    let (_, bob) = encrypted_pair(lab)?;
    let (one, _) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    Ok(bob)
}

fn narrow_path(lab: &mut Lab) -> Result<()> {
    let bob = pair(lab)?;
    both_find(lab, 1438, 1438, 20)?;
    // Under a transfer that is on its way. A switch lets a few bytes more through than its port's MTU, for a VLAN tag.
    let sniffer = Sniffer::start(&lab.underlay)?;
    std::thread::scope(|scope| -> Result<()> {
        let squeezing = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            squeeze(lab, 1350)
        });
        let (one, two) = lab.pair()?;
        one.carries_whole("ann", (two, "bob", &bob), 48)?;
        squeezing
            .join()
            .map_err(|_panic| anyhow::anyhow!("the squeezing thread ended"))?
    })?;
    both_find(lab, 1286, 1290, 30)?;
    let (one, two) = lab.pair()?;
    one.carries_whole("ann", (two, "bob", &bob), 8)?;
    let seen = sniffer.stop()?;
    ensure!(seen.fragments == 0, "packets were cut: {seen:?}");
    let said = one.beside("ann", &format!("ping -M do -s 1400 -c 2 -W 2 {bob}"))?;
    let said = said.failed().context("a packet that is too large passes")?;
    ensure!(
        said.contains("mtu=12") || said.contains("mtu = 12"),
        "the container is not told what passes: {said}"
    );
    // More is tried once a minute.
    squeeze(lab, 1500)?;
    both_find(lab, 1438, 1438, 90)?;
    lab.doctor_is_clean()
}

fn wide_path(lab: &mut Lab) -> Result<()> {
    for place in [1, 2] {
        let port = format!("ip link set host{place} mtu 9000");
        lab.underlay.switch().run(&port)?;
    }
    lab.underlay.switch().run("ip link set near mtu 9000")?;
    let (one, two) = lab.pair()?;
    for host in [one, two] {
        host.run("ip link set eth0 mtu 9000")?;
    }
    // The hosts look at their devices every now and then.
    for host in [one, two] {
        wait::until("large packets", wait::seconds(40), || {
            let mtu = found_mtu(host)?;
            ensure!(mtu == 8938, "it is {mtu}");
            Ok(())
        })?;
    }
    let bob = pair(lab)?;
    let (one, two) = lab.pair()?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    let mtu = one.sends_full_size("ann", &bob)?;
    ensure!(mtu == 8938, "containers have an MTU of {mtu}");
    one.carries_whole("ann", (two, "bob", &bob), 24)?;
    let seen = sniffer.stop()?;
    ensure!(seen.fragments == 0, "packets were cut: {seen:?}");
    Ok(())
}
