//! What is backed up: an ext4 image with files, in memory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::process;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

const MEBIBYTE: u64 = 1 << 20;

/// The length of a block of a thin pool, bytes: what has changed is known in these.
const BLOCK: usize = 64 << 10;

/// How many mebibytes the files have, in turn.
const FILES: [u64; 4] = [1, 4, 16, 64];

/// One in so many mebibytes is noise; the others are text, of which an eighth is left when it is compressed.
const NOISE: u64 = 8;

/// Mounts of this process are seen by nobody else, and go with it.
pub(crate) fn leave_the_mounts_of_others() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace; this needs root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

/// The data, and where it is.
pub(crate) struct Data {
    memory: PathBuf,
    mebibytes: u64,
}

impl Data {
    pub(crate) fn new(folder: &Path, mebibytes: u64) -> Result<Self> {
        let memory = folder.join("memory");
        fs::create_dir(&memory)?;
        // An image, or what is restored of it, with room for what a file system has of its own.
        let size = format!("size={}m", mebibytes + mebibytes / 4 + 64);
        let none: Option<&str> = None;
        mount(
            none,
            &memory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )?;
        fs::create_dir(memory.join("mounted"))?;
        Ok(Self { memory, mebibytes })
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.memory.join("image")
    }

    /// Where restores go.
    pub(crate) fn restored(&self) -> PathBuf {
        self.memory.join("restored")
    }

    pub(crate) fn remove(&self) -> Result<()> {
        Ok(fs::remove_file(self.image())?)
    }

    /// A file system with files.
    pub(crate) fn fill(&self) -> Result<()> {
        let image = File::create(self.image())?;
        image.set_len((self.mebibytes + self.mebibytes / 10 + 32) * MEBIBYTE)?;
        drop(image);
        let image = self.image().to_string_lossy().into_owned();
        process::machine(&["mkfs.ext4", "-q", "-F", "-m", "0", &image])?;
        let mounted = self.mount(true)?;
        for (name, first, length) in self.files() {
            let mut file = File::create(mounted.path().join(name))?;
            for number in first..first + length {
                file.write_all(&mebibyte(number))?;
            }
        }
        Ok(())
    }

    /// The name of each file, the number of its first mebibyte, and how many it has.
    fn files(&self) -> Vec<(String, u64, u64)> {
        let mut files = Vec::new();
        let mut first = 0;
        for length in FILES.into_iter().cycle() {
            let length = length.min(self.mebibytes - first);
            if length == 0 {
                break;
            }
            files.push((format!("file-{first}"), first, length));
            first += length;
        }
        files
    }

    /// Changes 1 % of the data, in pieces of 1 MiB that lie apart, within the files.
    pub(crate) fn change(&self, round: usize) -> Result<()> {
        let mounted = self.mount(true)?;
        for (name, first, length) in self.files() {
            let hit = (first..first + length).filter(|number| number % 100 == 50);
            let file = File::options()
                .write(true)
                .open(mounted.path().join(name))?;
            for number in hit {
                let seed = (u64::try_from(round)? + 1) * 1_000_003 + number;
                file.write_all_at(&mebibyte(seed), (number - first) * MEBIBYTE)?;
            }
        }
        Ok(())
    }

    /// Mounts the image until it is dropped.
    pub(crate) fn mount(&self, writable: bool) -> Result<Mounted> {
        let at = self.memory.join("mounted");
        let options = if writable { "loop" } else { "loop,ro" };
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(self.image()).arg(&at);
        process::output(&mut command, "mount")?.succeeded()?;
        Ok(Mounted(at))
    }

    /// What the image holds, block by block.
    pub(crate) fn digests(&self) -> Result<Digests> {
        Digests::of(&self.image())
    }

    /// Whether the files that were restored have the lengths that they had, and what was not changed of them is the same.
    pub(crate) fn compare_files(&self, restored: &Path) -> Result<()> {
        for (name, first, length) in self.files() {
            let content = fs::read(restored.join(&name))?;
            let expected = usize::try_from(length * MEBIBYTE)?;
            ensure!(content.len() == expected, "`{name}` has another length");
            for (number, found) in (first..).zip(content.chunks(1 << 20)) {
                let is_same = number % 100 == 50 || *found == *mebibyte(number);
                ensure!(is_same, "`{name}` has other content");
            }
        }
        Ok(())
    }
}

/// The image, mounted.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Everything is written then; the loop device goes with the mount.
        if nix::mount::umount(&self.0).is_err() {
            integration_tests::measure::progress("the image stays mounted");
        }
    }
}

/// A hash for each block of a file.
#[derive(PartialEq, Eq)]
pub(crate) struct Digests(Vec<u64>);

impl Digests {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut digests = Vec::new();
        let mut block = vec![0; BLOCK];
        loop {
            let mut filled = 0;
            while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    read => filled += read,
                }
            }
            let Some(found) = block.get(..filled).filter(|found| !found.is_empty()) else {
                return Ok(Self(digests));
            };
            let mut hasher = DefaultHasher::new();
            hasher.write(found);
            digests.push(hasher.finish());
        }
    }

    /// The ranges that are not the same, as a worker is told them.
    pub(crate) fn changes(&self, other: &Self) -> Value {
        let pairs = (0_u64..).zip(self.0.iter().zip(&other.0));
        let changed = pairs.filter(|(_, (one, other))| one != other);
        let range = |(number, _)| json!({"offset": number * BLOCK as u64, "length": BLOCK});
        changed.map(range).collect()
    }
}

/// A mebibyte of its own.
fn mebibyte(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    if number.is_multiple_of(NOISE) {
        return std::iter::repeat_with(|| next().to_le_bytes())
            .flatten()
            .take(1 << 20)
            .collect();
    }
    let mut text = String::with_capacity((1 << 20) + 40);
    while text.len() < 1 << 20 {
        text.push_str(&format!("row {} of the table\n", next() % 100_000));
    }
    text.truncate(1 << 20);
    text.into_bytes()
}
