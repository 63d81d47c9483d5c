//! Joining, leaving, being removed.

use anyhow::{Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "join_refuses_wrong_used_and_expired_tokens",
        setup: Setup::Engines(2),
        needs: &[],
        run: tokens,
    },
    Scenario {
        name: "join_refuses_a_clock_that_is_off_and_a_name_that_is_taken",
        setup: Setup::Engines(2),
        needs: &[],
        run: clock_and_name,
    },
    Scenario {
        name: "leave_and_join_again",
        setup: Setup::Engines(2),
        needs: &[],
        run: leave,
    },
    Scenario {
        name: "host_rm_fences_a_host_that_is_gone",
        setup: Setup::Engines(2),
        needs: &[],
        run: removed,
    },
];

/// A join is refused with a sentence that has the word, and neither side has changed.
fn refused(inviting: &Host, joining: &Host, invitation: &str, words: &[&str]) -> Result<()> {
    let said = joining.refused(&format!("drover join {invitation}"))?;
    let lower = said.to_lowercase();
    ensure!(
        words.iter().any(|word| lower.contains(word)),
        "the refusal has none of {words:?}: {said}"
    );
    let hosts = inviting.drover_json("status")?.to_string();
    ensure!(
        !hosts.contains("192.0.2.2"),
        "something is half joined: {hosts}"
    );
    let own = joining.run("drover status")?;
    ensure!(
        own.contains("embedded"),
        "the host that was refused has another store: {own}"
    );
    Ok(())
}

fn tokens(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair_mut()?;
    one.drover_up_as("DROVER_CLUSTER_TOKEN_LIFETIME=8s", "")?;
    two.drover_up("")?;
    let good = one.invite()?;
    // The last character of the token is another one.
    let token = good
        .split_whitespace()
        .skip_while(|word| *word != "--token")
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    let wrong = format!(
        "{}{last}",
        token
            .get(..token.len().saturating_sub(1))
            .unwrap_or_default()
    );
    refused(one, two, &good.replace(&token, &wrong), &["token"])?;
    refused(one, two, &good.replace(&token, "nonsense"), &["token"])?;
    refused(one, two, &good.replace(":4748", ":4999"), &["4999"])?;
    // It is expired once the store has forgotten it or its time is over.
    let expired = one.invite()?;
    let begun = std::time::Instant::now();
    wait::until("the token's end", wait::seconds(15), || {
        ensure!(begun.elapsed().as_secs() >= 9, "not yet");
        Ok(())
    })?;
    refused(one, two, &expired, &["expired", "ended"])?;
    let fresh = one.invite()?;
    two.join(&fresh)?;
    wait::until("the host has joined", wait::seconds(10), || {
        let hosts = one.run("drover status")?;
        ensure!(hosts.contains("host2"), "{hosts}");
        Ok(())
    })?;
    let third = lab.add_host(integration_tests::network::Site::Near)?;
    lab.host(third)?.drover_up("")?;
    let said = lab.hosts[third].refused(&format!("drover join {fresh}"))?;
    ensure!(
        said.to_lowercase().contains("used") || said.to_lowercase().contains("token"),
        "a used token: {said}"
    );
    ensure!(
        lab.hosts[third].run("drover status")?.contains("embedded"),
        "half joined"
    );
    lab.network_once_joined()
}

/// After refusals the cluster works.
trait Works {
    fn network_once_joined(&self) -> Result<()>;
}

impl Works for Lab {
    fn network_once_joined(&self) -> Result<()> {
        let (one, two) = self.pair()?;
        one.run(&format!("{} app", integration_tests::drover::CREATE))?;
        two.wait_for_network("app", 5)?;
        one.sleeper("ann", "--network app")?;
        two.sleeper("bob", "--network app")?;
        one.reaches("ann", &two.address_of("bob", "app")?, 2)
    }
}

fn clock_and_name(lab: &mut Lab) -> Result<()> {
    let (one, two) = lab.pair_mut()?;
    one.drover_up("")?;
    let invitation = one.invite()?;
    for shift in ["+2h", "-2h"] {
        two.drover_up_as(&format!("faketime -f {shift}"), "")?;
        refused(one, two, &invitation, &["clock"])?;
        two.drover_down()?;
    }
    two.drover_up("--host-name host1")?;
    refused(one, two, &invitation, &["host1"])?;
    two.drover_down()?;
    two.drover_up("")?;
    // A refusal for a reason of the host's does not use the token up.
    let joined = two.attempt(&format!("drover join {invitation}"))?;
    if joined.code != Some(0) {
        two.join(&one.invite()?)?;
    }
    lab.network_once_joined()
}

fn leave(lab: &mut Lab) -> Result<()> {
    lab.form_cluster()?;
    let (a, b) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.reaches("ann", &b, 0)?;
    let said = two.attempt("drover leave")?;
    if said.code != Some(0) {
        // It may ask to stop containers on shared networks first, and then says so.
        ensure!(said.clone().failed()?.contains("app"), "{said:?}");
        two.run("docker rm -f bob")?;
        two.run("drover leave")?;
    }
    two.run("docker ps -aq | xargs -r docker rm -f")?;
    wait::until("the others know", wait::seconds(10), || {
        let hosts = one.run("drover status")?;
        ensure!(!hosts.contains("host2"), "{hosts}");
        Ok(())
    })?;
    ensure!(
        two.run("drover status")?.contains("embedded"),
        "a host that has left is not on its own"
    );
    let left = two.drover_networks()?;
    ensure!(
        left.is_empty(),
        "copies are left on a host that has left: {left:?}"
    );
    two.join(&one.invite()?)?;
    two.wait_for_network("app", 5)?;
    two.sleeper("bob", "--network app")?;
    two.reaches("bob", &a, 2)?;
    lab.doctor_is_clean()
}

fn removed(lab: &mut Lab) -> Result<()> {
    lab.form_cluster()?;
    let (a, _) = lab.two_sleepers("app")?;
    lab.hosts[1].switch_off();
    let one = &lab.hosts[0];
    wait::until("the host is seen as gone", wait::seconds(30), || {
        let said = one.attempt("drover doctor")?.stdout;
        ensure!(
            said.contains("`host2` gives no sign of life"),
            "doctor says: {said}"
        );
        Ok(())
    })?;
    one.run("drover host rm host2")?;
    let hosts = one.run("drover status")?;
    ensure!(!hosts.contains("host2"), "{hosts}");
    let blocks = one.drover_json("ipam")?.to_string();
    ensure!(
        !blocks.contains("\"host2\""),
        "the removed host has blocks: {blocks}"
    );
    // It comes back, and must neither speak nor give out addresses of the cluster.
    lab.reboot(1)?;
    let two = &lab.hosts[1];
    wait::until(
        "the host says that it was removed",
        wait::seconds(30),
        || {
            let said = two.attempt("drover doctor")?;
            let said = format!("{}{}", said.stdout, said.stderr);
            ensure!(said.contains("removed"), "doctor says: {said}");
            Ok(())
        },
    )?;
    let said = two.refused("docker run --rm --network app lab true")?;
    ensure!(!said.is_empty(), "a removed host starts containers");
    lab.hosts[0].reaches("ann", &a, 0)
}
