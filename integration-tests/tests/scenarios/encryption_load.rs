//! Keys change, processes die, hosts come and go, and somebody writes into the store, while a thousand packets a second
//! are on their way, or as many as an emulated machine manages.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::load::Load;
use integration_tests::records::Records;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::sniff::{PATTERN, Sniffer};
use integration_tests::wait;

use super::encryption::{encrypted_pair, keys_made, path};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "encryption_believes_no_key_that_is_not_signed",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: unsigned_keys,
    },
    Scenario {
        name: "encryption_names_keys_that_are_made_up",
        setup: Setup::Cluster,
        needs: &[Capability::NoEsp],
        run: made_up_keys,
    },
    Scenario {
        name: "encryption_takes_new_keys_and_loses_nothing",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: rotation,
    },
    Scenario {
        name: "encryption_says_nothing_in_clear_while_others_go",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: nothing_in_clear,
    },
];

/// The epoch that a host sends with.
fn epoch(host: &Host) -> Result<String> {
    let told = wait::until("an epoch", wait::seconds(10), || {
        let path = path(host)?;
        let epoch = path.pointer("/encryption/epoch");
        Ok(epoch
            .with_context(|| format!("no epoch in {path}"))?
            .to_string())
    });
    told.map(|(epoch, _)| epoch)
}

/// Waits until a host has made a number of new keys. Its log says so: asking would take from what is on its way, where
/// everything is slow.
fn makes_keys(host: &Host, count: usize) -> Result<()> {
    let before = keys_made(host)?;
    wait::until("new keys", wait::seconds(60), || {
        let made = keys_made(host)? - before;
        ensure!(made >= count, "{made} of {count} new keys");
        Ok(())
    })?;
    Ok(())
}

/// How often keys are replaced: new ones take a few seconds, and many more on a machine that is emulated.
fn rotate_often() -> String {
    let period = 6 + 4 * wait::patience();
    format!("DROVER_ENCRYPTION_ROTATE_AFTER={period}s")
}

/// Packets that the kernel has dropped for the sake of encryption, by cause (`Documentation/networking/xfrm_proc.rst`).
fn dropped(host: &Host) -> Result<BTreeMap<String, u64>> {
    let told = host.run("cat /proc/net/xfrm_stat")?;
    let counts = told.lines().map(|line| {
        let mut words = line.split_whitespace();
        let (cause, count) = (words.next(), words.next());
        let cause = cause.context("no cause")?.to_owned();
        Ok((cause, count.context("no count")?.parse()?))
    });
    counts.collect()
}

fn rotation(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_with(&rotate_often())?;
    let (ann, bob) = encrypted_pair(lab)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    two.reaches("bob", &ann, 5)?;
    let (before, first) = ([dropped(one)?, dropped(two)?], epoch(one)?);
    let there = Load::start((one, "ann"), (two, "bob"), &bob)?;
    let back = Load::start((two, "bob"), (one, "ann"), &ann)?;
    makes_keys(one, 3)?;
    for load in [there, back] {
        let carried = load.end()?;
        carried.is_whole()?;
        ensure!(carried.streamed > 0, "no stream: {carried:?}");
    }
    ensure!(epoch(one)? != first, "the epoch is still {first}");
    ensure!(
        before == [dropped(one)?, dropped(two)?],
        "dropped since {before:?}: {:?}",
        [dropped(one)?, dropped(two)?]
    );
    let seen = sniffer.stop()?;
    ensure!(
        seen.clear == 0 && seen.encrypted > 0,
        "on the underlay: {seen:?}"
    );
    // What is left are the associations of the epochs in use, not those of all that there were.
    wait::until("old associations go", wait::seconds(90), || {
        let states = one.run("ip xfrm state | grep -c '^src' || true")?;
        let lanes: u32 = one.run("nproc")?.parse()?;
        let count: u32 = states.parse()?;
        ensure!(
            count <= 3 * 2 * lanes.min(8),
            "{count} associations for {lanes} lanes"
        );
        Ok(())
    })?;
    Ok(())
}

/// What a host sends to a container's address by itself, beside Drover, would leave by its default route.
fn host_is_silent(host: &Host, address: &str) -> Result<()> {
    host.refused(&format!(
        "ping -c 3 -i 0.2 -W 1 -s 200 -p {PATTERN} {address}"
    ))
    .with_context(|| format!("{} itself reaches {address}", host.name))?;
    Ok(())
}

