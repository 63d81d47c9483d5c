//! Bad input to the name service: refused or bounded, counted, and nobody else disturbed.

use anyhow::{Result, ensure};
use integration_tests::lab::Lab;
use integration_tests::scenario::{Scenario, Setup};
use integration_tests::wait;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "names_are_told_beside_a_container_that_floods_and_sends_rubbish",
        setup: Setup::Cluster,
        needs: &[],
        run: rubbish,
    },
    Scenario {
        name: "names_that_are_none_or_somebody_elses_are_refused",
        setup: Setup::Cluster,
        needs: &[],
        run: claims,
    },
];

/// Run in the network of a container, with the host's Perl: what no program sends, and too much of what each does.
const RUBBISH: &str = r#"
use strict; use Socket; use IO::Socket::INET;
my $name = "\3bob\0\0\1\0\1";
my @odd = ("", "\0" x 11, "\0\1\1\0\0\0\0\0\0\0\0\0", "\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
    "\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0e\xc0\x0c\0\1\0\1", "\0\1\1\0\xff\xff\xff\xff\xff\xff\xff\xff$name",
    "\0\1\1\0\0\1\0\0\0\0\0\0" . "\1a" x 300, "\0\1\x80\0\0\1\0\0\0\0\0\0$name", "\xff" x 4000, "\xff" x 60000);
my $udp = IO::Socket::INET->new(PeerAddr => "127.0.0.11", PeerPort => 53, Proto => "udp") or die "udp: $!";
for (1 .. 20) { for my $packet (@odd) { send($udp, $packet, 0); } }
my $query = "\0\7\1\0\0\1\0\0\0\0\0\0$name";
my $tcp = IO::Socket::INET->new(PeerAddr => "127.0.0.11", PeerPort => 53) or die "tcp: $!";
my $long = $query . ("\0" x (65535 - length $query));
syswrite($tcp, pack("n", length $long) . $long); sysread($tcp, my $answer, 2) == 2 or die "64 KiB are not answered";
my @open;
for (1 .. 1000) {
    my $more = IO::Socket::INET->new(PeerAddr => "127.0.0.11", PeerPort => 53, Timeout => 5);
    push @open, $more if $more;
}
my $end = time + 6;
my $unknown = "\0\7\1\0\0\1\0\0\0\0\0\0\4long\7example\3com\0\0\1\0\1";
while (time < $end) { for (1 .. 200) { send($udp, $query, 0); send($udp, $unknown, 0); } }
print "sent\n";
"#;

fn rubbish(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    one.sleeper("loud", "--network app")?;
    one.run("docker network create plain; docker network connect plain ann")?;
    one.sleeper("cid", "--network plain")?;
    let cid = one.address_of("cid", "plain")?;
    one.is_told("ann", "bob", &[&bob], 5)?;
    one.is_told("loud", "bob", &[&bob], 5)?;
    let before = (
        one.processes("drover-names")?,
        one.name_counters(Some("ann"))?,
    );
    one.run(&format!("cat > /tmp/rubbish.pl <<'EOF'\n{RUBBISH}\nEOF"))?;
    let said = std::thread::scope(|scope| -> Result<String> {
        let loud = scope.spawn(|| one.beside("loud", "perl /tmp/rubbish.pl")?.succeeded());
        while !loud.is_finished() {
            one.is_told("ann", "bob", &[&bob], 0)?;
            one.is_told("ann", "cid", &[&cid], 0)?;
            two.is_told("bob", "ann", &[&ann], 0)?;
        }
        loud.join()
            .map_err(|_panic| anyhow::anyhow!("it panicked"))?
    })?;
    ensure!(said.ends_with("sent"), "{said}");
    let counters = one.name_counters(Some("loud"))?;
    let count = |field: &str| counters[field].as_u64().unwrap_or(0);
    ensure!(count("malformed") > 50, "{counters}");
    ensure!(count("over_limit") >= 900, "{counters}");
    let quiet = one.name_counters(Some("ann"))?;
    ensure!(quiet["over_limit"] == before.1["over_limit"], "{quiet}");
    ensure!(one.processes("drover-names")? == before.0, "it has crashed");
    one.is_told("loud", "bob", &[&bob], 15)?;
    lab.report(&format!("of one that floods: {counters}"));
    Ok(())
}

/// A label or an alias takes nobody's name away, and what is no name is not given.
fn claims(lab: &mut Lab) -> Result<()> {
    let (ann, bob) = lab.two_sleepers("app")?;
    let (one, two) = lab.pair()?;
    let compose = "--label com.docker.compose.project=shop --label com.docker.compose.service=ann";
    one.sleeper("thief", &format!("--network app {compose} --network-alias bob --network-alias 'two words' --network-alias bob.app --network-alias 'a..b'"))?;
    let thief = one.address_of("thief", "app")?;
    two.is_told("bob", "thief", &[&thief], 5)?;
    wait::throughout("nothing is stolen", wait::seconds(2), || {
        for (host, asker) in [(one, "ann"), (two, "bob"), (one, "thief")] {
            host.is_told(asker, "ann", &[&ann], 0)?;
            host.is_told(asker, "bob.app", &[&bob], 0)?;
        }
        one.is_told("ann", "bob", &[&bob], 0)?;
        Ok(())
    })?;
    let report = one.drover_json("dns metrics")?;
    let refused = report["refused"].to_string();
    for name in ["two words", "a..b", "ann", "bob"] {
        ensure!(
            refused.contains(&format!("\"{name}\"")),
            "{name} is not told as refused: {refused}"
        );
    }
    Ok(())
}
