//! Removal is a request: a network lives as long as a host uses it.

use anyhow::{Result, anyhow, ensure};
use integration_tests::drover::CREATE;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "removal_waits_for_the_other_host",
        setup: Setup::Cluster,
        needs: &[],
        run: waits,
    },
    Scenario {
        name: "removal_is_forgotten_when_somebody_attaches_since",
        setup: Setup::Cluster,
        needs: &[],
        run: forgotten,
    },
    Scenario {
        name: "removal_of_an_idle_network_removes_all_copies",
        setup: Setup::Cluster,
        needs: &[],
        run: idle,
    },
    Scenario {
        name: "removal_then_the_same_name_again",
        setup: Setup::Cluster,
        needs: &[],
        run: again,
    },
    Scenario {
        name: "creation_of_one_name_on_two_hosts_at_once",
        setup: Setup::Cluster,
        needs: &[],
        run: at_once,
    },
    Scenario {
        name: "creation_and_first_container_on_two_hosts_at_once",
        setup: Setup::Cluster,
        needs: &[],
        run: with_containers,
    },
    Scenario {
        name: "creation_of_many_networks_at_once_on_two_hosts",
        setup: Setup::Cluster,
        needs: &[],
        run: many,
    },
];

fn waits(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("bob", "--network app")?;
    let subnet = two.subnet_of("app")?;
    let before = one.run("docker network inspect -f '{{.Id}}' app")?;
    one.run("docker network rm app")?;
    wait::until("the network is back", wait::seconds(2), || {
        let now = one.run("docker network inspect -f '{{.Id}}' app")?;
        ensure!(now != before, "it was not removed yet");
        Ok(())
    })?;
    ensure!(
        one.subnet_of("app")? == subnet,
        "it is back with another subnet"
    );
    let networks = one.run("drover networks")?;
    ensure!(networks.contains("app"), "drover networks: {networks}");
    two.run("docker rm -f bob")?;
    one.wait_for_no_network("app", 5)?;
    two.wait_for_no_network("app", 5)?;
    Ok(())
}

fn forgotten(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("bob", "--network app")?;
    one.run("docker network rm app")?;
    wait::until(
        "a container on the network that is back",
        wait::seconds(3),
        || {
            one.run("docker rm -f ann 2>/dev/null; docker run -d --name ann --network app lab sleep 1000000")
        },
    )?;
    one.reaches("ann", &two.address_of("bob", "app")?, 0)?;
    // The coordinator learns of endpoints a moment later.
    wait::until("the attachment is known", wait::seconds(5), || {
        let networks = one.drover_json("networks")?.to_string();
        ensure!(
            networks.contains("host1") && networks.contains("host2"),
            "{networks}"
        );
        Ok(())
    })?;
    two.run("docker rm -f bob")?;
    one.run("docker rm -f ann")?;
    wait::throughout("the network stays", wait::seconds(3), || {
        one.run("docker network inspect app")?;
        two.run("docker network inspect app")?;
        Ok(())
    })
}

fn idle(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("bob", "--network app")?;
    two.run("docker rm -f bob")?;
    two.run("docker network rm app")?;
    one.wait_for_no_network("app", 5)?;
    wait::throughout("the network stays away", wait::seconds(3), || {
        one.refused("docker network inspect app")?;
        two.refused("docker network inspect app")?;
        Ok(())
    })?;
    let pools = one.drover_json("ipam")?.to_string();
    ensure!(!pools.contains("\"pool\":\"10."), "a pool is left: {pools}");
    Ok(())
}

fn again(lab: &mut Lab) -> Result<()> {
    for _ in 0..3 {
        let (a, b) = lab.two_sleepers("app")?;
        let (one, two) = lab.pair()?;
        one.reaches("ann", &b, 0)?;
        two.reaches("bob", &a, 0)?;
        one.run("docker rm -f ann")?;
        two.run("docker rm -f bob")?;
        two.run("docker network rm app")?;
        for host in [one, two] {
            host.wait_for_no_network("app", 5)?;
        }
    }
    Ok(())
}

