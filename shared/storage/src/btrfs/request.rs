//! The ioctls of btrfs (`include/uapi/linux/btrfs.h`) and their structures.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

const MAGIC: u8 = 0x94;

const SUBVOL_RDONLY: u64 = 1 << 1;
const QUOTA_ENABLE: u64 = 1;
const LIMIT_MAX_RFER: u64 = 1;

/// The tree of quotas, and the types of its items.
const QUOTA_TREE: u64 = 8;
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArguments {
    descriptor: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolumeArgumentsV2 {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_get_subvol_info_args`, whose size is 504 bytes.
#[repr(C)]
struct SubvolumeInfo {
    tree: u64,
    name: [u8; 256],
    parent: u64,
    directory: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    changed_in: u64,
    made_in: u64,
    sent_in: u64,
    received_in: u64,
    times: [[u64; 2]; 4],
    reserved: [u64; 8],
}

#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

#[repr(C)]
struct QuotaGroup {
    create: u64,
    group: u64,
}

#[repr(C)]
struct QuotaLimit {
    group: u64,
    flags: u64,
    referenced: u64,
    exclusive: u64,
    reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SearchKey {
    tree: u64,
    least_object: u64,
    most_object: u64,
    least_offset: u64,
    most_offset: u64,
    least_transaction: u64,
    most_transaction: u64,
    least_type: u32,
    most_type: u32,
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
}

const SEARCH_BUFFER: usize = 4096 - size_of::<SearchKey>();

/// `struct btrfs_ioctl_search_args`.
#[repr(C)]
struct Search {
    key: SearchKey,
    buffer: [u8; SEARCH_BUFFER],
}

mod call {
    //! The system calls.

    use super::{
        MAGIC, QuotaControl, QuotaGroup, QuotaLimit, Search, SubvolumeInfo, VolumeArguments,
        VolumeArgumentsV2,
    };

    nix::ioctl_write_ptr!(resize, MAGIC, 3, VolumeArguments);
    nix::ioctl_none!(sync, MAGIC, 8);
    nix::ioctl_write_ptr!(destroy, MAGIC, 15, VolumeArguments);
    nix::ioctl_readwrite!(search, MAGIC, 17, Search);
    nix::ioctl_write_ptr!(snapshot, MAGIC, 23, VolumeArgumentsV2);
    nix::ioctl_write_ptr!(create, MAGIC, 24, VolumeArgumentsV2);
    nix::ioctl_read!(start_sync, MAGIC, 24, u64);
    nix::ioctl_read!(get_flags, MAGIC, 25, u64);
    nix::ioctl_write_ptr!(set_flags, MAGIC, 26, u64);
    nix::ioctl_readwrite!(quota_control, MAGIC, 40, QuotaControl);
    nix::ioctl_write_ptr!(quota_group, MAGIC, 42, QuotaGroup);
    // The kernel calls it one that reads; it is written.
    nix::ioctl_read!(quota_limit, MAGIC, 43, QuotaLimit);
    nix::ioctl_none!(quota_wait, MAGIC, 46);
    nix::ioctl_read!(subvolume_info, MAGIC, 60, SubvolumeInfo);
}

fn named<const N: usize>(name: &OsStr) -> nix::Result<[u8; N]> {
    let bytes = name.as_bytes();
    // The last byte stays zero.
    if bytes.len() >= N || bytes.contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(field)
}

/// Makes an empty subvolume in a directory.
pub(super) fn create(folder: &File, name: &OsStr) -> nix::Result<()> {
    let arguments = VolumeArgumentsV2 {
        descriptor: 0,
        transaction: 0,
        flags: 0,
        unused: [0; 4],
        name: named(name)?,
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads the structure, and the descriptor is open.
    let done = unsafe { call::create(folder.as_raw_fd(), &raw const arguments) };
    done.map(drop)
}

/// Makes a snapshot of a subvolume in a directory.
pub(super) fn snapshot(
    subvolume: &File,
    folder: &File,
    name: &OsStr,
    read_only: bool,
) -> nix::Result<()> {
    let arguments = VolumeArgumentsV2 {
        descriptor: i64::from(subvolume.as_raw_fd()),
        transaction: 0,
        flags: if read_only { SUBVOL_RDONLY } else { 0 },
        unused: [0; 4],
        name: named(name)?,
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads the structure, and both descriptors are open.
    let done = unsafe { call::snapshot(folder.as_raw_fd(), &raw const arguments) };
    done.map(drop)
}

/// Removes a subvolume from a directory.
pub(super) fn destroy(folder: &File, name: &OsStr) -> nix::Result<()> {
    let arguments = VolumeArguments {
        descriptor: 0,
        name: named(name)?,
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads the structure, and the descriptor is open.
    let done = unsafe { call::destroy(folder.as_raw_fd(), &raw const arguments) };
    done.map(drop)
}

/// Has the file system fill its device, which has grown.
pub(super) fn grow(root: &File) -> nix::Result<()> {
    let arguments = VolumeArguments {
        descriptor: 0,
        name: named(OsStr::new("max"))?,
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads the structure, and the descriptor is open.
    let done = unsafe { call::resize(root.as_raw_fd(), &raw const arguments) };
    done.map(drop)
}

/// Lets a subvolume be written.
pub(super) fn make_writable(subvolume: &File) -> nix::Result<()> {
    let mut flags = 0_u64;
    #[expect(unsafe_code, reason = "ioctls that nix has no functions for")]
    // SAFETY: the kernel writes, then reads, 64 bits at the pointers, which are to a `u64`.
    unsafe {
        call::get_flags(subvolume.as_raw_fd(), &raw mut flags)?;
        flags &= !SUBVOL_RDONLY;
        call::set_flags(subvolume.as_raw_fd(), &raw const flags)?;
    }
    Ok(())
}

/// What identifies a subvolume, and the transaction that it was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subvolume {
    /// The number of its tree, and of its quota group.
    pub(super) tree: u64,
    /// The transaction.
    pub(super) made_in: u64,
}

/// What a subvolume is, by a descriptor of its root.
pub(super) fn subvolume(root: &File) -> nix::Result<Subvolume> {
    let mut info = SubvolumeInfo {
        tree: 0,
        name: [0; 256],
        parent: 0,
        directory: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        changed_in: 0,
        made_in: 0,
        sent_in: 0,
        received_in: 0,
        times: [[0; 2]; 4],
        reserved: [0; 8],
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel writes a `struct btrfs_ioctl_get_subvol_info_args` to the pointer, which is to one.
    unsafe {
        call::subvolume_info(root.as_raw_fd(), &raw mut info)?;
    }
    Ok(Subvolume {
        tree: info.tree,
        made_in: info.made_in,
    })
}

/// Begins the commit of the running transaction, and does not wait for it. There must be something to commit.
pub(super) fn begin_commit(root: &File) -> nix::Result<u64> {
    let mut transaction = 0_u64;
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel writes 64 bits to the pointer, which is to a `u64`.
    let done = unsafe { call::start_sync(root.as_raw_fd(), &raw mut transaction) };
    done.map(|_| transaction)
}

/// Writes everything down, and has the kernel begin to free what removed subvolumes took; it would by itself after half a
/// minute.
pub(super) fn sync(root: &File) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the request takes no argument.
    let done = unsafe { call::sync(root.as_raw_fd()) };
    done.map(drop)
}

/// Turns quotas on; that they are on is no fault.
pub(super) fn enable_quotas(root: &File) -> nix::Result<()> {
    let mut control = QuotaControl {
        command: QUOTA_ENABLE,
        status: 0,
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads and writes the structure.
    let done = unsafe { call::quota_control(root.as_raw_fd(), &raw mut control) };
    match done {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Waits until everything is counted that was there when quotas were turned on.
pub(super) fn wait_for_quotas(root: &File) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the request takes no argument.
    let done = unsafe { call::quota_wait(root.as_raw_fd()) };
    done.map(drop)
}

/// Sets how much a subvolume may refer to, bytes.
pub(super) fn limit(root: &File, tree: u64, bytes: u64) -> nix::Result<()> {
    let mut limit = QuotaLimit {
        group: tree,
        flags: LIMIT_MAX_RFER,
        referenced: bytes,
        exclusive: 0,
        reserved: [0; 2],
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads the structure.
    let done = unsafe { call::quota_limit(root.as_raw_fd(), &raw mut limit) };
    done.map(drop)
}

/// Removes the quota group of a subvolume that is gone.
pub(super) fn forget_quota(root: &File, tree: u64) -> nix::Result<()> {
    let group = QuotaGroup {
        create: 0,
        group: tree,
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads the structure.
    let done = unsafe { call::quota_group(root.as_raw_fd(), &raw const group) };
    done.map(drop)
}

/// How much a subvolume may refer to, bytes; `None` without a limit.
pub(super) fn limit_of(root: &File, tree: u64) -> nix::Result<Option<u64>> {
    let items = match search_items(root, QGROUP_LIMIT, tree, tree) {
        Err(Errno::ENOENT) => return Ok(None),
        other => other?,
    };
    // flags, then the limit of what is referred to: 64 bits each
    let limit = items.into_iter().find(|(group, _)| *group == tree);
    Ok(limit.and_then(|(_, body)| {
        let flags = number(&body, 0)?;
        number(&body, 8).filter(|_| flags & LIMIT_MAX_RFER != 0)
    }))
}

/// What a quota group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// The tree that it is of.
    pub(super) tree: u64,
    /// What the subvolume refers to, bytes.
    pub(super) referenced: u64,
    /// What nobody else refers to, bytes.
    pub(super) exclusive: u64,
}

/// What the quota group of a subvolume counts; `None` where there are no quotas.
pub(super) fn counted(root: &File, tree: u64) -> nix::Result<Option<Counted>> {
    let found = search(root, QGROUP_INFO, tree, tree)?;
    Ok(found.into_iter().find(|group| group.tree == tree))
}

/// Every quota group of a subvolume, from `first` on, as many as one answer holds.
pub(super) fn groups(root: &File, first: u64) -> nix::Result<Vec<Counted>> {
    // Above 48 bits lie groups of groups, which are not ours.
    search(root, QGROUP_INFO, first, (1 << 48) - 1)
}

/// Whether quotas are on.
pub(super) fn has_quotas(root: &File) -> nix::Result<bool> {
    match search_items(root, QGROUP_STATUS, 0, 0) {
        Ok(items) => Ok(!items.is_empty()),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn search(root: &File, kind: u32, least: u64, most: u64) -> nix::Result<Vec<Counted>> {
    let items = match search_items(root, kind, least, most) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let counted = items.into_iter().filter_map(|(tree, body)| {
        // generation, referenced, the same compressed, exclusive, the same compressed: 64 bits each
        Some(Counted {
            tree,
            referenced: number(&body, 8)?,
            exclusive: number(&body, 24)?,
        })
    });
    Ok(counted.collect())
}

/// Items of the quota tree of one type whose key's offset is in a range: the offsets and the bodies. A search goes over
/// whole keys, so other types come by and are left out.
fn search_items(root: &File, kind: u32, least: u64, most: u64) -> nix::Result<Vec<(u64, Vec<u8>)>> {
    let mut asked = Search {
        key: SearchKey {
            tree: QUOTA_TREE,
            least_object: 0,
            most_object: 0,
            least_offset: least,
            most_offset: most,
            least_transaction: 0,
            most_transaction: u64::MAX,
            least_type: kind,
            most_type: kind,
            items: u32::MAX,
            unused: 0,
            unused_more: [0; 4],
        },
        buffer: [0; SEARCH_BUFFER],
    };
    #[expect(unsafe_code, reason = "an ioctl that nix has no function for")]
    // SAFETY: the kernel reads and writes a `struct btrfs_ioctl_search_args`, which this is.
    unsafe {
        call::search(root.as_raw_fd(), &raw mut asked)?;
    }
    Ok(items(&asked.buffer, asked.key.items, kind))
}

/// Takes the answer of a search apart: headers of 32 bytes (transaction, object, offset, type, length), each before its
/// body.
fn items(buffer: &[u8], count: u32, kind: u32) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = buffer;
    for _ in 0..count {
        let Some((header, after)) = rest.split_at_checked(32) else {
            break;
        };
        let (Some(offset), Some(both)) = (number(header, 16), number(header, 24)) else {
            break;
        };
        let (item_kind, length) = (both & u64::from(u32::MAX), both >> 32);
        let Some((body, after)) = usize::try_from(length)
            .ok()
            .and_then(|length| after.split_at_checked(length))
        else {
            break;
        };
        if item_kind == u64::from(kind) {
            found.push((offset, body.to_vec()));
        }
        rest = after;
    }
    found
}

/// 64 bits in the order of the machine, as the kernel writes them for items on little-endian machines, and on disk.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    field.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<VolumeArguments>(), 4096);
        assert_eq!(size_of::<VolumeArgumentsV2>(), 4096);
        assert_eq!(size_of::<SubvolumeInfo>(), 504);
        assert_eq!(size_of::<SearchKey>(), 104);
        assert_eq!(size_of::<Search>(), 4096);
        assert_eq!(size_of::<QuotaLimit>(), 48);
    }

    #[test]
    fn an_answer_that_is_cut_gives_what_is_whole() {
        let mut buffer = Vec::new();
        for value in [1_u64, 0, 257] {
            buffer.extend(value.to_le_bytes());
        }
        buffer.extend(QGROUP_INFO.to_le_bytes());
        buffer.extend(8_u32.to_le_bytes());
        buffer.extend(7_u64.to_le_bytes());
        let whole = items(&buffer, 1, QGROUP_INFO);
        assert_eq!(whole, [(257, 7_u64.to_le_bytes().to_vec())]);
        for length in 0..buffer.len() {
            assert!(items(&buffer[..length], 1, QGROUP_INFO).is_empty());
        }
        assert!(items(&buffer, 9, QGROUP_STATUS).is_empty());
    }
}
