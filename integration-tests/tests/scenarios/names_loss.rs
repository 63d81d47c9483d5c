//! Names while a host is lost, flaps, or the store is away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "names_of_a_lost_host_go_and_come_back",
        setup: Setup::Cluster,
        needs: &[],
        run: lost,
    },
    Scenario {
        name: "names_stay_and_are_marked_while_the_store_is_away",
        setup: Setup::Cluster,
        needs: &[],
        run: store_away,
    },
    Scenario {
        name: "names_are_right_on_a_host_that_flaps_under_load",
        setup: Setup::Cluster,
        needs: &[],
        run: flapping,
    },
    Scenario {
        name: "names_outlive_the_leader_of_etcd",
        setup: Setup::Engines(2),
        needs: &[],
        run: leader_lost,
    },
];

/// How often a host goes and comes.
const FLAPS: usize = 3;
/// How long a cut lasts.
const CUT: Duration = Duration::from_secs(30);

/// A host that is switched off at the switch is gone from answers within 5 s, and back within 5 s, its containers of the
/// meantime too; on its own side it goes on with what it knows.
fn lost(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    let shared = "--network app --network-alias shared";
    one.sleeper("near", shared)?;
    two.sleeper("far", shared)?;
    let (near, far) = (
        one.address_of("near", "app")?,
        two.address_of("far", "app")?,
    );
    one.is_told("ann", "shared", &[&near, &far], 5)?;
    two.is_told("bob", "ann", &[&ann], 5)?;

    lab.underlay.connected(two.number, false)?;
    let cut = Instant::now();
    let gone = one.is_told("ann", "shared", &[&near], 5)?;
    one.is_told("ann", "bob", &[], 1)?;
    // Cut off, it has its own, what it knows of others, and says that this may be out of date.
    two.is_told("bob", "far", &[&far], 0)?;
    two.is_told("bob", "ann", &[&ann], 0)?;
    two.sleeper("new", "--network app")?;
    let new = two.address_of("new", "app")?;
    two.is_told("new", "ann", &[&ann], 1)?;
    let left = CUT.saturating_sub(cut.elapsed());
    wait::throughout("the other host's containers stay away", left, || {
        let told = one.told("ann", "shared")?;
        ensure!(told.len() == 1, "it is told {told:?}");
        Ok(())
    })?;
    ensure!(is_marked_stale(two, "bob", "ann")?, "it is not said");

    lab.underlay.connected(two.number, true)?;
    let back = one.is_told("ann", "shared", &[&near, &far], 5)?;
    one.is_told("ann", "bob", &[&bob], 1)?;
    one.is_told("ann", "new", &[&new], 5)?;
    wait::until("nothing is out of date", wait::seconds(10), || {
        ensure!(!is_marked_stale(two, "bob", "ann")?, "it may be");
        Ok(())
    })?;
    lab.report(&format!(
        "a lost host is gone after {gone:.1?}, and back after {back:.1?}"
    ));
    Ok(())
}

/// Whether an answer says that it may be out of date: extended error 3 (RFC 8914), for those who ask with EDNS.
fn is_marked_stale(host: &Host, asker: &str, name: &str) -> Result<bool> {
    let labels: String = name
        .split('.')
        .map(|label| format!("\\{:03o}{label}", label.len()))
        .collect();
    let query = format!(
        "\\000\\007\\001\\000\\000\\001\\000\\000\\000\\000\\000\\001{labels}\\000\\000\\001\\000\\001\\000\\000\\051\\020\\000\\000\\000\\000\\000\\000\\000"
    );
    let script = format!(
        "sh -c 'printf \"{query}\" | socat -t 2 - UDP4:127.0.0.11:53 | od -An -v -tx1 | tr -d \" \\n\"'"
    );
    let answer = host.beside(asker, &script)?.succeeded()?;
    ensure!(answer.starts_with("00078"), "no answer: {answer}");
    Ok(answer.ends_with("000f00020003"))
}

/// Nobody reaches the store: what was known last is told, on both hosts, marked; a container that starts on a host is
/// found once the store is back, and nobody is forgotten meanwhile or afterwards.
fn store_away(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.is_told("ann", "bob", &[&bob], 5)?;
    two.is_told("bob", "ann", &[&ann], 5)?;
    ensure!(!is_marked_stale(one, "ann", "bob")?, "it is out of date");
    let everything = || -> Result<()> {
        one.is_told("ann", "bob", &[&bob], 0)?;
        two.is_told("bob", "ann", &[&ann], 0)?;
        Ok(())
    };
    // It runs on, so that it ends the leases of hosts that it does not hear of.
    one.run(
        "nft 'add table inet away
         add chain inet away in { type filter hook input priority 0; }
         add chain inet away out { type filter hook output priority 0; }
         add rule inet away in tcp dport 4749 drop
         add rule inet away out tcp sport 4749 drop'",
    )?;
    wait::until("it is noticed", wait::seconds(15), || {
        everything()?;
        ensure!(is_marked_stale(one, "ann", "bob")? && is_marked_stale(two, "bob", "ann")?);
        Ok(())
    })?;
    two.sleeper("new", "--network app")?;
    let new = two.address_of("new", "app")?;
    // It is in no record yet, and finds those that are.
    two.is_told("new", "ann", &[&ann], 1)?;
    wait::throughout("what is known is told", wait::seconds(5), everything)?;
    // A name service that starts meanwhile has it from its disk.
    one.kill("drover-names", "KILL")?;
    one.is_served("ann")?;
    everything()?;
    one.run("nft delete table inet away")?;
    let begun = Instant::now();
    wait::until("nothing is out of date", wait::seconds(20), || {
        everything()?;
        ensure!(!is_marked_stale(one, "ann", "bob")? && !is_marked_stale(two, "bob", "ann")?);
        Ok(())
    })?;
    one.is_told("ann", "new", &[&new], 5)?;
    let back = begun.elapsed();
    // The leases that ended meanwhile have been taken anew.
    wait::throughout("nobody is forgotten", wait::seconds(6), everything)?;
    let stale = &one.name_counters(None)?["stale"];
    ensure!(stale.as_u64().is_some(), "not counted: {stale}");
    lab.report(&format!(
        "after the store was away all is well after {back:.1?}"
    ));
    Ok(())
}

