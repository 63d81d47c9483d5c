//! Volumes of drover-vol beside Docker's own (`local`), with 1,000 of each: creation, `docker volume ls`, `docker volume inspect`;
//! a container with one, one of Docker's own, and none; and snapshots, clones and removals, which Docker's own do not have or do not
//! say.
//!
//! `cargo run --release -p integration-tests --bin bench_volumes [-- --engine 28.5 --rounds 20]`, as root, after
//! `cargo build --release --workspace --bins` and `integration-tests/make-root sid`.
//!
//! Every time is that of a command on a host, from its start to its end, the program's own start included: that is 10 to
//! 20 ms of each, so ratios are nearer to one than what the plugin takes. The two kinds are measured in turn, and the
//! ratio is of medians. The backend is btrfs in a loop file.

use anyhow::{Context, Result, ensure};
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::measure::{Request, Samples, Table, progress, say};

/// How many volumes of each kind there are.
const VOLUMES: usize = 1000;
/// The drivers, and what their volumes are called.
const KINDS: [(&str, &str); 2] = [("drover-vol", "ours"), ("local", "theirs")];
/// How many volumes are made by one command of the lab.
const BATCH: usize = 50;

fn main() -> Result<()> {
    let request = Request::parse(20, 0)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 1)?;
    let host = lab.host(0)?;
    host.drover_up("")?;
    let mut table = Table::new(&["ms", "drover-vol p50", "p99", "local p50", "p99", "ratio"]);
    compare(
        &mut table,
        "ls of none",
        request.rounds,
        |_, _| "docker volume ls -q".to_owned(),
        host,
    )?;
    let created = created(host)?;
    both(&mut table, "create", &created);
    listed(host, request.rounds, &mut table)?;
    compare(
        &mut table,
        "inspect one",
        request.rounds,
        |name, round| format!("docker volume inspect {name}-{round}"),
        host,
    )?;
    let run = run(host, request.rounds)?;
    for (what, command) in [
        ("snapshot", "drover volume snapshot create ours-N@s"),
        (
            "clone",
            "docker volume create -d drover-vol -o from=ours-N@s clone-N",
        ),
        ("remove a clone", "docker volume rm clone-N"),
    ] {
        progress(what);
        let commands = (0..100).map(|number| command.replace('N', &number.to_string()));
        let took = timed(host, &commands.collect::<Vec<_>>())?;
        let took: Samples = took.into_iter().collect();
        table.row(&[
            what.to_owned(),
            figure(took.median()),
            figure(took.quantile(99)),
        ]);
    }
    say(&table.text());
    say(&run);
    Ok(())
}

/// What a volume adds to a `docker run`, from its start to its end: one of each kind and none, in turn.
fn run(host: &Host, rounds: usize) -> Result<String> {
    progress("run");
    let kinds = KINDS.map(|(driver, name)| (driver, Some(name)));
    let mut kinds = [("none", None), kinds[0], kinds[1]].map(|it| (it, Samples::default()));
    for round in 0..rounds {
        for ((_, name), samples) in &mut kinds {
            let volume = name.map(|name| format!("-v {name}-{round}:/data"));
            let volume = volume.unwrap_or_default();
            let command = format!("docker run --rm --network none {volume} {IMAGE} true");
            let took = timed(host, &[command])?;
            took.into_iter().for_each(|it| samples.push(it));
        }
        // Whoever was first is the last: what is in the wake of one is not always of the same.
        kinds.rotate_left(1);
    }
    kinds.sort_by_key(|((_, name), _)| *name);
    let [(_, without), ..] = &kinds;
    let mut table = Table::new(&[
        "docker run with",
        "p50 ms",
        "p99 ms",
        "added p50",
        "added p99",
    ]);
    for ((driver, _), samples) in &kinds {
        let added = samples.beyond(without);
        table.row(&[
            (*driver).to_owned(),
            figure(samples.median()),
            figure(samples.quantile(99)),
            figure(added.median()),
            figure(added.quantile(99)),
        ]);
    }
    Ok(table.text())
}

fn figure(milliseconds: f64) -> String {
    format!("{milliseconds:.1}")
}

fn both(table: &mut Table, what: &str, [ours, theirs]: &[Samples; 2]) {
    table.row(&[
        what.to_owned(),
        figure(ours.median()),
        figure(ours.quantile(99)),
        figure(theirs.median()),
        figure(theirs.quantile(99)),
        format!("{:.2}", ours.median() / theirs.median()),
    ]);
}

/// How long each of some commands takes, milliseconds.
fn timed(host: &Host, commands: &[String]) -> Result<Vec<f64>> {
    let mut script = String::from("set -e\n");
    for command in commands {
        script.push_str(&format!(
            "a=$(date +%s%N); {command} > /dev/null; echo $(($(date +%s%N) - a))\n"
        ));
    }
    let said = host.run(&script)?;
    let took = said
        .lines()
        .map(|line| line.parse::<f64>().map(|it| it / 1e6));
    let took: Vec<f64> = took
        .collect::<Result<_, _>>()
        .with_context(|| format!("times: {said}"))?;
    ensure!(took.len() == commands.len(), "some commands told no time");
    Ok(took)
}

/// Measures a command for each kind in turn.
fn compare(
    table: &mut Table,
    what: &str,
    rounds: usize,
    command: impl Fn(&str, usize) -> String,
    host: &Host,
) -> Result<()> {
    progress(what);
    let mut samples = [Samples::default(), Samples::default()];
    for round in 0..rounds {
        for (samples, (_, name)) in samples.iter_mut().zip(KINDS) {
            let took = timed(host, &[command(name, round)])?;
            took.into_iter().for_each(|it| samples.push(it));
        }
    }
    both(table, what, &samples);
    Ok(())
}

/// Makes the volumes of both kinds, some of each in turn.
fn created(host: &Host) -> Result<[Samples; 2]> {
    let mut samples = [Samples::default(), Samples::default()];
    for first in (0..VOLUMES).step_by(BATCH) {
        progress(&format!("creating {first} of {VOLUMES}"));
        for (samples, (driver, name)) in samples.iter_mut().zip(KINDS) {
            let numbers = first..first + BATCH;
            let commands =
                numbers.map(|number| format!("docker volume create -d {driver} {name}-{number}"));
            let took = timed(host, &commands.collect::<Vec<_>>())?;
            took.into_iter().for_each(|it| samples.push(it));
        }
    }
    Ok(samples)
}

/// `docker volume ls` asks every plugin whatever it is to show; what Docker's own take is seen while ours do not answer a question,
/// so the plugin's part is the difference of two: all of them, and those of one driver.
fn listed(host: &Host, rounds: usize, table: &mut Table) -> Result<()> {
    for (what, filter) in [
        ("ls of 2000", ""),
        ("ls of 1000, one driver", "--filter driver="),
    ] {
        compare(
            table,
            what,
            rounds,
            |name, _| {
                let driver = KINDS
                    .iter()
                    .find(|(_, it)| *it == name)
                    .map_or("", |it| it.0);
                let filter = if filter.is_empty() {
                    String::new()
                } else {
                    format!("{filter}{driver}")
                };
                format!("docker volume ls -q {filter}")
            },
            host,
        )?;
    }
    Ok(())
}