fn nothing_in_clear(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_with(&rotate_often())?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    // From the first moment on, whether there are keys yet or not.
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    let there = Load::start_packets((one, "ann"), (two, "bob"), &bob)?;
    let back = Load::start_packets((two, "bob"), (one, "ann"), &ann)?;
    one.reaches("ann", &bob, 10)?;
    host_is_silent(one, &bob)?;
    makes_keys(one, 1)?;
    thread::scope(|scope| {
        let kills = [one, two].map(|host| scope.spawn(|| host.kill_each_plugin()));
        let ended = kills.map(|kill| kill.join().map_err(|_panic| anyhow::anyhow!("a panic")));
        ended.into_iter().try_for_each(|ended| ended?)
    })?;
    one.reaches("ann", &bob, 10).context("after kill -9")?;
    lab.underlay.connected(2, false)?;
    one.refused(&format!("docker exec ann ping -c 3 -i 0.5 -W 1 {bob}"))?;
    lab.underlay.connected(2, true)?;
    one.reaches("ann", &bob, 5).context("after a cut")?;
    for load in [there, back] {
        let carried = load.end()?;
        ensure!(
            carried.lost < carried.packets,
            "nothing passed: {carried:?}"
        );
    }
    // The engine ends, and with it its containers, and comes back.
    let there = Load::start_packets((one, "ann"), (two, "bob"), &bob)?;
    let (one, two) = lab.pair_mut()?;
    two.stop_engine("KILL")?;
    two.start_engine("")?;
    two.run("docker start bob")?;
    let bob = two.address_of("bob", "app")?;
    one.reaches("ann", &bob, 10).context("after the engine")?;
    there.end()?;
    // The network goes while somebody still sends.
    let (one, two) = lab.pair()?;
    let there = Load::start_packets((one, "ann"), (two, "bob"), &bob)?;
    two.run("docker rm -f bob")?;
    one.run("docker rm -f ann; docker network rm app")?;
    for host in [one, two] {
        host.wait_for_no_network("app", 10)?;
    }
    there.end()?;
    let seen = sniffer.stop()?;
    ensure!(
        seen.clear == 0 && seen.encrypted > 0,
        "on the underlay: {seen:?}"
    );
    Ok(())
}

/// Puts a key there for a host, and waits until doctor says that it is not used, and why.
fn put_key(records: &Records<'_>, host: &str, record: &str, why: &str) -> Result<()> {
    records.put(&format!("keys/{host}"), record)?;
    wait::until("a word of the key", wait::seconds(10), || {
        let said = records.host().refused("drover doctor")?;
        let told = said.lines().any(|line| {
            let mut words = [host, "not used", why].into_iter();
            words.all(|word| line.contains(word))
        });
        ensure!(told, "doctor says: {said}");
        Ok(())
    })?;
    Ok(())
}

/// A key that nobody has signed.
fn unsigned(host: &str, member: &str, generation: u64) -> String {
    let record = serde_json::json!({
        "version": 1, "host": host, "member": member, "generation": generation,
        "public": "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=", "created_at": 0, "lanes": 2, "udp_port": 4740,
        "certificate": "", "signature": "",
    });
    record.to_string()
}

/// Somebody who can write to the store puts keys there: one that is signed by nobody, one that is cut off, and one of a
/// host that is none.
fn made_up_keys(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    let (records, name) = (Records::of(one), two.name.as_str());
    let host: serde_json::Value = serde_json::from_str(&records.get(&format!("hosts/{name}"))?)?;
    let member = host["member"].as_str().context("no member")?;
    let made_up = unsigned(name, member, 1);
    put_key(&records, name, &made_up, "certificate")?;
    let cut = made_up.get(..made_up.len() / 2).unwrap_or_default();
    put_key(&records, name, cut, "record cannot be read")?;
    put_key(&records, "nobody", &made_up, "no such host")?;
    for host in [name, "nobody"] {
        records.delete(&format!("keys/{host}"))?;
    }
    lab.doctor_is_clean()
}

/// The same for a host that has a key, and is away: it would put its own there again at once.
fn unsigned_keys(lab: &mut Lab) -> Result<()> {
    let (_, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    let (records, name) = (Records::of(one), two.name.as_str());
    let stale = records.get(&format!("keys/{name}"))?;
    let first = epoch(one)?;
    two.kill("drover-net", "9")?;
    // From then on nothing changes by itself.
    wait::until("another epoch", wait::seconds(60), || {
        let now = epoch(one)?;
        ensure!(now != first, "the epoch is still {first}");
        Ok(())
    })?;
    let good = records.get(&format!("keys/{name}"))?;
    let mut changed: serde_json::Value = serde_json::from_str(&good)?;
    let member = changed["member"].as_str().context("no member")?.to_owned();
    let generation = changed["generation"].as_u64().context("no generation")? + 1;
    changed["generation"] = generation.into();
    let before = epoch(one)?;
    two.drover_down()?;
    let load = Load::start((one, "ann"), (two, "bob"), &bob)?;
    let cut = good.get(..good.len() / 2).unwrap_or_default();
    put_key(&records, name, &changed.to_string(), "sign")?;
    put_key(
        &records,
        name,
        &unsigned(name, &member, generation),
        "certificate",
    )?;
    put_key(&records, name, cut, "record cannot be read")?;
    put_key(&records, name, &stale, "newer")?;
    load.end()?.is_whole()?;
    ensure!(epoch(one)? == before, "the keys are others than {before}");
    // Its host is back, and puts it right.
    let (one, two) = lab.pair_mut()?;
    two.drover_up("")?;
    one.reaches("ann", &bob, 10)?;
    lab.doctor_is_clean()
}
