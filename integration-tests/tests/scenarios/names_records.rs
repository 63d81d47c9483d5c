//! Every kind of record, as a resolver of the world sees it.

use anyhow::{Context, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "names_give_every_kind_of_record",
    setup: Setup::Cluster,
    needs: &[],
    run: kinds,
}];

/// The first digits of an id, which are a name.
const DIGITS: usize = 12;

fn kinds(lab: &mut Lab) -> Result<()> {
    lab.network("app", "--ipv6 --subnet fd77:7::/64")?;
    lab.network("four", "")?;
    let (one, two) = lab.pair()?;
    one.sleeper("ann", "--network app")?;
    one.run("docker network connect four ann")?;
    // The longest label, and the longest name: 253 letters are 255 bytes on the wire.
    let label = "l".repeat(63);
    let whole = [&*label, &label, &label, &label[..61]].join(".");
    two.sleeper(
        "web",
        &format!("--network app --network-alias {label} --network-alias {whole} --expose 8080 --expose 53/udp"),
    )?;
    two.sleeper("bob", "--network four")?;
    let web = two.address_of("web", "app")?;
    let field = "{{(index .NetworkSettings.Networks \"app\").GlobalIPv6Address}}";
    let web6 = two.inspect("web", field)?;
    let id = two.inspect("web", "{{.Id}}")?;
    let id = id.get(..DIGITS).context("a short id")?;
    one.is_told("ann", "web", &[&web], 5)?;
    let bob = two.address_of("bob", "four")?;
    one.is_told("ann", "bob", &[&bob], 5)?;

    for name in ["web", "web.app", id, &label, &whole] {
        for way in ["+notcp", "+tcp"] {
            is(one, &format!("+short {way} {name} A"), &web)?;
            is(one, &format!("+short {way} {name} AAAA"), &web6)?;
        }
    }
    is(one, &format!("+short -x {web}"), "web.app.")?;
    is(one, &format!("+short -x {web6}"), "web.app.")?;
    let target = format!("{id}.");
    for (question, port) in [
        ("_8080._tcp.web", 8080),
        ("_tcp.web.app", 8080),
        ("_53._udp.web", 53),
    ] {
        is(
            one,
            &format!("+short {question} SRV"),
            &format!("0 0 {port} {target}"),
        )?;
    }
    let beside = one.dig("ann", "+noall +additional _tcp.web SRV")?;
    ensure!(beside.contains(&web) && beside.contains(&web6), "{beside}");

    // No such record is not no such name, and an answer is as old as it says.
    let without = one.dig("ann", "bob AAAA")?;
    ensure!(
        without.contains("status: NOERROR") && without.contains("ANSWER: 0"),
        "{without}"
    );
    let unknown = one.dig("ann", "_81._tcp.web SRV")?;
    ensure!(unknown.contains("status: NXDOMAIN"), "{unknown}");
    let answer = one.dig("ann", "+noall +answer wEb A")?;
    let fields: Vec<&str> = answer.split_whitespace().collect();
    let [name, ttl, "IN", "A", address] = fields[..] else {
        anyhow::bail!("no such record: {answer}");
    };
    ensure!(
        name == "wEb." && address == web,
        "letter by letter: {answer}"
    );
    ensure!((1..=5).contains(&ttl.parse::<u32>()?), "{answer}");
    Ok(())
}

/// That `ann` is told this, and nothing else.
fn is(host: &Host, question: &str, expected: &str) -> Result<()> {
    let told = host.dig("ann", question)?;
    ensure!(told.trim() == expected, "{question}: {told}");
    Ok(())
}
