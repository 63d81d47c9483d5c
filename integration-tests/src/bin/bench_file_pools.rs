//! The two backends that lie in a file, beside each other: a thin pool of LVM and a btrfs, each in a file on one ext4. `fio` on a
//! volume, snapshots, clones, what a backup has to read when 1 % has changed, what a volume takes of memory and of the pool, and
//! what becomes of a pool that is full, or whose disk is.
//!
//!     integration-tests/uml/run --bench bench_file_pools [ROUNDS]
//!
//! It needs root, device-mapper, btrfs, LVM, `fio`, and the program `drover-lvm` in `DROVER_BIN` or beside it. The ext4 lies in memory:
//! figures are what the processor does, not a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use drover_model::{SnapshotId, VolumeId};
use drover_storage::{
    Access, Backend, Btrfs, LoopPool, Object, Shape, SnapshotRef, Thin, ThinPlace,
};
use integration_tests::fio::{answer, fio, number, start};
use integration_tests::measure::{Samples, Table, progress, say};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// How large each pool is, and the disk that both lie on.
const POOL: &str = "800M";
const DISK: u64 = 1900 << 20;
const VOLUME: &str = "300M";
/// A volume that has more room than its pool has left; a thin pool takes something for itself.
const LARGE: &str = "760M";
/// The file that 1 % of is changed, bytes.
const ROWS: u64 = 96 << 20;
/// How many volumes there are at a time when what they take is measured.
const MANY: usize = 16;
/// What fio does: a name, its flags, and the figure of its answer.
const WORK: [(&str, &str, &str); 4] = [
    (
        "write 1M, until on the disk, MB/s",
        "--rw=write --bs=1M --end_fsync=1 --unlink=1",
        "write/bw",
    ),
    (
        "write 4k, random, each on the disk, /s",
        "--rw=randwrite --bs=4k --fdatasync=1 --unlink=1",
        "write/iops",
    ),
    (
        "the same, over what a snapshot keeps, /s",
        "--rw=randwrite --bs=4k --fdatasync=1 --filename=kept",
        "write/iops",
    ),
    (
        "read 4k, random, direct, /s",
        "--rw=randread --bs=4k --direct=1 --filename=kept",
        "read/iops",
    ),
];

/// A pool, a volume of it that is mounted, and what was measured.
struct Candidate {
    name: &'static str,
    backend: Box<dyn Backend>,
    at: PathBuf,
    file: PathBuf,
    work: Vec<Samples>,
    steps: Vec<Samples>,
    stall: Samples,
    read: Samples,
    finding: Samples,
    facts: Vec<String>,
}

const STEPS: [&str; 4] = ["create, ms", "snapshot, ms", "clone, ms", "remove, ms"];

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the number of rounds")?,
        None => 5,
    };
    unshare(CloneFlags::CLONE_NEWNS).context("this needs root")?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none)?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    make_disk(folder.path(), &disk)?;
    let mut all = [thin(&disk)?, btrfs(&disk)?];
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        for it in &mut all {
            it.round(round)?;
        }
        all.reverse();
    }
    all.sort_by_key(|it| it.name);
    for it in &mut all {
        progress(&format!("{}: what volumes take", it.name));
        it.many()?;
        it.full_pool()?;
        it.end()?;
        // Another, of which nothing was allocated before.
        let fresh = disk.join(format!("fresh-{}", it.name));
        fs::create_dir(&fresh)?;
        let fresh = if it.name == "thin" {
            thin(&fresh)?
        } else {
            btrfs(&fresh)?
        };
        it.facts.push(fresh.full_disk(&disk)?);
        fresh.end()?;
    }
    tell(&all);
    Ok(())
}

fn tell(all: &[Candidate; 2]) {
    let [one, two] = all;
    let mut table = Table::new(&["", one.name, two.name, "ratio of the same round"]);
    let mut row = |what: &str, pick: &dyn Fn(&Candidate) -> Samples, scale: f64| {
        let (left, right) = (pick(one), pick(two));
        table.row(&[
            what.to_owned(),
            format!("{:.1}", left.median() / scale),
            format!("{:.1}", right.median() / scale),
            format!("{:.2}", left.over(&right).median()),
        ]);
    };
    for (index, (what, _, figure)) in WORK.iter().enumerate() {
        let scale = if figure.ends_with("bw") { 1024.0 } else { 1.0 };
        let pick = |it: &Candidate| it.work.get(index).cloned().unwrap_or_default();
        row(what, &pick, scale);
    }
    for (index, what) in STEPS.iter().enumerate() {
        let pick = |it: &Candidate| it.steps.get(index).cloned().unwrap_or_default();
        row(what, &pick, 1.0);
    }
    row(
        "longest write, a snapshot each second, ms",
        &|it| it.stall.clone(),
        1.0,
    );
    row(
        "to be read after 1 % changed, MB",
        &|it| it.read.clone(),
        1e6,
    );
    row("to find that out, ms", &|it| it.finding.clone(), 1.0);
    say(&table.text());
    for it in all {
        say(&format!("{}: {}", it.name, it.facts.join("\n  ")));
    }
}

