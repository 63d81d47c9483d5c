//! How a device is cut into chunks: all of one length, but for the last, which ends with the device.
//!
//! A backup that counts from another keeps its layout, or nothing of it could be used again.

use rustic_core::Id;

use crate::index::Index;

/// The shortest chunks, bytes: each piece of a device that has changed costs at least one. Shorter ones compress less, and each takes a place
/// in the index.
const SHORTEST: u64 = 512 << 10;

/// The longest, bytes: each is in memory as a whole, several times.
const LONGEST: u64 = 4 << 20;

/// A device has no more chunks than this, unless its chunks have the greatest length: each backup lists all of them, 67 bytes each.
const MOST: u64 = 32 << 10;

/// A device that has grown has more; with more than this it is cut anew.
const MOST_GROWN: u64 = 4 * MOST;

/// The length of a device's chunks, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    length: u64,
}

impl Layout {
    /// The layout of a device of some size that has no backup yet.
    pub(crate) fn of_new(size: u64) -> Self {
        let length = size.div_ceil(MOST).next_power_of_two();
        Self {
            length: length.clamp(SHORTEST, LONGEST),
        }
    }

    /// The layout of a backup of a device, told by its chunks; `None` when they are not all of one length, or not known.
    pub(crate) fn of_backup(content: &[Id], size: u64, index: &Index) -> Option<Self> {
        let (_, whole) = content.split_last()?;
        let length = if whole.is_empty() {
            Self::of_new(size).length
        } else {
            whole.iter().find_map(|id| index.length_of(id))?
        };
        let layout = Self { length };
        let chunks = u64::try_from(content.len()).ok()?;
        (length > 0 && layout.chunks(size) == chunks).then_some(layout)
    }

    /// Whether it is still of use for a device of some size.
    pub(crate) const fn fits(self, size: u64) -> bool {
        self.length >= LONGEST || self.chunks(size) <= MOST_GROWN
    }

    /// The length of all chunks but the last, bytes.
    pub(crate) const fn length(self) -> u64 {
        self.length
    }

    /// How many chunks a device has.
    pub(crate) const fn chunks(self, size: u64) -> u64 {
        size.div_ceil(self.length)
    }

    /// Where a chunk begins.
    pub(crate) const fn begin(self, number: u64) -> u64 {
        number.saturating_mul(self.length)
    }

    /// How long a chunk of a device is.
    pub(crate) fn length_of(self, number: u64, size: u64) -> u64 {
        size.saturating_sub(self.begin(number)).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_list_of_chunks_stays_short() {
        let length = |size| Layout::of_new(size).length();
        assert_eq!(length(1), SHORTEST);
        assert_eq!(length(16 * GIB), SHORTEST);
        assert_eq!(length(16 * GIB + 1), MIB);
        assert_eq!(length(64 * GIB), 2 * MIB);
        assert_eq!(length(1 << 50), LONGEST);
    }

    #[test]
    fn a_device_that_grows_keeps_its_layout_for_long() {
        let layout = Layout::of_new(16 * GIB);
        assert!(layout.fits(64 * GIB));
        assert!(!layout.fits(64 * GIB + 1));
        assert!(Layout::of_new(1 << 50).fits(1 << 60));
    }

    #[test]
    fn the_last_chunk_ends_with_the_device() {
        let layout = Layout::of_new(MIB);
        let size = 2 * SHORTEST + 1;
        assert_eq!(layout.chunks(size), 3);
        assert_eq!(layout.length_of(1, size), SHORTEST);
        assert_eq!(layout.length_of(2, size), 1);
        assert_eq!(layout.length_of(3, size), 0);
    }
}
