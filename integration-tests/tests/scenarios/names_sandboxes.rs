//! No container is left without names, and none with a stale rule, whatever comes and goes.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

/// On each engine: they differ in how they place their rules in a sandbox and bring their resolver back.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "names_outlive_an_engine_with_live_restore",
        setup: Setup::Cluster,
        needs: &[],
        run: live_restore,
    },
    Scenario {
        name: "names_with_rules_of_iptables_legacy_and_a_host_name",
        setup: Setup::Cluster,
        needs: &[],
        run: legacy,
    },
];

/// On the newest engine.
pub(crate) const NEWEST: &[Scenario] = &[
    Scenario {
        name: "names_follow_connect_and_disconnect",
        setup: Setup::Cluster,
        needs: &[],
        run: mixed,
    },
    Scenario {
        name: "names_for_those_before_during_and_after_kill_9",
        setup: Setup::Cluster,
        needs: &[],
        run: killed,
    },
    Scenario {
        name: "names_for_a_hundred_that_start_at_once",
        setup: Setup::Cluster,
        needs: &[],
        run: hundred,
    },
    Scenario {
        name: "names_stay_with_a_new_cluster_and_go_with_a_removed_host",
        setup: Setup::Engines(2),
        needs: &[],
        run: removed,
    },
];

/// What a container finds that is on `app` and Docker's `plain`: by our answers, and by Docker's passed on.
fn finds(host: &Host, asker: &str, names: &[(&str, &str)], limit: u64) -> Result<()> {
    for (name, address) in names {
        host.is_told(asker, name, &[address], limit)?;
    }
    Ok(())
}

/// An engine that ends and comes back, in order and killed, while its containers run: its resolver comes back at another
/// port, and what is passed on must reach it there.
fn live_restore(lab: &mut Lab) -> Result<()> {
    let one = lab.host(0)?;
    one.stop_engine("TERM")?;
    one.start_engine("--live-restore")?;
    let (ann, bob) = lab.two_sleepers("app")?;
    let one = lab.host(0)?;
    one.run("docker network create plain")?;
    one.sleeper("cid", "--network plain")?;
    one.run("docker network connect plain ann")?;
    let cid = one.address_of("cid", "plain")?;
    let all = [("bob", &*bob), ("ann.app", &*ann), ("cid", &*cid)];
    finds(one, "ann", &all, 5)?;
    for signal in ["TERM", "KILL"] {
        let one = lab.host(0)?;
        let pid = one.pid_of("ann")?;
        one.stop_engine(signal)?;
        // Without an engine there is no resolver of Docker's: ours answers.
        let said = one.attempt(&format!(
            "nsenter --target {pid} --net -- busybox nslookup -type=a bob 127.0.0.11"
        ))?;
        ensure!(
            said.stdout.contains(&bob),
            "without an engine: {}{}",
            said.stdout,
            said.stderr
        );
        one.start_engine("--live-restore")?;
        ensure!(
            one.pid_of("ann")? == pid,
            "live-restore has restarted the container"
        );
        finds(one, "ann", &all, 10)?;
        one.is_served("ann")?;
        // One that starts now as well.
        one.sleeper("new", "--network app")?;
        finds(one, "new", &all[..2], 5)?;
        let (_, two) = lab.pair()?;
        two.is_told("bob", "new", &[&two_sees(lab, "new")?], 5)?;
        lab.host(0)?.run("docker rm -f new")?;
    }
    let one = lab.host(0)?;
    one.run("docker rm -f ann cid; docker network rm plain")?;
    one.stop_engine("TERM")?;
    one.start_engine("")
}

/// The address of a container of the first host.
fn two_sees(lab: &Lab, container: &str) -> Result<String> {
    lab.pair()?.0.address_of(container, "app")
}

