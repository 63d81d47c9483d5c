//! What goes over the wire: counted, and held to a limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts bytes, and makes those who send or fetch wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    sent: AtomicU64,
    fetched: AtomicU64,
    limit: Mutex<Limit>,
}

#[derive(Debug, Default)]
struct Limit {
    /// Bytes a second; 0 is no limit.
    rate: u64,
    /// When everything that was let through is paid for.
    paid: Option<Instant>,
}

impl Meter {
    /// Lets at most `rate` bytes through a second.
    pub(crate) fn limit(&self, rate: Option<u64>) {
        self.lock().rate = rate.unwrap_or(0);
    }

    /// What was sent until now, bytes.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What was fetched until now, bytes.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` may be sent.
    pub(crate) fn send(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.pay(bytes);
    }

    /// Waits until more may be fetched, after `bytes` were.
    pub(crate) fn fetch(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.pay(bytes);
    }

    fn pay(&self, bytes: u64) {
        let wait = self.lock().pay(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    /// How long whoever moves `bytes` at `now` has to wait.
    fn pay(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let begin = self.paid.map_or(now, |paid| paid.max(now));
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let paid = begin.checked_add(cost).unwrap_or(begin);
        self.paid = Some(paid);
        paid - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_over_time() {
        let mut limit = Limit {
            rate: 1000,
            paid: None,
        };
        let now = Instant::now();
        assert_eq!(limit.pay(500, now), Duration::from_millis(500));
        assert_eq!(limit.pay(500, now), Duration::from_secs(1));
        let later = now + Duration::from_secs(5);
        assert_eq!(limit.pay(1000, later), Duration::from_secs(1));
        assert_eq!(Limit::default().pay(1 << 40, now), Duration::ZERO);
    }

    #[test]
    fn no_more_than_the_rate_goes_through_whatever_its_pieces() {
        let rate = 1 << 20;
        let mut limit = Limit { rate, paid: None };
        let begin = Instant::now();
        // Of several who send at the same time, each waits for all before it.
        let (mut now, mut through) = (begin, 0);
        for number in 0..1000_u64 {
            let bytes = number * 7919 % 300_000;
            let wait = limit.pay(bytes, now);
            through += bytes;
            if number % 3 == 0 {
                now += wait;
            }
        }
        now += limit.pay(0, now);
        let nanoseconds = u128::from(through) * 1_000_000_000 / u128::from(rate);
        let least = Duration::from_nanos(u64::try_from(nanoseconds).unwrap());
        let taken = now - begin;
        // Each of them is rounded down to a nanosecond.
        assert!(taken + Duration::from_nanos(1000) >= least, "{taken:?}");
        assert!(taken <= least, "nobody was idle: {taken:?}");
    }
}
