//! Whether the time of day has jumped: a virtual machine that was put back to an earlier state with its memory goes on
//! counting sequence numbers where it was then, and its clock is set right at some time after.

use std::time::{Duration, Instant, SystemTime};

/// Less than this is a clock that is kept right.
const JUMP: Duration = Duration::from_secs(10);

/// Both clocks, when they were looked at last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    steady: Instant,
    day: SystemTime,
}

impl Clocks {
    /// Now.
    pub(super) fn now() -> Self {
        Self {
            steady: Instant::now(),
            day: SystemTime::now(),
        }
    }

    /// Whether the time of day is another than it would be, had it gone on as the steady clock has since `earlier`.
    pub(super) fn have_parted(self, earlier: Self) -> bool {
        let expected = earlier.day + self.steady.saturating_duration_since(earlier.steady);
        let ahead = self.day.duration_since(expected);
        let off = ahead.unwrap_or_else(|behind| behind.duration());
        off > JUMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_either_way_is_seen_and_a_small_correction_is_not() {
        let earlier = Clocks::now();
        let later = |steady: u64, day: i64| Clocks {
            steady: earlier.steady + Duration::from_secs(steady),
            day: if day < 0 {
                earlier.day - Duration::from_secs(day.unsigned_abs())
            } else {
                earlier.day + Duration::from_secs(day.unsigned_abs())
            },
        };
        for (steady, day) in [(5, 5), (5, 14), (20, 11), (3600, 3599)] {
            assert!(!later(steady, day).have_parted(earlier), "{steady} {day}");
        }
        for (steady, day) in [(5, 3605), (5, -3600), (30, 5), (3600, 0)] {
            assert!(later(steady, day).have_parted(earlier), "{steady} {day}");
        }
    }
}
