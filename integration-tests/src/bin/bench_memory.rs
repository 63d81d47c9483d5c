//! Memory of each process at rest: on a host alone, and on both hosts of a cluster.
//!
//! `cargo run --release -p integration-tests --bin bench_memory [-- --engine 28.5 --rounds 5]`, as root, after
//! `cargo build --release -p drover -p drover-coordinator -p drover-ipam -p drover-net -p drover-name-service -p drover-vol` and
//! `integration-tests/make-root sid`.
//!
//! A host alone has the embedded store; a cluster has etcd, which is counted apart. Each has a network with a
//! container, and nothing happens on it. RSS counts a page of a shared library for every process that maps it, PSS
//! shares it out among them. Aim: all of Drover's processes together take less than 60 MB.

use anyhow::{Context, Result, ensure};
use integration_tests::drover::PLUGINS;
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::Lab;
use integration_tests::measure::{Request, Samples, Table, progress, say};
use integration_tests::wait;

fn main() -> Result<()> {
    let request = Request::parse(5, 0)?;
    interrupt::handle()?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 2)?;
    let mut table = Table::new(&["host", "process", "RSS MB", "PSS MB"]);

    lab.host(0)?.drover_up("")?;
    lab.host(0)?
        .run(&format!("{} app", integration_tests::drover::CREATE))?;
    lab.host(0)?.sleeper("ann", "--network app")?;
    measure(lab.host(0)?, "alone", false, request.rounds, &mut table)?;

    lab.host(1)?.drover_up("")?;
    let invitation = lab.host(0)?.invite()?;
    lab.host(1)?.join(&invitation)?;
    lab.host(1)?.wait_for_network("app", 10)?;
    lab.host(1)?.sleeper("bob", "--network app")?;
    for (place, name) in ["first of two", "second of two"].into_iter().enumerate() {
        measure(lab.host(place)?, name, true, request.rounds, &mut table)?;
    }
    say(&table.text());
    Ok(())
}

/// Adds a host's processes and their sum to the table.
fn measure(host: &Host, name: &str, cluster: bool, rounds: usize, table: &mut Table) -> Result<()> {
    progress(&format!("waiting for rest: {name}"));
    at_rest(host)?;
    let mut sum = (0.0, 0.0);
    for program in PLUGINS.into_iter().chain(["drover"]) {
        let (resident, proportional) = memory(host, program, rounds)?
            .with_context(|| format!("{} runs no {program}", host.name))?;
        sum = (sum.0 + resident, sum.1 + proportional);
        table.row(&[
            name.to_owned(),
            program.to_owned(),
            format!("{resident:.1}"),
            format!("{proportional:.1}"),
        ]);
    }
    table.row(&[
        name.to_owned(),
        "all of Drover".to_owned(),
        format!("{:.1}", sum.0),
        format!("{:.1}", sum.1),
    ]);
    if let (true, Some((resident, proportional))) = (cluster, memory(host, "etcd", rounds)?) {
        table.row(&[
            name.to_owned(),
            "etcd".to_owned(),
            format!("{resident:.1}"),
            format!("{proportional:.1}"),
        ]);
    }
    Ok(())
}

/// Waits until Drover's processes have used next to no processor time for two seconds.
fn at_rest(host: &Host) -> Result<()> {
    let spent = || -> Result<u64> {
        let mut ticks = 0;
        for program in PLUGINS {
            for pid in host.processes(program)? {
                let fields = host.run(&format!("cut -d' ' -f14,15 /proc/{pid}/stat"))?;
                ticks += fields
                    .split_whitespace()
                    .filter_map(|field| field.parse::<u64>().ok())
                    .sum::<u64>();
            }
        }
        Ok(ticks)
    };
    wait::until("rest", wait::seconds(60), || {
        let before = spent()?;
        wait::throughout("rest", wait::seconds(2), || {
            let more = spent()?.saturating_sub(before);
            ensure!(more <= 5, "{more} ticks in two seconds");
            Ok(())
        })
    })?;
    Ok(())
}

/// RSS and PSS of all processes of a program, in megabytes; `None` when there is none.
fn memory(host: &Host, program: &str, rounds: usize) -> Result<Option<(f64, f64)>> {
    let pids = host.processes(program)?;
    if pids.is_empty() {
        return Ok(None);
    }
    let (mut resident, mut proportional) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let mut sum = (0.0, 0.0);
        for pid in &pids {
            let text = host.run(&format!("cat /proc/{pid}/smaps_rollup"))?;
            sum.0 += field(&text, "Rss:")?;
            sum.1 += field(&text, "Pss:")?;
        }
        resident.push(sum.0);
        proportional.push(sum.1);
    }
    Ok(Some((resident.median(), proportional.median())))
}

fn field(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: f64 = number
        .with_context(|| format!("no {name} in: {text}"))?
        .parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