/// An ext4 in memory, as the disk of a machine.
fn make_disk(folder: &Path, at: &Path) -> Result<()> {
    let file = folder.join("disk.img");
    File::create(&file)?.set_len(DISK)?;
    fs::create_dir(at)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
    run(Command::new("mount").args(["-o", "loop"]).args([&file, at]))
}

fn run(command: &mut Command) -> Result<()> {
    let done = command.output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {said}");
    Ok(())
}

fn thin(disk: &Path) -> Result<Candidate> {
    let file = disk.join("thin.img");
    let place = ThinPlace::LoopFile {
        file: file.clone(),
        size: Some(POOL.parse()?),
    };
    let programs = std::env::var_os("DROVER_BIN").map(PathBuf::from);
    let own = std::env::current_exe()?;
    let programs = programs.or_else(|| own.parent().map(PathBuf::from));
    let helper = programs.context("no folder")?.join("drover-lvm");
    let backend = Thin::open(place, &helper, &disk.join("thin"))?;
    Candidate::new("thin", Box::new(backend), disk.join("at-thin"), file)
}

fn btrfs(disk: &Path) -> Result<Candidate> {
    let file = disk.join("btrfs.img");
    let pool = LoopPool {
        file: file.clone(),
        at: disk.join("btrfs"),
        size: Some(POOL.parse()?),
    };
    let backend = Btrfs::open_loop(&pool)?;
    Candidate::new("btrfs", Box::new(backend), disk.join("at-btrfs"), file)
}

fn volume(number: usize) -> Result<VolumeId> {
    Ok(format!("{number:016x}").parse()?)
}

fn snapshot(volume: &VolumeId, number: usize) -> Result<SnapshotRef> {
    Ok(SnapshotRef {
        volume: volume.clone(),
        snapshot: format!("{number:016x}").parse::<SnapshotId>()?,
    })
}

fn milliseconds<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let began = Instant::now();
    let done = work()?;
    Ok((done, began.elapsed().as_secs_f64() * 1000.0))
}

impl Candidate {
    fn new(
        name: &'static str,
        backend: Box<dyn Backend>,
        at: PathBuf,
        file: PathBuf,
    ) -> Result<Self> {
        let made = Self {
            name,
            backend,
            at,
            file,
            work: vec![Samples::default(); WORK.len()],
            steps: vec![Samples::default(); STEPS.len()],
            stall: Samples::default(),
            read: Samples::default(),
            finding: Samples::default(),
            facts: Vec::new(),
        };
        let id = volume(0)?;
        made.backend.create(&id, &shape()?)?;
        let object = Object::Volume(id);
        made.backend.attach(&object, &made.at, Access::ReadWrite)?;
        fio(
            &made.at,
            "--rw=write --bs=1M --end_fsync=1 --size=64M --filename=kept",
        )?;
        Ok(made)
    }

    fn round(&mut self, round: usize) -> Result<()> {
        let id = volume(0)?;
        for (index, (what, flags, figure)) in WORK.iter().enumerate() {
            let taken = what
                .contains("snapshot")
                .then(|| snapshot(&id, 1000 + round))
                .transpose()?;
            if let Some(taken) = &taken {
                self.backend.snapshot(std::slice::from_ref(taken))?;
            }
            let flags = format!("{flags} --size=64M --runtime=3");
            let told = number(&fio(&self.at, &flags)?, figure)?;
            if let Some(samples) = self.work.get_mut(index) {
                samples.push(told);
            }
            if let Some(taken) = taken {
                self.backend.remove(&taken.into())?;
            }
        }
        self.steps(round)?;
        self.stall(&id)?;
        self.changed(&id, round)?;
        self.backend.reclaim()?;
        Ok(())
    }

