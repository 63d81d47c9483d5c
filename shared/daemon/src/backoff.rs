//! How long to wait before trying again: longer every time, never quite the same for two hosts.

use std::time::Duration;

/// Delays that double from `first` up to `ceiling`, each shortened by a random part of at most half.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    attempts: u32,
}

impl Backoff {
    /// Delays from `first` to `ceiling`.
    #[must_use]
    pub const fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            attempts: 0,
        }
    }

    /// The next delay.
    #[must_use]
    pub fn next_delay(&mut self) -> Duration {
        let full = self.full_delay();
        self.attempts = self.attempts.saturating_add(1);
        // Without randomness the delay is merely not spread.
        let random = getrandom::u32().unwrap_or(0);
        jittered(full, random)
    }

    /// Begins anew, after a success.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many delays were given since the last success.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    fn full_delay(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.ceiling)
    }
}

fn jittered(full: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    full.mul_f64(1.0 - share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_ceiling_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut full = Vec::new();
        for _ in 0..40 {
            full.push(backoff.full_delay());
            let delay = backoff.next_delay();
            assert!(delay <= *full.last().unwrap() && delay >= *full.last().unwrap() / 2);
        }
        assert_eq!(full[0], Duration::from_millis(100));
        assert_eq!(full[1], Duration::from_millis(200));
        assert!(
            full[4..]
                .iter()
                .all(|delay| *delay == Duration::from_secs(1))
        );
        backoff.reset();
        assert_eq!(backoff.full_delay(), Duration::from_millis(100));
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let full = Duration::from_secs(2);
        assert_eq!(jittered(full, 0), full);
        assert_eq!(jittered(full, u32::MAX), full / 2);
    }
}