/// An engine that writes its rules with iptables-legacy, and a container whose host name is none of its names.
fn legacy(lab: &mut Lab) -> Result<()> {
    let one = lab.host(0)?;
    one.stop_engine("TERM")?;
    one.run(
        "mkdir -p /run/legacy && cd /run/legacy
         for name in iptables ip6tables; do ln -sf $(command -v $name-legacy) $name; done",
    )?;
    one.run("rm -f /var/run/docker.pid /var/run/docker.sock")?;
    let group = one.engine_flags();
    one.start(
        &format!("PATH=/run/legacy:$PATH exec dockerd {group}"),
        integration_tests::engine::LOG,
    )?;
    one.wait_for_engine()?;
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.run("docker network create plain")?;
    one.sleeper("cid", "--network plain")?;
    one.run("docker network connect plain ann")?;
    let rules = one
        .beside("ann", "iptables-legacy -t nat -S")?
        .succeeded()?;
    ensure!(
        rules.contains("127.0.0.11"),
        "Docker's rules are not legacy's: {rules}"
    );
    let cid = one.address_of("cid", "plain")?;
    one.is_served("ann")?;
    finds(
        one,
        "ann",
        &[("bob", &bob), ("ann", &ann), ("cid", &cid)],
        5,
    )?;
    one.kill("drover-names", "KILL")?;
    one.inside("ann", "ping -c 1 -W 1 cid")?;
    one.is_served("ann")?;
    finds(one, "ann", &[("bob", &bob), ("cid", &cid)], 5)?;
    // A host name that was given is a name for others, too, as with Docker.
    one.sleeper("dan", "--network app --hostname called-so")?;
    let dan = one.address_of("dan", "app")?;
    finds(one, "dan", &[("dan", &dan)], 5)?;
    two.is_told("bob", "dan", &[&dan], 5)?;
    for (host, asker) in [(one, "ann"), (two, "bob")] {
        host.is_told(asker, "called-so", &[&dan], 5)?;
    }
    one.run("docker rm -f ann cid dan; docker network rm plain")?;
    let one = lab.host(0)?;
    one.stop_engine("TERM")?;
    one.run("nsenter --net=/proc/1/ns/net iptables-legacy -t nat -F; iptables-legacy -F; true")?;
    one.start_engine("")
}

