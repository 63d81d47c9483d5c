//! Backups against restic on the same mounted data: a full backup, one of 1 % changed, a restore, and memory.
//!
//! `cargo run --release -p integration-tests --bin bench_backup [-- --rounds 3 --mebibytes 1024 --tree yes]`, after
//! `cargo build --release -p drover-backup`; it needs root, and restic, e2fsprogs and loop devices.
//!
//! A round makes an ext4 image in memory (a tmpfs in a mount namespace of its own), fills it with files, and begins with
//! empty repositories in a directory on the disk. Drover backs up the image as a volume on `thin` is backed up: it is told
//! which ranges have changed, here by comparing, there by the pool's metadata. restic backs up the mounted files, and so
//! does Drover once more, as it does with a volume on btrfs (`--tree no` leaves that out). The first backup of a round derives the key from the
//! password, the next finds it in memory, as with `drover-vol`; restic derives it each time. Restores go to memory, and what
//! Drover restores is compared. Who is first changes from round to round.

#[path = "bench_backup/data.rs"]
mod data;
#[path = "bench_backup/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::measure::{Samples, Table, progress, say};
use serde_json::{Value, json};

use data::{Data, Digests};
use run::{Programs, Run};

fn main() -> Result<()> {
    let wish = Wish::parse()?;
    data::leave_the_mounts_of_others()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench::prepare(folder.path(), wish.mebibytes)?;
    let build = if cfg!(debug_assertions) {
        "built without optimisation"
    } else {
        "release build"
    };
    let (mebibytes, rounds) = (wish.mebibytes, wish.rounds);
    say(&format!("{mebibytes} MiB, {rounds} rounds, {build}"));
    let mut measured: Vec<Measured> = wish.ways().map(Measured::new).collect();
    for round in 0..rounds {
        bench.round(round, rounds, &mut measured)?;
        measured.rotate_left(1);
    }
    measured.sort_by_key(|it| it.way);
    report(&measured, mebibytes);
    Ok(())
}

/// What the command line asks for.
struct Wish {
    rounds: usize,
    mebibytes: u64,
    tree: bool,
}

impl Wish {
    fn parse() -> Result<Self> {
        let mut wish = Self {
            rounds: 3,
            mebibytes: 1024,
            tree: true,
        };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words
                .next()
                .with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--rounds" => wish.rounds = value.parse().context("--rounds")?,
                "--mebibytes" => wish.mebibytes = value.parse().context("--mebibytes")?,
                "--tree" => wish.tree = value == "yes",
                _ => bail!("unknown {flag}; there are --rounds, --mebibytes and --tree"),
            }
        }
        let is_enough = wish.rounds > 0 && wish.mebibytes >= 100;
        ensure!(is_enough, "at least one round, and 100 MiB");
        Ok(wish)
    }

    fn ways(&self) -> impl Iterator<Item = Way> {
        let all = [Way::Block, Way::Restic, Way::Tree];
        let tree = self.tree;
        all.into_iter().filter(move |way| tree || *way != Way::Tree)
    }
}

/// How the data is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// By Drover, as a device.
    Block,
    /// By Drover, file by file.
    Tree,
    /// By restic.
    Restic,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Block => "Drover, device",
            Self::Tree => "Drover, files",
            Self::Restic => "restic",
        }
    }

    /// The name of its repository, and of its volume.
    const fn word(self) -> &'static str {
        match self {
            Self::Block => "device",
            Self::Tree => "files",
            Self::Restic => "restic",
        }
    }
}

#[derive(Debug)]
struct Measured {
    way: Way,
    /// The last backup's id.
    parent: Option<String>,
    opening: Samples,
    full: Samples,
    changed: Samples,
    restore: Samples,
    /// What a full backup and a restore take of processors.
    processor: [Samples; 2],
    /// While backing up, and while restoring: MB.
    memory: [Samples; 2],
}

impl Measured {
    fn new(way: Way) -> Self {
        Self {
            way,
            parent: None,
            opening: Samples::default(),
            full: Samples::default(),
            changed: Samples::default(),
            restore: Samples::default(),
            processor: Default::default(),
            memory: Default::default(),
        }
    }
}

struct Bench {
    folder: PathBuf,
    programs: Programs,
    data: Data,
}

