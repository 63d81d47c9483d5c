//! Names in containers, in front of Docker's resolver and with it.

use anyhow::{Result, bail, ensure};
use integration_tests::engine::Release;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "what_docker_knows_resolves_with_and_without_the_name_service",
        setup: Setup::Cluster,
        needs: &[],
        run: with_and_without,
    },
    Scenario {
        name: "names_are_served_before_a_containers_first_process_runs",
        setup: Setup::Cluster,
        needs: &[],
        run: before_the_first_process,
    },
    Scenario {
        name: "names_are_given_to_a_first_query_on_a_busy_host",
        setup: Setup::Cluster,
        needs: &[],
        run: first_queries,
    },
    Scenario {
        name: "containers_of_both_hosts_are_found_by_name",
        setup: Setup::Cluster,
        needs: &[],
        run: across_hosts,
    },
];

/// How many containers are started one after the other, and how many at once.
const ROUNDS: usize = 10;
/// A socket of ours in a container's namespace: where what is passed on goes, 127.0.0.11:53.
const OURS: &str = "0B00007F:0035";

/// Docker's own answers are given while the name service is there, when it is killed, and when it is back.
fn with_and_without(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, _) = lab.pair()?;
    one.run("docker network create plain")?;
    one.sleeper("ann", "--network app")?;
    one.sleeper("bea", "--network app --network-alias alias-of-bea")?;
    one.sleeper("cid", "--network plain")?;
    one.run("docker network connect plain ann")?;
    one.is_served("ann")?;
    one.is_served("bea")?;
    one.is_not_served("cid")?;
    let resolves = || -> Result<()> {
        for name in ["bea", "alias-of-bea", "bea.app", "cid"] {
            one.inside("ann", &format!("ping -c 1 -W 1 {name}"))?;
        }
        Ok(())
    };
    resolves()?;
    one.kill("drover-names", "KILL")?;
    // At once, and not after a time-out.
    resolves()?;
    one.is_served("ann")?;
    resolves()?;
    one.run("docker restart -t 0 ann")?;
    one.is_served("ann")?;
    resolves()?;
    one.run("docker network disconnect app ann")?;
    one.is_not_served("ann")?;
    one.inside("ann", "ping -c 1 -W 1 cid")?;
    Ok(())
}

/// How many containers, of those that this scenario starts, may be faster than the name service: on engines up to 27 a
/// sandbox is there only just before its process.
const fn may_be_too_late(release: Release) -> usize {
    match release {
        Release::V28 => 0,
        Release::V20 | Release::V26 => 5,
    }
}

/// The first thing that a container does is to look for our socket. Half of them are started at once.
fn before_the_first_process(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, _) = lab.pair()?;
    let look = "cat /proc/net/udp > /tmp/sockets; exec sleep 1000000";
    let start =
        |name: &str| format!("docker run -d --network app --name {name} lab sh -c '{look}'");
    for number in 0..ROUNDS {
        one.run(&start(&format!("alone-{number}")))?;
    }
    let together: Vec<String> = (0..ROUNDS)
        .map(|number| format!("{} >/dev/null &", start(&format!("many-{number}"))))
        .collect();
    one.run(&format!("{}\nwait", together.join("\n")))?;
    let (mut late, mut names) = (0, Vec::new());
    for kind in ["alone", "many"] {
        for number in 0..ROUNDS {
            let name = format!("{kind}-{number}");
            let seen = one.inside(&name, "cat /tmp/sockets")?;
            if !seen.contains(OURS) {
                late += 1;
                names.push(name.clone());
            }
            // However late, none is forgotten.
            one.is_served(&name)?;
        }
    }
    let all = 2 * ROUNDS;
    lab.report(&format!(
        "{late} of {all} first processes were faster than the name service {names:?}"
    ));
    let allowed = may_be_too_late(lab.release);
    ensure!(
        late <= allowed,
        "{late} of {all} were too late, and {allowed} may be: {names:?}"
    );
    Ok(())
}

/// The first thing that a container does is to ask for a container of the other host, by alias, while every processor is
/// busy and other containers start.
fn first_queries(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    for number in 0..2 {
        let flags = "--network app --network-alias shared";
        two.sleeper(&format!("there-{number}"), flags)?;
    }
    one.sleeper("ann", "--network app")?;
    wait::until("ann finds those there", wait::seconds(5), || {
        one.inside("ann", "nslookup -type=a shared")
    })?;
    // Twice as many as there are processors, each for as long as the shell that begins them.
    let ask = "docker run --rm --network app lab nslookup -type=a shared";
    let said = one.run(&format!(
        "for busy in $(seq $((2 * $(nproc)))); do sh -c 'while :; do :; done' & pids=\"$pids $!\"; done
         trap 'kill $pids' EXIT
         for number in $(seq {ROUNDS}); do
             for beside in 1 2; do {ask} >/tmp/first-$number-$beside 2>&1 || true & asked=\"$asked $!\"; done
             wait $asked
         done
         grep -L 'Address: *10' /tmp/first-* || true"
    ))?;
    let late = said.lines().count();
    let all = 2 * ROUNDS;
    lab.report(&format!("{late} of {all} first queries were not answered"));
    let allowed = may_be_too_late(lab.release);
    if late > allowed {
        let example = one.run(&format!("head -n 20 {}", said.lines().next().unwrap_or("")))?;
        bail!("{late} of {all} first queries were not answered, and {allowed} may be: {example}");
    }
    Ok(())
}

/// Names, aliases and ids lead to containers of either host, at once after their start, and no more after their end.
fn across_hosts(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    for (host, asker, name, address) in [(one, "ann", "bob", &bob), (two, "bob", "ann", &ann)] {
        for name in [name.to_owned(), format!("{name}.app")] {
            let what = format!("{asker} finds {name}");
            wait::until(&what, wait::seconds(5), || {
                let said = host.inside(asker, &format!("ping -c 1 -W 1 {name}"))?;
                ensure!(said.contains(address.as_str()), "it says {said}");
                Ok(())
            })?;
        }
    }
    for number in 0..5 {
        let name = format!("late-{number}");
        two.sleeper(&name, "--network app --network-alias shared")?;
        wait::until(&format!("ann finds {name}"), wait::seconds(1), || {
            one.inside("ann", &format!("ping -c 1 -W 1 {name}"))
        })?;
    }
    // What a container asks first is answered, by name and by alias.
    one.run("docker run --rm --network app lab ping -c 1 -W 1 bob")?;
    one.run("docker run --rm --network app lab ping -c 1 -W 1 shared")?;
    two.run("docker rm -f late-0")?;
    wait::until("late-0 is forgotten", wait::seconds(1), || {
        one.attempt("docker exec ann ping -c 1 -W 1 late-0")?
            .failed()
    })?;
    // A container reads about itself and its peers.
    let read = |path: &str| one.inside("ann", &format!("wget -qO- http://drover.internal/{path}"));
    ensure!(read("self/name")?.trim() == "ann", "self is not ann");
    let peers = read("containers.json")?;
    ensure!(
        peers.contains(&bob) && peers.contains("late-1"),
        "bob or late-1 is missing: {peers}"
    );
    // With nobody to answer for us, names of the own host go on, and all is well when we are back.
    one.kill("drover-names", "KILL")?;
    one.inside("ann", "ping -c 1 -W 1 ann")?;
    wait::until("ann finds bob again", wait::seconds(5), || {
        one.inside("ann", "ping -c 1 -W 1 bob")
    })?;
    Ok(())
}
