//! Networks are encrypted unless somebody says otherwise: nothing of a container's is ever on the underlay in clear.

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::drover::{CREATE_ENCRYPTED, LOG};
use integration_tests::host::Host;
use integration_tests::inject::EspPacket;
use integration_tests::lab::Lab;
use integration_tests::records::Records;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::sniff::{PATTERN, Sniffer};
use integration_tests::wait;
use serde_json::{Value, json};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "encryption_is_the_default",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: by_default,
    },
    Scenario {
        name: "encryption_outlives_every_process",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: crashes,
    },
    Scenario {
        name: "encryption_comes_back_after_a_reboot",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: reboots,
    },
    Scenario {
        name: "encryption_returns_after_an_absence",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: absence,
    },
    Scenario {
        name: "encryption_fails_closed",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: fails_closed,
    },
    Scenario {
        name: "encryption_refuses_replayed_and_forged_packets",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: forgery,
    },
    Scenario {
        name: "encryption_that_cannot_be_is_refused",
        setup: Setup::Cluster,
        needs: &[Capability::NoEsp],
        run: refused,
    },
    Scenario {
        name: "encryption_that_cannot_be_makes_no_copy",
        setup: Setup::Cluster,
        needs: &[Capability::NoEsp],
        run: no_copy,
    },
];

/// An encrypted network with `ann` on the first host and `bob` on the second; their addresses.
pub(crate) fn encrypted_pair(lab: &Lab) -> Result<(String, String)> {
    let (one, two) = lab.pair()?;
    // A store that was begun a moment ago may not answer in time yet, and says so.
    wait::until("a network", wait::seconds(3), || {
        one.run(&format!("{CREATE_ENCRYPTED} app"))
    })?;
    two.wait_for_network("app", 2)?;
    one.sleeper("ann", "--network app")?;
    two.sleeper("bob", "--network app")?;
    Ok((one.address_of("ann", "app")?, two.address_of("bob", "app")?))
}

/// The one path of a host to its one peer.
pub(crate) fn path(host: &Host) -> Result<Value> {
    let peers = host.drover_json("peers")?;
    let path = peers.pointer("/peers/0").cloned();
    path.with_context(|| format!("no path in {peers}"))
}

/// Pings with the pattern that the sniffer looks for.
fn ping_with_pattern(host: &Host, container: &str, address: &str, count: u32) -> Result<()> {
    host.beside(
        container,
        &format!("ping -c {count} -i 0.1 -W 2 -s 200 -p {PATTERN} {address}"),
    )?
    .succeeded()?;
    Ok(())
}

fn by_default(lab: &mut Lab) -> Result<()> {
    let sniffer = Sniffer::start(&lab.underlay)?;
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    two.reaches("bob", &ann, 5)?;
    ping_with_pattern(one, "ann", &bob, 10)?;
    ping_with_pattern(two, "bob", &ann, 10)?;
    let mtu = one.sends_full_size("ann", &bob)?;
    ensure!(
        two.sends_full_size("bob", &ann)? == mtu,
        "the two ends have different MTUs"
    );
    one.carries_whole("ann", (two, "bob", &bob), 24)?;
    let networks = one.run("drover networks")?;
    ensure!(networks.contains("ipsec"), "no word of it: {networks}");
    let path = path(one)?;
    ensure!(
        path.pointer("/encryption/cipher").is_some(),
        "no cipher in {path}"
    );
    let seen = sniffer.stop()?;
    ensure!(seen.encrypted > 0, "the sniffer saw no ESP: {seen:?}");
    ensure!(seen.clear == 0, "clear packets were seen: {seen:?}");
    let said = one.refused(&format!("{CREATE_ENCRYPTED} -o encryption=sometimes other"))?;
    for word in ["sometimes", "`on` or `off`"] {
        ensure!(said.contains(word), "no word of {word} in: {said}");
    }
    lab.doctor_is_clean()
}

fn crashes(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = encrypted_pair(lab)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    let (one, two) = lab.pair_mut()?;
    one.reaches("ann", &bob, 5)?;
    let there = one.flow("ann", &bob)?;
    for host in [&*one, &*two] {
        host.kill_each_plugin()?;
    }
    for host in [&*one, &*two] {
        host.kill_drover()?;
    }
    ping_with_pattern(one, "ann", &bob, 20)?;
    for host in [&mut *one, &mut *two] {
        host.drover_up("")?;
    }
    ping_with_pattern(two, "bob", &ann, 20)?;
    one.end_flow(&there)?.at_most(0)?;
    let seen = sniffer.stop()?;
    ensure!(
        seen.clear == 0 && seen.encrypted > 0,
        "on the underlay: {seen:?}"
    );
    lab.doctor_is_clean()
}

