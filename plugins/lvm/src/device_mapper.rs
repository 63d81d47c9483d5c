//! Device-mapper by its control device (`linux/dm-ioctl.h`): what LVM has no command for.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use drover_lvm_protocol::TargetStatus;
use nix::errno::Errno;

/// Where devices and the control device are.
const FOLDER: &str = "/dev/mapper";
/// The version of the interface that is spoken: any kernel's with this first number.
const VERSION: [u32; 3] = [4, 0, 0];
/// The size of `struct dm_ioctl`.
const HEADER: usize = 312;
const HEADER_SIZE: u32 = 312;
/// The room that is left for an answer.
const ROOM: usize = 64 * 1024;
const ROOM_SIZE: u32 = 64 * 1024;
const NAME_LENGTH: usize = 128;

/// `DM_SUSPEND_FLAG`.
const SUSPEND: u32 = 1 << 1;
/// `DM_BUFFER_FULL_FLAG`.
const BUFFER_FULL: u32 = 1 << 8;

/// Where things stand in `struct dm_ioctl`.
mod offset {
    pub(super) const DATA_SIZE: usize = 12;
    pub(super) const DATA_START: usize = 16;
    pub(super) const TARGETS: usize = 20;
    pub(super) const FLAGS: usize = 28;
    pub(super) const NAME: usize = 48;
}

/// Commands.
mod request {
    use super::HEADER;

    /// The requests are encoded with the size of the header alone, however much follows it.
    type Header = [u8; HEADER];

    nix::ioctl_readwrite!(list_devices, 0xfd, 2, Header);
    nix::ioctl_readwrite!(suspend, 0xfd, 6, Header);
    nix::ioctl_readwrite!(device_status, 0xfd, 7, Header);
    nix::ioctl_readwrite!(table_status, 0xfd, 12, Header);
    nix::ioctl_readwrite!(message, 0xfd, 14, Header);
}

/// Why device-mapper did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is none.
    #[error("the kernel has no device-mapper (`{}`)", path.display())]
    Missing {
        path: PathBuf,
        source: std::io::Error,
    },
    /// It refuses.
    #[error("cannot {action} the device `{device}`")]
    Call {
        action: &'static str,
        device: String,
        #[source]
        errno: Errno,
    },
    /// No device can have this name.
    #[error("`{0}` is no name of a device")]
    Name(String),
}

/// The control device.
#[derive(Debug)]
pub(crate) struct DeviceMapper(File);

/// The path of a device.
pub(crate) fn path(device: &str) -> PathBuf {
    Path::new(FOLDER).join(device)
}

type Call = unsafe fn(RawFd, *mut [u8; HEADER]) -> nix::Result<i32>;

/// `struct dm_ioctl` with what follows it, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Buffer {
    header: [u8; HEADER],
    data: [u8; ROOM],
}

impl Buffer {
    fn new(device: &str, flags: u32) -> Result<Box<Self>, Error> {
        let mut buffer = Box::new(Self {
            header: [0; HEADER],
            data: [0; ROOM],
        });
        let name = device.as_bytes();
        if name.len() >= NAME_LENGTH || name.contains(&0) || name.contains(&b'/') {
            return Err(Error::Name(device.to_owned()));
        }
        for (place, number) in [0, 4, 8].into_iter().zip(VERSION) {
            buffer.put(place, number);
        }
        buffer.put(offset::DATA_SIZE, HEADER_SIZE + ROOM_SIZE);
        buffer.put(offset::DATA_START, HEADER_SIZE);
        buffer.put(offset::FLAGS, flags);
        copy(&mut buffer.header, offset::NAME, name);
        Ok(buffer)
    }

    fn put(&mut self, place: usize, number: u32) {
        copy(&mut self.header, place, &number.to_ne_bytes());
    }

    fn number(&self, place: usize) -> u32 {
        u32::from_ne_bytes(bytes_at(&self.header, place))
    }

    /// What the kernel has answered, from where it says that it begins.
    fn answer(&self) -> &[u8] {
        let start = self.number(offset::DATA_START) as usize;
        self.data
            .get(start.saturating_sub(HEADER)..)
            .unwrap_or_default()
    }
}

