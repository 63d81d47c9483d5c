//! Networks keep to themselves, and nobody speaks with an address that is not its own.

use anyhow::{Context, Result, bail, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::records::Records;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;
use serde_json::Value;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "isolation_of_networks",
        setup: Setup::Cluster,
        needs: &[],
        run: networks,
    },
    Scenario {
        name: "isolation_from_the_underlay_and_the_host",
        setup: Setup::Cluster,
        needs: &[],
        run: underlay,
    },
    Scenario {
        name: "spoofed_network_address_does_not_arrive",
        setup: Setup::Cluster,
        needs: &[],
        run: spoofed_address,
    },
    Scenario {
        name: "spoofed_link_address_does_not_arrive",
        setup: Setup::Cluster,
        needs: &[],
        run: spoofed_mac,
    },
    Scenario {
        name: "spoofed_arp_changes_nobody",
        setup: Setup::Cluster,
        needs: &[],
        run: spoofed_arp,
    },
    Scenario {
        name: "block_is_not_taken_from_its_host",
        setup: Setup::Cluster,
        needs: &[],
        run: claimed_block,
    },
    Scenario {
        name: "block_that_was_deleted_from_the_store_stays_its_hosts",
        setup: Setup::Cluster,
        needs: &[],
        run: deleted_block,
    },
];

/// The router that a container's routes to its pool go through, and the pool.
fn route_of(host: &Host, container: &str) -> Result<(String, String)> {
    let routes = host.inside(container, "ip route")?;
    let line = routes
        .lines()
        .find(|line| line.contains("via") && line.contains("eth0") && !line.starts_with("default"))
        .with_context(|| format!("no route to a pool in: {routes}"))?;
    let mut words = line.split_whitespace();
    let pool = words.next().context("a pool")?.to_owned();
    let router = words
        .skip_while(|word| *word != "via")
        .nth(1)
        .context("a router")?
        .to_owned();
    Ok((pool, router))
}

fn networks(lab: &mut Lab) -> Result<()> {
    lab.network("red", "")?;
    lab.network("blue", "")?;
    let (one, two) = lab.pair()?;
    one.sleeper("rod", "--network red")?;
    one.sleeper("near", "--network blue")?;
    two.sleeper("far", "--network blue")?;
    let (r, near, far) = (
        one.address_of("rod", "red")?,
        one.address_of("near", "blue")?,
        two.address_of("far", "blue")?,
    );
    one.reaches("near", &far, 0)?;
    let (_, router) = route_of(one, "rod")?;
    let (blue, blue_router) = route_of(one, "near")?;
    for round in ["as it is", "with a route"] {
        for address in [&near, &far, &blue_router] {
            one.does_not_reach("rod", address).context(round)?;
        }
        // A container may have any route that it likes.
        one.beside(
            "rod",
            &format!("ip route replace {blue} via {router} dev eth0"),
        )?
        .succeeded()?;
    }
    let (red, _) = route_of(two, "far").map(|_| (one.subnet_of("red"), ()))?;
    let red = red?;
    let (_, far_router) = route_of(two, "far")?;
    two.beside(
        "far",
        &format!("ip route replace {red} via {far_router} dev eth0"),
    )?
    .succeeded()?;
    two.does_not_reach("far", &r)
}

fn underlay(lab: &mut Lab) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    let pool = one.subnet_of("app")?;
    let (_, router) = route_of(one, "ann")?;
    // Through Drover there is no way to the hosts' own link.
    one.beside(
        "ann",
        &format!("ip route replace 192.0.2.0/24 via {router} dev eth0"),
    )?
    .succeeded()?;
    one.does_not_reach("ann", &two.address())?;
    // A machine on the link sends packets for the pool to a host by hand; they must not get in.
    let switch = lab.underlay.switch();
    switch.run(&format!("ip route replace {pool} via {}", one.address()))?;
    let answered = switch.run(&format!("ping -c 3 -i 0.3 -W 1 {a}"));
    switch.run(&format!("ip route del {pool}"))?;
    ensure!(
        answered.is_err(),
        "the underlay reaches a container: {answered:?}"
    );
    two.reaches("bob", &a, 0)?;
    one.reaches("ann", &b, 0)
}

/// Sends from one container, and tells how many packets that match arrive in another.
fn arrived(
    (sender, from): (&Host, &str),
    ping: &str,
    (receiver, at): (&mut Host, &str),
    filter: &str,
) -> Result<usize> {
    let pid = receiver.pid_of(at)?;
    receiver.run("rm -f /var/log/capture.log")?;
    receiver.start(
        &format!("exec nsenter --target {pid} --net -- timeout 30 tcpdump -l -n -i any '{filter}'"),
        "capture.log",
    )?;
    wait::until("the capture", wait::seconds(5), || {
        ensure!(
            receiver.tail("capture.log", 5).contains("listening on"),
            "it has not begun"
        );
        Ok(())
    })?;
    let _answered = sender.beside(from, ping)?;
    // What was sent is there within a moment or never; a packet of another kind says that the moment is over.
    std::thread::sleep(std::time::Duration::from_millis(300));
    receiver.kill("tcpdump", "INT")?;
    let log = std::fs::read_to_string(receiver.log("capture.log"))?;
    Ok(log
        .lines()
        .filter(|line| line.contains(" IP ") || line.contains("ARP"))
        .count())
}