    fn steps(&mut self, round: usize) -> Result<()> {
        let backend = &self.backend;
        let (one, two) = (volume(2 * round + 2)?, volume(2 * round + 3)?);
        let shape = shape()?;
        let taken = snapshot(&one, 1)?;
        let source = Object::from(taken.clone());
        let times = [
            milliseconds(|| Ok(backend.create(&one, &shape)?))?.1,
            milliseconds(|| Ok(backend.snapshot(std::slice::from_ref(&taken))?))?.1,
            milliseconds(|| Ok(backend.clone_object(&two, &source, &Shape::default())?))?.1,
            milliseconds(|| Ok(backend.remove(&source)?))?.1,
        ];
        for object in [one, two] {
            backend.remove(&Object::Volume(object))?;
        }
        for (samples, took) in self.steps.iter_mut().zip(times) {
            samples.push(took);
        }
        Ok(())
    }

    /// The longest write of five seconds, each on the disk, while a snapshot is taken each second.
    fn stall(&mut self, id: &VolumeId) -> Result<()> {
        let flags =
            "--rw=randwrite --bs=16k --fdatasync=1 --size=64M --unlink=1 --time_based --runtime=5";
        let writer = start(&self.at, flags)?;
        let mut taken = Vec::new();
        for of in 0..3 {
            std::thread::sleep(Duration::from_secs(1));
            let it = snapshot(id, 2000 + of)?;
            self.backend.snapshot(std::slice::from_ref(&it))?;
            taken.push(it);
        }
        let told = answer(writer, flags)?;
        self.stall.push(number(&told, "sync/lat_ns/max")? / 1e6);
        for it in taken {
            self.backend.remove(&it.into())?;
        }
        Ok(())
    }

    /// What a backup has to read when 1 % of a file has changed, in pages that lie apart, and how long it takes to know.
    fn changed(&mut self, id: &VolumeId, round: usize) -> Result<()> {
        let path = self.at.join("rows");
        let rows = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        let noise: Vec<u8> = (0..1 << 20).map(|it: u32| it.to_le_bytes()[0]).collect();
        for offset in (0..ROWS).step_by(1 << 20) {
            rows.write_all_at(&noise, offset)?;
        }
        rows.sync_all()?;
        let (before, after) = (snapshot(id, 3000)?, snapshot(id, 3001)?);
        self.backend.snapshot(std::slice::from_ref(&before))?;
        let page = vec![u8::try_from(round % 200)?; 4096];
        for offset in (0..ROWS).step_by(100 * 4096) {
            rows.write_all_at(&page, offset)?;
        }
        rows.sync_all()?;
        self.backend.snapshot(std::slice::from_ref(&after))?;
        let (found, took) = milliseconds(|| {
            let told = self.backend.changes(Some(&before), &after)?;
            // Where that is not known, files that have changed are read whole.
            let bytes = told.map(|all| all.iter().map(|it| it.end - it.start).sum::<u64>());
            Ok(bytes.unwrap_or(ROWS))
        })?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        self.read.push(found as f64);
        self.finding.push(took);
        drop(rows);
        fs::remove_file(path)?;
        for it in [before, after] {
            self.backend.remove(&it.into())?;
        }
        Ok(())
    }

    /// What volumes take when they are mounted and empty.
    fn many(&mut self) -> Result<()> {
        drop_caches()?;
        let (memory, used) = (available()?, self.backend.pool()?.used);
        let shape = Shape {
            size: Some("64M".parse()?),
            ..Shape::default()
        };
        let place = |number: usize| self.at.with_file_name(format!("many-{number}"));
        for number in 0..MANY {
            let id = volume(9000 + number)?;
            self.backend.create(&id, &shape)?;
            let object = Object::Volume(id);
            let at = place(number);
            self.backend.attach(&object, &at, Access::ReadWrite)?;
            fs::write(at.join("file"), "one")?;
        }
        nix::unistd::sync();
        drop_caches()?;
        let many = MANY as u64;
        let taken = (memory.saturating_sub(available()?) / many) >> 10;
        let of_pool = (self.backend.pool()?.used.saturating_sub(used) / many) >> 10;
        self.facts.push(format!(
            "each of {MANY} volumes of 64M that are mounted and have one file: {taken} kB of memory, {of_pool} kB of the pool"
        ));
        for number in 0..MANY {
            let object = Object::Volume(volume(9000 + number)?);
            self.backend.detach(&object, &place(number))?;
            self.backend.remove(&object)?;
        }
        self.backend.reclaim()?;
        Ok(())
    }

