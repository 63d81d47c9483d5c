//! A kernel that could encrypt and cannot any more: nothing travels in clear, and whoever asks is told what is missing.

use anyhow::{Context, Result, ensure};
use drover_testkit::capability::Capability;
use integration_tests::drover::{CREATE_ENCRYPTED, LOG};
use integration_tests::host::Host;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::module::MissingModules;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::sniff::{PATTERN, Sniffer};
use integration_tests::wait;

use super::encryption::encrypted_pair;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "encryption_that_is_lost_leaves_nothing_in_clear",
        setup: Setup::Cluster,
        needs: &[Capability::Esp, Capability::OwnKernel],
        run: without_esp,
    },
    Scenario {
        name: "encryption_without_source_checks_is_refused",
        setup: Setup::Cluster,
        needs: &[Capability::Esp, Capability::OwnKernel],
        run: without_source_checks,
    },
];

/// Pings with the pattern that the sniffer looks for, and gets no answer.
fn silent(host: &Host, container: &str, address: &str) -> Result<()> {
    let ping = format!("ping -c 5 -i 0.2 -W 1 -s 200 -p {PATTERN} {address}");
    let said = host.beside(container, &ping)?.failed();
    said.with_context(|| format!("{container} reaches {address}"))?;
    Ok(())
}

/// Whether what was said has all of the words.
fn says(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(said.contains(word), "no word of {word} in: {said}");
    }
    Ok(())
}

/// Two hosts with an encrypted network and an encrypted path between them lose ESP, as by a start with another kernel. The
/// containers run on. Once the kernel has it again, the next container finds it.
fn without_esp(lab: &mut Lab) -> Result<()> {
    const WHY: [&str; 2] = ["cannot encrypt", "esp4"];
    let (ann, bob) = encrypted_pair(lab)?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &bob, 5)?;
    let sniffer = Sniffer::start(&lab.underlay)?;
    for host in [one, two] {
        host.drover_down()?;
        host.run("ip xfrm state flush")?;
    }
    let missing = MissingModules::unload(&["esp4", "esp6"])?;
    silent(one, "ann", &bob).context("without Drover")?;
    let (one, two) = lab.pair_mut()?;
    for host in [&mut *one, &mut *two] {
        host.drover_up("")?;
    }
    silent(one, "ann", &bob)?;
    silent(two, "bob", &ann)?;
    one.refused(&format!("ping -c 3 -i 0.2 -W 1 -s 200 -p {PATTERN} {bob}"))?;
    let run = format!("docker run -d --name cid --network app {IMAGE} sleep 1000000");
    says(&one.refused(&run)?, &WHY).context("docker run")?;
    one.run("docker rm cid")?;
    says(&one.refused(&format!("{CREATE_ENCRYPTED} other"))?, &WHY).context("network create")?;
    for host in [&*one, &*two] {
        says(&host.refused("drover doctor")?, &WHY).context("drover doctor")?;
        says(&host.run("drover peers")?, &WHY).context("drover peers")?;
        says(&std::fs::read_to_string(host.log(LOG))?, &WHY).context("the log")?;
    }
    drop(missing);
    one.run(&run)?;
    two.run("docker restart -t 0 bob")?;
    let bob = two.address_of("bob", "app")?;
    for container in ["ann", "cid"] {
        one.reaches(container, &bob, 15)?;
    }
    let seen = sniffer.stop()?;
    ensure!(
        seen.clear == 0 && seen.encrypted > 0,
        "on the underlay: {seen:?}"
    );
    lab.doctor_is_clean()
}

/// A kernel that has all but one question that packet filters ask: encryption is refused by its name, and the rest works.
fn without_source_checks(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair_mut()?;
    for host in [&*one, &*two] {
        host.drover_down()?;
        host.run("nsenter --net=/run/drover/netns/overlay nft flush ruleset")?;
    }
    let missing = MissingModules::unload(&["nft_fib_inet"])?;
    for host in [&mut *one, &mut *two] {
        host.drover_up("")?;
    }
    let said = one.refused(&format!("{CREATE_ENCRYPTED} app"))?;
    says(&said, &["cannot encrypt", "nft_fib_inet", "encryption=off"])?;
    wait::until("a clear network", wait::seconds(3), || {
        one.run(&format!("{CREATE_ENCRYPTED} -o encryption=off clear"))
    })?;
    two.wait_for_network("clear", 2)?;
    one.sleeper("cid", "--network clear")?;
    two.sleeper("dan", "--network clear")?;
    one.reaches("cid", &two.address_of("dan", "clear")?, 5)?;
    drop(missing);
    let (_, bob) = encrypted_pair(lab)?;
    lab.pair()?.0.reaches("ann", &bob, 15)?;
    lab.doctor_is_clean()
}