fn spoofed_address(lab: &mut Lab) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair_mut()?;
    one.sleeper("neighbour", "--network app")?;
    let neighbour = one.address_of("neighbour", "app")?;
    let honest = arrived(
        (one, "ann"),
        &format!("ping -c 3 -i 0.2 -W 1 {b}"),
        (two, "bob"),
        &format!("icmp and src {a}"),
    )?;
    ensure!(honest >= 3, "of three honest packets {honest} have arrived");
    let foreign = b
        .rsplit_once('.')
        .map(|(net, _)| format!("{net}.200"))
        .context("an address")?;
    for source in [
        neighbour.as_str(),
        foreign.as_str(),
        "198.51.100.77",
        "10.99.99.99",
    ] {
        one.beside("ann", &format!("ip addr add {source}/32 dev eth0"))?
            .succeeded()?;
        let ping = format!("ping -I {source} -c 3 -i 0.2 -W 1 {b}");
        let got = arrived(
            (one, "ann"),
            &ping,
            (two, "bob"),
            &format!("icmp and src {source}"),
        )?;
        ensure!(
            got == 0,
            "{got} packets from {source} have arrived on the other host"
        );
        let _denied = one.beside("ann", &format!("ip addr del {source}/32 dev eth0"))?;
    }
    one.beside("ann", "ip addr add 10.99.99.99/32 dev eth0")?
        .succeeded()?;
    let pid = one.pid_of("neighbour")?;
    ensure!(pid > 0, "the neighbour does not run");
    let ping = format!("ping -I 10.99.99.99 -c 3 -i 0.2 -W 1 {neighbour}");
    let before = counted(one, "neighbour")?;
    let _answered = one.beside("ann", &ping)?;
    let after = counted(one, "neighbour")?;
    ensure!(
        after == before,
        "{} packets of a wrong source have reached a neighbour",
        after - before
    );
    let _answered = one
        .beside("ann", &format!("ping -c 3 -i 0.2 -W 1 {neighbour}"))?
        .succeeded()?;
    ensure!(
        counted(one, "neighbour")? >= before + 3,
        "honest packets do not reach a neighbour"
    );
    Ok(())
}

/// Echo requests that a container's network has received.
fn counted(host: &Host, container: &str) -> Result<u64> {
    let text = host.inside(container, "cat /proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = (
        lines.next().context("names")?,
        lines.next().context("values")?,
    );
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find_map(|(name, value)| (name == "InEchos").then(|| value.parse().ok()).flatten())
        .context("a count of echo requests")
}

fn spoofed_mac(lab: &mut Lab) -> Result<()> {
    let (_, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.sleeper("neighbour", "--network app")?;
    let neighbour = one.address_of("neighbour", "app")?;
    one.reaches("ann", &b, 0)?;
    one.reaches("ann", &neighbour, 0)?;
    let own = one.inside("ann", "cat /sys/class/net/eth0/address")?;
    // Known neighbours: no ARP of the wrong address is needed for packets to be sent.
    let before = (counted(one, "neighbour")?, counted(two, "bob")?);
    one.beside(
        "ann",
        "sh -c 'ip link set dev eth0 address 02:de:ad:be:ef:01; ip route'",
    )?
    .succeeded()?;
    one.does_not_reach("ann", &neighbour)?;
    one.does_not_reach("ann", &b)?;
    let after = (counted(one, "neighbour")?, counted(two, "bob")?);
    ensure!(
        before == after,
        "packets of a wrong link address arrive: {before:?}, then {after:?}"
    );
    one.beside("ann", &format!("ip link set dev eth0 address {own}"))?
        .succeeded()?;
    one.reaches("ann", &b, 3)
}

fn spoofed_arp(lab: &mut Lab) -> Result<()> {
    let (_, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair_mut()?;
    one.sleeper("victim", "--network app")?;
    one.sleeper("neighbour", "--network app")?;
    let neighbour = one.address_of("neighbour", "app")?;
    let (_, router) = route_of(one, "victim")?;
    one.reaches("victim", &neighbour, 0)?;
    one.reaches("victim", &b, 0)?;
    let known = one.inside("victim", "cat /proc/net/arp")?;
    for address in [&neighbour, &router] {
        // `ann` says that the address is hers.
        let _answered = one.beside("ann", &format!("sh -c 'ip addr add {address}/32 dev eth0'"))?;
        one.inside("ann", &format!("arping -U -c 3 -I eth0 {address}"))
            .ok();
    }
    let now = one.inside("victim", "cat /proc/net/arp")?;
    for line in known.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(address), Some(mac)) = (words.next(), words.nth(2)) else {
            continue;
        };
        ensure!(
            !now.contains(address)
                || now
                    .lines()
                    .any(|line| line.starts_with(address) && line.contains(mac)),
            "{address} was at {mac}; now: {now}"
        );
    }
    one.reaches("victim", &neighbour, 0)?;
    one.reaches("victim", &b, 0)?;
    two.run("true")?;
    Ok(())
}

