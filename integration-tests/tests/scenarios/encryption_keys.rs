//! Keys are where they are needed and nowhere else, are no key twice, and serve nobody who claims to be another.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::drover::CREATE_ENCRYPTED;
use integration_tests::host::Host;
use integration_tests::inject::EspPacket;
use integration_tests::lab::Lab;
use integration_tests::records::Records;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::sniff::Sniffer;
use integration_tests::wait;
use serde_json::Value;

use super::encryption::{encrypted_pair, keys_made};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "encryption_refuses_a_claimed_address",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: claimed,
    },
    Scenario {
        name: "encryption_publishes_a_key_that_was_taken_away",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: taken_away,
    },
    Scenario {
        name: "encryption_starts_anew_on_a_restored_machine",
        setup: Setup::Cluster,
        needs: &[Capability::Esp],
        run: restored,
    },
    Scenario {
        name: "encryption_keeps_its_keys_to_itself",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: secrets,
    },
    Scenario {
        name: "encryption_tells_a_removed_host_nothing",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: removed,
    },
    Scenario {
        name: "encryption_renews_keys_after_bytes",
        setup: Setup::Engines(2),
        needs: &[Capability::Esp],
        run: bytes,
    },
];

/// What answers with `--json`, and so could tell what it should not.
const ANSWERS: [&str; 10] = [
    "status",
    "peers",
    "ipam",
    "networks",
    "doctor",
    "dns ls",
    "dns lookup bob --network app",
    "dns metrics",
    "volume ls",
    "init",
];
/// Where secrets would lie that were written down.
const PLACES: &str = "/var/lib/drover /var/log /run/drover /etc /root";
/// How many bytes of a key are looked for.
const PART: usize = 8;

/// The keys that a host's kernel has, in hexadecimal as `ip xfrm state` prints them.
fn keys(host: &Host) -> Result<BTreeSet<String>> {
    let states = host.run("ip xfrm state")?;
    let keys = states.lines().filter_map(|line| {
        let (_, key) = line.split_once("rfc4106(gcm(aes)) 0x")?;
        key.split_whitespace().next().map(str::to_owned)
    });
    let keys: BTreeSet<_> = keys.collect();
    ensure!(!keys.is_empty(), "{} has no keys: {states}", host.name);
    Ok(keys)
}

/// How a part of a key is found: as bytes, in hexadecimal, or as numbers. There is no line break among the bytes, which is
/// no part of a line that is searched.
fn patterns(key: &str) -> Result<[String; 3]> {
    let digits = key.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        Ok(u8::from_str_radix(pair, 16)?)
    });
    let bytes = digits.collect::<Result<Vec<u8>>>()?;
    let mut parts = bytes.windows(PART);
    let part = parts.find(|part| !part.contains(&b'\n'));
    let part = part.context("a part of a key without a line break")?;
    let each = |one: fn(&u8) -> String, between: &str| {
        let all: Vec<_> = part.iter().map(one).collect();
        all.join(between)
    };
    Ok([
        each(|byte| format!("\\x{byte:02x}"), ""),
        format!("(?i:{})", each(|byte| format!("{byte:02x}"), "")),
        each(|byte| format!("\\b{byte}\\b"), r",\s*"),
    ])
}