fn reboots(lab: &mut Lab) -> Result<()> {
    let (_, bob) = encrypted_pair(lab)?;
    lab.pair()?.0.reaches("ann", &bob, 5)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    for places in [&[1][..], &[0, 1]] {
        for place in places {
            lab.reboot(*place)?;
        }
        let (one, two) = lab.pair()?;
        for (host, name) in [(one, "ann"), (two, "bob")] {
            host.run(&format!("docker start {name}"))?;
        }
        let (ann, bob) = (one.address_of("ann", "app")?, two.address_of("bob", "app")?);
        one.reaches("ann", &bob, 10)?;
        two.reaches("bob", &ann, 10)?;
        ping_with_pattern(one, "ann", &bob, 5)?;
    }
    let seen = sniffer.stop()?;
    ensure!(
        seen.clear == 0 && seen.encrypted > 0,
        "on the underlay: {seen:?}"
    );
    Ok(())
}

/// How often a host has made a key since it was started.
pub(crate) fn keys_made(host: &Host) -> Result<usize> {
    let log = std::fs::read_to_string(host.log(LOG))?;
    Ok(log.matches("this host has a new key").count())
}

/// A host is cut off until every key that it knows was replaced, and old ones were wiped.
fn absence(lab: &mut Lab) -> Result<()> {
    // Ten seconds are the least that Drover takes.
    let period = 5 + 5 * wait::patience();
    lab.form_cluster_with(&format!("DROVER_ENCRYPTION_ROTATE_AFTER={period}s"))?;
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    lab.underlay.connected(2, false)?;
    let before = keys_made(one)?;
    wait::until("two new keys", wait::seconds(30), || {
        let now = keys_made(one)?;
        ensure!(now >= before + 2, "{} keys since the cut", now - before);
        Ok(())
    })?;
    lab.underlay.connected(2, true)?;
    one.reaches("ann", &bob, 5)?;
    two.reaches("bob", &ann, 5)?;
    ping_with_pattern(one, "ann", &bob, 5)?;
    let seen = sniffer.stop()?;
    ensure!(
        seen.clear == 0 && seen.encrypted > 0,
        "on the underlay: {seen:?}"
    );
    Ok(())
}

/// Somebody on the underlay, and the host itself, send to containers as if there were no encryption.
fn clear_packets_are_dropped(lab: &Lab, ann: &str, bob: &str) -> Result<()> {
    let (one, _) = lab.pair()?;
    let switch = lab.underlay.switch();
    switch.run(&format!("ip route add {ann}/32 via {}", one.address()))?;
    let heard = switch.run(&format!("ping -c 3 -i 0.2 -W 1 {ann}"));
    switch.run(&format!("ip route del {ann}/32"))?;
    ensure!(heard.is_err(), "a clear packet was answered: {heard:?}");
    one.refused(&format!("ping -c 3 -i 0.2 -W 1 -s 200 -p {PATTERN} {bob}"))?;
    let drops = one.drover_json("peers")?;
    for cause in ["came in clear", "leave in clear"] {
        let drops = drops.get("drops").and_then(Value::as_object);
        let drops = drops.with_context(|| format!("no drops for {cause}"))?;
        let mine = drops.iter().filter(|(told, _)| told.contains(cause));
        let count: u64 = mine.filter_map(|(_, count)| count.as_u64()).sum();
        ensure!(count >= 3, "{cause}: {count} packets in {drops:?}");
    }
    Ok(())
}

/// Somebody takes the associations away; packets stop, and new keys bring them back.
fn fails_closed(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, _) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    clear_packets_are_dropped(lab, &ann, &bob)?;
    one.drover_down()?;
    one.run("ip xfrm state flush")?;
    let lost = one.beside(
        "ann",
        &format!("ping -c 5 -i 0.2 -W 1 -s 200 -p {PATTERN} {bob}"),
    )?;
    lost.failed().context("packets pass without associations")?;
    one.run("ip xfrm policy flush")?;
    let lost = one.beside(
        "ann",
        &format!("ping -c 5 -i 0.2 -W 1 -s 200 -p {PATTERN} {bob}"),
    )?;
    lost.failed().context("packets pass without policies")?;
    let (one, _) = lab.pair_mut()?;
    one.drover_up("")?;
    one.reaches("ann", &bob, 15)?;
    let seen = sniffer.stop()?;
    ensure!(seen.clear == 0, "clear packets were seen: {seen:?}");
    Ok(())
}

