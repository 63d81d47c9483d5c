//! Drover's processes die; traffic goes on, and the engine does not wait for the dead.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::drover::{CREATE, PLUGINS};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::load::Load;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "crash_of_each_process_is_mended_while_traffic_goes_on",
        setup: Setup::Cluster,
        needs: &[],
        run: each,
    },
    Scenario {
        name: "crash_of_everything_leaves_traffic_and_engine_alone",
        setup: Setup::Cluster,
        needs: &[],
        run: everything,
    },
    Scenario {
        name: "crash_in_the_middle_of_starts_leaves_nothing_behind",
        setup: Setup::Cluster,
        needs: &[],
        run: in_the_middle,
    },
    Scenario {
        name: "stop_in_order_leaves_the_data_path_and_no_socket",
        setup: Setup::Cluster,
        needs: &[],
        run: stop,
    },
    Scenario {
        name: "crash_of_etcd_is_mended",
        setup: Setup::Cluster,
        needs: &[],
        run: etcd,
    },
];

/// What the engine may take longer than usual.
const WAIT: Duration = Duration::from_secs(1);

/// How long the engine tries a socket that nobody answers on: 15 s, and what the call itself takes.
const DEAD_SOCKET: Duration = Duration::from_secs(18);

/// Calls of the engine that have nothing to do with Drover, or little; none may take a second.
fn engine_is_prompt(host: &Host) -> Result<()> {
    for call in [
        "docker ps",
        "docker network ls",
        "docker volume ls",
        "docker network inspect app",
        "docker info",
    ] {
        let done = host.attempt(call)?;
        let took = done.took;
        done.succeeded()?;
        // The engine asks every volume plugin for its volumes, and tries a socket without a process for so long.
        let is_asked = call == "docker volume ls" && host.processes("drover-vol")?.is_empty();
        let limit = if is_asked { DEAD_SOCKET } else { WAIT };
        ensure!(took < limit, "`{call}` on {} took {took:?}", host.name);
    }
    Ok(())
}

fn each(lab: &mut Lab) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    let there = Load::start((one, "ann"), (two, "bob"), &b)?;
    let back = Load::start((two, "bob"), (one, "ann"), &a)?;
    for plugin in PLUGINS {
        for host in [one, two] {
            let before = host.processes(plugin)?;
            host.kill(plugin, "9")?;
            engine_is_prompt(host)?;
            let begun = std::time::Instant::now();
            host.sleeper("cat", "--network app")?;
            ensure!(
                begun.elapsed() < Duration::from_secs(4),
                "a start after a crash of {plugin} took {:?}",
                begun.elapsed()
            );
            host.run("docker rm -f cat")?;
            wait::until(&format!("a new {plugin}"), wait::seconds(5), || {
                let now = host.processes(plugin)?;
                ensure!(now.len() == 1 && now != before, "{plugin}: {now:?}");
                Ok(())
            })?;
        }
    }
    for load in [there, back] {
        load.end()?.is_whole()?;
    }
    lab.doctor_is_clean()
}

fn everything(lab: &mut Lab) -> Result<()> {
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair_mut()?;
    let there = one.flow("ann", &b)?;
    let before = state(one)?;
    for host in [&*one, &*two] {
        host.kill_drover()?;
    }
    // Both at once, as each waits for a dead socket.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| engine_is_prompt(&*two));
        engine_is_prompt(&*one)?;
        other
            .join()
            .map_err(|_panic| anyhow::anyhow!("the thread of the other host ended"))?
    })?;
    one.reaches("ann", &b, 0)?;
    two.reaches("bob", &a, 0)?;
    one.drover_up("")?;
    two.drover_up("")?;
    one.end_flow(&there)?.at_most(0)?;
    let (one, two) = lab.pair()?;
    lab.doctor_is_clean()?;
    let after = state(one)?;
    ensure!(before == after, "before: {before}\nafter: {after}");
    one.sleeper("cat", "--network app")?;
    two.reaches("bob", &one.address_of("cat", "app")?, 0)?;
    Ok(())
}

/// What there is of Drover in a host's kernel.
fn state(host: &Host) -> Result<String> {
    host.run(
        "n=/run/drover/netns/overlay
         echo host: $(ip -o link show | sed 's/^[0-9]*: //; s/[@:].*//' | sort)
         echo overlay: $(nsenter --net=$n ip -o link show | sed 's/^[0-9]*: //; s/[@:].*//' | sort)
         # Whether a bridge has a port at this moment is not what is compared: ports go after the answer.
         { nsenter --net=$n ip route show table all; nsenter --net=$n ip -6 route show table all | grep -v fe80; } |
             sed 's/ linkdown//' | sort
         nsenter --net=$n nft -s list ruleset | grep -v counter | grep -v '# handle'",
    )
}

fn in_the_middle(lab: &mut Lab) -> Result<()> {
    lab.network("app", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("bob", "--network app")?;
    // With the first container comes a block, which stays.
    one.run("docker run --rm --network app lab true")?;
    let before = state(one)?;
    for (round, plugin) in PLUGINS.iter().cycle().take(6).enumerate() {
        let ran = std::thread::scope(|scope| {
            let starts = scope.spawn(|| {
                one.attempt("for i in 1 2 3; do docker run --rm --network app lab true; done")
            });
            std::thread::sleep(Duration::from_millis(120 * (1 + round as u64)));
            let killed = one.kill(plugin, "9");
            (killed, starts.join())
        });
        ran.0?;
        let starts = ran
            .1
            .map_err(|_panic| anyhow::anyhow!("the other thread panicked"))??;
        ensure!(!starts.stderr.contains("panicked"), "{}", starts.stderr);
    }
    one.run("docker ps -aq | xargs -r docker rm -f")?;
    wait::until("the state before", wait::seconds(20), || {
        let after = state(one)?;
        ensure!(before == after, "before: {before}\nafter: {after}");
        Ok(())
    })?;
    lab.doctor_is_clean()
}

fn stop(lab: &mut Lab) -> Result<()> {
    let (_, b) = lab.two_sleepers("app")?;
    let (one, _) = lab.pair_mut()?;
    let flow = one.flow("ann", &b)?;
    one.drover_down()?;
    engine_is_prompt(one)?;
    let left = one.run("ls /run/docker/plugins")?;
    ensure!(!left.contains("drover"), "sockets are left: {left}");
    one.drover_up("")?;
    one.end_flow(&flow)?.at_most(0)?;
    one.sleeper("cat", "--network app")?;
    one.reaches("cat", &b, 0)?;
    lab.doctor_is_clean()
}

fn etcd(lab: &mut Lab) -> Result<()> {
    let (_, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair_mut()?;
    let flow = one.flow("ann", &b)?;
    one.kill("etcd", "9")?;
    // Addresses are given while the store is away.
    two.sleeper("cat", "--network app")?;
    one.reaches("ann", &two.address_of("cat", "app")?, 2)?;
    wait::until("etcd again", wait::seconds(20), || {
        ensure!(one.processes("etcd")?.len() == 1, "no etcd");
        one.run("drover status")
    })?;
    one.end_flow(&flow)?.at_most(0)?;
    let (one, two) = lab.pair()?;
    wait::until("a new network", wait::seconds(20), || {
        one.run(&format!(
            "docker network inspect later >/dev/null 2>&1 || {CREATE} later"
        ))
    })?;
    two.wait_for_network("later", 5)?;
    lab.doctor_is_clean()
}