/// A host comes and goes every few seconds while its processors are busy: answers may lack it, and are never wrong.
fn flapping(lab: &mut Lab) -> Result<()> {
    let (_, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.is_told("ann", "bob", &[&bob], 5)?;
    let busy = "for n in 1 2 3 4; do timeout 40 sh -c 'while :; do :; done' & done";
    two.run(&format!("{busy} 2>/dev/null >/dev/null"))?;
    let (mut told, mut lacking) = (0, 0);
    for round in 0..FLAPS {
        let restarted = format!("short-{round}");
        two.sleeper(&restarted, "--network app")?;
        for connected in [false, true] {
            lab.underlay.connected(two.number, connected)?;
            let (one, _) = lab.pair()?;
            wait::throughout("no wrong answer", wait::seconds(3), || {
                let addresses = one.told("ann", "bob")?;
                if addresses.is_empty() {
                    lacking += 1;
                } else {
                    ensure!(addresses.iter().eq([&bob]), "it is told {addresses:?}");
                }
                told += 1;
                Ok(())
            })?;
        }
        two.run(&format!("docker rm -f {restarted}"))?;
    }
    one.is_told("ann", "bob", &[&bob], 5)?;
    for round in 0..FLAPS {
        one.is_told("ann", &format!("short-{round}"), &[], 5)?;
    }
    lab.report(&format!(
        "of {told} answers while a host flapped {lacking} lacked it"
    ));
    Ok(())
}

/// Three members of etcd on the first host; the leader is killed while names are asked for.
fn leader_lost(lab: &mut Lab) -> Result<()> {
    let (one, _) = lab.pair_mut()?;
    let address = one.address();
    let member = |number: u16| format!("http://{address}:{}", 2379 + number * 10);
    let peers: Vec<String> = (1..=3)
        .map(|number| format!("m{number}=http://{address}:{}", 2380 + number * 10))
        .collect();
    for number in 1..=3_u16 {
        let (client, peer) = (
            member(number),
            format!("http://{address}:{}", 2380 + number * 10),
        );
        one.start(
            &format!(
                "exec etcd --name m{number} --data-dir /var/lib/m{number} --listen-client-urls {client}
                 --advertise-client-urls {client} --listen-peer-urls {peer} --initial-advertise-peer-urls {peer}
                 --initial-cluster {} --initial-cluster-state new",
                peers.join(",")
            )
            .replace('\n', " "),
            "etcd.log",
        )?;
    }
    let endpoints = (1..=3).map(member).collect::<Vec<_>>().join(",");
    wait::until("etcd", wait::seconds(30), || {
        one.run(&format!(
            "ETCDCTL_API=3 etcdctl --endpoints {endpoints} endpoint health"
        ))
    })?;
    for host in &mut lab.hosts {
        host.drover_up("")?;
    }
    let (one, two) = lab.pair()?;
    one.run(&format!("drover init --etcd-endpoints {endpoints}"))?;
    two.join(&one.invite()?)?;
    wait::until("both hosts", wait::seconds(20), || {
        let peers = one.run("drover peers")?;
        ensure!(peers.contains(&two.name), "{peers}");
        Ok(())
    })?;
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.is_told("ann", "bob", &[&bob], 5)?;
    two.is_told("bob", "ann", &[&ann], 5)?;
    let status = one.run(&format!(
        "ETCDCTL_API=3 etcdctl --endpoints {endpoints} endpoint status --write-out fields"
    ))?;
    let leader = leader(&status).with_context(|| format!("no leader in: {status}"))?;
    let killed = format!(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^etcd --name {leader} ' && kill -9 ${{p#/proc/}}; done; true"
    );
    one.run(&killed)?;
    two.sleeper("new", "--network app")?;
    let begun = Instant::now();
    let new = two.address_of("new", "app")?;
    wait::throughout("names are told", wait::seconds(12), || {
        one.is_told("ann", "bob", &[&bob], 0)?;
        two.is_told("bob", "ann", &[&ann], 0)?;
        Ok(())
    })?;
    one.is_told("ann", "new", &[&new], 5)?;
    lab.report(&format!(
        "with the leader of etcd lost a new container was known after at most {:.1?}",
        begun.elapsed()
    ));
    Ok(())
}

/// The name of the member that leads, in what `etcdctl endpoint status` says: each member's id, the leader's id, and where it is.
fn leader(status: &str) -> Option<String> {
    let field = |block: &str, name: &str| {
        let mut lines = block.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")))?;
        Some(value.trim_matches('"').to_owned())
    };
    let mut members = status.split("\n\n");
    let found = members
        .find(|it| field(it, "MemberID").is_some_and(|id| Some(id) == field(it, "Leader")))?;
    let port = field(found, "Endpoint")?
        .rsplit(':')
        .next()?
        .parse::<u16>()
        .ok()?;
    Some(format!("m{}", port.checked_sub(2379)? / 10))
}