/// A container on networks of Docker's and of Drover's, one after the other and at once.
fn mixed(lab: &mut Lab) -> Result<()> {
    let (_, bob) = lab.two_sleepers("app")?;
    lab.network("side", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("eve", "--network side")?;
    let eve = two.address_of("eve", "side")?;
    one.run("docker network create plain")?;
    one.sleeper("cid", "--network plain")?;
    one.sleeper("mix", "--network plain")?;
    let cid = one.address_of("cid", "plain")?;
    one.is_not_served("mix")?;
    finds(one, "mix", &[("cid", &cid)], 1)?;
    one.run("docker network connect app mix")?;
    finds(one, "mix", &[("bob", &bob), ("cid", &cid)], 5)?;
    one.is_told("mix", "eve", &[], 0)?;
    one.run("docker network connect --alias second side mix")?;
    finds(
        one,
        "mix",
        &[("bob", &bob), ("cid", &cid), ("eve", &eve)],
        5,
    )?;
    let on_side = one.address_of("mix", "side")?;
    two.is_told("eve", "second", &[&on_side], 5)?;
    two.is_told("bob", "second", &[], 0)?;
    one.run("docker network disconnect app mix")?;
    one.is_told("mix", "bob", &[], 5)?;
    two.is_told("bob", "mix", &[], 5)?;
    finds(one, "mix", &[("cid", &cid), ("eve", &eve)], 1)?;
    one.run("docker network disconnect side mix")?;
    one.is_not_served("mix")?;
    finds(one, "mix", &[("cid", &cid)], 1)?;
    one.run("docker network connect side mix; docker restart -t 0 mix")?;
    finds(one, "mix", &[("cid", &cid), ("eve", &eve)], 5)?;
    // Its only network with a gateway is Drover's now, and then it has none.
    one.run("docker network disconnect plain mix")?;
    finds(one, "mix", &[("eve", &eve)], 5)?;
    one.run("docker network disconnect side mix")?;
    one.is_not_served("mix")
}

/// The name service is killed again and again; containers start before that, while it is away, and after it.
fn killed(lab: &mut Lab) -> Result<()> {
    let (_, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.is_told("ann", "bob", &[&bob], 5)?;
    for round in 0..3 {
        let name = |kind: &str| format!("{kind}-{round}");
        one.sleeper(&name("before"), "--network app")?;
        // What starts while it is away is started in the same breath.
        let start = |kind: &str| {
            format!(
                "docker run -d --network app --name {} lab sleep 1000000 >/dev/null",
                name(kind)
            )
        };
        let pids = one.processes("drover-names")?;
        ensure!(pids.len() == 1, "{pids:?}");
        one.run(&format!(
            "{} & sleep 0.1; kill -9 {}; {}; wait",
            start("during"),
            pids[0],
            start("after")
        ))?;
        // What Docker knows resolves within a second.
        let before = one.address_of(&name("before"), "app")?;
        one.is_told("ann", &name("before"), &[&before], 1)?;
        for kind in ["before", "during", "after"] {
            one.is_served(&name(kind))?;
            one.is_told(&name(kind), "bob", &[&bob], 5)?;
            let address = one.address_of(&name(kind), "app")?;
            two.is_told("bob", &name(kind), &[&address], 5)?;
        }
    }
    let report = one.drover_json("dns metrics")?;
    let served = report["sandboxes"].as_array().map_or(0, Vec::len);
    ensure!(served == 10, "{served} are served: {report}");
    Ok(())
}

/// How many start at once.
const MANY: usize = 100;

/// How many containers have a name, by the command: an answer of so many is too long for a datagram.
fn found(host: &Host, name: &str) -> Result<usize> {
    let told = host.attempt(&format!(
        "drover dns lookup {name} --from bob --type A --json"
    ))?;
    let told: serde_json::Value = serde_json::from_str(&told.stdout)?;
    Ok(told["records"].as_array().map_or(0, Vec::len))
}

fn hundred(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    let start: Vec<String> = (0..MANY)
        .map(|number| {
            format!("docker run -d --network app --network-alias many --name many-{number} lab sleep 1000000 >/dev/null &")
        })
        .collect();
    let slow = std::time::Duration::from_secs(300);
    let mut command = one.command(&format!("{}\nwait", start.join("\n")), slow)?;
    integration_tests::process::output(&mut command, "a hundred starts")?.succeeded()?;
    let known = found(two, "many")?;
    wait::until("each is served", wait::seconds(10), || {
        let report = one.drover_json("dns metrics")?;
        let sandboxes = report["sandboxes"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let well = sandboxes
            .iter()
            .filter(|it| it["hook"] == "owned" && it["name"].is_string());
        let well = well.count();
        ensure!(well == MANY + 1, "{well} of {} are served", MANY + 1);
        Ok(())
    })?;
    for number in [0, 1, MANY / 2, MANY - 1] {
        let name = format!("many-{number}");
        one.is_told(&name, "bob", &[&bob], 5)?;
        one.is_told(&name, "ann", &[&ann], 5)?;
    }
    wait::until("all are found", wait::seconds(5), || {
        let found = found(two, "many")?;
        ensure!(found == MANY, "{found} of {MANY}");
        Ok(())
    })?;
    // More than fit into the smallest datagram, which says so; the asker comes again by TCP.
    let cut = two.dig("bob", "+noedns +ignore many A")?;
    let flags = cut.lines().find(|line| line.contains("flags: qr"));
    ensure!(flags.is_some_and(|flags| flags.contains(" tc ")), "{cut}");
    for way in ["+noedns", "+bufsize=4096", "+tcp"] {
        let whole = two.dig("bob", &format!("{way} many A"))?;
        ensure!(
            whole.contains(&format!("ANSWER: {MANY},")),
            "{way}: {whole}"
        );
    }
    lab.report(&format!(
        "{} of {MANY} were known on the other host when the last had been started",
        known
    ));
    let (one, two) = lab.pair()?;
    // One after the other: Engine 20.10 may miscount the endpoints of a network that many leave at once, and keeps it then
    // although neither it nor drover-net has an endpoint there.
    let remove = "docker ps -q --filter name=many- | xargs -n 1 docker rm -f >/dev/null";
    let mut command = one.command(remove, slow)?;
    integration_tests::process::output(&mut command, "a hundred ends")?.succeeded()?;
    two.is_told("bob", "many", &[], 5)?;
    wait::until("none is served any more", wait::seconds(10), || {
        let report = one.drover_json("dns metrics")?;
        let left = report["sandboxes"].as_array().map_or(0, Vec::len);
        ensure!(left == 1, "{left} are");
        Ok(())
    })?;
    Ok(())
}

/// Names that are there when a host becomes a cluster stay; those of a host that is removed go.
fn removed(lab: &mut Lab) -> Result<()> {
    for host in &mut lab.hosts {
        host.drover_up("")?;
    }
    let (one, two) = lab.pair()?;
    one.run(&format!("{} app", integration_tests::drover::CREATE))?;
    one.run(&format!("{} side", integration_tests::drover::CREATE))?;
    one.sleeper("ann", "--network app")?;
    one.sleeper("abe", "--network app")?;
    one.sleeper("eve", "--network side")?;
    let abe = one.address_of("abe", "app")?;
    finds(one, "ann", &[("abe", &abe)], 5)?;
    let invitation = one.invite()?;
    finds(one, "ann", &[("abe", &abe)], 5)?;
    two.join(&invitation)?;
    two.wait_for_network("app", 5)?;
    two.sleeper("bob", "--network app")?;
    let bob = two.address_of("bob", "app")?;
    finds(one, "ann", &[("abe", &abe), ("bob", &bob)], 5)?;
    finds(two, "bob", &[("abe", &abe)], 5)?;
    one.is_told("ann", "eve", &[], 2)?;
    two.is_told("bob", "eve", &[], 2)?;
    // It will not come back.
    two.kill_drover()?;
    one.is_told("ann", "bob", &[], 6)?;
    one.run(&format!("drover host rm {}", two.name))?;
    let listed = one.run("drover dns ls")?;
    ensure!(
        !listed.contains("bob") && listed.contains("abe"),
        "{listed}"
    );
    finds(one, "ann", &[("abe", &abe)], 1)
}
