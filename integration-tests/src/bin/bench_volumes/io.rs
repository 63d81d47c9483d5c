//! What a volume costs whoever reads and writes on it: fio on a volume and on the btrfs beneath it, and the longest write while
//! snapshots are taken.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration_tests::host::Host;
use integration_tests::lab::IMAGE;
use integration_tests::measure::{Samples, Table, progress, say};
use serde_json::Value;

/// How often each is measured.
const ROUNDS: usize = 5;
/// What fio does: a name, its flags, and the figure of its answer.
const WORK: [(&str, &str, &str); 4] = [
    (
        "write 1M, MB/s",
        "--rw=write --bs=1M --end_fsync=1",
        "write/bw",
    ),
    (
        "read 1M, direct, MB/s",
        "--rw=read --bs=1M --direct=1",
        "read/bw",
    ),
    (
        "write 4k, random, /s",
        "--rw=randwrite --bs=4k --end_fsync=1",
        "write/iops",
    ),
    (
        "read 4k, random, direct, /s",
        "--rw=randread --bs=4k --direct=1",
        "read/iops",
    ),
];
/// How long the writer runs while snapshots are taken.
const STALL: Duration = Duration::from_secs(15);

/// Measures both and says what came of it.
pub(crate) fn measure(host: &Host) -> Result<()> {
    host.run("docker volume create -d drover-vol io")?;
    host.run(&format!(
        "docker run -d --name writer -v io:/data {IMAGE} sleep 3600"
    ))?;
    let volumes = host.root()?.join("var/lib/drover/volumes");
    let (volume, beneath) = (volumes.join("mounts/io"), volumes.join("btrfs/beneath"));
    std::fs::create_dir_all(&beneath)?;
    throughput(&volume, &beneath)?;
    stalls(host, &volume)?;
    std::fs::remove_dir_all(&beneath)?;
    host.run("docker rm -f writer").map(drop)
}

fn throughput(volume: &Path, beneath: &Path) -> Result<()> {
    let mut table = Table::new(&[
        "fio",
        "volume p50",
        "beneath p50",
        "ratio p50",
        "least",
        "greatest",
    ]);
    for (what, flags, figure) in WORK {
        progress(what);
        let (mut on, mut under) = (Samples::default(), Samples::default());
        for round in 0..ROUNDS {
            let mut both = [(&mut on, volume), (&mut under, beneath)];
            if round % 2 == 1 {
                both.reverse();
            }
            for (samples, place) in both {
                let answer = fio(place, &format!("{flags} --size=256M --loops=1"))?;
                samples.push(number(&answer, figure)?);
            }
        }
        let scale = if figure.ends_with("bw") { 1024.0 } else { 1.0 };
        let ratio = on.over(&under);
        table.row(&[
            what.to_owned(),
            format!("{:.0}", on.median() / scale),
            format!("{:.0}", under.median() / scale),
            format!("{:.3}", ratio.median()),
            format!("{:.3}", ratio.quantile(0)),
            format!("{:.3}", ratio.quantile(100)),
        ]);
    }
    say(&table.text());
    Ok(())
}

/// The longest of many small writes, without snapshots and while one is taken each second.
fn stalls(host: &Host, volume: &Path) -> Result<()> {
    let mut table = Table::new(&[
        "writes of 16k, 20 MB/s",
        "p99 ms",
        "longest ms",
        "snapshots",
    ]);
    for takes in [false, true] {
        progress(if takes {
            "writes while snapshots are taken"
        } else {
            "writes"
        });
        let flags = format!(
            "--rw=randwrite --bs=16k --rate=20M --size=256M --time_based --runtime={}",
            STALL.as_secs()
        );
        let place = PathBuf::from(volume);
        let writer = std::thread::spawn(move || fio(&place, &flags));
        let (begun, mut count) = (Instant::now(), 0);
        while takes && begun.elapsed() + Duration::from_secs(2) < STALL {
            std::thread::sleep(Duration::from_secs(1));
            host.run(&format!("drover volume snapshot create io@stall-{count}"))?;
            count += 1;
        }
        let answer = writer.join().ok().context("fio's thread")??;
        let longest = number(&answer, "write/clat_ns/max")? / 1e6;
        let p99 = number(&answer, "write/clat_ns/percentile/99.000000")? / 1e6;
        let what = if takes { "with snapshots" } else { "without" };
        table.row(&[
            what.to_owned(),
            format!("{p99:.2}"),
            format!("{longest:.1}"),
            count.to_string(),
        ]);
    }
    say(&table.text());
    Ok(())
}

/// What fio tells of one job.
fn fio(place: &Path, flags: &str) -> Result<Value> {
    let mut command = Command::new("fio");
    command
        .args(["--name=job", "--ioengine=psync", "--output-format=json"])
        .arg(format!("--directory={}", place.display()))
        .args(flags.split_whitespace());
    let done = command
        .output()
        .context("fio, Debian's package, is needed")?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "fio {flags}: {text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let from = text.find('{').context("fio tells nothing")?;
    let answer: Value = serde_json::from_str(text.get(from..).unwrap_or_default())?;
    let job = answer.pointer("/jobs/0").cloned();
    job.context("fio tells of no job")
}

fn number(answer: &Value, path: &str) -> Result<f64> {
    let found = answer.pointer(&format!("/{path}"));
    found
        .and_then(Value::as_f64)
        .with_context(|| format!("fio tells no {path}"))
}
