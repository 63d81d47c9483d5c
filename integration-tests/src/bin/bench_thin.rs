//! What volumes in a thin pool cost: made, snapshotted, cloned and removed by the backend, and by forking `lvm` and
//! `mkfs` for the same. In turn, in one run, on a loop file in a folder of the run's own.
//!
//!     integration-tests/uml/run --bench bench_thin [ROUNDS]
//!
//! It needs root, device-mapper, LVM, and the program `drover-lvm` in `DROVER_BIN` or beside it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drover_model::{SnapshotId, VolumeId};
use drover_storage::{Backend, Object, Shape, SnapshotRef, Thin, ThinPlace};

const SIZE: &str = "64M";

/// What was measured of one thing: ours, and with forks.
#[derive(Default)]
struct Times {
    ours: Vec<Duration>,
    forked: Vec<Duration>,
}

fn volume(number: usize) -> Result<VolumeId> {
    Ok(format!("{number:016x}").parse()?)
}

fn fork(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    if !Path::new("/run/udev/control").exists() {
        // As the backend does: else nobody makes the nodes of devices.
        command.env("DM_DISABLE_UDEV", "1");
    }
    let output = command.args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {said}");
    Ok(())
}

/// Measures something.
fn timed(into: &mut Vec<Duration>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    work()?;
    into.push(began.elapsed());
    Ok(())
}

/// The value below which that share of them is, in milliseconds.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
    sorted
        .get(index)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

fn drover_lvm() -> Result<PathBuf> {
    let folder = std::env::var_os("DROVER_BIN").map(PathBuf::from);
    let own = std::env::current_exe()?;
    let beside = own.parent().map(PathBuf::from);
    Ok(folder.or(beside).context("no folder")?.join("drover-lvm"))
}

fn round(
    number: usize,
    (thin, group): (&Thin, &str),
    [create, snapshot, clone, remove]: &mut [Times; 4],
) -> Result<()> {
    let shape = Shape {
        size: Some(SIZE.parse()?),
        ..Shape::default()
    };
    let (one, two) = (volume(number * 2)?, volume(number * 2 + 1)?);
    let taken = SnapshotRef {
        volume: one.clone(),
        snapshot: format!("{number:016x}").parse::<SnapshotId>()?,
    };
    timed(&mut create.ours, || Ok(thin.create(&one, &shape)?))?;
    timed(&mut snapshot.ours, || {
        Ok(thin.snapshot(std::slice::from_ref(&taken))?)
    })?;
    let source = Object::from(taken.clone());
    timed(&mut clone.ours, || {
        Ok(thin.clone_object(&two, &source, &Shape::default())?)
    })?;
    timed(&mut remove.ours, || Ok(thin.remove(&source)?))?;

    let name = |kind: &str| format!("{kind}{number}");
    let path = |kind: &str| format!("{group}/{kind}{number}");
    timed(&mut create.forked, || {
        let pool = format!("{group}/drover");
        fork(
            "lvcreate",
            &[
                "-qq",
                "-V",
                SIZE,
                "--thinpool",
                &pool,
                "-n",
                &name("v"),
                "-Wn",
            ],
        )?;
        fork(
            "mkfs.ext4",
            &[
                "-q",
                "-F",
                &format!("/dev/mapper/{}-v{number}", group.replace('-', "--")),
            ],
        )
    })?;
    timed(&mut snapshot.forked, || {
        fork(
            "lvcreate",
            &["-qq", "--type", "thin", "-n", &name("s"), &path("v")],
        )
    })?;
    timed(&mut clone.forked, || {
        fork(
            "lvcreate",
            &["-qq", "--type", "thin", "-n", &name("c"), &path("s")],
        )
    })?;
    timed(&mut remove.forked, || {
        fork("lvremove", &["-qq", "-f", &path("s")])
    })
}

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the number of rounds")?,
        None => 20,
    };
    let folder = tempfile::tempdir()?;
    let place = ThinPlace::LoopFile {
        file: folder.path().join("thin.img"),
        size: Some("1G".parse()?),
    };
    let thin = Thin::open(place, &drover_lvm()?, &folder.path().join("thin"))?;
    let described = thin.pool()?.place;
    let (group, _) = described.split_once('/').context("no volume group")?;
    let mut times: [Times; 4] = Default::default();
    for number in 0..rounds {
        round(number, (&thin, group), &mut times)?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{rounds} rounds, ms: p50 / p99, ours and with forks; ratio of the medians"
    )?;
    for (name, times) in ["create", "snapshot", "clone", "remove"].iter().zip(&times) {
        let [ours, forked] =
            [&times.ours, &times.forked].map(|it| (percentile(it, 50), percentile(it, 99)));
        writeln!(
            out,
            "{name:<9} {:>7.1} / {:>7.1}   {:>7.1} / {:>7.1}   {:.2}",
            ours.0,
            ours.1,
            forked.0,
            forked.1,
            ours.0 / forked.0
        )?;
    }
    thin.close(true)?;
    Ok(())
}
