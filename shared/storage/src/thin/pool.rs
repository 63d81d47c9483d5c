//! The thin pool beneath: found, made where it is ours to make, and grown.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_model::ByteSize;
use tracing::{debug, info};

use super::helper::Helper;
use super::lvm::Lvm;
use super::name;
use super::report::LogicalVolume;
use crate::error::{Error, Result};
use crate::loop_file::{self, LoopDevice};
use crate::space::Space;
use crate::{mounts, program};

/// Less than this is no pool, bytes.
const LEAST: u64 = 256 << 20;
/// Metadata that a pool is made with: a 128th of it, and not less or more than these, bytes. LVM's own measure has no
/// room for many snapshots.
const METADATA: (u64, u64) = (8 << 20, 4 << 30);
/// What of a volume group a pool takes that is given no size, percent of what is free: the rest is for its metadata
/// to grow.
const SHARE: &str = "90%FREE";
/// The size of a block: small enough that a snapshot costs little when one block of a database changes.
const CHUNK: &str = "64k";
/// There once a loop file has been made.
const MARKER: &str = "loop-file-made";
/// How much of a new loop file must be empty, bytes.
const EMPTY: usize = 1 << 20;

/// Where a thin pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThinPlace {
    /// In a file, which is made when it has never been.
    LoopFile {
        /// The file. It is sparse: it takes what is in the pool.
        file: PathBuf,
        /// How large it is made, and made when it is smaller; `None` for half of what is free where it lies, when it
        /// is made.
        size: Option<ByteSize>,
    },
    /// In a volume group, where a pool `drover` is made.
    Group {
        /// The group.
        group: String,
        /// How large the pool is made; `None` for most of what is free.
        size: Option<ByteSize>,
    },
    /// A pool that there is.
    Pool {
        /// The group.
        group: String,
        /// The pool.
        pool: String,
    },
}

impl ThinPlace {
    /// The name of the pool that is made in a volume group.
    pub const POOL: &str = name::POOL;

    /// Whether a loop file is there, or was, and may be gone since. `state` is the directory of the backend.
    #[must_use]
    pub fn was_made(file: &Path, state: &Path) -> bool {
        file.exists() || state.join(MARKER).exists()
    }

    /// For people.
    pub(super) fn describe(&self, lvm: &Lvm) -> String {
        match self {
            Self::LoopFile { file, .. } => {
                format!("{} in the loop file {}", lvm.pool_path(), file.display())
            }
            Self::Group { .. } | Self::Pool { .. } => lvm.pool_path(),
        }
    }
}

fn has_device_mapper() -> bool {
    fs::read_to_string("/proc/misc").is_ok_and(|text| text.contains("device-mapper"))
}

/// Why there can be no thin pool on this machine; `None` when there can be.
#[must_use]
pub fn missing_for_thin() -> Option<String> {
    if !has_device_mapper() {
        // Where there are no modules to load, what is said below tells enough.
        if let Err(error) = program::run("modprobe", ["dm_thin_pool"], Duration::from_secs(10)) {
            debug!(%error, "dm_thin_pool is not loaded");
        }
    }
    if !has_device_mapper() {
        return Some(
            "a thin pool needs device-mapper, which this kernel does not have: use the backend `btrfs` or `directory`"
                .to_owned(),
        );
    }
    (!program::is_installed("thin_check")).then(|| {
        "a thin pool needs the program `thin_check`: install the package thin-provisioning-tools"
            .to_owned()
    })
}

/// A volume group that has a thin pool of the name that ours have; `None` where there is none. Where there are several, the first
/// by name.
///
/// # Errors
/// When LVM cannot be asked.
pub fn find_thin_group(helper: &Path, state: &Path) -> Result<Option<String>> {
    if !has_device_mapper() || !program::is_installed("lvm") {
        return Ok(None);
    }
    mounts::make_directory(state)?;
    let lvm = Lvm::new(Helper::new(helper, state.join("lock")));
    let all = lvm.logical_volumes()?.into_iter();
    let ours = all.filter(|it| it.name == lvm.pool && it.kind == "thin-pool");
    Ok(ours.map(|it| it.group).min())
}

/// Finds or makes the pool, and activates it. A loop device is held by what is returned.
pub(super) fn prepare(
    place: &ThinPlace,
    lvm: &mut Lvm,
    state: &Path,
) -> Result<Option<LoopDevice>> {
    let device = match place {
        ThinPlace::LoopFile { file, size } => Some(prepare_file(file, *size, lvm, state)?),
        ThinPlace::Group { group, size } => {
            lvm.group.clone_from(group);
            lvm.recover()?;
            match size {
                Some(size) => make_pool(lvm, &["-L", &format!("{}b", size.bytes())], size.bytes())?,
                None => make_pool(lvm, &["-l", SHARE], 0)?,
            }
            None
        }
        ThinPlace::Pool { group, pool } => {
            lvm.group.clone_from(group);
            lvm.pool.clone_from(pool);
            lvm.recover()?;
            if find_pool(lvm)?.is_none() {
                return Err(Error::Unavailable(format!(
                    "there is no thin pool `{}`: make it, or name another",
                    lvm.pool_path()
                )));
            }
            None
        }
    };
    lvm.run(&["lvchange", "-ay", "-K", &lvm.pool_path()])?;
    Ok(device)
}

