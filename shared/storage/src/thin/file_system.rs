//! File systems on thin volumes. What containers see is a directory of the file system, so that no `lost+found` is in
//! their way.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_model::FileSystem;
use nix::mount::{MsFlags, mount};

use crate::backend::Access;
use crate::error::{Error, Result};
use crate::{mounts, program};

/// The directory that is the volume.
const ROOT: &str = "volume";
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Where the magic of ext4 is, and of xfs.
const EXT4_MAGIC: (usize, &[u8]) = (1080, &[0x53, 0xef]);
const XFS_MAGIC: (usize, &[u8]) = (0, b"XFSB");

/// Options of `mkfs` that say something about the file system to be made and nothing about other files: all have a value.
const EXT4_OPTIONS: &[&str] = &[
    "-b", "-C", "-E", "-g", "-G", "-i", "-I", "-L", "-m", "-N", "-O", "-T", "-U",
];
const XFS_OPTIONS: &[&str] = &["-b", "-d", "-i", "-l", "-m", "-n", "-s", "-L"];
/// What in a value would name another file.
const ELSEWHERE: &[&str] = &["/", "name=", "file", "logdev", "rtdev", "device="];

/// Checks the arguments of `mkfs` that a user has given.
pub(super) fn check_options(kind: FileSystem, options: &[String]) -> Result<()> {
    let known = match kind {
        FileSystem::Ext4 => EXT4_OPTIONS,
        FileSystem::Xfs => XFS_OPTIONS,
    };
    for pair in options.chunks(2) {
        let refused = match pair {
            [option, value] if known.contains(&option.as_str()) => ELSEWHERE
                .iter()
                .any(|word| value.contains(word))
                .then_some(value),
            [option, ..] => Some(option),
            [] => None,
        };
        if let Some(word) = refused {
            return Err(Error::Invalid(format!(
                "`{word}` in `mkfs-opts` is not taken: a list of options of mkfs.{kind} with their values is, such as \
                 `{} 4096`; there are {}",
                known.first().unwrap_or(&"-b"),
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// Makes a file system with an empty directory for the volume in it.
pub(super) fn make(
    kind: FileSystem,
    device: &Path,
    options: &[String],
    staging: &Path,
) -> Result<()> {
    let (program, mut arguments) = match kind {
        // What is new in a pool reads as zeros, and what is written there, even zeros, takes room.
        FileSystem::Ext4 => (
            "mkfs.ext4",
            vec![
                "-q",
                "-F",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1",
            ],
        ),
        FileSystem::Xfs => ("mkfs.xfs", vec!["-q", "-f", "-K"]),
    };
    if !program::is_installed(program) {
        return Err(Error::Unavailable(format!(
            "there is no program `{program}`: install the package {}",
            match kind {
                FileSystem::Ext4 => "e2fsprogs",
                FileSystem::Xfs => "xfsprogs",
            }
        )));
    }
    arguments.extend(options.iter().map(String::as_str));
    let device_argument = device.display().to_string();
    arguments.push(&device_argument);
    program::run(program, &arguments, LIMIT)?;
    let staged = Staged::mount(device, staging, Access::ReadWrite)?;
    let root = staged.root();
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&root)
        .and_then(|()| fs::set_permissions(&root, fs::Permissions::from_mode(0o755)))
        .map_err(Error::system("make the directory", &root))?;
    staged.release()
}

/// The file system on a device.
fn detect(device: &Path) -> Result<FileSystem> {
    let mut head = [0; 4096];
    File::open(device)
        .and_then(|mut file| file.read_exact(&mut head))
        .map_err(Error::system("read", device))?;
    let has = |(place, magic): (usize, &[u8])| {
        head.get(place..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if has(XFS_MAGIC) {
        Ok(FileSystem::Xfs)
    } else if has(EXT4_MAGIC) {
        Ok(FileSystem::Ext4)
    } else {
        Err(Error::Unavailable(format!(
            "there is neither ext4 nor xfs on `{}`",
            device.display()
        )))
    }
}

/// A file system mounted as a whole, for a moment, out of sight.
#[derive(Debug)]
pub(super) struct Staged {
    at: PathBuf,
    kind: FileSystem,
}

impl Staged {
    /// Mounts a device. Its journal is replayed, also when nobody is to write.
    pub(super) fn mount(device: &Path, at: &Path, access: Access) -> Result<Self> {
        let kind = detect(device)?;
        // What a kill has left.
        mounts::release(at)?;
        mounts::make_directory(at)?;
        let flags = match access {
            Access::ReadWrite => MsFlags::empty(),
            Access::ReadOnly => MsFlags::MS_RDONLY,
        };
        // A clone of an xfs has the id of what it was cloned from. What is removed becomes free in the pool.
        let options = match kind {
            FileSystem::Ext4 => "discard,noinit_itable",
            FileSystem::Xfs => "discard,nouuid",
        };
        let mounted = mount(Some(device), at, Some(kind.as_str()), flags, Some(options));
        mounted.map_err(|errno| {
            drop(fs::remove_dir(at));
            Error::Unavailable(format!(
                "the {kind} on `{}` cannot be mounted ({}): see the kernel's log",
                device.display(),
                errno.desc()
            ))
        })?;
        Ok(Self {
            at: at.to_owned(),
            kind,
        })
    }

    /// The directory that is the volume.
    pub(super) fn root(&self) -> PathBuf {
        self.at.join(ROOT)
    }

    /// Grows the file system to the size of its device.
    pub(super) fn grow(&self, device: &Path) -> Result<()> {
        match self.kind {
            FileSystem::Ext4 => program::run("resize2fs", [device], LIMIT),
            FileSystem::Xfs => program::run("xfs_growfs", [&self.at], LIMIT),
        }
        .map(drop)
    }

    /// Unmounts it; what was bound from it stays.
    pub(super) fn release(self) -> Result<()> {
        mounts::release(&self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: FileSystem, text: &str) -> Result<()> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        check_options(kind, &words)
    }

    #[test]
    fn options_of_mkfs_are_about_the_file_system_alone() {
        check(FileSystem::Ext4, "").unwrap();
        check(FileSystem::Ext4, "-i 65536 -E lazy_itable_init=0,nodiscard").unwrap();
        check(FileSystem::Xfs, "-m reflink=0 -d agcount=4").unwrap();
        for (kind, bad) in [
            (FileSystem::Ext4, "/dev/sda"),
            (FileSystem::Ext4, "-i 65536 sda"),
            (FileSystem::Ext4, "-d /root"),
            (FileSystem::Ext4, "-J device=/dev/sda"),
            (FileSystem::Ext4, "-i"),
            (FileSystem::Ext4, "-L /"),
            (FileSystem::Xfs, "-d name=sda"),
            (FileSystem::Xfs, "-d file"),
            (FileSystem::Xfs, "-l logdev=sda"),
            (FileSystem::Xfs, "-p protofile"),
        ] {
            let error = check(kind, bad).unwrap_err().to_string();
            assert!(error.contains("`mkfs-opts` is not taken"), "{bad}: {error}");
        }
    }
}
