//! Bad input: a sentence that says what to change, and nothing changed.

use anyhow::{Result, ensure};
use integration_tests::drover::CREATE;
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fault_encryption_is_on_or_off",
        setup: Setup::Cluster,
        needs: &[],
        run: encryption,
    },
    Scenario {
        name: "fault_options_are_named_with_the_nearest",
        setup: Setup::Cluster,
        needs: &[],
        run: options,
    },
    Scenario {
        name: "fault_subnets_that_cannot_be",
        setup: Setup::Cluster,
        needs: &[],
        run: subnets,
    },
    Scenario {
        name: "fault_pool_is_exhausted",
        setup: Setup::Cluster,
        needs: &[],
        run: exhausted,
    },
    Scenario {
        name: "fault_malformed_and_oversized_bodies",
        setup: Setup::Cluster,
        needs: &[],
        run: bodies,
    },
];

/// A command is refused, the refusal has every word, and neither engine nor Drover has changed.
fn refused(host: &Host, command: &str, words: &[&str]) -> Result<()> {
    let view =
        "docker network ls --format '{{.Name}} {{.Driver}}' | sort; drover ipam; drover networks";
    let before = host.run(view)?;
    let said = host.refused(command)?;
    for word in words {
        ensure!(
            said.contains(word),
            "`{command}` is refused without `{word}`: {said}"
        );
    }
    let after = host.run(view)?;
    ensure!(
        before == after,
        "`{command}` was refused, and yet changed {before}\nto {after}"
    );
    Ok(())
}

fn encryption(lab: &mut Lab) -> Result<()> {
    let (one, _) = lab.pair()?;
    let bare = "docker network create -d drover-net --ipam-driver drover-ipam";
    refused(
        one,
        &format!("{bare} -o encryption=sometimes app"),
        &["sometimes", "`on` or `off`"],
    )?;
    refused(
        one,
        "docker network create -d drover-net -o encryption=off app",
        &["--ipam-driver drover-ipam"],
    )
}

fn options(lab: &mut Lab) -> Result<()> {
    let (one, _) = lab.pair()?;
    refused(
        one,
        &format!("{CREATE} -o encrypton=off app"),
        &["encrypton", "encryption"],
    )?;
    refused(
        one,
        &format!("{CREATE} -o com.docker.network.driver.mtu=lots app"),
        &["lots"],
    )?;
    refused(
        one,
        &format!("{CREATE} -o com.docker.network.driver.mtu=12 app"),
        &["12"],
    )
}

fn subnets(lab: &mut Lab) -> Result<()> {
    lab.network("app", "--subnet 10.200.0.0/16")?;
    let (one, two) = lab.pair()?;
    refused(
        two,
        &format!("{CREATE} --subnet 10.200.4.0/24 other"),
        &["10.200.4.0/24", "10.200.0.0/16"],
    )?;
    refused(
        two,
        &format!("{CREATE} --subnet 10.192.0.0/10 other"),
        &["10.200.0.0/16"],
    )?;
    refused(
        one,
        &format!("{CREATE} --subnet 10.201.0.0/30 other"),
        &["10.201.0.0/30"],
    )?;
    // The underlay of every host; a route of the other host alone.
    refused(
        one,
        &format!("{CREATE} --subnet 192.0.2.0/24 other"),
        &["192.0.2.0/24"],
    )?;
    two.run("ip link add name dummy7 type veth peer name dummy8; ip link set dummy7 up; ip link set dummy8 up; ip route add 10.222.0.0/16 dev dummy7")?;
    let overlapping = integration_tests::wait::until(
        "the route is known to the other host",
        integration_tests::wait::seconds(30),
        || {
            let said = one.attempt(&format!("{CREATE} --subnet 10.222.3.0/24 other"))?;
            if said.code == Some(0) {
                one.run("docker network rm other")?;
            }
            let said = said.failed()?;
            ensure!(
                said.contains("10.222."),
                "the refusal names no route: {said}"
            );
            Ok(())
        },
    );
    two.run("ip link del dummy7")?;
    overlapping?;
    // With a range that is not in the subnet the engine refuses by itself.
    one.refused(&format!(
        "{CREATE} --subnet 10.203.0.0/16 --ip-range 10.204.0.0/24 other"
    ))?;
    refused(
        one,
        "docker run --rm --network app --ip 10.201.0.5 lab true",
        &[],
    )?;
    one.run("docker ps -aq | xargs -r docker rm -f")?;
    Ok(())
}

fn exhausted(lab: &mut Lab) -> Result<()> {
    lab.network("small", "--subnet 10.201.0.0/28")?;
    let (one, _) = lab.pair()?;
    let mut refusal = None;
    for number in 0..20 {
        let started = one.attempt(&format!(
            "docker run -d --name full{number} --network small lab sleep 1000000"
        ))?;
        if started.code != Some(0) {
            refusal = Some(started.failed()?);
            break;
        }
    }
    let refusal = refusal.unwrap_or_default();
    ensure!(
        refusal.contains("10.201.0."),
        "twenty containers in a /28 are refused with: {refusal}"
    );
    // A larger one beside it still works.
    lab.network("large", "")?;
    let (one, _) = lab.pair()?;
    one.sleeper("fits", "--network large")?;
    let doctor = one.attempt("drover doctor")?;
    ensure!(
        doctor.stdout.contains("10.201.0.0/28"),
        "doctor says nothing of a full pool: {}",
        doctor.stdout
    );
    Ok(())
}

fn bodies(lab: &mut Lab) -> Result<()> {
    let (one, _) = lab.pair()?;
    let before = (one.processes("drover-net")?, one.processes("drover-ipam")?);
    one.run("head -c 20000000 /dev/zero > /tmp/large; head -c 3000 /dev/urandom > /tmp/noise")?;
    for (socket, method, field) in [
        ("drover-net", "NetworkDriver.CreateNetwork", "Err"),
        ("drover-ipam", "IpamDriver.RequestPool", "Error"),
    ] {
        for body in [
            "--data-binary @/tmp/noise",
            "--data '{\"NetworkID\":'",
            "--data ''",
            "--data '[]'",
        ] {
            let said = one.run(&format!(
                "curl -sS -m 5 --unix-socket /run/docker/plugins/{socket}.sock {body} http://d/{method}"
            ))?;
            ensure!(
                said.contains(&format!("\"{field}\"")),
                "{method} {body}: {said}"
            );
        }
        let large = one.attempt(&format!(
            "curl -sS -m 5 -o /dev/null -w '%{{http_code}}' --unix-socket /run/docker/plugins/{socket}.sock --data-binary @/tmp/large http://d/{method}"
        ))?;
        ensure!(
            large.stdout != "200",
            "a body of 20 MB is taken by {method}"
        );
    }
    let after = (one.processes("drover-net")?, one.processes("drover-ipam")?);
    ensure!(
        before == after,
        "a process has crashed: {before:?}, {after:?}"
    );
    lab.network("app", "")?;
    lab.doctor_is_clean()
}