/// The files of a host that have a part of one of the keys. Namespaces are files that cannot be read.
fn files_with(host: &Host, keys: &BTreeSet<String>, places: &str) -> Result<Vec<String>> {
    let all = keys.iter().map(|key| patterns(key));
    let all = all.collect::<Result<Vec<_>>>()?.concat().join("|");
    // The pattern is read from where nobody looks.
    let found = host.run(&format!(
        "cat > /dev/shm/pattern <<'END'
{all}
END
         LC_ALL=C grep -rlaP --exclude-dir=netns -f /dev/shm/pattern {places}; code=$?; rm /dev/shm/pattern; test $code -le 1"
    ))?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// A process that has keys is made to leave a core, which it must not; one that has none leaves one. What ends it is no
/// SIGSEGV: Rust takes the first one for itself.
fn leaves_no_core(host: &Host) -> Result<()> {
    let cores = "find / -xdev -type f -name 'core*' -newer /root/begin -size +0";
    host.run("mkdir -p /root/cores; touch /root/begin; sleep 0.1")?;
    host.run("cd /root/cores && ulimit -c unlimited && (sh -c 'kill -ABRT $$' || true)")?;
    let control = host.run(cores)?;
    ensure!(!control.is_empty(), "no process at all leaves a core here");
    let limits = host.run("cat /proc/$(pidof drover-net)/limits | grep core")?;
    ensure!(limits.contains("unlimited"), "drover-net may not: {limits}");
    host.kill("drover-net", "ABRT")?;
    let left = host.run(cores)?;
    ensure!(
        left == control,
        "drover-net leaves {left}, beside {control}"
    );
    Ok(())
}

/// Keys are in the kernel, and in nothing that is written or told.
fn secrets(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_with("DROVER_LOG_LEVEL=debug prlimit --core=unlimited")?;
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    two.reaches("bob", &ann, 5)?;
    let mut known = keys(one)?;
    known.extend(keys(two)?);
    for (place, command) in ANSWERS.iter().enumerate() {
        let said = one.run(&format!(
            "drover {command} --json > /root/said{place} 2>&1 || true; cat /root/said{place}"
        ))?;
        ensure!(!said.is_empty(), "`drover {command} --json` says nothing");
    }
    Records::of(one).write_all("/root/store")?;
    leaves_no_core(one)?;
    // The search finds what is there.
    let key = known.first().context("a key")?.clone();
    let bytes: Vec<_> = key
        .as_bytes()
        .chunks(2)
        .map(|pair| format!("\\x{}", String::from_utf8_lossy(pair)))
        .collect();
    one.run(&format!(
        "mkdir /root/planted; echo 'the key is {key}' > /root/planted/text; bash -c \"printf '{}'\" > /root/planted/bytes",
        bytes.concat()
    ))?;
    let planted = files_with(one, &known, "/root/planted")?;
    ensure!(planted.len() == 2, "the search finds {planted:?} alone");
    one.run("rm -r /root/planted")?;
    for host in [one, two] {
        let found = files_with(host, &known, PLACES)?;
        ensure!(found.is_empty(), "keys are in {found:?} of {}", host.name);
    }
    Ok(())
}

/// An association that has carried much gets a new key before its time.
fn bytes(lab: &mut Lab) -> Result<()> {
    lab.form_cluster_with("DROVER_ENCRYPTION_ROTATE_BYTES=2097152")?;
    let (_, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    let (made, before) = (keys_made(one)?, keys(one)?);
    one.carries_whole("ann", (two, "bob", &bob), 8)?;
    wait::until("a new key", wait::seconds(20), || {
        ensure!(keys_made(one)? > made, "no key after 8 MB");
        ensure!(keys(one)? != before, "no association with it");
        Ok(())
    })?;
    one.reaches("ann", &bob, 0)?;
    one.carries_whole("ann", (two, "bob", &bob), 8)
}

/// Somebody deletes a host's key in the store: its path stays, and it says again what its key is.
fn taken_away(lab: &mut Lab) -> Result<()> {
    let (_, bob) = encrypted_pair(lab)?;
    let (one, _) = lab.pair_mut()?;
    one.reaches("ann", &bob, 5)?;
    let flow = one.flow("ann", &bob)?;
    let (one, two) = lab.pair()?;
    let records = Records::of(one);
    for name in [&one.name, &two.name] {
        let key = format!("keys/{name}");
        let before = records.get(&key)?;
        records.delete(&key)?;
        wait::until("the same key again", wait::seconds(5), || {
            let (then, now): (Value, Value) = (
                serde_json::from_str(&before)?,
                serde_json::from_str(&records.get(&key)?)?,
            );
            for field in ["generation", "public"] {
                ensure!(then[field] == now[field], "its {field} is another: {now}");
            }
            Ok(())
        })?;
    }
    one.end_flow(&flow)?.at_most(0)?;
    lab.doctor_is_clean()
}

/// A peer sends from an address of another host's, by its own encrypted path.
fn claimed(lab: &mut Lab) -> Result<()> {
    const COUNT: u64 = 5;
    let (one, two) = lab.pair()?;
    wait::until("a network", wait::seconds(3), || {
        one.run(&format!("{CREATE_ENCRYPTED} --ipv6 app"))
    })?;
    two.wait_for_network("app", 2)?;
    for (host, name) in [(one, "ann"), (one, "cid"), (two, "bob")] {
        host.sleeper(name, "--network app")?;
    }
    let (bob, ann) = (two.address_of("bob", "app")?, one.address_of("ann", "app")?);
    one.reaches("ann", &bob, 5)?;
    let (one, _) = lab.pair_mut()?;
    let flow = one.flow("ann", &bob)?;
    let (one, two) = lab.pair()?;
    let claims = [
        (one.address_of("cid", "app")?, 32, ann),
        (
            one.address_v6_of("cid", "app")?,
            128,
            one.address_v6_of("ann", "app")?,
        ),
    ];
    for (claimed, length, to) in claims {
        let before = foreign(one)?;
        let inside = "nsenter --net=/run/drover/netns/overlay";
        let heard = two.run(&format!(
            "{inside} ip addr add {claimed}/{length} dev lo
             {inside} ping -I {claimed} -c {COUNT} -i 0.2 -W 1 {to}; code=$?
             {inside} ip addr del {claimed}/{length} dev lo; exit $code"
        ));
        ensure!(heard.is_err(), "{claimed} is answered: {heard:?}");
        wait::until("what was refused", wait::seconds(10), || {
            let more = foreign(one)? - before;
            ensure!(more >= COUNT, "{more} packets from {claimed} were refused");
            Ok(())
        })?;
    }
    one.end_flow(&flow)?.at_most(0)?;
    let shown = one.run("drover peers")?;
    ensure!(shown.contains("not its own"), "{shown}");
    one.reaches("ann", &two.address_v6_of("bob", "app")?, 5)
}

/// Packets that a host has dropped because their sender claimed an address.
fn foreign(host: &Host) -> Result<u64> {
    let peers = host.drover_json("peers")?;
    let drops = peers.get("drops").and_then(Value::as_object);
    let mine = drops.into_iter().flatten();
    let mine = mine.filter(|(cause, _)| cause.contains("not its own"));
    Ok(mine.filter_map(|(_, count)| count.as_u64()).sum())
}

/// A host's disk is put back to what it was some keys ago, and it boots.
fn restored(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair_mut()?;
    one.reaches("ann", &bob, 5)?;
    let mut used = keys(one)?;
    two.drover_down()?;
    two.run("tar -C /var/lib -cf /root/snapshot.tar drover")?;
    two.drover_up("")?;
    let made = keys_made(two)?;
    two.kill("drover-net", "9")?;
    wait::until("a new key", wait::seconds(30), || {
        ensure!(keys_made(two)? > made, "no key since drover-net was killed");
        Ok(())
    })?;
    two.reaches("bob", &ann, 5)?;
    used.extend(keys(one)?);
    used.extend(keys(two)?);
    two.drover_down()?;
    two.run("rm -rf /var/lib/drover && tar -C /var/lib -xf /root/snapshot.tar")?;
    lab.reboot(1)?;
    let (one, two) = lab.pair()?;
    two.run("docker start bob")?;
    let bob = two.address_of("bob", "app")?;
    one.reaches("ann", &bob, 10)?;
    two.reaches("bob", &ann, 10)?;
    // Its kernel began with nothing: each key that it has now was made since.
    let now = keys(two)?;
    let again: Vec<_> = used.intersection(&now).collect();
    ensure!(again.is_empty(), "{} keys were used before", again.len());
    lab.doctor_is_clean()
}

/// A host that is cut off is removed, and is on the link again with all that it knows.
fn removed(lab: &mut Lab) -> Result<()> {
    lab.form_cluster()?;
    let (_, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    lab.underlay.connected(2, false)?;
    wait::until("the host is seen as gone", wait::seconds(30), || {
        let said = one.attempt("drover doctor")?.stdout;
        ensure!(
            said.contains("gives no sign of life"),
            "doctor says: {said}"
        );
        Ok(())
    })?;
    let known = keys(two)?;
    one.run(&format!("drover host rm {}", two.name))?;
    wait::until("no association with it", wait::seconds(10), || {
        let states = one.run("ip xfrm state")?;
        ensure!(!states.contains(&two.address()), "there are: {states}");
        Ok(())
    })?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    lab.underlay.connected(2, true)?;
    let still = two.run("ip xfrm state")?;
    ensure!(
        known.iter().any(|key| still.contains(key.as_str())),
        "it has no keys any more"
    );
    one.does_not_reach("ann", &bob)?;
    let sent = EspPacket::read(
        &sniffer.near(),
        one.address().parse()?,
        two.address().parse()?,
    )?;
    ensure!(sent.is_empty(), "{} packets went to it", sent.len());
    Ok(())
}