    /// The pool is filled by a volume that has no room of its own left but for it.
    fn full_pool(&mut self) -> Result<()> {
        progress(&format!("{}: a pool that is full", self.name));
        let id = volume(8000)?;
        let large = Shape {
            size: Some(LARGE.parse()?),
            ..Shape::default()
        };
        self.backend.create(&id, &large)?;
        let at = self.at.with_file_name("full");
        let object = Object::Volume(id);
        self.backend.attach(&object, &at, Access::ReadWrite)?;
        let what = self.fill(&at, &|| Ok(()))?;
        self.facts.push(format!("pool full: {what}"));
        // A file system that has failed can be busy with it.
        self.backend.detach(&object, &at)?;
        self.backend.remove(&object)?;
        self.backend.reclaim()?;
        Ok(())
    }

    /// The disk beneath the file is filled by somebody else, and is given room again.
    fn full_disk(&self, disk: &Path) -> Result<String> {
        progress(&format!("{}: a disk that is full", self.name));
        nix::unistd::sync();
        let filler = disk.join("filler");
        fill_but(disk, &filler, 24 << 20)?;
        let free = || Ok(fs::remove_file(&filler)?);
        Ok(format!("disk full: {}", self.fill(&self.at, &free)?))
    }

    /// Removes the pool. One whose file system has failed is left as it is.
    fn end(&self) -> Result<()> {
        self.backend.detach(&Object::Volume(volume(0)?), &self.at)?;
        if let Err(error) = self.backend.close(true) {
            progress(&format!("{}: {error}", self.name));
        }
        Ok(())
    }

    /// Writes until something is refused, makes room, and tells what becomes of it: what was confirmed before, the next write, and
    /// the same once the volume was mounted anew.
    fn fill(&self, at: &Path, room: &dyn Fn() -> Result<()>) -> Result<String> {
        let confirmed = at.join("confirmed");
        let mut file = File::create(&confirmed)?;
        file.write_all(&[7; 1 << 20])?;
        file.sync_all()?;
        let big = at.join("big");
        let refusal = write_until_refused(&big)?;
        let other = fs::read(self.at.join("kept")).map(|it| it.len());
        drop(fs::remove_file(&big));
        nix::unistd::sync();
        room()?;
        let after = write_synced(&at.join("after"));
        let kept = fs::read(&confirmed).is_ok_and(|it| it == [7; 1 << 20]);
        let tell = |outcome: io::Result<()>| match outcome {
            Ok(()) => "works".to_owned(),
            Err(error) => format!("fails ({error})"),
        };
        Ok(format!(
            "a write is refused with `{refusal}`; another file is {}; after room was made writing {}, and what was confirmed is {}; \
             the file takes {} MB of the disk",
            if other.is_ok() { "read" } else { "not read" },
            tell(after),
            if kept { "there" } else { "LOST" },
            std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&self.file)?) * 512 / 1_000_000,
        ))
    }
}

fn shape() -> Result<Shape> {
    Ok(Shape {
        size: Some(VOLUME.parse()?),
        ..Shape::default()
    })
}

fn write_synced(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&[1; 1 << 20])?;
    file.sync_all()
}

/// Writes and syncs until an error; which.
fn write_until_refused(path: &Path) -> Result<io::Error> {
    let mut file = File::create(path)?;
    let piece: Vec<u8> = (0..1 << 20).map(|it: u32| it.to_le_bytes()[1]).collect();
    for _ in 0..2000 {
        let done = file.write_all(&piece).and_then(|()| file.sync_all());
        if let Err(error) = done {
            return Ok(error);
        }
    }
    bail!("nothing was refused")
}

/// Takes all of a disk but so much.
fn fill_but(disk: &Path, filler: &Path, left: u64) -> Result<()> {
    let free = nix::sys::statvfs::statvfs(disk)?;
    let free = free.blocks_available() * free.fragment_size();
    let length = free.saturating_sub(left).to_string();
    run(Command::new("fallocate").args(["-l", &length]).arg(filler))
}

fn drop_caches() -> Result<()> {
    nix::unistd::sync();
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// What of memory is to be had, bytes.
fn available() -> Result<u64> {
    let told = fs::read_to_string("/proc/meminfo")?;
    let line = told.lines().find_map(|it| it.strip_prefix("MemAvailable:"));
    let words = line.context("no MemAvailable")?.split_whitespace().next();
    Ok(words.context("no figure")?.parse::<u64>()? << 10)
}
