//! What a volume costs whoever reads and writes on it: fio on a volume and on the btrfs that it lies on, and the longest write
//! while snapshots are taken.
//!
//! `cargo run --release -p integration-tests --bin bench_volume_io [-- --engine 28.5 --rounds 7 --seconds 3]`, as root, after
//! `cargo build --release --workspace --bins` and `integration-tests/make-root sid`. It needs `fio` (Debian's package).
//!
//! The volume is mounted as containers have it, and one has it. What it is compared with is a plain directory of the same btrfs, in the
//! same loop file, by the same mount options, and that with another such directory: what two equal places differ by is chance. Each
//! round measures all three, each first in turn; every write is to a new file, of which nothing was allocated before, and what
//! is read is not in the cache. A run is over after `--seconds`, or with its file.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::fio::{answer, fio, number, start};
use integration_tests::host::Host;
use integration_tests::interrupt;
use integration_tests::lab::{IMAGE, Lab};
use integration_tests::measure::{Request, Samples, Table, progress, say};
use serde_json::Value;

/// What fio does: a name, its flags, and the figure of its answer.
const WORK: [(&str, &str, &str); 6] = [
    (
        "write 1M, MB/s",
        "--rw=write --bs=1M --end_fsync=1 --unlink=1",
        "write/bw",
    ),
    (
        "write 1M, direct, MB/s",
        "--rw=write --bs=1M --direct=1 --unlink=1",
        "write/bw",
    ),
    (
        "read 1M, direct, MB/s",
        "--rw=read --bs=1M --direct=1 --filename=read --unlink=1",
        "read/bw",
    ),
    (
        "write 4k, random, direct, /s",
        "--rw=randwrite --bs=4k --direct=1 --unlink=1",
        "write/iops",
    ),
    (
        "write 4k, random, each on the disk, /s",
        "--rw=randwrite --bs=4k --fdatasync=1 --unlink=1",
        "write/iops",
    ),
    (
        "read 4k, random, direct, /s",
        "--rw=randread --bs=4k --direct=1 --filename=read --unlink=1",
        "read/iops",
    ),
];
/// How long the writer runs while snapshots are taken, seconds.
const STALL: u64 = 10;
/// How often that is measured.
const STALLS: usize = 3;
/// Who writes while snapshots are taken: a name, fio's flags, and where fio tells the times of what is waited for.
const WRITERS: [(&str, &str, &str); 2] = [
    (
        "16k, 20 MB/s",
        "--rw=randwrite --bs=16k --rate=20M",
        "write/clat_ns",
    ),
    (
        "16k, each on the disk",
        "--rw=randwrite --bs=16k --fdatasync=1",
        "sync/lat_ns",
    ),
];

fn main() -> Result<()> {
    let request = Request::parse(7, 3)?;
    interrupt::handle()?;
    let version = Command::new("fio").arg("--version").output();
    version.context("fio is needed: install Debian's package `fio`")?;
    say(&request.machine()?);
    let mut lab = Lab::start(request.release, 1)?;
    let host = lab.host(0)?;
    host.drover_up("")?;
    host.run("docker volume create -d drover-vol io")?;
    host.run(&format!(
        "docker run -d --name user --network none -v io:/data {IMAGE} sleep 3600"
    ))?;
    let volumes = host.root()?.join("var/lib/drover/volumes");
    let volume = volumes.join("mounts/io");
    let [beneath, beside] = ["beneath", "beside"].map(|name| volumes.join("btrfs").join(name));
    for plain in [&beneath, &beside] {
        std::fs::create_dir(plain)?;
    }
    throughput(request, [&volume, &beneath, &beside])?;
    stalls(host, &volume)
}

