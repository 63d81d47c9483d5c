//! What a sandbox has asked, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_control_api::names::{LatencySummary, NameCounters};
use drover_names::{Answer, Outcome};

/// Ranges of a histogram: the n-th ends at 2^n microseconds, the last has no end.
const RANGES: usize = 25;

/// Counters of one sandbox, or the sum of some.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) udp: AtomicU64,
    pub(crate) tcp: AtomicU64,
    answered: AtomicU64,
    no_data: AtomicU64,
    no_such_name: AtomicU64,
    stale: AtomicU64,
    truncated: AtomicU64,
    pub(crate) passed_on: AtomicU64,
    pub(crate) unanswered: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) over_limit: AtomicU64,
    pub(crate) own_latency: Histogram,
    pub(crate) passed_on_latency: Histogram,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Counts an answer of ours.
    pub(crate) fn answered(&self, answer: &Answer) {
        count(match answer.outcome {
            Outcome::Records => &self.answered,
            Outcome::NoData => &self.no_data,
            Outcome::NoSuchName => &self.no_such_name,
            Outcome::Malformed => &self.malformed,
        });
        if answer.stale {
            count(&self.stale);
        }
        if answer.truncated {
            count(&self.truncated);
        }
    }

    /// Adds what another one has counted.
    pub(crate) fn add(&self, other: &Self) {
        for (own, others) in self.each().into_iter().zip(other.each()) {
            own.fetch_add(others.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.own_latency.add(&other.own_latency);
        self.passed_on_latency.add(&other.passed_on_latency);
    }

    /// What has been counted.
    pub(crate) fn read(&self) -> NameCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NameCounters {
            udp: load(&self.udp),
            tcp: load(&self.tcp),
            answered: load(&self.answered),
            no_data: load(&self.no_data),
            no_such_name: load(&self.no_such_name),
            stale: load(&self.stale),
            truncated: load(&self.truncated),
            passed_on: load(&self.passed_on),
            unanswered: load(&self.unanswered),
            malformed: load(&self.malformed),
            over_limit: load(&self.over_limit),
            own_latency: self.own_latency.summary(),
            passed_on_latency: self.passed_on_latency.summary(),
        }
    }

    const fn each(&self) -> [&AtomicU64; 11] {
        [
            &self.udp,
            &self.tcp,
            &self.answered,
            &self.no_data,
            &self.no_such_name,
            &self.stale,
            &self.truncated,
            &self.passed_on,
            &self.unanswered,
            &self.malformed,
            &self.over_limit,
        ]
    }
}

/// How long something took, by ranges.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    ranges: [AtomicU64; RANGES],
    /// The sum of all, microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Takes a duration in.
    pub(crate) fn took(&self, duration: Duration) {
        let micros = duration.as_micros();
        let range = (u128::BITS - micros.leading_zeros()) as usize;
        if let Some(counter) = self.ranges.get(range.min(RANGES - 1)) {
            count(counter);
        }
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    fn add(&self, other: &Self) {
        let others = other.ranges.iter().chain([&other.sum]);
        for (own, others) in self.ranges.iter().chain([&self.sum]).zip(others) {
            own.fetch_add(others.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// How often it was in each range, with the end of the range in microseconds; the last has none.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let counts = self.ranges.iter().enumerate();
        counts.map(|(range, counter)| {
            let end = (range + 1 < RANGES).then(|| 1_u64 << range);
            (end, counter.load(Ordering::Relaxed))
        })
    }

    /// The sum of all, microseconds.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    fn summary(&self) -> LatencySummary {
        let counts: Vec<u64> = self.ranges().map(|(_, count)| count).collect();
        LatencySummary {
            p50: percentile(&counts, 50),
            p99: percentile(&counts, 99),
        }
    }
}

/// The upper end of the range in which a share of all lies; 0 when there is nothing.
fn percentile(counts: &[u64], share: u64) -> u64 {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return 0;
    }
    let wanted = (all * share).div_ceil(100);
    let mut seen = 0;
    for (range, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= wanted {
            return 1 << range;
        }
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_end_of_a_range() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary(), LatencySummary::default());
        for _ in 0..99 {
            histogram.took(Duration::from_micros(5));
        }
        histogram.took(Duration::from_millis(3));
        histogram.took(Duration::from_secs(3600));
        let summary = histogram.summary();
        assert_eq!((summary.p50, summary.p99), (8, 4096));
        histogram.took(Duration::ZERO);
        assert_eq!(histogram.ranges[0].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_sum_has_everything() {
        let (sum, one) = (Counters::default(), Counters::default());
        count(&one.udp);
        count(&one.over_limit);
        one.own_latency.took(Duration::from_micros(1));
        sum.add(&one);
        sum.add(&one);
        let read = sum.read();
        assert_eq!((read.udp, read.over_limit, read.own_latency.p50), (2, 2, 2));
    }
}
