//! Who is handed out: health, storms, and what the command line tells of it.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "names_lead_to_healthy_containers_and_storms_empty_no_answer",
        setup: Setup::Cluster,
        needs: &[],
        run: health,
    },
    Scenario {
        name: "dns_commands_tell_what_a_container_is_told",
        setup: Setup::Cluster,
        needs: &[],
        run: commands,
    },
];

/// A container that says itself how it is, and whom others find as `web`.
fn patient(host: &Host, name: &str) -> Result<String> {
    host.sleeper(
        name,
        "--network app --network-alias web --health-cmd 'test -e /well' --health-start-period 60s --health-interval 1s --health-retries 1",
    )?;
    host.address_of(name, "app")
}

fn is_well(host: &Host, name: &str, well: bool) -> Result<()> {
    let command = if well { "touch" } else { "rm" };
    host.inside(name, &format!("{command} /well"))?;
    Ok(())
}

fn health(lab: &mut Lab) -> Result<()> {
    lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    let (near, far) = (patient(one, "near")?, patient(two, "far")?);
    let told = |expected: &[&str]| -> Result<()> {
        one.is_told("ann", "web", expected, 10)?;
        two.is_told("bob", "web", expected, 10)?;
        Ok(())
    };
    // Not healthy yet: to itself only. The container has a name of its own, which is no less bound to health.
    told(&[])?;
    one.is_told("near", "web", &[&near], 10)?;
    one.is_told("ann", "near", &[], 1)?;
    is_well(one, "near", true)?;
    told(&[&near])?;
    is_well(two, "far", true)?;
    told(&[&near, &far])?;
    is_well(two, "far", false)?;
    told(&[&near])?;
    two.is_told("far", "web", &[&near, &far], 5)?;
    // The storm: all checks fail at once, and no answer is empty; nor is it when the name service starts anew.
    is_well(one, "near", false)?;
    told(&[&near, &far])?;
    one.kill("drover-names", "KILL")?;
    one.is_served("ann")?;
    told(&[&near, &far])?;
    is_well(one, "near", true)?;
    told(&[&near])?;
    one.run("docker pause near")?;
    told(&[&near, &far])?;
    one.run("docker unpause near")?;
    told(&[&near])?;
    // Nobody is left: Docker's resolver is asked, and knows nobody either.
    one.run("docker stop -t 0 near")?;
    two.run("docker stop -t 0 far")?;
    told(&[])
}

/// `drover dns ls`, `lookup` and `metrics` against what a container is really told.
fn commands(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    lab.network("side", "")?;
    let (one, two) = lab.pair()?;
    two.sleeper("eve", "--network side")?;
    two.sleeper(
        "thief",
        "--network app --network-alias ann --network-alias 'no name'",
    )?;
    one.is_told("ann", "bob", &[&bob], 5)?;
    wait::until("all names are known", wait::seconds(5), || {
        let listed = one.run("drover dns ls")?;
        for word in ["app", "side", "ann", "bob", "eve", "thief"] {
            ensure!(listed.contains(word), "no {word} in: {listed}");
        }
        Ok(())
    })?;
    let listed = one.run("drover dns ls --network side")?;
    ensure!(
        listed.contains("eve") && !listed.contains("bob"),
        "{listed}"
    );
    for (host, asker) in [(one, "ann"), (two, "bob")] {
        let told = host.run(&format!("drover dns lookup ann --from {asker}"))?;
        ensure!(told.contains(&ann) && told.contains("why:"), "{told}");
        ensure!(
            told.contains("which comes first"),
            "the thief is not told: {told}"
        );
        host.is_told(asker, "ann", &[&ann], 5)?;
        let other = host.refused(&format!("drover dns lookup eve --from {asker}"))?;
        ensure!(other.contains("Docker's own resolver"), "{other}");
        host.is_told(asker, "eve", &[], 5)?;
    }
    let refused = one.run("drover doctor || true")?;
    ensure!(
        refused.contains("no name"),
        "doctor does not tell of the alias: {refused}"
    );
    let before = one.name_counters(Some("ann"))?;
    one.told("ann", "bob")?;
    one.told("ann", "nobody")?;
    wait::until("they are counted", wait::seconds(5), || {
        let after = one.name_counters(Some("ann"))?;
        for (field, more) in [("udp", 2), ("answered", 1), ("passed_on", 1)] {
            let count = |counters: &serde_json::Value| counters[field].as_u64().unwrap_or(0);
            ensure!(
                count(&after) >= count(&before) + more,
                "{field}: {before}, {after}"
            );
        }
        Ok(())
    })?;
    let table = one.run("drover dns metrics")?;
    ensure!(
        table.contains("CONTAINER") && table.contains("ann"),
        "{table}"
    );
    let page = one.run("curl -s --unix-socket /run/drover/names.sock http://localhost/metrics")?;
    for line in [
        "drover_names_queries_total{container=\"ann\",transport=\"udp\"}",
        "drover_names_followed 1",
        "drover_names_latency_seconds_count{answered_by=\"docker\"}",
    ] {
        ensure!(page.contains(line), "no {line} in: {page}");
    }
    Ok(())
}