/// The places are the volume, what it is compared with, and another like that.
fn throughput(request: Request, places: [&Path; 3]) -> Result<()> {
    let mut table = Table::new(&[
        "fio",
        "volume p50",
        "beneath p50",
        "ratio p50",
        "least",
        "greatest",
        "of two beneath p50",
        "least",
        "greatest",
    ]);
    for (what, flags, figure) in WORK {
        let mut measured = places.map(|place| (place, Samples::default()));
        for round in 0..request.rounds {
            progress(&format!(
                "{what}: round {} of {}",
                round + 1,
                request.rounds
            ));
            let (earlier, later) = measured.split_at_mut(round % places.len());
            for (place, samples) in later.iter_mut().chain(earlier) {
                if figure.starts_with("read") {
                    // Anew each time: where on the disk it lies is chance.
                    fio(
                        place,
                        "--rw=write --bs=1M --end_fsync=1 --size=256M --filename=read",
                    )?;
                }
                let flags = format!("{flags} --size=256M --runtime={}", request.seconds);
                samples.push(number(&fio(place, &flags)?, figure)?);
            }
        }
        let scale = if figure.ends_with("bw") { 1024.0 } else { 1.0 };
        let [volume, beneath, beside] = measured.map(|(_, samples)| samples);
        let mut row = vec![
            what.to_owned(),
            format!("{:.0}", volume.median() / scale),
            format!("{:.0}", beneath.median() / scale),
        ];
        for ratio in [volume.over(&beneath), beside.over(&beneath)] {
            let figures = [ratio.median(), ratio.quantile(0), ratio.quantile(100)];
            row.extend(figures.map(|figure| format!("{figure:.3}")));
        }
        table.row(&row);
    }
    say(&table.text());
    Ok(())
}

/// How long the writes of one kind took.
#[derive(Default)]
struct Waits {
    p99: Samples,
    longest: Samples,
    snapshots: usize,
}

/// The longest write, without snapshots and while one is taken each second.
fn stalls(host: &Host, volume: &Path) -> Result<()> {
    let mut table = Table::new(&[
        "writes",
        "snapshots",
        "p99 ms, p50",
        "longest ms, p50",
        "longest of all",
    ]);
    for (what, flags, path) in WRITERS {
        let mut kinds = [(false, Waits::default()), (true, Waits::default())];
        for round in 0..STALLS {
            progress(&format!("{what}: round {} of {STALLS}", round + 1));
            for (takes, waits) in &mut kinds {
                let answer = write_on(host, volume, flags, takes.then_some(&mut waits.snapshots))?;
                let at = |part: &str| number(&answer, &format!("{path}/{part}"));
                waits.p99.push(at("percentile/99.000000")? / 1e6);
                waits.longest.push(at("max")? / 1e6);
            }
            // Alternately first.
            kinds.reverse();
        }
        kinds.sort_by_key(|(takes, _)| *takes);
        for (takes, waits) in &kinds {
            ensure!(
                !takes || waits.snapshots > STALLS,
                "hardly a snapshot was taken"
            );
            table.row(&[
                what.to_owned(),
                waits.snapshots.to_string(),
                format!("{:.2}", waits.p99.median()),
                format!("{:.1}", waits.longest.median()),
                format!("{:.1}", waits.longest.quantile(100)),
            ]);
        }
    }
    say(&table.text());
    Ok(())
}

/// Writes for a while; with `taken`, while a snapshot is taken each second. They are removed when the writing has ended.
fn write_on(host: &Host, volume: &Path, flags: &str, taken: Option<&mut usize>) -> Result<Value> {
    let flags = format!("{flags} --size=256M --unlink=1 --time_based --runtime={STALL}");
    let (writer, began) = (start(volume, &flags)?, Instant::now());
    let mut names = Vec::new();
    while taken.is_some() && began.elapsed() + Duration::from_secs(2) < Duration::from_secs(STALL) {
        std::thread::sleep(Duration::from_secs(1));
        let name = format!("io@stall-{}", names.len());
        host.run(&format!("drover volume snapshot create {name}"))?;
        names.push(name);
    }
    let answer = answer(writer, &flags)?;
    for name in &names {
        host.run(&format!("drover volume snapshot rm {name}"))?;
    }
    if let Some(taken) = taken {
        *taken += names.len();
    }
    Ok(answer)
}