fn copy(to: &mut [u8], place: usize, from: &[u8]) {
    for (to, from) in to.iter_mut().skip(place).zip(from) {
        *to = *from;
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], place: usize) -> [u8; N] {
    let found = bytes.get(place..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

/// A text that ends with a zero byte.
fn text_at(bytes: &[u8], place: usize) -> String {
    let rest = bytes.get(place..).unwrap_or_default();
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

impl DeviceMapper {
    pub(crate) fn open() -> Result<Self, Error> {
        let path = path("control");
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Self(file)),
            Err(source) => Err(Error::Missing { path, source }),
        }
    }

    fn call(
        &self,
        action: &'static str,
        device: &str,
        call: Call,
        buffer: &mut Buffer,
    ) -> Result<(), Error> {
        #[expect(unsafe_code, reason = "ioctls that nix has no functions for")]
        // SAFETY: the descriptor is open, and the buffer is as long as its header says and outlives the call. The kernel
        // writes beyond the header, which the pointer is to: it is derived from one to the whole buffer.
        let done = unsafe { call(self.0.as_raw_fd(), std::ptr::from_mut(buffer).cast()) };
        match done {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Call {
                action,
                device: device.to_owned(),
                errno,
            }),
        }
    }

    /// The names of all devices.
    pub(crate) fn list(&self) -> Result<Vec<String>, Error> {
        let mut buffer = Buffer::new("", 0)?;
        self.call("list", "*", request::list_devices, &mut buffer)?;
        if buffer.number(offset::FLAGS) & BUFFER_FULL != 0 {
            return Err(Error::Call {
                action: "list",
                device: "*".to_owned(),
                errno: Errno::ENOBUFS,
            });
        }
        // `struct dm_name_list`: a device number, the distance to the next, and the name.
        let mut rest = buffer.answer();
        let mut names = Vec::new();
        loop {
            let next = u32::from_ne_bytes(bytes_at(rest, 8)) as usize;
            let name = text_at(rest, 12);
            if !name.is_empty() {
                names.push(name);
            }
            match rest.get(next..) {
                Some(after) if next > 0 => rest = after,
                _ => return Ok(names),
            }
        }
    }

    /// Whether a device is suspended.
    pub(crate) fn is_suspended(&self, device: &str) -> Result<bool, Error> {
        let mut buffer = Buffer::new(device, 0)?;
        self.call("look at", device, request::device_status, &mut buffer)?;
        Ok(buffer.number(offset::FLAGS) & SUSPEND != 0)
    }

    /// Brings the file system on a device to rest and suspends the device. `false` when there is no such device.
    pub(crate) fn suspend(&self, device: &str) -> Result<bool, Error> {
        let mut buffer = Buffer::new(device, SUSPEND)?;
        match self.call("suspend", device, request::suspend, &mut buffer) {
            Ok(()) => Ok(true),
            Err(Error::Call {
                errno: Errno::ENXIO,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets a device go on. One that is not suspended goes on anyhow.
    pub(crate) fn resume(&self, device: &str) -> Result<(), Error> {
        let mut buffer = Buffer::new(device, 0)?;
        self.call("resume", device, request::suspend, &mut buffer)
    }

    /// Sends a message to the first target of a device.
    pub(crate) fn message(&self, device: &str, text: &str) -> Result<(), Error> {
        let mut buffer = Buffer::new(device, 0)?;
        // `struct dm_target_msg`: a sector, and a text that ends with a zero byte.
        copy(&mut buffer.data, 8, text.as_bytes());
        self.call("send a message to", device, request::message, &mut buffer)
    }

    /// How the first target of a device is. `None` when there is no such device.
    pub(crate) fn status(&self, device: &str) -> Result<Option<TargetStatus>, Error> {
        let mut buffer = Buffer::new(device, 0)?;
        match self.call("look at", device, request::table_status, &mut buffer) {
            Ok(()) => {}
            Err(Error::Call {
                errno: Errno::ENXIO,
                ..
            }) => return Ok(None),
            Err(error) => return Err(error),
        }
        if buffer.number(offset::TARGETS) == 0 {
            return Ok(None);
        }
        // `struct dm_target_spec`: start, length, status, the next one, the type; then the text.
        let answer = buffer.answer();
        Ok(Some(TargetStatus {
            kind: text_at(answer.get(..40).unwrap_or_default(), 24),
            sectors: u64::from_ne_bytes(bytes_at(answer, 8)),
            status: text_at(answer, 40),
        }))
    }
}