/// Somebody writes into the store that a block is the first host's, whose owner is the second.
fn claimed_block(lab: &mut Lab) -> Result<()> {
    let (_, bob) = lab.two_sleepers("app")?;
    let (one, _) = lab.pair_mut()?;
    one.reaches("ann", &bob, 5)?;
    let flow = one.flow("ann", &bob)?;
    let (one, two) = lab.pair()?;
    let records = Records::of(one);
    let first: Value = serde_json::from_str(&records.get(&format!("hosts/{}", one.name))?)?;
    let (key, mut claimed) = block_of(&records, two)?;
    claimed["owner"] = one.name.as_str().into();
    claimed["owner_member"] = first["member"].clone();
    records.put(&key, &claimed.to_string())?;
    is_put_back(&records, &key, two)?;
    let word = format!("of host `{}` is claimed by host `{}`", two.name, one.name);
    nothing_else_has_noticed((one, two), &word)?;
    one.end_flow(&flow)?.at_most(0)
}

/// Somebody deletes the record of the second host's block: while that host runs, and while it is off.
fn deleted_block(lab: &mut Lab) -> Result<()> {
    let (_, bob) = lab.two_sleepers("app")?;
    let (one, _) = lab.pair_mut()?;
    one.reaches("ann", &bob, 5)?;
    let flow = one.flow("ann", &bob)?;
    let (one, two) = lab.pair()?;
    let records = Records::of(one);
    let (key, _) = block_of(&records, two)?;
    let word = format!("of host `{}` was deleted", two.name);
    records.delete(&key)?;
    is_put_back(&records, &key, two)?;
    nothing_else_has_noticed((one, two), &word)?;
    let (_, two) = lab.pair_mut()?;
    two.drover_down()?;
    let (one, two) = lab.pair()?;
    let records = Records::of(one);
    records.delete(&key)?;
    is_put_back(&records, &key, two)?;
    one.end_flow(&flow)?.at_most(0)?;
    let (one, two) = lab.pair_mut()?;
    two.drover_up("")?;
    one.reaches("ann", &bob, 5)?;
    // A block that its host gives back, or that goes with its network, stays deleted, and nothing is said of it.
    let before = refusals(one)?;
    two.run("docker rm -f bob eve")?;
    one.run("docker rm -f ann; docker network rm app")?;
    let (one, _) = lab.pair()?;
    wait::until("no block", wait::seconds(20), || {
        let left = Records::of(one).keys("blocks/")?;
        ensure!(left.is_empty(), "there are {left:?}");
        Ok(())
    })?;
    let after = refusals(one)?;
    ensure!(after == before, "{after} refusals after {before}");
    Ok(())
}

/// How often a host has not believed what was written over blocks.
fn refusals(host: &Host) -> Result<u64> {
    let said = host.attempt("drover doctor")?.stdout;
    let (_, count) = said
        .split_once("blocks have been refused ")
        .with_context(|| format!("doctor says: {said}"))?;
    let count = count.split(' ').next().context("no count")?;
    Ok(count.parse()?)
}

/// A block that a host owns: its key, and its record.
fn block_of(records: &Records<'_>, host: &Host) -> Result<(String, Value)> {
    for key in records.keys("blocks/")? {
        let record: Value = serde_json::from_str(&records.get(&key)?)?;
        if record["owner"].as_str() == Some(host.name.as_str()) {
            return Ok((key, record));
        }
    }
    bail!("no block of {}", host.name)
}

fn is_put_back(records: &Records<'_>, key: &str, owner: &Host) -> Result<()> {
    let limit = wait::seconds(6);
    let put_back = wait::until("the block is its owner's again", limit, || {
        let record = records.get(key)?;
        ensure!(!record.is_empty(), "there is no record");
        let record: Value = serde_json::from_str(&record)?;
        let owned = record["owner"].as_str() == Some(owner.name.as_str());
        ensure!(owned, "it is another's: {record}");
        Ok(())
    });
    put_back.map(drop)
}

/// Both hosts tell what was refused, and the second, whose block it was about, goes on giving addresses.
fn nothing_else_has_noticed((one, two): (&Host, &Host), word: &str) -> Result<()> {
    for host in [one, two] {
        let said = host.attempt("drover doctor")?.stdout;
        ensure!(said.contains(word), "doctor of {} says: {said}", host.name);
    }
    two.sleeper("eve", "--network app")?;
    one.reaches("ann", &two.address_of("eve", "app")?, 2)?;
    let told = two.run("drover ipam --json")?;
    ensure!(!told.contains("no longer owns"), "{told}");
    Ok(())
}