/// The pool, if it is there.
pub(super) fn find_pool(lvm: &Lvm) -> Result<Option<LogicalVolume>> {
    let found = lvm.logical_volumes()?;
    let Some(pool) = found.into_iter().find(|volume| volume.name == lvm.pool) else {
        return Ok(None);
    };
    if pool.kind != "thin-pool" {
        return Err(Error::Invalid(format!(
            "the logical volume `{}` is no thin pool: rename it, or name another pool",
            lvm.pool_path()
        )));
    }
    Ok(Some(pool))
}

/// Makes the pool if it is not there. `size` is about its size, 0 when nobody knows.
fn make_pool(lvm: &Lvm, extent: &[&str], size: u64) -> Result<()> {
    if find_pool(lvm)?.is_some() {
        return Ok(());
    }
    let metadata = format!("{}b", (size / 128).clamp(METADATA.0, METADATA.1));
    let mut words = vec!["lvcreate", "-y", "--type", "thin-pool", "-n", &lvm.pool];
    words.extend(extent);
    words.extend(["--chunksize", CHUNK, "--zero", "y"]);
    if size > 0 {
        words.extend(["--poolmetadatasize", &metadata]);
    }
    words.extend(["--addtag", name::OURS, &lvm.group]);
    lvm.run(&words)?;
    // What does not fit is refused at once, and not waited for while a minute passes.
    lvm.run(&["lvchange", "--errorwhenfull", "y", &lvm.pool_path()])?;
    info!(pool = lvm.pool_path(), "made a thin pool");
    Ok(())
}

/// Whether we have made the pool, and nobody else has a volume in it.
pub(super) fn is_ours_alone(lvm: &Lvm) -> Result<bool> {
    let is_ours = |volume: &LogicalVolume| volume.tags.contains(name::OURS);
    let found = lvm.logical_volumes()?;
    let mut concerned = found
        .iter()
        .filter(|volume| volume.name == lvm.pool || volume.pool == lvm.pool);
    Ok(concerned.all(is_ours))
}

// --- In a loop file ----------------------------------------------------------------------------------------------

fn prepare_file(
    file: &Path,
    size: Option<ByteSize>,
    lvm: &mut Lvm,
    state: &Path,
) -> Result<LoopDevice> {
    let marker = state.join(MARKER);
    if !file.exists() {
        if marker.exists() {
            return Err(Error::Unavailable(format!(
                "the loop file `{}` is gone, and the volumes with it: put it back, or remove `{}` to begin with an empty one",
                file.display(),
                marker.display()
            )));
        }
        make_file(file, size)?;
    }
    let device = loop_file::attach(file)?;
    lvm.confine(device.path());
    let device_path = device.path().display().to_string();
    lvm.group = match lvm.group_of(&device_path) {
        Some(group) if !group.is_empty() => group,
        known => {
            if known.is_none() && !is_empty(file)? {
                return Err(Error::Unavailable(format!(
                    "`{}` holds something that is no volume group: nothing was changed; name another file",
                    file.display()
                )));
            }
            let group = format!("drover-{}", random()?);
            lvm.run(&[
                "vgcreate",
                "-y",
                "--addtag",
                name::OURS,
                &group,
                &device_path,
            ])?;
            group
        }
    };
    lvm.recover()?;
    let length = fs::metadata(file)
        .map_err(Error::system("look at", file))?
        .len();
    make_pool(lvm, &["-l", "100%FREE"], length)?;
    File::create(&marker).map_err(Error::system("make", &marker))?;
    grow_file(file, size, lvm, &device_path)?;
    Ok(device)
}

/// Removes a loop file for good.
pub(super) fn remove_file(file: &Path, state: &Path) -> Result<()> {
    for path in [&state.join(MARKER), file] {
        fs::remove_file(path).map_err(Error::system("remove", path))?;
    }
    Ok(())
}

fn make_file(file: &Path, size: Option<ByteSize>) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    mounts::make_directory(folder)?;
    let free = Space::of(folder)?.available;
    let size = size.map_or(free / 2, ByteSize::bytes) / 4096 * 4096;
    if size < LEAST {
        return Err(Error::Full(format!(
            "a pool of volumes takes at least 256M, and `{}` has {}M free, of which one takes half unless \
             `volumes.loop_size` says otherwise",
            folder.display(),
            free >> 20
        )));
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|made| made.set_len(size));
    made.map_err(Error::system("make", file))
}

/// Whether a file begins with nothing.
fn is_empty(file: &Path) -> Result<bool> {
    let mut head = vec![0; EMPTY];
    File::open(file)
        .and_then(|opened| opened.read_exact_at(&mut head, 0))
        .map_err(Error::system("read", file))?;
    Ok(head.iter().all(|byte| *byte == 0))
}

fn random() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 4];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::system("read", path))?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

/// Grows the file, and the pool in it, to the size that is set. It never shrinks.
fn grow_file(file: &Path, size: Option<ByteSize>, lvm: &Lvm, device: &str) -> Result<()> {
    let Some(size) = size else {
        return Ok(());
    };
    let length = fs::metadata(file)
        .map_err(Error::system("look at", file))?
        .len();
    if size.bytes() / 4096 * 4096 <= length {
        return Ok(());
    }
    let opened = OpenOptions::new().write(true).open(file);
    opened
        .and_then(|opened| opened.set_len(size.bytes() / 4096 * 4096))
        .map_err(Error::system("grow", file))?;
    loop_file::grown(file)?;
    lvm.run(&["pvresize", device])?;
    lvm.run(&["lvextend", "-l", "+100%FREE", &lvm.pool_path()])?;
    info!(file = %file.display(), size = size.bytes(), "grew a loop file");
    Ok(())
}
