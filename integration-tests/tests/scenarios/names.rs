//! Names in containers, in front of Docker's resolver and with it.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
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
        name: "containers_of_both_hosts_are_found_by_name",
        setup: Setup::Cluster,
        needs: &[],
        run: across_hosts,
    },
];

/// A socket of ours in a container's namespace: where what is passed on goes, 127.0.0.11:53.
const OURS: &str = "0B00007F:0035";

/// Waits until a container is served.
fn is_served(host: &Host, container: &str) -> Result<()> {
    let what = format!("{container} is served");
    wait::until(&what, wait::seconds(10), || {
        let tables = host.beside(container, "nft list tables")?.succeeded()?;
        ensure!(tables.contains("drover-names"), "tables: {tables}");
        Ok(())
    })?;
    Ok(())
}

/// Docker's own answers are given while the name service is there, when it is killed, and when it is back.
fn with_and_without(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, _) = lab.pair()?;
    one.run("docker network create plain")?;
    one.sleeper("ann", "--network app")?;
    one.sleeper("bea", "--network app --network-alias alias-of-bea")?;
    one.sleeper("cid", "--network plain")?;
    one.run("docker network connect plain ann")?;
    is_served(one, "ann")?;
    is_served(one, "bea")?;
    let tables = one.beside("cid", "nft list tables")?.succeeded()?;
    ensure!(
        !tables.contains("drover"),
        "not on a network of Drover's: {tables}"
    );
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
    is_served(one, "ann")?;
    resolves()?;
    one.run("docker restart -t 0 ann")?;
    is_served(one, "ann")?;
    resolves()?;
    one.run("docker network disconnect app ann")?;
    wait::until("ann is Docker's alone", wait::seconds(5), || {
        let tables = one.beside("ann", "nft list tables")?.succeeded()?;
        ensure!(!tables.contains("drover"), "tables: {tables}");
        Ok(())
    })?;
    one.inside("ann", "ping -c 1 -W 1 cid")?;
    Ok(())
}

/// The first thing that a container does is to look for our socket.
fn before_the_first_process(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, _) = lab.pair()?;
    for _ in 0..10 {
        let sockets = one.run("docker run --rm --network app lab cat /proc/net/udp")?;
        ensure!(sockets.contains(OURS), "too late: {sockets}");
    }
    // Of many that start at once none is forgotten. On engines up to 27 a sandbox is there only just before its
    // process, which may be earlier then.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do
          docker run -d --network app --name many-$i lab sleep 1000000 >/dev/null &
        done; wait";
    one.run(script)?;
    for number in 1..=10 {
        is_served(one, &format!("many-{number}"))?;
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
    wait::until("late-0 is forgotten", wait::seconds(2), || {
        one.attempt("docker exec ann ping -c 1 -W 1 late-0")?
            .failed()
    })?;
    // With nobody to answer for us, names of the own host go on, and all is well when we are back.
    one.kill("drover-names", "KILL")?;
    one.inside("ann", "ping -c 1 -W 1 ann")?;
    wait::until("ann finds bob again", wait::seconds(5), || {
        one.inside("ann", "ping -c 1 -W 1 bob")
    })?;
    Ok(())
}
