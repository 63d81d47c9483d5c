//! How full a pool is, and what follows from it.

/// From how much on a pool is announced as filling, percent.
pub const FILLING: u64 = 80;
/// From how much on it is announced as nearly full, percent.
pub const NEARLY_FULL: u64 = 90;

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room.
    Fine,
    /// From 80 % on.
    Filling,
    /// From 90 % on.
    NearlyFull,
    /// What is left is the reserve: nothing new is begun.
    Reserve,
}

/// The figures of a pool, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// What it holds.
    pub capacity: u64,
    /// What is used of that.
    pub used: u64,
}

impl Figures {
    /// How much is used, percent, rounded down, at most 100.
    #[must_use]
    pub fn percent(&self) -> u64 {
        if self.capacity == 0 {
            return 0;
        }
        let percent = u128::from(self.used) * 100 / u128::from(self.capacity);
        u64::try_from(percent).unwrap_or(100).min(100)
    }

    /// How full it is, when `reserve` percent are kept for what there is already.
    #[must_use]
    pub fn level(&self, reserve: u8) -> Level {
        let percent = self.percent();
        if self.capacity > 0 && percent >= 100_u64.saturating_sub(u64::from(reserve)) {
            Level::Reserve
        } else if percent >= NEARLY_FULL {
            Level::NearlyFull
        } else if percent >= FILLING {
            Level::Filling
        } else {
            Level::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_announced_before_it_is_full() {
        let level = |used: u64| {
            let capacity = 100 << 30;
            let used = used << 30;
            Figures { capacity, used }.level(5)
        };
        assert_eq!(level(0), Level::Fine);
        assert_eq!(level(79), Level::Fine);
        assert_eq!(level(80), Level::Filling);
        assert_eq!(level(90), Level::NearlyFull);
        assert_eq!(level(95), Level::Reserve);
        assert_eq!(level(200), Level::Reserve);
    }

    #[test]
    fn a_pool_of_unknown_size_is_not_full() {
        assert_eq!(Figures::default().level(5), Level::Fine);
    }
}
