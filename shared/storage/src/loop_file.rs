//! A file as a block device.
//!
//! A device is found by what it lies on, device and inode number of the file, never by its path: hosts that share a
//! machine (the lab's) share the devices, and the same path is another file there. It ends by itself when what is
//! mounted from it is unmounted.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::c_ulong;

use crate::error::{Error, Result};

/// The requests of loop(4).
const LOOP_SET_CAPACITY: c_ulong = 0x4C07;
const LOOP_GET_STATUS64: c_ulong = 0x4C05;
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;

const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How often another device is tried when somebody else has taken the free one.
const TRIES: u32 = 20;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    descriptor: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

mod request {
    //! The system calls.

    use super::{LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LOOP_GET_STATUS64, LOOP_SET_CAPACITY};
    use super::{LoopConfig, LoopInfo};

    nix::ioctl_none_bad!(get_free, LOOP_CTL_GET_FREE);
    nix::ioctl_none_bad!(set_capacity, LOOP_SET_CAPACITY);
    nix::ioctl_write_ptr_bad!(configure, LOOP_CONFIGURE, LoopConfig);
    nix::ioctl_read_bad!(get_status, LOOP_GET_STATUS64, LoopInfo);
}

/// A loop device. It stays as long as this is held, or something is mounted from it.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The device of a file: the one there is, else a new one that ends when it is no longer used.
///
/// # Errors
/// When the file is not there, or no device is to be had.
pub fn attach(file: &Path) -> Result<LoopDevice> {
    let backing = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_CLOEXEC)
        .open(file)
        .map_err(Error::system("open", file))?;
    if let Some(device) = find(&backing, file)? {
        return Ok(device);
    }
    let mut refusal = Errno::EBUSY;
    for _ in 0..TRIES {
        let (path, device) = free_device()?;
        match configure(&device, &backing, file) {
            Ok(()) => {
                return Ok(LoopDevice {
                    path,
                    _device: device,
                });
            }
            // Somebody else was quicker.
            Err(Errno::EBUSY) => refusal = Errno::EBUSY,
            Err(errno) => return Err(Error::system("make a block device of", file)(errno.into())),
        }
    }
    Err(Error::system("make a block device of", file)(
        refusal.into(),
    ))
}

/// Tells the device of a file that the file has grown.
///
/// # Errors
/// When the file has no device.
pub fn grown(file: &Path) -> Result<()> {
    let backing = File::open(file).map_err(Error::system("open", file))?;
    let Some(device) = find(&backing, file)? else {
        return Err(Error::NotFound(format!(
            "the device of `{}`",
            file.display()
        )));
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the request takes no argument, and the descriptor is open.
    let done = unsafe { request::set_capacity(device._device.as_raw_fd()) };
    done.map(drop)
        .map_err(|errno| Error::system("grow the device of", file)(errno.into()))
}

/// The device that there is of an open file.
fn find(backing: &File, file: &Path) -> Result<Option<LoopDevice>> {
    let wanted = backing.metadata().map_err(Error::system("look at", file))?;
    let folder = Path::new("/sys/block");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(None);
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // One that is not in use has no such folder.
        if !name.as_encoded_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        let Ok(device) = open_device(&path) else {
            continue;
        };
        let status = status(device.as_raw_fd());
        if status.is_some_and(|it| it.inode == wanted.ino() && is_device(it.device, wanted.dev())) {
            return Ok(Some(LoopDevice {
                path,
                _device: device,
            }));
        }
    }
    Ok(None)
}

/// Whether the kernel's form of a device number (`huge_encode_dev`) is that of stat(2), which has the same form.
const fn is_device(kernel: u64, stat: u64) -> bool {
    kernel == stat
}

fn status(device: RawFd) -> Option<LoopInfo> {
    let mut info = NO_INFO;
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel writes a `struct loop_info64` to the pointer, which is to one.
    let asked = unsafe { request::get_status(device, &raw mut info) };
    asked.ok().map(|_| info)
}

fn free_device() -> Result<(PathBuf, File)> {
    let control = Path::new("/dev/loop-control");
    let opened = open_device(control).map_err(|source| {
        Error::Unavailable(format!(
            "there are no loop devices (`{}`: {source}): load the kernel module `loop`",
            control.display()
        ))
    })?;
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the request takes no argument, and the descriptor is open.
    let number = unsafe { request::get_free(opened.as_raw_fd()) };
    let number =
        number.map_err(|errno| Error::system("find a free device with", control)(errno.into()))?;
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let device = open_device(&path).map_err(Error::system("open", &path))?;
    Ok((path, device))
}

fn open_device(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn configure(device: &File, backing: &File, file: &Path) -> nix::Result<()> {
    // Without the page cache between: what is on the device is cached once, and what was synced is on the disk.
    match configure_with(
        device,
        backing,
        file,
        LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
    ) {
        Err(Errno::EINVAL) => configure_with(device, backing, file, LO_FLAGS_AUTOCLEAR),
        other => other,
    }
}

fn configure_with(device: &File, backing: &File, file: &Path, flags: u32) -> nix::Result<()> {
    let mut info = LoopInfo { flags, ..NO_INFO };
    // For people who look at `losetup -a`: the end of the path, where it is long.
    let name = file.as_os_str().as_encoded_bytes();
    let name = name
        .get(name.len().saturating_sub(info.file_name.len() - 1)..)
        .unwrap_or_default();
    for (to, from) in info.file_name.iter_mut().zip(name) {
        *to = *from;
    }
    let config = LoopConfig {
        descriptor: u32::try_from(backing.as_raw_fd()).map_err(|_negative| Errno::EBADF)?,
        block_size: 0,
        info,
        reserved: [0; 8],
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads a `struct loop_config` from the pointer, which is to one; both descriptors are open.
    let configured = unsafe { request::configure(device.as_raw_fd(), &raw const config) };
    configured.map(drop)
}
