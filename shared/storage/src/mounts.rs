//! Mounts: what is mounted where, read from the kernel every time, and changing it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::backend::Access;
use crate::error::{Error, Result};

/// A mount of this mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Which directory of its file system that is.
    pub root: PathBuf,
    /// The type of the file system.
    pub file_system: String,
    /// What it lies on, for a file system on a device its path.
    pub source: PathBuf,
    /// Whether nobody can write by way of this mount.
    pub read_only: bool,
}

/// Every mount of this mount namespace, in the order in which they were made.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn list() -> Result<Vec<Mount>> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read(path).map_err(Error::system("read", path))?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse).collect())
}

/// A line of proc_pid_mountinfo(5).
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let root = words.nth(3)?;
    let at = words.next()?;
    let options = words.next()?;
    // Optional fields end with a hyphen.
    let _hyphen = words.find(|word| *word == b"-")?;
    let file_system = words.next()?;
    let source = words.next()?;
    Some(Mount {
        at: unescape(at),
        root: unescape(root),
        file_system: String::from_utf8_lossy(file_system).into_owned(),
        source: unescape(source),
        read_only: options.split(|byte| *byte == b',').any(|it| it == b"ro"),
    })
}

/// `\040` for a space, and so on.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// What is mounted at a directory, the topmost if there are several.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn at(path: &Path) -> Result<Option<Mount>> {
    let at = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Ok(list()?.into_iter().rev().find(|mount| mount.at == at))
}

/// What is mounted directly in a folder: the name in it, and the mount.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn below(folder: &Path) -> Result<Vec<Mount>> {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mut all = list()?;
    all.retain(|mount| mount.at.parent() == Some(folder.as_path()));
    Ok(all)
}

/// Makes a directory and those above it, of mode 0700 where they are missing.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::system("make the directory", path))
}

/// Mounts a directory at another. If it is mounted there already, nothing is done.
pub(crate) fn bind(from: &Path, to: &Path, access: Access) -> Result<()> {
    if !from.is_dir() {
        return Err(Error::NotFound(format!("`{}`", from.display())));
    }
    make_directory(to)?;
    if let Some(mounted) = at(to)? {
        let read_only = access == Access::ReadOnly;
        if !is_same(from, to)? {
            let sentence = format!(
                "something else is mounted at `{}`: unmount it",
                to.display()
            );
            return Err(Error::Busy(sentence));
        }
        if mounted.read_only != read_only {
            remount(to, access)?;
        }
        return Ok(());
    }
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)
        .map_err(|errno| Error::system("mount", to)(errno.into()))?;
    if access == Access::ReadOnly {
        // A bind mount takes its flags in a second step only.
        if let Err(error) = remount(to, access) {
            unmount(to)?;
            return Err(error);
        }
    }
    Ok(())
}

fn remount(at: &Path, access: Access) -> Result<()> {
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    if access == Access::ReadOnly {
        flags |= MsFlags::MS_RDONLY;
    }
    let none = None::<&str>;
    mount(none, at, none, flags, none)
        .map_err(|errno| Error::system("change the mount at", at)(errno.into()))
}

/// Whether two paths lead to one directory.
pub(crate) fn is_same(one: &Path, other: &Path) -> Result<bool> {
    let identity = |path: &Path| -> Result<(u64, u64)> {
        let found = fs::metadata(path).map_err(Error::system("look at", path))?;
        Ok((found.dev(), found.ino()))
    };
    Ok(identity(one)? == identity(other)?)
}

/// Unmounts whatever is mounted at a directory, and removes the directory, which must be empty then.
///
/// # Errors
/// When it is in use.
pub fn release(at_path: &Path) -> Result<()> {
    while at(at_path)?.is_some() {
        unmount(at_path)?;
    }
    match fs::remove_dir(at_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove the directory", at_path)(error))
        }
        _ => Ok(()),
    }
}

fn unmount(at: &Path) -> Result<()> {
    match umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(Error::Busy(format!(
            "what is mounted at `{}`",
            at.display()
        ))),
        Err(errno) => Err(Error::system("unmount", at)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_with_its_escapes() {
        let line = br"36 35 98:0 /mnt1\040x /mnt2\134 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.root, PathBuf::from("/mnt1 x"));
        assert_eq!(mount.at, PathBuf::from("/mnt2\\"));
        assert_eq!(
            (mount.file_system.as_str(), mount.read_only),
            ("ext3", false)
        );
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 /"), None);
    }

    #[test]
    fn this_namespace_has_a_root() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}