impl Bench {
    fn prepare(folder: &Path, mebibytes: u64) -> Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            programs: Programs::prepare(folder)?,
            data: Data::new(folder, mebibytes)?,
        })
    }

    fn round(&self, round: usize, of: usize, measured: &mut [Measured]) -> Result<()> {
        let tell = |what: &str| progress(&format!("round {} of {of}: {what}", round + 1));
        tell("data");
        self.data.fill()?;
        for it in measured.iter_mut() {
            it.parent = None;
            self.make_repository(it.way)?;
            it.opening.push(self.open(it.way)?.seconds);
        }
        for it in measured.iter_mut() {
            tell(&format!("full, {}", it.way.name()));
            let run = self.back_up(it, Value::Null)?;
            it.full.push(run.seconds);
            it.processor[0].push(run.processor);
        }
        let before = self.data.digests()?;
        self.data.change(round)?;
        let after = self.data.digests()?;
        let changed = before.changes(&after);
        for it in measured.iter_mut() {
            tell(&format!("1 % changed, {}", it.way.name()));
            let run = self.back_up(it, changed.clone())?;
            it.changed.push(run.seconds);
        }
        self.data.remove()?;
        for it in measured.iter_mut() {
            tell(&format!("restore, {}", it.way.name()));
            let run = self.restore(it.way, &after)?;
            it.restore.push(run.seconds);
            it.memory[1].push(run.memory);
            it.processor[1].push(run.processor);
        }
        Ok(())
    }

    fn repository(&self, way: Way) -> PathBuf {
        self.folder.join(way.word())
    }

    /// An empty one.
    fn make_repository(&self, way: Way) -> Result<()> {
        let at = self.repository(way);
        if at.exists() {
            fs::remove_dir_all(&at)?;
        }
        match way {
            Way::Restic => self.programs.restic(&at, &["init", "--quiet"])?,
            Way::Block | Way::Tree => self.programs.drover(&at, &json!({"kind": "init"}))?,
        };
        Ok(())
    }

    /// What every command takes: the key is derived from the password, on purpose at length.
    fn open(&self, way: Way) -> Result<Run> {
        let at = self.repository(way);
        match way {
            Way::Restic => self.programs.restic(&at, &["snapshots", "--quiet"]),
            Way::Block | Way::Tree => self.programs.drover(&at, &json!({"kind": "list"})),
        }
    }

    fn back_up(&self, it: &mut Measured, changed: Value) -> Result<Run> {
        let at = self.repository(it.way);
        let run = match it.way {
            Way::Restic => {
                let mounted = self.data.mount(false)?;
                let path = mounted.path().to_string_lossy().into_owned();
                self.programs.restic(&at, &["backup", "--quiet", &path])?
            }
            Way::Tree => {
                let mounted = self.data.mount(false)?;
                let source = json!({"kind": "tree", "path": mounted.path()});
                self.create(it, source)?
            }
            Way::Block => {
                let image = self.data.image();
                let size = image.metadata()?.len();
                let source =
                    json!({"kind": "block", "path": image, "size": size, "changed": changed});
                self.create(it, source)?
            }
        };
        it.memory[0].push(run.memory);
        Ok(run)
    }

    fn create(&self, it: &mut Measured, source: Value) -> Result<Run> {
        let operation = json!({
            "kind": "create", "volume": it.way.word(), "host": "bench", "parent": it.parent, "source": source,
        });
        let at = self.repository(it.way);
        let run = self.programs.drover_again(&at, &operation)?;
        let id = run.outcome.pointer("/outcome/backup/id");
        let id = id.and_then(Value::as_str).context("a backup has no id")?;
        it.parent = Some(id.to_owned());
        Ok(run)
    }

    fn restore(&self, way: Way, expected: &Digests) -> Result<Run> {
        let at = self.repository(way);
        let target = self.data.restored();
        let restore = |target: Value| {
            let operation =
                json!({"kind": "restore", "backup": {"volume": way.word()}, "target": target});
            self.programs.drover(&at, &operation)
        };
        let run = match way {
            Way::Restic => {
                let target = target.to_string_lossy().into_owned();
                self.programs
                    .restic(&at, &["restore", "latest", "--target", &target])?
            }
            Way::Block => {
                let run = restore(json!({"kind": "block", "path": target}))?;
                let found = Digests::of(&target)?;
                ensure!(*expected == found, "what was restored is something else");
                run
            }
            Way::Tree => {
                let run = restore(json!({"kind": "directory", "path": target}))?;
                self.data.compare_files(&target)?;
                run
            }
        };
        if target.is_dir() {
            fs::remove_dir_all(&target)?;
        } else {
            fs::remove_file(&target)?;
        }
        Ok(run)
    }
}

fn report(measured: &[Measured], mebibytes: u64) {
    let size = f64::from(u32::try_from(mebibytes).unwrap_or(u32::MAX));
    let Some(restic) = measured.iter().find(|it| it.way == Way::Restic) else {
        return;
    };
    let mut table = Table::new(&[
        "",
        "open s",
        "full s",
        "of processors",
        "MiB/s",
        "of restic's",
        "1 % changed s",
        "% of full",
        "restore s",
        "of processors",
        "MiB/s",
        "of restic's",
        "memory MB",
        "restoring",
    ]);
    for it in measured {
        // Throughputs as ratios: more is faster.
        let faster = |of: fn(&Measured) -> &Samples| of(restic).over(of(it)).median();
        let [full, restore] = &it.processor;
        let [saving, restoring] = it.memory.each_ref().map(|of| of.quantile(100));
        table.row(&[
            it.way.name().to_owned(),
            format!("{:.2}", it.opening.median()),
            format!("{:.2}", it.full.median()),
            format!("{:.2}", full.median()),
            format!("{:.0}", size / it.full.median()),
            format!("{:.2}", faster(|it| &it.full)),
            format!("{:.2}", it.changed.median()),
            format!("{:.1}", 100.0 * it.changed.over(&it.full).median()),
            format!("{:.2}", it.restore.median()),
            format!("{:.2}", restore.median()),
            format!("{:.0}", size / it.restore.median()),
            format!("{:.2}", faster(|it| &it.restore)),
            format!("{saving:.0}"),
            format!("{restoring:.0}"),
        ]);
    }
    say(&table.text());
}