fn at_once(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    for round in 0..3 {
        let name = format!("same{round}");
        let command = format!("{CREATE} {name}");
        let made = std::thread::scope(|scope| {
            let other = scope.spawn(|| two.attempt(&command));
            (one.attempt(&command), other.join())
        });
        let succeeded = [Some(made.0?), made.1.ok().transpose()?]
            .into_iter()
            .flatten()
            .filter(|output| output.code == Some(0))
            .count();
        ensure!(succeeded >= 1, "neither host could make {name}");
        wait::until(
            "one network, the same on both hosts",
            wait::seconds(10),
            || {
                let subnets = (one.subnet_of(&name)?, two.subnet_of(&name)?);
                ensure!(subnets.0 == subnets.1, "{subnets:?}");
                for host in [one, two] {
                    let same = host
                        .drover_networks()?
                        .into_iter()
                        .filter(|other| *other == name)
                        .count();
                    ensure!(same == 1, "{} has {same} networks {name}", host.name);
                }
                Ok(())
            },
        )?;
        one.sleeper("ann", &format!("--network {name}"))?;
        two.sleeper("bob", &format!("--network {name}"))?;
        one.reaches("ann", &two.address_of("bob", &name)?, 1)?;
        one.run("docker rm -f ann")?;
        two.run("docker rm -f bob")?;
    }
    lab.doctor_is_clean()
}

/// Both hosts make a network of one name, and start a container on it the next moment.
fn with_containers(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    for round in 0..5 {
        let name = format!("same{round}");
        let run = format!("docker run -d --name sleeper --network {name} lab sleep 1000000");
        let start = |host: &Host| host.attempt(&format!("{CREATE} {name}; {run}"));
        let (left, right) = std::thread::scope(|scope| {
            let other = scope.spawn(|| start(two));
            (start(one), other.join())
        });
        let right = right.map_err(|_panic| anyhow!("the other thread panicked"))?;
        for (host, started) in [(one, left?), (two, right?)] {
            if started.code == Some(0) {
                continue;
            }
            let said = &started.stderr;
            ensure!(
                [
                    "is being removed from this host",
                    "not found",
                    "already exists",
                    // Engine 20.10 lets a second network of a name in for a moment.
                    "is ambiguous",
                ]
                .iter()
                .any(|reason| said.contains(reason)),
                "{} does not say why it failed: {said}",
                host.name
            );
            wait::until("the container, started again", wait::seconds(10), || {
                host.run(&format!("docker rm -f sleeper; {run}"))
            })?;
        }
        let subnets = (one.subnet_of(&name)?, two.subnet_of(&name)?);
        ensure!(subnets.0 == subnets.1, "two networks: {subnets:?}");
        one.reaches("sleeper", &two.address_of("sleeper", &name)?, 5)?;
        for host in [one, two] {
            host.run("docker rm -f sleeper")?;
        }
    }
    lab.doctor_is_clean()
}

fn many(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair()?;
    let made = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            two.run(&format!(
                "for i in 1 2 3 4 5; do {CREATE} right$i || exit 1; done"
            ))
        });
        let own = one.run(&format!(
            "for i in 1 2 3 4 5; do {CREATE} left$i || exit 1; done"
        ));
        (own, other.join())
    });
    made.0?;
    made.1
        .map_err(|_panic| anyhow!("the other thread panicked"))??;
    let mut subnets = Vec::new();
    for name in (1..6).flat_map(|number| [format!("left{number}"), format!("right{number}")]) {
        for host in [one, two] {
            host.wait_for_network(&name, 5)?;
        }
        ensure!(
            one.subnet_of(&name)? == two.subnet_of(&name)?,
            "{name} differs"
        );
        subnets.push(one.subnet_of(&name)?);
    }
    subnets.sort();
    subnets.dedup();
    ensure!(subnets.len() == 10, "subnets were given twice: {subnets:?}");
    Ok(())
}