/// Somebody on the underlay sends packets again, as they were and changed, while others pass.
fn forgery(lab: &mut Lab) -> Result<()> {
    const COUNT: usize = 20;
    let (_, bob) = encrypted_pair(lab)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    let (one, two) = lab.pair_mut()?;
    one.reaches("ann", &bob, 5)?;
    let flow = one.flow("ann", &bob)?;
    let (from, to) = (one.address().parse()?, two.address().parse()?);
    let (kept, _) = wait::until("packets to keep", wait::seconds(10), || {
        let packets = EspPacket::read(&sniffer.near(), from, to)?;
        ensure!(packets.len() >= COUNT, "{} packets", packets.len());
        Ok(packets)
    })?;
    let kept: Vec<_> = kept.into_iter().rev().take(COUNT).collect();
    let before = refused_packets(lab.pair()?.1)?;
    let later = |packet: EspPacket| packet.with_number_later(1_000_000);
    let forged: Vec<_> = kept.iter().cloned().map(later).collect();
    let strange = kept.iter().cloned().map(EspPacket::with_unknown_index);
    let strange: Vec<_> = strange.collect();
    for packets in [&kept, &forged, &strange] {
        lab.underlay.switch().inject(packets)?;
    }
    let (one, two) = lab.pair()?;
    wait::until("what was refused", wait::seconds(10), || {
        let now = refused_packets(two)?;
        let more: Vec<_> = now
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        let count = u64::try_from(COUNT)?;
        ensure!(more.iter().all(|more| *more >= count), "refused: {more:?}");
        Ok(())
    })?;
    one.end_flow(&flow)?.at_most(0)?;
    let shown = two.run("drover peers")?;
    ensure!(
        shown.contains("an association that is not there"),
        "{shown}"
    );
    let seen = sniffer.stop()?;
    ensure!(seen.clear == 0, "clear packets were seen: {seen:?}");
    Ok(())
}

/// Packets that a host has refused: as replayed, as forged, and for want of an association.
fn refused_packets(host: &Host) -> Result<[u64; 3]> {
    let peers = host.drover_json("peers")?;
    let count = |place: &str| peers.pointer(place).and_then(Value::as_u64);
    let refused = |cause: &str| {
        let count = count(&format!("/peers/0/encryption/refused/{cause}"));
        count.with_context(|| format!("no {cause} in {peers}"))
    };
    let drops = peers.get("drops").and_then(Value::as_object);
    let strange = drops.into_iter().flatten();
    let strange = strange.filter(|(cause, _)| cause.contains("an association that is not there"));
    let strange = strange.filter_map(|(_, count)| count.as_u64()).sum();
    Ok([refused("replayed")?, refused("forged")?, strange])
}

fn refused(lab: &mut Lab) -> Result<()> {
    let (one, _) = lab.pair()?;
    let said = one.refused(&format!("{CREATE_ENCRYPTED} app"))?;
    for word in ["ESP", "encryption=off"] {
        ensure!(said.contains(word), "no word of {word} in: {said}");
    }
    let said = one.refused(&format!("{CREATE_ENCRYPTED} -o encryption=sometimes app"))?;
    ensure!(said.contains("sometimes"), "{said}");
    ensure!(
        !one.drover_networks()?.contains(&"app".to_owned()),
        "a refused network is there"
    );
    Ok(())
}

/// An encrypted network comes from a host that has ESP to two that have not: they make no copy of it, say why, and go on.
fn no_copy(lab: &mut Lab) -> Result<()> {
    const ID: &str = "e5e5e5e5e5e5e5e5";
    let (_, bob) = lab.two_sleepers("clear")?;
    let (one, two) = lab.pair()?;
    let records = Records::of(one);
    let key = records.keys("networks/")?.pop().context("no network")?;
    let mut network: Value = serde_json::from_str(&records.get(&key)?)?;
    network["id"] = ID.into();
    network["name"] = "app".into();
    network["encryption"] = "ipsec".into();
    network["subnets"] = json!([{
        "pool": "10.77.0.0/16", "sub_pool": null, "gateway": "10.77.0.1", "auxiliary": {},
    }]);
    network["options"] = json!({});
    let pool = json!({
        "version": 1, "pool": "10.77.0.0/16", "sub_pool": null, "block_prefix": 24, "reserved": ["10.77.0.1"],
        "claimed_by": two.name, "claimed_at": 0, "network": ID,
    });
    let made = [
        ("pools/10.77.0.0_16".to_owned(), pool),
        ("names/app".to_owned(), ID.into()),
        (format!("networks/{ID}"), network),
    ];
    for (key, record) in &made {
        records.put(key, &record.to_string())?;
    }
    for host in [one, two] {
        wait::until("a word of the network", wait::seconds(15), || {
            let said = host.attempt("drover doctor")?.stdout;
            let told = said.contains("app") && said.contains("cannot encrypt");
            ensure!(told, "doctor of {} says: {said}", host.name);
            Ok(())
        })?;
        let networks = host.drover_networks()?;
        ensure!(networks == ["clear"], "{} has {networks:?}", host.name);
    }
    one.reaches("ann", &bob, 0)?;
    for (key, _) in made.iter().rev() {
        records.delete(key)?;
    }
    wait::until("nothing to say", wait::seconds(15), || {
        lab.doctor_is_clean()
    })?;
    Ok(())
}
